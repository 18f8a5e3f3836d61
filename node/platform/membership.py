"""The membership directory as this node trusts it, kept up to date from several sources; never one that goes back.

`current` and `refresh` are what the rest of the program needs. What may be trusted is decided in
`node.platform.trust`; this module fetches, remembers on the disk, and says how far the directory can be relied on.

**Trust:** its folder is as trusted as the node's keys: whoever can write there can at most take the node back to what
the directory's keys once signed, and the database then notices.
"""

import asyncio
import fcntl
import os
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Protocol

from node.clock import Clock, rfc3339
from node.errors import OperatorError
from node.platform.sources import FILE, Source, SourceFailed, read_file
from node.platform.telemetry import Metrics
from node.platform.trust import (
    ROOT_BYTES_MAX,
    TIMESTAMP,
    TIMESTAMP_BYTES_MAX,
    Fault,
    Freshness,
    InUse,
    MetadataInvalid,
    Roots,
    Trusted,
    Update,
    Wanted,
    read_set,
    root_file,
)
from protocol.codes import NodeState
from protocol.directory import Directory, NodeEntry

#: What is said of a directory that nobody vouches for any more; `hotline status` and /healthz.
FRESHNESS_WARNINGS: Final[Mapping[Freshness, str]] = {
    Freshness.STALE: (
        "the membership directory is stale: no source gave a valid timestamp for 72 h; keys that are not known yet "
        "are refused"
    ),
    Freshness.EXPIRED: (
        "the membership directory has expired: no source gave a valid timestamp for 14 days; what arrives is stored, "
        "and nothing is sent to anybody"
    ),
}
#: So long before root or directory expires it is said: people have to come together and sign.
EXPIRY_NOTICE: Final = timedelta(days=30)
#: In every request and answer among members: the version of the directory in use there.
VERSION_HEADER: Final = "hx-directory"
_VERSION: Final = re.compile("[1-9][0-9]{0,14}")
#: How far a pinned root is looked for among those on the disk.
_ROOTS_MAX: Final = 1024
#: What peers say is a hint: it makes the node look around at most once in this time.
HINT_REST_S: Final = 60.0
#: For so long nothing is given on the word of a peer that did not have the version it spoke of.
HINT_DISTRUST_S: Final = 600.0
#: After a round in which no source was of use.
RETRY_S: Final = 60.0
#: Mirrors asked in one round when the configured sources are of no use.
_MIRRORS_MAX: Final = 3
_LOCK: Final = ".lock"


def expiry_warnings(use: InUse, now: datetime) -> list[str]:
    """Say what of the directory expires soon, or has, and is renewed by people only."""
    return [
        f"the {part} of the membership directory expires at {rfc3339(at)}; those who sign it have to renew it"
        for part, at in use.signed_until().items()
        if at - now <= EXPIRY_NOTICE
    ]


def set_expiry_gauges(metrics: Metrics, use: InUse, now: datetime) -> None:
    """Set the metric of the same."""
    for part, at in use.signed_until().items():
        metrics.directory_expires_seconds.labels(part=part).set((at - now).total_seconds())


def own_warnings(directory: Directory, node_id: str, base_url: str) -> list[str]:
    """Say what of this node's own entry keeps peers from it: its state, or another address."""
    entry = directory.nodes.get(node_id)
    if entry is None:
        return ["The membership directory does not list this node"]
    said = []
    if entry.state is not NodeState.ACTIVE:
        said.append(f"the membership directory lists this node as {entry.state}")
    if entry.base_url != base_url:
        said.append("the membership directory lists another address for this node than the setting base_url")
    return said


@dataclass(frozen=True, slots=True)
class Seen:
    """What is remembered of a directory, apart from the folder, so that an older one is noticed."""

    version: int
    sha256: bytes
    root_version: int
    keys: bytes
    snapshot_version: int
    timestamp_version: int


class Ledger(Protocol):
    """Remembers which directories were trusted."""

    async def check(self, seen: Seen) -> None:
        """Raise OperatorError for one that is older than, or contradicts, one trusted before."""

    async def record(self, seen: Seen) -> None:
        """Remember one, checked in the same transaction."""


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a source was of no use."""

    sentence: str
    serious: bool


class Membership:
    """The directory in use; what is worse than the one in use changes nothing and is reported in `problem`."""

    def __init__(
        self,
        *,
        folder: Path,
        fingerprint: str,
        sources: Sequence[Source],
        ledger: Ledger,
        clock: Clock,
        own_id: str = "",
        mirror: Callable[[NodeEntry], Source] | None = None,
        refresh_s: float = 600.0,
    ) -> None:
        """Read nothing yet. `mirror` makes a source of a member; without it only `sources` are asked."""
        self._folder = folder
        self._fingerprint = fingerprint
        self._sources = sources
        self._ledger = ledger
        self._clock = clock
        self._own_id = own_id
        self._mirror = mirror
        self._refresh_s = refresh_s
        self._trusted: Trusted | None = None
        self._use: InUse | None = None
        self._files: dict[str, bytes] = {}
        self._turn = asyncio.Lock()
        self._remote_at: float | None = None
        # What each peer says it has, while that is more than is in use: one entry for each member at most.
        self._hints: dict[str, int] = {}
        self._distrusted_until: dict[str, float] = {}
        self._hint_taken_at: float | None = None
        self._in_doubt = False
        self.problem: str | None = None

    def current(self) -> Directory:
        """Return the directory in use."""
        return self.in_use().directory

    def in_use(self) -> InUse:
        """Return the directory in use with what vouches for it."""
        if self._use is None:
            raise OperatorError("No membership directory has been read.")
        return self._use

    def freshness(self) -> Freshness:
        """Return how far the directory in use can be relied on now."""
        return self.in_use().freshness(self._clock.now())

    def has_expired(self) -> bool:
        """Tell whether who is a member is not known any more: nobody is called, and no record is given away."""
        return self.freshness() is Freshness.EXPIRED

    def refuse_if_expired(self) -> None:
        """Raise OperatorError once it has expired: no member is called then, not even to be asked something."""
        if self.has_expired():
            raise OperatorError(
                "The membership directory has expired: no member is called before a source has a newer one; then run "
                "this again."
            )

    def fresh_for_s(self) -> float:
        """Return for how many seconds more it is fresh; negative once it is not."""
        return (self.in_use().fresh_until - self._clock.now()).total_seconds()

    def file(self, name: str) -> bytes | None:
        """Return a metadata file of what is trusted, for others who ask."""
        return self._files.get(name)

    async def start(self) -> None:
        """Take what was trusted before, or else what a source gives; raises OperatorError when there is neither."""
        set_back: str | None = None
        trusted = await asyncio.to_thread(read_folder, self._folder, self._fingerprint)
        if trusted is not None:
            if trusted.use is not None and not trusted.use.superseded:
                try:
                    await self._ledger.record(_seen(trusted.roots, trusted.use))
                except OperatorError as error:
                    # The folder was set back; a source may still have what the database remembers.
                    set_back = error.sentence
                    trusted = Trusted(trusted.roots)
            self._adopt(trusted)
        await self._round([source for source in self._sources if self._use is None or source.local])
        if self._use is None:
            missing = "Setting directory_sources: there is no source of the directory."
            raise OperatorError(" ".join(filter(None, (set_back, self.problem))) or missing)

    async def refresh(self) -> bool:
        """Ask the sources, one after the other, for a newer directory; tells whether one is in use now.

        What is no good leaves the directory as it is and sets `problem`.
        """
        self._remote_at = self._clock.monotonic() + self._refresh_s
        return await self._everywhere()

    async def refresh_if_due(self) -> bool:
        """Look at the local sources; ask the others when it is time, or when a peer told of a newer version."""
        now = self._clock.monotonic()
        if self._remote_at is None or now >= self._remote_at or self._hint_due(now):
            # All nodes started by one power failure must not ask at one moment for ever.
            rest = self._refresh_s * random.uniform(0.8, 1.0)  # noqa: S311 - spreads load, guards nothing
            self._remote_at = now + rest
            changed = await self._everywhere()
            if self.problem is not None:
                self._remote_at = now + min(rest, RETRY_S)
            return changed
        local = [source for source in self._sources if source.local]
        return bool(local) and await self._round(local)

    def hint(self, header: str | None, peer_id: str) -> None:
        """Hear which version a peer says it has (VERSION_HEADER).

        A request does not sign it: it only makes us look earlier, and not too often. The word of each peer stands by
        itself, so what one claims silences no other.
        """
        if header is None or not _VERSION.fullmatch(header) or self._use is None:
            return
        if self._clock.monotonic() < self._distrusted_until.get(peer_id, 0.0):
            return
        version = int(header)
        if version > self._use.directory.version:
            self._hints[peer_id] = version

    def doubt(self) -> None:
        """Hear of a key that the directory in use does not know: a newer one may, so look once, and not too often."""
        self._in_doubt = True

    def _hint_due(self, now: float) -> bool:
        if not self._ahead() and not self._in_doubt:
            return False
        if self._hint_taken_at is not None and now < self._hint_taken_at + HINT_REST_S:
            return False
        self._hint_taken_at = now
        self._in_doubt = False
        return True

    def _ahead(self) -> dict[str, int]:
        """Return what peers say that they have and is not in use here, and forget the rest."""
        in_use = 0 if self._use is None else self._use.directory.version
        self._hints = {peer: version for peer, version in self._hints.items() if version > in_use}
        return self._hints

    def _with_mirror(self) -> list[NodeEntry]:
        """Return the members that can be asked."""
        if self._mirror is None or self._use is None:
            return []
        nodes = self.current().nodes.values()
        return [node for node in nodes if node.id != self._own_id and node.delivery == "push"]

    async def _everywhere(self) -> bool:
        """Ask the sources, and mirrors: those of peers that hinted, then others, each drawn at random."""
        drawn = self._with_mirror()
        random.shuffle(drawn)
        ahead = self._ahead()
        hinted = [node for node in drawn if node.id in ahead]
        others = [node for node in drawn if node.id not in ahead and node.state is NodeState.ACTIVE]
        return await self._round(self._sources, [*hinted, *others][:_MIRRORS_MAX])

    async def _round(self, sources: Sequence[Source], mirrors: Sequence[NodeEntry] | None = None) -> bool:
        """Ask `sources`; `mirrors` too when none was of use or a peer is ahead of them. Tells whether the use changed.

        A source is of use when it confirms what is in use, or has something newer.
        """
        # Before its turn: whatever another round finds meanwhile is news for this one too.
        before = self._use
        async with self._turn:
            failures = []
            confirmed = False
            for source in sources:
                failure = await self._ask(source)
                confirmed = failure is None
                if failure is None:
                    break
                failures.append(failure)
            if mirrors is not None:
                confirmed = await self._ask_mirrors(mirrors, confirmed=confirmed)
            serious = [failure.sentence for failure in failures if failure.serious or not confirmed]
            if confirmed or sources:
                self.problem = serious[0] if serious else None
            return self._use is not None and (before is None or before.directory is not self._use.directory)

    async def _ask_mirrors(self, mirrors: Sequence[NodeEntry], *, confirmed: bool) -> bool:
        """Ask mirrors until what is in use is confirmed and no peer is ahead of it; tells whether one was of use."""
        # What a peer says while it is asked is judged the next time.
        told = dict(self._ahead())
        for node in mirrors:
            if confirmed and not self._ahead():
                break
            assert self._mirror is not None  # noqa: S101 - for the type checker; without it there are no mirrors
            # One that is behind or away is nothing to report: others may be asked.
            confirmed = await self._ask(self._mirror(node)) is None or confirmed
            self._judge(node.id, told.get(node.id, 0))
        # What those spoke of whom nobody can ask is not to be had elsewhere either.
        for peer in told.keys() - {node.id for node in self._with_mirror()}:
            self._judge(peer, told[peer])
        return confirmed

    def _judge(self, peer: str, told: int) -> None:
        """Give nothing on the word of a peer for a while if what it spoke of did not come."""
        if told > self.current().version:
            self._hints.pop(peer, None)
            self._distrusted_until[peer] = self._clock.monotonic() + HINT_DISTRUST_S

    async def _ask(self, source: Source) -> "_Failure | None":
        """Update from one source; a failure is serious when what came may not be trusted."""
        try:
            if self._trusted is None:
                self._trusted = Trusted(await self._pinned_root(source))
            await self._update_from(source)
        except (MetadataInvalid, SourceFailed) as error:
            sentence = f"The membership directory of {source.name} is not taken: {error}."
            return _Failure(sentence, isinstance(error, MetadataInvalid))
        except OperatorError as error:
            return _Failure(error.sentence, serious=True)
        return None

    async def _pinned_root(self, source: Source) -> Roots:
        """Return the root that is pinned: the first, or a later one that the network told since."""
        for version in range(1, _ROOTS_MAX):
            raw = await source.fetch(root_file(version), ROOT_BYTES_MAX)
            if raw is None:
                break
            try:
                return Roots.pinned(version, raw, self._fingerprint)
            except MetadataInvalid as error:
                if error.fault is not Fault.PIN:
                    raise
        raise SourceFailed("it has no root of the pinned fingerprint")

    async def _update_from(self, source: Source) -> None:
        assert self._trusted is not None  # noqa: S101 - for the type checker; the caller has just seen to it
        update = Update(self._trusted, self._clock.now())
        content: bytes | None = None
        try:
            # Verifying and parsing a large directory takes a moment, which the loop has other use for.
            while (wanted := await asyncio.to_thread(update.advance, content)) is not None:
                content = await source.fetch(wanted.file, wanted.bytes_max)
        finally:
            # What was verified stays verified, though the files behind it did not come (5.3.8, 5.4.5).
            await self._keep(update.trusted)

    async def _keep(self, trusted: Trusted) -> None:
        """Take what an update brought: checked against what was remembered, on the disk, remembered, in use."""
        known, use = self._trusted, trusted.use
        fresh = use is not None and use is not self._use and not use.superseded
        if fresh and use is not None:
            await self._ledger.check(_seen(trusted.roots, use))
        if known is None or fresh or trusted.roots is not known.roots:
            await asyncio.to_thread(write_folder, self._folder, trusted)
        if fresh and use is not None:
            await self._ledger.record(_seen(trusted.roots, use))
        self._adopt(trusted)

    def _adopt(self, trusted: Trusted) -> None:
        self._trusted = trusted
        self._files = trusted.files()
        if trusted.use is not None:
            self._use = trusted.use


def read_folder(folder: Path, fingerprint: str) -> Trusted | None:
    """Return what the metadata in a folder proves, whatever its age; None without the pinned root.

    Raises OperatorError when the folder cannot be read or holds a root that does not follow the pinned one.
    """
    try:
        for version in range(1, _ROOTS_MAX):
            raw = read_file(folder, root_file(version), ROOT_BYTES_MAX)
            if raw is None:
                continue
            try:
                roots = Roots.pinned(version, raw, fingerprint)
            except MetadataInvalid as error:
                if error.fault is not Fault.PIN:
                    raise
                continue
            return read_set(lambda wanted: _read(folder, wanted), roots)
    except (MetadataInvalid, SourceFailed) as error:
        raise OperatorError(f"The membership directory in {folder} cannot be used: {error}.") from None
    return None


def read_directory(folder: Path, fingerprint: str) -> InUse:
    """Return the verified directory in a folder of metadata, whatever its age; raises OperatorError, one sentence."""
    trusted = read_folder(folder, fingerprint)
    if trusted is None:
        raise OperatorError(f"The folder {folder} holds no root of the pinned fingerprint.")
    if trusted.use is None:
        raise OperatorError(f"The folder {folder} holds no whole directory that its root vouches for.")
    return trusted.use


def write_folder(folder: Path, trusted: Trusted) -> None:
    """Write all files of what is trusted, the timestamp last; an older set never replaces a newer one.

    If we crash between two of them the old timestamp still names the old files, which are removed after it alone.
    Raises OperatorError.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(folder):
            files = trusted.files()
            timestamp = files.pop(TIMESTAMP, None)
            for name, content in files.items():
                if not _holds(folder, name, content):
                    _write(folder / name, content)
            if timestamp is None or trusted.use is None or _is_there(folder, trusted):
                return
            _write(folder / TIMESTAMP, timestamp)
            for path in folder.iterdir():
                kept = path.name in files or path.name == TIMESTAMP or path.name.endswith(".root.json")
                if not kept and FILE.fullmatch(path.name) is not None:
                    path.unlink(missing_ok=True)
    except OSError as error:
        raise OperatorError(f"The folder {folder} cannot be written ({error.strerror}).") from None


def _is_there(folder: Path, trusted: Trusted) -> bool:
    """Tell whether this timestamp or a newer one is there already; another process may have written it."""
    raw = read_file(folder, TIMESTAMP, TIMESTAMP_BYTES_MAX)
    written = None if raw is None else trusted.roots.timestamp_version(raw)
    return written is not None and trusted.use is not None and written >= trusted.use.timestamp.version


def _read(folder: Path, wanted: Wanted) -> bytes | None:
    return read_file(folder, wanted.file, wanted.bytes_max)


def _holds(folder: Path, name: str, content: bytes) -> bool:
    return read_file(folder, name, max(len(content), TIMESTAMP_BYTES_MAX)) == content


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(path: Path, content: bytes) -> None:
    """Put a file in its place, whole and durably."""
    fresh = path.with_name(f".{path.name}.new")
    with fresh.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _seen(roots: Roots, use: InUse) -> Seen:
    return Seen(
        version=use.directory.version,
        sha256=use.sha256,
        root_version=roots.newest.version,
        keys=roots.keys_digest(),
        snapshot_version=use.snapshot.version,
        timestamp_version=use.timestamp.version,
    )
