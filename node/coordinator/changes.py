"""What a new directory changes against the one before, and which changes nobody makes. Reads and writes nothing."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Final

from node.clock import rfc3339
from node.errors import OperatorError
from protocol.directory import DeskEntry, Directory, DirectoryKey, NodeEntry
from protocol.keys import KeyState

#: So long before it counts a key has to be known to everybody (PROTOCOL section 1).
NOTICE: Final = timedelta(hours=48)
#: What may become of a key; a step back would make what was refused count again.
_STEPS: Final = {
    KeyState.NEXT: {KeyState.NEXT, KeyState.ACTIVE, KeyState.RETIRED, KeyState.COMPROMISED},
    KeyState.ACTIVE: {KeyState.ACTIVE, KeyState.RETIRED, KeyState.COMPROMISED},
    KeyState.RETIRED: {KeyState.RETIRED, KeyState.COMPROMISED},
    KeyState.COMPROMISED: {KeyState.COMPROMISED},
}


def check_changes(before: Directory | None, after: Directory, now: datetime, *, urgent: bool) -> None:
    """Refuse, with OperatorError, a step that the rules of PROTOCOL section 1 do not know.

    `urgent` lets keys count without notice: after a compromise nobody waits 48 h.
    """
    for entry in after.nodes.values():
        known = None if before is None else before.nodes.get(entry.id)
        if known is not None:
            _check_keys(known, entry, now, urgent=urgent)
    desk, was = after.desk, None if before is None else before.desk
    if desk is not None and was is not None and desk.id == was.id:
        _check_keys(was, desk, now, urgent=urgent)
    gone = [] if before is None else [node_id for node_id in before.nodes if node_id not in after.nodes]
    if gone:
        raise OperatorError(
            f"{gone[0]} would vanish from the directory; a node that leaves stays listed as `left`, for its old proofs."
        )


def _check_keys(known: NodeEntry | DeskEntry, entry: NodeEntry | DeskEntry, now: datetime, *, urgent: bool) -> None:
    old = {key.public: key for key in known.keys}
    new = {key.public: key for key in entry.keys}
    for public, key in old.items():
        after = new.get(public)
        if after is None:
            if key.state is not KeyState.NEXT:
                raise OperatorError(
                    f"{entry.id}: its {key.state} {key.use} key ({key.algorithm}) would vanish; what it signed could "
                    "not be verified any more. Keys stay listed, as `retired` or `compromised`."
                )
        elif after.state not in _STEPS[key.state]:
            raise OperatorError(
                f"{entry.id}: a {key.use} key ({key.algorithm}) would go from {key.state} to {after.state}."
            )
        elif key.state is KeyState.NEXT and after.not_before < key.not_before and not urgent:
            raise OperatorError(
                f"{entry.id}: its next {key.use} key ({key.algorithm}) was announced for "
                f"{rfc3339(key.not_before)} and cannot count before (--urgent after a compromise)."
            )
    for public, key in new.items():
        if public not in old and not urgent:
            _check_notice(entry, key, now, replaces=_has_active(known, key))


def _has_active(known: NodeEntry | DeskEntry, key: DirectoryKey) -> bool:
    return any(
        one.use is key.use and one.algorithm is key.algorithm and one.state is KeyState.ACTIVE for one in known.keys
    )


def _check_notice(entry: NodeEntry | DeskEntry, key: DirectoryKey, now: datetime, *, replaces: bool) -> None:
    if key.state is KeyState.NEXT and key.not_before < now + NOTICE:
        raise OperatorError(
            f"{entry.id}: its next {key.use} key ({key.algorithm}) is to count from {rfc3339(key.not_before)}, less "
            "than 48 h from now; give it more time (--urgent after a compromise)."
        )
    if key.state is KeyState.ACTIVE and replaces:
        raise OperatorError(
            f"{entry.id}: a new {key.use} key ({key.algorithm}) would count without having been announced as `next` "
            "48 h before (--urgent after a compromise)."
        )


def changes(before: Directory | None, after: Directory) -> list[str]:
    """Return what changes, a sentence each, for those who sign it."""
    said: list[str] = []
    members = {} if before is None else before.nodes
    for entry in after.nodes.values():
        known = members.get(entry.id)
        said += _joins(entry) if known is None else _entry_changes(known, entry)
    mandated = () if before is None else before.mandated
    if mandated != after.mandated:
        said.append(f"The mandated hotlines: {_shown(mandated)} → {_shown(after.mandated)}.")
    said += _desk_changes(None if before is None else before.desk, after.desk)
    return said


def _joins(entry: NodeEntry) -> Iterator[str]:
    """All that the directory will say of a new member: who signs compares it with what the hotline handed in."""
    yield f"{entry.id} joins as {entry.state}: {_shown(entry.name)}, {_shown(entry.contact)}."
    yield f"{entry.id}: countries {_shown(entry.countries)}, weight {entry.weight}."
    yield f"{entry.id}: base_url {entry.base_url}, delivery {entry.delivery}, versions {_shown(entry.versions)}."
    if entry.limits:
        yield f"{entry.id}: limits {_shown(entry.limits)}."
    yield from _key_changes((), entry)


def _desk_changes(known: DeskEntry | None, entry: DeskEntry | None) -> Iterator[str]:
    if known is None or entry is None or known.id != entry.id:
        if known is not entry:
            yield f"The desk: {known.id if known else 'none'} → {entry.id if entry else 'none'}."
        if entry is not None:
            yield f"{entry.id}: base_url {entry.base_url}."
            yield from _key_changes((), entry)
        return
    if known.base_url != entry.base_url:
        yield f"{entry.id}: base_url {known.base_url} → {entry.base_url}."
    yield from _key_changes(known.keys, entry)


def _entry_changes(known: NodeEntry, entry: NodeEntry) -> Iterator[str]:
    for name in ("state", "countries", "base_url", "weight", "name", "contact", "versions", "limits", "delivery"):
        old, new = getattr(known, name), getattr(entry, name)
        if old != new:
            # An address is the network's own, and is shown to people at a terminal alone.
            yield f"{entry.id}: {name} {_shown(old)} → {_shown(new)}."
    yield from _key_changes(known.keys, entry)


def _key_changes(known: Iterable[DirectoryKey], entry: NodeEntry | DeskEntry) -> Iterator[str]:
    old_keys = {key.public: key for key in known}
    for key in entry.keys:
        before = old_keys.pop(key.public, None)
        what = f"{entry.id}: {key.use} key {key.public.thumbprint()[:12]} ({key.algorithm})"
        if before is None:
            yield f"{what} is new, {key.state} from {rfc3339(key.not_before)}."
        elif before != key:
            yield f"{what} {before.state} → {key.state}{_since(key)}."
    for key in old_keys.values():
        yield f"{entry.id}: {key.use} key {key.public.thumbprint()[:12]} ({key.algorithm}) is taken back."


def _since(key: DirectoryKey) -> str:
    at = key.compromised_since or key.retired_at or key.not_before
    return f" from {rfc3339(at)}"


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {limit}" for name, limit in sorted(value.items())) or "none"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return str(value)
