"""The node's signing keys as the directory lists them at the moment: a rotation needs no restart. Never makes a key.

Which of the keys on the disk signs is not decided here: it is the one that the directory says counts now, for that is
what the peers verify with.
"""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import overload

from node.clock import Clock
from node.errors import OperatorError
from node.platform.keyfiles import NODE_KEYS, Slots, StoredKey, load_keys
from protocol.directory import Directory
from protocol.keys import KeyUse, PublicKey, SigningKey


class KeyRing:
    """Chooses the key for each use; reads the folder again when the directory lists one that is not held yet."""

    def __init__(
        self,
        folder: Path,
        node_id: str,
        directory: Callable[[], Directory],
        clock: Clock,
        slots: Slots = NODE_KEYS,
    ) -> None:
        """Read the keys of `slots`; raises OperatorError as `keyfiles.load_keys` does."""
        self._slots = slots
        self._folder = folder
        self._node_id = node_id
        self._directory = directory
        self._clock = clock
        self._held: dict[PublicKey, StoredKey] = {}
        self._looked_for: Directory | None = None
        self._last: dict[KeyUse, tuple[SigningKey, ...]] = {}
        self._read()

    @property
    def http(self) -> SigningKey:
        """The key that signs requests and answers."""
        return self.signing(KeyUse.HTTP)[0]

    def signing(self, use: KeyUse, at: datetime | None = None) -> tuple[SigningKey, ...]:
        """Return the keys that sign for `use` at `at` (now, where that is None), Ed25519 first; all of them must sign.

        Where the directory lists none that is held, those that signed last: what they sign is refused by peers, and
        `problem` says why. Raises OperatorError when there never were any.
        """
        self.counting(use, at)
        found = self._last.get(use)
        if found is None:
            raise OperatorError(f"The directory lists other {use} keys for this node than those in keys_dir.")
        return found

    def counting(self, use: KeyUse, at: datetime | None = None) -> tuple[SigningKey, ...]:
        """Return the keys that sign for `use` at `at`, as `signing`, and none where none that is held counts then.

        For what is kept for ever: a receipt under other keys would prove nothing, and be repeated all the same.
        """
        listed = self._listed(use, at)
        if listed and any(key not in self._held for key in listed):
            self._read_again()
        chosen = tuple(self._held[key].key for key in listed if key in self._held)
        if use is KeyUse.HTTP:
            # Several may count; the newest is the one that stays.
            chosen = chosen[-1:]
        elif len(chosen) < len(listed):
            # Every key that counts must sign.
            chosen = ()
        if chosen:
            self._last[use] = chosen
        return chosen

    def following(self, use: KeyUse) -> "Sequence[SigningKey]":
        """Return the keys of `use` as a sequence that is looked up anew each time it is gone through."""
        return _Following(self, use)

    def problem(self) -> str | None:
        """Say what keeps peers from believing this node's signatures, if anything does."""
        for use in dict.fromkeys(use for use, _ in self._slots):
            listed = self._listed(use)
            held = [key for key in listed if key in self._held]
            if not held or (use is not KeyUse.HTTP and len(held) < len(listed)):
                return f"the directory lists other {use} keys for this node than those in keys_dir"
        return None

    def _listed(self, use: KeyUse, at: datetime | None = None) -> list[PublicKey]:
        """Return the keys that count at `at` or now, in NODE_KEYS's order, `http` ones by the time they began to."""
        directory = self._directory()
        now = at or self._clock.now()
        # Checkpoints and receipts state whole seconds and are judged by the keys of that second; requests and rulings
        # are not.
        moment = now.replace(microsecond=0) if use in {KeyUse.STREAM, KeyUse.RECEIPT} else now
        counting = directory.verification_keys(self._node_id, use, moment)
        if use is KeyUse.HTTP:
            entry = directory.entry(self._node_id)
            since = {key.public: key.not_before for key in (() if entry is None else entry.keys)}
            return sorted(counting, key=lambda key: since[key])
        order = [algorithm for each, algorithm in self._slots if each is use]
        return sorted(counting, key=lambda key: order.index(key.algorithm))

    def _read_again(self) -> None:
        directory = self._directory()
        if self._looked_for is not directory:
            self._looked_for = directory
            self._read()

    def _read(self) -> None:
        self._held = {each.key.public(): each for each in load_keys(self._folder, self._slots)}


class _Following(Sequence[SigningKey]):
    """What `KeyRing.signing` returns at the moment of each look."""

    def __init__(self, ring: KeyRing, use: KeyUse) -> None:
        self._ring = ring
        self._use = use

    @overload
    def __getitem__(self, index: int) -> SigningKey: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[SigningKey]: ...

    def __getitem__(self, index: int | slice) -> SigningKey | Sequence[SigningKey]:
        return self._ring.signing(self._use)[index]

    def __iter__(self) -> Iterator[SigningKey]:
        # One look for the whole signature: keys of two moments never sign one checkpoint.
        return iter(self._ring.signing(self._use))

    def __len__(self) -> int:
        return len(self._ring.signing(self._use))
