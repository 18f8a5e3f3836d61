"""The states of a content item at one node and every move between them, in one table. Decides, never stores.

Two tables: what happens to an item here (TABLE), and what each record does to it, by whoever says it (RECORDS, UNKNOWN
for one that is not here, MARKS for what is only noted). A local act on an item that others know of is a record too, and
is weighed by the second table before it is written.
Proof of delivery is the receipt of the stream, so `sent` does not change when it comes: custody moves with the receipt.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from types import MappingProxyType

from protocol.codes import Classification


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
    LEAVING = "leaving"
    """A transfer of it is in a peer's stream; it is still ours until the receipt is stored."""
    TRANSFERRED = "transferred"
    """The other hotline's receipt of the transfer is stored: it is that hotline's."""
    DISPUTED = "disputed"
    """Whose it is, the desk decides; until then it stays where it is."""
    DUPLICATE = "duplicate"
    """Another report of an item already known; everything happens at that one."""
    DECLINED = "declined"
    """Sent, and found not illegal there; the hotline that has it may still find otherwise."""
    DONE = "done"
    """A final action was recorded: removed, unavailable, or not illegal."""
    WITHDRAWN = "withdrawn"
    """Its reporter took the report back."""


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
    GOES_AGAIN = "goes-again"
    """The peer refused it as not its own; by the directory of now it may be, or is another's."""
    RELAY_FAILED = "relay-failed"
    """The peer did not receipt it in time, or is no longer one that is sent to."""
    HANDED_ON = "handed-on"
    """A transfer is written into another hotline's stream."""
    RECEIPTED = "receipted"
    RETURNED = "returned"
    """The other hotline refused the transfer or never receipted it: it is ours again."""
    CONTESTED = "contested"
    """It cannot travel on by its evidence: the desk is asked."""
    RULED_OURS = "ruled-ours"


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
        (State.REFUSED, Event.GOES_AGAIN): State.WAITING,
        (State.REFUSED, Event.QUALIFIED_ILLEGAL): State.REFUSED,
        (State.REFUSED, Event.QUALIFIED_NOT_ILLEGAL): State.CLOSED,
        (State.KEPT, Event.QUALIFIED_ILLEGAL): State.KEPT,
        (State.KEPT, Event.QUALIFIED_NOT_ILLEGAL): State.CLOSED,
        (State.ASSIGNED, Event.QUALIFIED_ILLEGAL): State.KEPT,
        (State.ASSIGNED, Event.QUALIFIED_NOT_ILLEGAL): State.CLOSED,
        (State.SENT, Event.RELAY_FAILED): State.WAITING,
        (State.KEPT, Event.RELOCATE): State.LOCATING,
        (State.KEPT, Event.DIRECTORY_CHANGED): State.WAITING,
        (State.ASSIGNED, Event.HANDED_ON): State.LEAVING,
        (State.KEPT, Event.HANDED_ON): State.LEAVING,
        (State.DISPUTED, Event.HANDED_ON): State.LEAVING,
        (State.LEAVING, Event.RECEIPTED): State.TRANSFERRED,
        (State.LEAVING, Event.RETURNED): State.ASSIGNED,
        (State.TRANSFERRED, Event.RETURNED): State.ASSIGNED,
        (State.ASSIGNED, Event.CONTESTED): State.DISPUTED,
        (State.KEPT, Event.CONTESTED): State.DISPUTED,
        (State.DISPUTED, Event.RULED_OURS): State.ASSIGNED,
        (State.DISPUTED, Event.QUALIFIED_ILLEGAL): State.DISPUTED,
        (State.DISPUTED, Event.QUALIFIED_NOT_ILLEGAL): State.CLOSED,
        # Reported again and found illegal this time: where it is hosted may have changed since.
        (State.CLOSED, Event.QUALIFIED_ILLEGAL): State.LOCATING,
        (State.CLOSED, Event.QUALIFIED_NOT_ILLEGAL): State.CLOSED,
    }
)

UNSENT = frozenset(
    {State.LOCATING, State.WAITING, State.READY, State.ORIGIN_LOOKUP, State.UNLOCATED, State.UNDELIVERABLE}
)
"""Ours, and at nobody else's by what is known here."""

HELD = frozenset({State.ASSIGNED, State.KEPT})
"""Received and ours to act on: what another location may move on."""

#: What comes back qualified is acted on at once, as what was qualified here first.
_BACK = frozenset({Event.RETURNED, Event.RULED_OURS})

NEEDS_CLEARANCE = frozenset({Event.RELEASED, Event.ROUTED_SEND, Event.HANDED_ON})
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
    if event in _BACK and qualified:
        return TABLE[after, Event.QUALIFIED_ILLEGAL]
    return after


def standing(state: State, *, received: bool) -> State:
    """Return the state that counts when an item is qualified.

    What a peer assigned to us stays ours to act on, also when it was closed once: it does not travel on by itself.
    """
    return State.ASSIGNED if received and state is State.CLOSED else state


class Said(StrEnum):
    """What a record says of an item, as far as the lifecycle tells records apart; an outcome speaks of records."""

    REPORT = "report"
    TRANSFER = "transfer"
    ASSESSED_ILLEGAL = "assessment-illegal"
    ASSESSED_NOT_ILLEGAL = "assessment-not-illegal"
    AUTHORITIES_INFORMED = "authorities-informed"
    HOSTER_NOTIFIED = "hoster-notified"
    REMOVED = "removed"
    UNAVAILABLE = "unavailable"
    NOT_ILLEGAL = "not-illegal"
    CORRECTED = "correction"
    WITHDRAWN = "withdrawal"
    TAKEN_BACK = "taken-back"
    """The `withdrawal` of who gave an item to us that was here before, and had no receipt of that in time."""
    FINAL = "status-final"
    DELIVERED = "status-delivered"
    DISPUTED = "status-disputed"
    RELAY_FAILED = "status-relay-failure"
    EPOCH = "status-epoch"


class Speaker(StrEnum):
    """Who says it, as this node sees the item."""

    CUSTODIAN = "custodian"
    """The hotline that the item is assigned to; this node itself for what it acts on."""
    REPORTER = "reporter"
    """The hotline that reported it first; what it gave itself it says as this."""
    GIVER = "giver"
    """The hotline that this node had another hotline's report from."""
    FORMER = "former custodian"
    """A hotline that had it before: what it said then may arrive after the word of its successor."""
    STRANGER = "stranger"


class Code(StrEnum):
    """Why a record is refused: codes of the error registry."""

    NOT_COMPETENT = "not-competent"
    HANDLING_VIOLATION = "handling-violation"
    ID_CONFLICT = "id-conflict"


ASSESSMENTS = frozenset({Said.ASSESSED_ILLEGAL, Said.ASSESSED_NOT_ILLEGAL})
_STEPS_BEFORE_THE_END = frozenset({Said.AUTHORITIES_INFORMED, Said.HOSTER_NOTIFIED})
_ENDS = frozenset({Said.REMOVED, Said.UNAVAILABLE, Said.NOT_ILLEGAL})
ACTIONS = _STEPS_BEFORE_THE_END | _ENDS
OF_THE_REPORT = frozenset({Said.CORRECTED, Said.WITHDRAWN, Said.TAKEN_BACK})
"""What is said of the report and of its way here, before what is said of the item."""
STEPS = ASSESSMENTS | ACTIONS | OF_THE_REPORT | {Said.FINAL}
"""What is said of an item that a report told of, by who has to do with it."""
FACTS = frozenset({Said.DISPUTED, Said.RELAY_FAILED})
"""What a holder says of an item's way; it moves nothing (MARKS)."""
KEPT_UNREAD = frozenset({Said.EPOCH})
"""Kept with its bytes: it speaks of a stream, and whoever stores the stream reads it there."""
_SAME = None
"""The record is taken and the state stays."""

_NOT_ASSIGNED = (
    State.LOCATING,
    State.WAITING,
    State.READY,
    State.ORIGIN_LOOKUP,
    State.UNLOCATED,
    State.UNDELIVERABLE,
    State.REFUSED,
)
_HERE = (State.ASSIGNED, State.KEPT, State.CLOSED, State.DISPUTED)
_THERE = (State.SENT, State.DECLINED)
_PASSED_ON = (State.LEAVING, State.TRANSFERRED)

_NOT_TAKEN_UP = (State.ASSIGNED, State.DISPUTED, State.SENT, State.DUPLICATE)

_CUSTODIAN, _REPORTER, _GIVER, _FORMER = (
    frozenset({one}) for one in (Speaker.CUSTODIAN, Speaker.REPORTER, Speaker.GIVER, Speaker.FORMER)
)
_ORIGIN = _REPORTER | _GIVER
_ANYBODY = frozenset(Speaker)
_ELSEWHERE = (State.SENT, State.DECLINED, State.LEAVING, State.TRANSFERRED)
_NEVER_HERE_AGAIN = tuple(state for state in State if state not in _ELSEWHERE)

_Row = tuple[tuple[State, ...], frozenset[Said], frozenset[Speaker], State | Code | None]

#: Every record that is not refused as `not-competent`. No two rows speak of one cell; a test holds that.
_ROWS: tuple[_Row, ...] = (
    # The hotline that the item is assigned to qualifies it and acts on it: at its own node ...
    ((State.ASSIGNED, State.KEPT, State.CLOSED), frozenset({Said.ASSESSED_ILLEGAL}), _CUSTODIAN, State.KEPT),
    (
        (State.ASSIGNED, State.KEPT, State.CLOSED),
        frozenset({Said.ASSESSED_NOT_ILLEGAL}),
        _CUSTODIAN,
        State.CLOSED,
    ),
    ((State.ASSIGNED, State.KEPT), _STEPS_BEFORE_THE_END, _CUSTODIAN, State.KEPT),
    # Whose a disputed item is, is open; what it is and what is done about it is not.
    ((State.DISPUTED,), frozenset({Said.ASSESSED_ILLEGAL}) | _STEPS_BEFORE_THE_END, _CUSTODIAN, _SAME),
    ((State.DISPUTED,), frozenset({Said.ASSESSED_NOT_ILLEGAL}), _CUSTODIAN, State.CLOSED),
    (_HERE, _ENDS, _CUSTODIAN, State.DONE),
    # ... and, by its records, at the node that sent the item.
    (_THERE, frozenset({Said.ASSESSED_ILLEGAL}), _CUSTODIAN, State.SENT),
    (_THERE, frozenset({Said.ASSESSED_NOT_ILLEGAL}), _CUSTODIAN, State.DECLINED),
    ((State.SENT,), _STEPS_BEFORE_THE_END, _CUSTODIAN, _SAME),
    (_THERE, _ENDS | {Said.FINAL}, _CUSTODIAN, State.DONE),
    # ... and at a node in between, which had it and passed it on.
    (_PASSED_ON, ASSESSMENTS | _STEPS_BEFORE_THE_END, _CUSTODIAN, _SAME),
    (_PASSED_ON, _ENDS | {Said.FINAL}, _CUSTODIAN, State.DONE),
    # What a custodian said while it had the item counts as history, whenever it arrives.
    ((*_THERE, *_PASSED_ON, State.DONE, State.WITHDRAWN), ASSESSMENTS | _STEPS_BEFORE_THE_END, _FORMER, _SAME),
    # Of what is not illegal nobody is informed: it is qualified as illegal first.
    ((State.CLOSED, State.DECLINED), _STEPS_BEFORE_THE_END, _CUSTODIAN, Code.HANDLING_VIOLATION),
    # A final action is final.
    ((State.DONE,), ASSESSMENTS | ACTIONS, _CUSTODIAN, Code.HANDLING_VIOLATION),
    ((State.DONE,), frozenset({Said.FINAL}), _CUSTODIAN, _SAME),
    # Everything happens at the item that this one repeats.
    ((State.DUPLICATE,), ASSESSMENTS | ACTIONS, _CUSTODIAN, Code.HANDLING_VIOLATION),
    # What was on its way when the report was taken back is nobody's offence; it is noted.
    ((State.WITHDRAWN,), ASSESSMENTS | ACTIONS | {Said.FINAL}, _CUSTODIAN, _SAME),
    # The reporter may say otherwise until the hotline that the item is assigned to has taken it up.
    (_NOT_TAKEN_UP, frozenset({Said.ASSESSED_ILLEGAL}), _ORIGIN, _SAME),
    # What is not illegal never leaves: such a report is withdrawn.
    (_NOT_TAKEN_UP, frozenset({Said.ASSESSED_NOT_ILLEGAL}), _ORIGIN, Code.HANDLING_VIOLATION),
    ((State.WITHDRAWN,), ASSESSMENTS, _ORIGIN, Code.HANDLING_VIOLATION),
    # The report is the reporter's own: it corrects and withdraws it whatever has become of the item.
    (
        (*_NOT_ASSIGNED, *_HERE, *_THERE, *_PASSED_ON, State.DUPLICATE, State.DONE),
        frozenset({Said.CORRECTED}),
        _REPORTER,
        _SAME,
    ),
    ((State.WITHDRAWN,), frozenset({Said.CORRECTED}), _REPORTER, Code.HANDLING_VIOLATION),
    # Who gave it hands the reporter's withdrawal on, or takes back what only it can have brought here.
    (
        (*_NOT_ASSIGNED, *_HERE, *_THERE, *_PASSED_ON, State.DUPLICATE, State.WITHDRAWN),
        frozenset({Said.WITHDRAWN}),
        _ORIGIN,
        State.WITHDRAWN,
    ),
    ((State.DONE,), frozenset({Said.WITHDRAWN}), _ORIGIN, _SAME),
    # What was here before it was given goes back to its giver, and its report stands; what is over is over.
    (
        (*_NOT_ASSIGNED, *_HERE, *_THERE, *_PASSED_ON, State.DUPLICATE),
        frozenset({Said.TAKEN_BACK}),
        _GIVER,
        State.TRANSFERRED,
    ),
    ((State.DONE, State.WITHDRAWN), frozenset({Said.TAKEN_BACK}), _GIVER, _SAME),
    # An id is given once: a report brings a new item, or none.
    (tuple(State), frozenset({Said.REPORT}), _ANYBODY, Code.ID_CONFLICT),
    # A transfer brings back what another hotline has. Who may make it, its proof and its trail say, and not the state;
    # of what is leaving, it has to go on from where that went, and is then as good as the receipt that is on its way.
    (_ELSEWHERE, frozenset({Said.TRANSFER}), _ANYBODY, State.ASSIGNED),
    (_NEVER_HERE_AGAIN, frozenset({Said.TRANSFER}), _ANYBODY, Code.ID_CONFLICT),
    # So is it with what proves who has the item now: the longer chain counts, whatever the item has come to here.
    (tuple(State), frozenset({Said.DELIVERED}), _ANYBODY, _SAME),
    # What a hotline says of the way of what it has, or had: noted, for people.
    (tuple(State), FACTS, _CUSTODIAN | _FORMER, _SAME),
    # It is of no item.
    (tuple(State), KEPT_UNREAD, _ANYBODY, _SAME),
)

RECORDS: Mapping[tuple[State, Said, Speaker], State | Code] = MappingProxyType(
    dict.fromkeys(product(State, Said, Speaker), Code.NOT_COMPETENT)
    | {
        (state, said, speaker): state if result is _SAME else result
        for states, saids, speakers, result in _ROWS
        for state, said, speaker in product(states, saids, speakers)
    }
)
"""Every state, every record, everybody who may say it: the state after, or the code of the refusal."""

UNKNOWN: Mapping[Said, State | Code | None] = MappingProxyType(
    dict.fromkeys(STEPS | FACTS, Code.NOT_COMPETENT)
    | {
        Said.REPORT: ENTRIES[Entry.RECEIVED],
        Said.TRANSFER: ENTRIES[Entry.RECEIVED],
        # Only who reported an item is told who has it.
        Said.DELIVERED: Code.HANDLING_VIOLATION,
        Said.EPOCH: None,
    }
)
"""Every record, where no item of its id is here: the state of the item that it brings, the refusal, or nothing."""

MARKS: Mapping[tuple[State, Said], str] = MappingProxyType(
    {
        (State.SENT, Said.DISPUTED): "disputed",
        (State.TRANSFERRED, Said.DISPUTED): "disputed",
        (State.SENT, Said.RELAY_FAILED): "relay-failure",
    }
)
"""The reason that an item has after what its custodian said of its way, which moves nothing; in other states none.

It goes when the item is elsewhere, or over: every state that a record leads to brings its own reason; and what a
dispute left goes when its holder says that it is over.
"""

_SENTENCES: Mapping[Code | tuple[Said, Code], str] = MappingProxyType(
    {
        Code.NOT_COMPETENT: "this is for another hotline to say of an item that is {state}",
        Code.HANDLING_VIOLATION: "the rules do not allow this of an item that is {state}",
        (Said.REPORT, Code.ID_CONFLICT): "an item of this id was received before",
        (Said.TRANSFER, Code.ID_CONFLICT): "an item of this id is here already",
        (Said.DELIVERED, Code.HANDLING_VIOLATION): "the item was not reported from here",
        (Said.CORRECTED, Code.NOT_COMPETENT): "only who reported an item first corrects its report",
        (Said.DISPUTED, Code.NOT_COMPETENT): "this hotline does not have the item",
        (Said.RELAY_FAILED, Code.NOT_COMPETENT): "this hotline does not have the item",
    }
)
"""What a refusal says: by the record and the code, else by the code."""


class RecordRefused(Exception):  # noqa: N818 -- names the fact, as the callers and the documents do
    """The record is refused and changes nothing: `code` of the registry, `state` of the item, a sentence."""

    def __init__(self, code: Code, state: State, sentence: str) -> None:
        """Keep what the refusal is made of."""
        super().__init__(sentence)
        self.code = code
        self.state = state
        self.sentence = sentence


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of an item beside its state, for the rules that hold in several states.

    `standing` is the qualification that counts: the custodian's, else the reporter's. `actions` are those recorded.
    `taken_up` is whether the custodian has qualified it or acted on it.
    """

    standing: Classification | None = None
    actions: frozenset[Said] = frozenset()
    taken_up: bool = False


def refusal(said: Said, code: Code, state: State | None = None) -> str:
    """Return the sentence of a refusal; `state` is None where the item is not here."""
    sentence = _SENTENCES.get((said, code))
    if sentence is None and state in _NOT_ASSIGNED and said in STEPS and code is Code.NOT_COMPETENT:
        return f"no hotline has been assigned an item that is {state}"
    return (sentence or _SENTENCES[code]).format(state=state)


def by_table(state: State, said: Said, speaker: Speaker) -> State:
    """Return the state after a record by the table alone; raises RecordRefused."""
    result = RECORDS[state, said, speaker]
    if isinstance(result, Code):
        raise RecordRefused(result, state, refusal(said, result, state))
    return result


def after_transfer(state: State, speaker: Speaker, *, qualified: bool) -> State:
    """Return the state of an item that a transfer gives us which was here before; raises RecordRefused.

    What comes back qualified as illegal (`qualified`) is acted on at once.
    """
    after = by_table(state, Said.TRANSFER, speaker)
    return TABLE[after, Event.QUALIFIED_ILLEGAL] if qualified else after


def after_record(
    state: State, said: Said, speaker: Speaker, facts: Facts, *, finding: Classification | None = None
) -> State:
    """Return the state after a record; `finding` is what an assessment found.

    Raises RecordRefused: by the table, then by the rules that hold in every state (docs/protocol.md, section 3).
    A repeat that says nothing new is the caller's to recognise; here a second action of a kind is an offence.
    """
    result = by_table(state, said, speaker)
    if state is State.WITHDRAWN or speaker is Speaker.FORMER:
        return result
    if said in ASSESSMENTS:
        _check_finding(state, speaker, facts, finding)
    if said in facts.actions:
        raise RecordRefused(Code.HANDLING_VIOLATION, state, "this action is recorded already, and each counts once")
    if said is Said.NOT_ILLEGAL and facts.standing is Classification.BASELINE:
        raise RecordRefused(Code.HANDLING_VIOLATION, state, "a baseline qualification is final: it is illegal")
    return result


def _check_finding(state: State, speaker: Speaker, facts: Facts, finding: Classification | None) -> None:
    """Refuse a qualification that may not replace the one that stands."""
    if speaker in _ORIGIN and facts.taken_up:
        raise RecordRefused(Code.NOT_COMPETENT, state, "the hotline that it is assigned to has taken it up")
    if facts.standing is Classification.BASELINE and finding is not Classification.BASELINE:
        raise RecordRefused(Code.HANDLING_VIOLATION, state, "a baseline qualification is final and cannot be changed")
    if facts.actions and facts.standing is not None and finding is not facts.standing:
        raise RecordRefused(Code.HANDLING_VIOLATION, state, "an action is recorded: the qualification stands")


def speaker_of(said: Said, roles: Collection[Speaker]) -> Speaker:
    """Return as whom a hotline speaks that has these roles towards the item, perhaps several, perhaps none."""
    of_the_report = said in OF_THE_REPORT
    if Speaker.FORMER in roles and Speaker.CUSTODIAN not in roles and not of_the_report:
        return Speaker.FORMER
    origins = (Speaker.REPORTER, Speaker.GIVER)
    order = (*origins, Speaker.CUSTODIAN) if of_the_report else (Speaker.CUSTODIAN, *origins)
    return next((role for role in order if role in roles), Speaker.STRANGER)
