"""What analysts do in a history: they qualify items, act on them, move, correct and withdraw them, break the rules.

What the rules refuse at once is no event. An offence is a step that a node's own rules refuse, written all the same:
its receiver has to refuse it.
"""

import asyncio
import random
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import asyncpg

from node.hotline.domain.acts import ActionAsked
from node.hotline.domain.assessment import Assessment, AssessmentRefused
from node.hotline.domain.lifecycle import HELD, RecordRefused, State, TransitionRefused
from node.hotline.domain.steps import KnownItem
from node.hotline.store import steps
from node.hotline.store.steps import Listener
from node.hotline.store.telling import Telling
from protocol.codes import FINAL_ACTIONS, Action, Classification, SiteType, WithdrawalReason
from protocol.steps import ActionBody, Corrected, CorrectionBody, Step, WithdrawalBody
from tests.simulation.plan import Event
from tests.simulation.sql.tables import Row
from tests.simulation.station import Run, Station

if TYPE_CHECKING:
    from tests.simulation.world import World

#: Who did what is an offence: no node may hold such an action as done.
OFFENDER: Final = "offender"
_SAME_ITEM: Final = 0.8
_ENDS: Final = (State.DONE, State.WITHDRAWN)
_ACTS: Final = (*Action, Action.HOSTER_NOTIFIED, Action.REMOVED)
_FOUND: Final = (Classification.BASELINE, Classification.NATIONAL, Classification.NATIONAL, Classification.NOT_ILLEGAL)
_SITES: Final = (SiteType.FORUM, SiteType.IMAGE_HOST, SiteType.BLOG)
_REFUSALS: Final = (RecordRefused, AssessmentRefused, TransitionRefused, asyncpg.PostgresError)


@dataclass(frozen=True, slots=True)
class Offence:
    """A step that has to be refused: who wrote it to whom, and of which item."""

    node: str
    peer: str
    item: UUID


@dataclass(slots=True)
class Analysts:
    """The analysts of every node; `assessed` are the items whose clearance they may have changed."""

    world: "World"
    rng: random.Random = field(init=False)
    assessed: set[UUID] = field(default_factory=set)
    last: UUID | None = None
    offences: dict[bytes, Offence] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take chances of their own."""
        self.rng = random.Random(f"analysts {self.world.plan.seed}")

    def happen(self, station: Station, event: Event) -> Coroutine[Any, Any, None] | None:
        """Return what the event is, to be done in the node's present life; None where there is nothing to do it to."""
        run = station.run
        if run is None or run.node is None:
            return None
        rows = [row for row in station.disk.rows("items") if self._concerns(event.detail, station, row)]
        if not rows:
            return None
        # The steps that meet are those of one item.
        same = [row for row in rows if row["id"] == self.last]
        row = self.rng.choice(same if same and self.rng.random() < _SAME_ITEM else rows)
        self.last = row["id"]
        return getattr(self, "_" + event.detail)(run, row)  # type: ignore[no-any-return] # by name

    @staticmethod
    def _concerns(what: str, station: Station, row: Row) -> bool:
        """Tell whether an analyst would do this to an item."""
        ours = row["received_stream"] is None
        match what:
            case "act":
                return row["state"] in {State.ASSIGNED, State.KEPT, State.CLOSED, State.DISPUTED, *_ENDS}
            case "move":
                return row["state"] in HELD and not ours
            case "correct" | "withdraw":
                return ours
            case "offend":
                return row["assigned_node"] not in {None, station.id} or not ours
        return True

    async def _assess(self, run: Run, row: Row) -> None:
        found = self.rng.choice(_FOUND)
        if found is not Classification.NOT_ILLEGAL and row["received_stream"] is None:
            self._may_leave(run, row)
        self.assessed.add(row["id"])
        with suppress(*_REFUSALS):
            await _store(run).assessor().assess(row["id"], Assessment(found, run.station.clock.now()))

    def _may_leave(self, run: Run, row: Row) -> None:
        url = run.station.vault.open("items", "url_enc", row["id"], row["url_enc"])
        self.world.offered[url] = True

    async def _act(self, run: Run, row: Row) -> None:
        asked = [ActionAsked(self.rng.choice(_ACTS))]
        # Somebody presses the button twice, or does another thing at once.
        asked += self.rng.choice(([], asked, [ActionAsked(self.rng.choice(_ACTS))]))
        for one in asked:
            with suppress(*_REFUSALS):
                await _store(run).actor().act(row["id"], one)

    async def _move(self, run: Run, row: Row) -> None:
        others = [one.country for one in self.world.stations.values() if one is not run.station]
        with suppress(*_REFUSALS):
            await _store(run).asker().ask(row["id"], self.rng.choice(others), None)

    async def _correct(self, run: Run, row: Row) -> None:
        members = Corrected(site_type=self.rng.choice(_SITES))
        with suppress(*_REFUSALS):
            await _store(run).amender().correct(row["id"], members)

    async def _withdraw(self, run: Run, row: Row) -> None:
        with suppress(*_REFUSALS):
            await _store(run).amender().withdraw(row["id"], WithdrawalReason.REPORTED_IN_ERROR)

    async def _offend(self, run: Run, row: Row) -> None:
        """Write a step that the rules refuse to a hotline that knows the item."""
        store = _store(run)
        now, here = run.station.clock.now(), run.station.id
        with suppress(asyncpg.PostgresError):
            async with store.db.transaction("offend.store") as tx:
                item = (await steps.lock_known(tx, [row["id"]], here))[row["id"]]
                offence = self._offence(item, run)
                if offence is None or offence.to.node not in self.world.stations:
                    return
                (said,) = await store.teller().tell(tx, [offence], now)
                # It may be written by a node that dies with the commit.
                self.offences[said] = Offence(here, offence.to.node, item.id)

    def _offence(self, item: KnownItem, run: Run) -> Telling | None:
        now = run.station.clock.now()
        holder, listeners = steps.holder(item), steps.listeners(item)
        if holder is not None and item.came_from is None and item.state is State.SENT:
            # What its custodian alone may say; it knows that it is the custodian.
            return Telling(holder, ActionBody(action=self.rng.choice(tuple(Action)), at=now, by=OFFENDER))
        if item.is_here and listeners and item.reporter not in {None, item.here}:
            return Telling(self.rng.choice(listeners), self._against(item, listeners[0], now))
        return None

    def _against(self, item: KnownItem, to: Listener, now: Any) -> Step:
        """Return what a custodian may not say."""
        about = to.report_hash.hex()
        acts = [done.action for done in item.actions if done.node == item.here]
        if acts:
            # Each action counts once, and nothing follows a final one.
            final = any(action in FINAL_ACTIONS for action in acts)
            return ActionBody(action=self.rng.choice(tuple(Action) if final else acts), at=now, by=OFFENDER)
        if self.rng.random() < 0.5:
            return CorrectionBody(corrects=about, members=Corrected(reference=OFFENDER))
        return WithdrawalBody(withdraws=about, reason=WithdrawalReason.OTHER)


def _store(run: Run) -> Any:
    if run.node is None:
        raise asyncio.CancelledError
    return run.node.store
