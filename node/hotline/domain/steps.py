"""An item as the rules for records see it, and what one more record makes of it. Pure; writes and tells nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from node.hotline.domain.assessment import Assessment, AssessmentRefused, reassess, same_finding, to_wire
from node.hotline.domain.lifecycle import (
    ENTRIES,
    Code,
    Entry,
    Event,
    Facts,
    RecordRefused,
    Said,
    Speaker,
    State,
    after_record,
    next_state,
    speaker_of,
)
from protocol.codes import FINAL_ACTIONS, Action, ActionReason, Classification
from protocol.steps import ActionBody, AssessmentBody

_KNOWN_TO_OTHERS = frozenset({State.SENT, State.DECLINED, State.ASSIGNED, State.KEPT, State.DONE, State.WITHDRAWN})
#: Whose qualification stands, or may stand one day.
_COUNTS = frozenset({Speaker.CUSTODIAN, Speaker.REPORTER, Speaker.GIVER})
#: A state that a qualification leads to has its own reason, or starts afresh with none.
_REASONS = {State.CLOSED: "not-illegal", State.LOCATING: None}

SAID: Mapping[Action, Said] = {action: Said(action.value) for action in Action}


@dataclass(frozen=True, slots=True)
class Done:
    """One action as it was recorded; two that say the same are one."""

    node: str
    action: Action
    at: datetime
    by: str | None = None
    reason: ActionReason | None = None

    def body(self) -> ActionBody:
        """Return it as a record says it."""
        return ActionBody(action=self.action, at=self.at, by=self.by, reason=self.reason)


@dataclass(frozen=True, slots=True)
class KnownItem:
    """One item as this node (`here`) knows it.

    `came_from` is the peer that sent it, `reporter` the hotline that reported it first; both are None for a report of
    our own. `former` are those who had it before; `is_withdrawn` whether its report was taken back, also after its
    end. `own` is our qualification, `peers` the one of the other side: its reporter's, or its custodian's. `is_heard`
    is whether the other side has taken every qualification that we told of it.
    """

    here: str
    id: UUID
    case_id: UUID
    state: State
    reason: str | None
    assigned_node: str | None
    reporter: str | None
    came_from: str | None
    report_hash: bytes | None
    own: Assessment | None
    peers: Assessment | None
    actions: tuple[Done, ...]
    former: frozenset[str] = frozenset()
    is_withdrawn: bool = False
    is_heard: bool = True

    @property
    def custodian(self) -> str:
        """The hotline that the item is assigned to, as far as this node knows."""
        return self.assigned_node or self.here

    @property
    def origins(self) -> frozenset[str]:
        """The hotlines whose report it is: the first reporter, and the one that we had it from."""
        known = {node for node in (self.reporter, self.came_from) if node is not None}
        return frozenset(known or {self.here})

    @property
    def is_here(self) -> bool:
        """Whether this node has custody."""
        return self.custodian == self.here

    def facts(self) -> Facts:
        """Return what the rules need beside the state; only the present custodian's actions count."""
        custodians = self.own if self.is_here else self.peers
        others = self.peers if self.is_here else self.own
        if not self.is_here and not self.is_heard:
            # It crossed what its custodian says, who decides: ours does not stand against that.
            others = None
        standing = custodians or others
        actions = frozenset(SAID[done.action] for done in self.actions if done.node == self.custodian)
        # What this node reported itself and keeps was qualified by it as its custodian.
        return Facts(
            standing=None if standing is None else standing.classification,
            actions=actions,
            taken_up=custodians is not None or bool(actions),
        )

    def so_far(
        self, finding: Assessment | None, *, theirs: Assessment | None
    ) -> tuple[AssessmentBody | ActionBody, ...]:
        """Return what its custodian found (`finding`) and did, for who reported it again and found `theirs`.

        A baseline qualification of theirs is final at their side: they do not hear of a lesser one.
        """
        said: list[AssessmentBody | ActionBody] = []
        final = theirs is not None and theirs.classification is Classification.BASELINE
        if finding is not None and not (final and finding.classification is not Classification.BASELINE):
            said.append(AssessmentBody(qualification=to_wire(finding)))
        return (*said, *(done.body() for done in self.actions if done.node == self.custodian))

    def speaker(self, said: Said, node: str) -> Speaker:
        """Return as whom `node` says this of the item."""
        roles = set()
        if node == self.custodian:
            roles.add(Speaker.CUSTODIAN)
        if node in self.origins:
            roles.add(Speaker.GIVER if node == self.came_from != self.reporter else Speaker.REPORTER)
        # What we said ourselves we know; now it is for our successor to say.
        if node in self.former and node != self.here:
            roles.add(Speaker.FORMER)
        return speaker_of(said, roles)

    def _after(self, said: Said, node: str, assessment: Assessment | None = None) -> State:
        if self.state is State.WITHDRAWN and node == self.here and said is not Said.WITHDRAWN:
            # Of others' steps that were on their way the table speaks; we know better.
            raise RecordRefused(Code.HANDLING_VIOLATION, self.state, "the report of this item is withdrawn")
        finding = None if assessment is None else assessment.classification
        return after_record(self.state, said, self.speaker(said, node), self.facts(), finding=finding)

    def assessed(self, node: str, new: Assessment) -> "KnownItem | None":
        """Return the item after `node` qualified it, or None when that says nothing new; raises RecordRefused."""
        held = self.own if node == self.here else self.peers
        said = Said.ASSESSED_ILLEGAL if new.illegal else Said.ASSESSED_NOT_ILLEGAL
        speaker = self.speaker(said, node)
        if held is not None and same_finding(held, new) and speaker in _COUNTS:
            return None
        state = self._after(said, node, new)
        if speaker is Speaker.FORMER:
            return self
        try:
            settled = reassess(held, new)
        except AssessmentRefused as refused:
            raise RecordRefused(Code.HANDLING_VIOLATION, self.state, refused.sentence) from None
        reason = self._reason(state, said)
        if node == self.here:
            return replace(self, state=state, reason=reason, own=settled)
        return replace(self, state=state, reason=reason, peers=settled)

    @property
    def is_known_to_others(self) -> bool:
        """Whether a qualification of it is a record, and weighed as one: another has or had it, or its end is told."""
        return self.came_from is not None or self.state in _KNOWN_TO_OTHERS

    def qualified(self, new: Assessment, *, forward_unqualified: bool) -> "KnownItem":
        """Return the item after it was qualified here, while it is known to nobody else.

        Raises AssessmentRefused (a baseline qualification is final) or TransitionRefused.
        """
        settled = reassess(self.own, new)
        event = Event.QUALIFIED_ILLEGAL if settled.illegal else Event.QUALIFIED_NOT_ILLEGAL
        state = next_state(self.state, event, qualified=settled.illegal, forward_unqualified=forward_unqualified)
        return replace(self, state=state, reason=_REASONS.get(state, self.reason), own=settled)

    def acted(self, done: Done) -> "KnownItem | None":
        """Return the item after an action, or None when it or a final one is recorded already; raises RecordRefused."""
        if done in self.actions:
            return None
        said = SAID[done.action]
        state = self._after(said, done.node)
        before = {one.action for one in self.actions if one.node == done.node}
        if done.action in before or FINAL_ACTIONS & before:
            # Only of what was on its way when the report was taken back, or the item passed on: the rest is refused.
            return None
        return replace(self, state=state, reason=self._reason(state, said), actions=(*self.actions, done))

    def corrected(self, node: str) -> "KnownItem":
        """Return the item after its report was corrected; raises RecordRefused."""
        return replace(self, state=self._after(Said.CORRECTED, node))

    def withdrawn(self, node: str, why: str) -> "KnownItem | None":
        """Return the item after its report was taken back, or None when it is already; raises RecordRefused."""
        state = self._after(Said.WITHDRAWN, node)
        if self.is_withdrawn:
            return None
        reason = self.reason if state is self.state else why
        return replace(self, state=state, reason=reason, is_withdrawn=True)

    @property
    def was_here_before(self) -> bool:
        """Whether what was given to us had been ours before: we reported it, or handed it on."""
        return self.reporter == self.here or self.here in self.former

    def given_back(self, giver: str) -> "KnownItem | None":
        """Return an item that was here before, after `giver` took back what it had handed us; None once it is over.

        It is the giver's again, or whose we heard it is meanwhile; its report stands. Raises RecordRefused.
        """
        state = self._after(Said.TAKEN_BACK, giver)
        if state is not State.TRANSFERRED:
            return None
        heard = not self.is_here and self.state not in {State.LEAVING, State.TRANSFERRED}
        return replace(self, state=state, assigned_node=self.assigned_node if heard else giver)

    def told_final(self, node: str, code: str) -> "KnownItem":
        """Return the item after its custodian told that it is closed; raises RecordRefused."""
        state = self._after(Said.FINAL, node)
        return replace(self, state=state, reason=self.reason if state is self.state else code)

    def _reason(self, state: State, said: Said) -> str | None:
        """A state that a record leads to is explained by the record."""
        if state is self.state:
            return self.reason
        if state in {State.CLOSED, State.DECLINED}:
            return "not-illegal"
        if state is State.DONE:
            return said.value
        # Why it was closed says nothing of an item that is open again.
        return None if self.state in {State.CLOSED, State.DECLINED} else self.reason


@dataclass(frozen=True, slots=True)
class Heir:
    """The oldest of the reports that were linked to an item which no longer counts; it will stand for the URL."""

    id: UUID
    instead_of: UUID
    received: bool
    own: Assessment | None


def heir_state(heir: Heir) -> tuple[State, str | None]:
    """Return the state of an heir and its reason: as if its report had just come in."""
    if heir.received:
        return ENTRIES[Entry.RECEIVED], None
    if heir.own is not None and not heir.own.illegal:
        return ENTRIES[Entry.REPORTED_NOT_ILLEGAL], "not-illegal"
    return ENTRIES[Entry.REPORTED], None
