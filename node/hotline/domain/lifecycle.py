"""The states of a content item at one node and every move between them, in one table. Decides, never stores.

One state a node: what the peers do with the item is told by their records, not by more states here.
Proof of delivery is the receipt of the stream, so `sent` does not change when it comes: custody moves with the receipt.
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType


class State(StrEnum):
    """Where an item stands at this node."""

    LOCATING = "locating"
    """Waiting for DNS and the country databases; a failure that may pass leaves it here."""
    WAITING = "waiting"
    """Located, not qualified: may not leave."""
    READY = "ready"
    """Located and cleared to leave: the route is decided next."""
    ORIGIN_LOOKUP = "origin-lookup"
    """Behind a proxy or CDN: an analyst asks for the origin."""
    UNLOCATED = "unlocated"
    """Located nowhere, for good or after the last attempt."""
    KEPT = "kept"
    """This node acts on it; the reason is stored beside it."""
    SENT = "sent"
    """Its record is in a peer's stream; custody moves with the receipt."""
    REFUSED = "refused"
    """The peer received and refused it, with a reason."""
    UNDELIVERABLE = "undeliverable"
    """No hotline of the directory is competent."""
    ASSIGNED = "assigned"
    """Received from the network, awaiting qualification under this country's law."""
    CLOSED = "closed"
    """Not illegal."""
    DUPLICATE = "duplicate"
    """Another report of an item already known; everything happens at that one."""


class Event(StrEnum):
    """What can happen to an item."""

    LOCATED_HOSTED = "located-hosted"
    LOCATED_PROXIED = "located-proxied"
    LOCATED_NONE = "located-none"
    """It has no hosting country: onion, i2p, IPFS."""
    LOCATION_FAILED = "location-failed"
    """For good: no such name, no public address, or the last attempt is over."""
    RELOCATE = "relocate"
    """Somebody asks for another location."""
    QUALIFIED_ILLEGAL = "qualified-illegal"
    QUALIFIED_NOT_ILLEGAL = "qualified-not-illegal"
    RELEASED = "released"
    """Cleared to leave: qualified as illegal, or this node forwards without qualification."""
    WITHHELD = "withheld"
    """No longer cleared to leave, before it left."""
    ROUTED_SEND = "routed-send"
    ROUTED_KEEP = "routed-keep"
    ROUTED_UNDELIVERABLE = "routed-undeliverable"
    DIRECTORY_CHANGED = "directory-changed"
    """Another membership directory: the route may be found now."""
    REFUSED_BY_PEER = "refused-by-peer"


class Entry(StrEnum):
    """How an item comes into being at this node."""

    REPORTED = "reported"
    REPORTED_NOT_ILLEGAL = "reported-not-illegal"
    REPORTED_AGAIN = "reported-again"
    RECEIVED = "received"
    """From a peer's stream."""


ENTRIES: Mapping[Entry, State] = MappingProxyType(
    {
        Entry.REPORTED: State.LOCATING,
        Entry.REPORTED_NOT_ILLEGAL: State.CLOSED,
        Entry.REPORTED_AGAIN: State.DUPLICATE,
        Entry.RECEIVED: State.ASSIGNED,
    }
)

TABLE: Mapping[tuple[State, Event], State] = MappingProxyType(
    {
        (State.LOCATING, Event.LOCATED_HOSTED): State.WAITING,
        (State.LOCATING, Event.LOCATED_PROXIED): State.ORIGIN_LOOKUP,
        (State.LOCATING, Event.LOCATED_NONE): State.KEPT,
        (State.LOCATING, Event.LOCATION_FAILED): State.UNLOCATED,
        (State.LOCATING, Event.QUALIFIED_ILLEGAL): State.LOCATING,
        (State.LOCATING, Event.QUALIFIED_NOT_ILLEGAL): State.CLOSED,
        (State.WAITING, Event.RELEASED): State.READY,
        (State.WAITING, Event.QUALIFIED_ILLEGAL): State.WAITING,
        (State.WAITING, Event.QUALIFIED_NOT_ILLEGAL): State.CLOSED,
        (State.WAITING, Event.RELOCATE): State.LOCATING,
        (State.READY, Event.ROUTED_SEND): State.SENT,
        (State.READY, Event.ROUTED_KEEP): State.KEPT,
        (State.READY, Event.ROUTED_UNDELIVERABLE): State.UNDELIVERABLE,
        (State.READY, Event.WITHHELD): State.WAITING,
        (State.READY, Event.QUALIFIED_ILLEGAL): State.READY,
        (State.READY, Event.QUALIFIED_NOT_ILLEGAL): State.CLOSED,
        (State.ORIGIN_LOOKUP, Event.LOCATED_HOSTED): State.WAITING,
        (State.ORIGIN_LOOKUP, Event.LOCATED_NONE): State.KEPT,
        (State.ORIGIN_LOOKUP, Event.LOCATION_FAILED): State.UNLOCATED,
        (State.ORIGIN_LOOKUP, Event.RELOCATE): State.LOCATING,
        (State.ORIGIN_LOOKUP, Event.QUALIFIED_ILLEGAL): State.ORIGIN_LOOKUP,
        (State.ORIGIN_LOOKUP, Event.QUALIFIED_NOT_ILLEGAL): State.CLOSED,
        (State.UNLOCATED, Event.RELOCATE): State.LOCATING,
        (State.UNLOCATED, Event.QUALIFIED_ILLEGAL): State.UNLOCATED,
        (State.UNLOCATED, Event.QUALIFIED_NOT_ILLEGAL): State.CLOSED,
        (State.UNDELIVERABLE, Event.DIRECTORY_CHANGED): State.WAITING,
        (State.UNDELIVERABLE, Event.RELOCATE): State.LOCATING,
        (State.UNDELIVERABLE, Event.QUALIFIED_ILLEGAL): State.UNDELIVERABLE,
        (State.UNDELIVERABLE, Event.QUALIFIED_NOT_ILLEGAL): State.CLOSED,
        (State.SENT, Event.REFUSED_BY_PEER): State.REFUSED,
        (State.REFUSED, Event.RELOCATE): State.LOCATING,
        (State.REFUSED, Event.QUALIFIED_ILLEGAL): State.REFUSED,
        (State.REFUSED, Event.QUALIFIED_NOT_ILLEGAL): State.CLOSED,
        (State.KEPT, Event.QUALIFIED_ILLEGAL): State.KEPT,
        (State.KEPT, Event.QUALIFIED_NOT_ILLEGAL): State.CLOSED,
        (State.ASSIGNED, Event.QUALIFIED_ILLEGAL): State.KEPT,
        (State.ASSIGNED, Event.QUALIFIED_NOT_ILLEGAL): State.CLOSED,
        # Reported again and found illegal this time: where it is hosted may have changed since.
        (State.CLOSED, Event.QUALIFIED_ILLEGAL): State.LOCATING,
        (State.CLOSED, Event.QUALIFIED_NOT_ILLEGAL): State.CLOSED,
    }
)

NEEDS_CLEARANCE = frozenset({Event.RELEASED, Event.ROUTED_SEND})
"""What may not leave does not leave (docs/protocol.md, I10): these events are refused to an item not cleared."""


class TransitionRefused(Exception):  # noqa: N818 -- names the fact, as the callers and the documents do
    """The event cannot happen in this state; `state` and `event` say which, for the answer to whoever asked."""

    def __init__(self, state: State, event: Event, because: str = "") -> None:
        """Make the sentence from the two tokens."""
        super().__init__(f"{event} is not possible while the item is {state}{because}")
        self.state = state
        self.event = event


def next_state(state: State, event: Event, *, qualified: bool, forward_unqualified: bool) -> State:
    """Return the state after `event`.

    `qualified` says whether the item is qualified as illegal once the event has happened,
    `forward_unqualified` whether this node forwards without qualification; either clears the item to leave.
    A cleared item does not stop in `waiting`: it is released in the same step.
    Raises TransitionRefused.
    """
    after = TABLE.get((state, event))
    if after is None:
        raise TransitionRefused(state, event)
    cleared = qualified or forward_unqualified
    if event in NEEDS_CLEARANCE and not cleared:
        raise TransitionRefused(state, event, " and not cleared to leave")
    if after is State.WAITING and cleared and event is not Event.WITHHELD:
        return TABLE[after, Event.RELEASED]
    return after


def standing(state: State, *, received: bool) -> State:
    """Return the state that counts when an item is qualified.

    What a peer assigned to us stays ours to act on, also when it was closed once: it does not travel on by itself.
    """
    return State.ASSIGNED if received and state is State.CLOSED else state


def mermaid() -> str:
    """Draw the table as a Mermaid state diagram, one line a pair of states, for docs/architecture.md."""
    lines = ["stateDiagram-v2"]
    lines += [f"    [*] --> {_node(state)}: {entry}" for entry, state in ENTRIES.items()]
    labels: dict[tuple[State, State], list[str]] = {}
    for (state, event), after in TABLE.items():
        if state is not after:
            labels.setdefault((state, after), []).append(event)
    lines += [f"    {_node(state)} --> {_node(after)}: {', '.join(labels[state, after])}" for state, after in labels]
    return "\n".join(lines) + "\n"


def _node(state: State) -> str:
    """Return a name without hyphens, which Mermaid's arrows are made of."""
    return state.replace("-", "_")
