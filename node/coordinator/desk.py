"""The network's desk: takes disputes and contradictions in, signs rulings.

Never sees a URL, and never decides by itself: a person does.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from node.coordinator import cases, store
from node.platform.database import Database, Row, Transaction
from node.platform.ids import new_id
from node.platform.requestrate import over_quota
from protocol.codes import COUNTRIES
from protocol.desk import (
    Ruling,
    Statement,
    open_ruling,
    parse_equivocation,
    parse_statement,
    read_statement,
    sign_ruling,
)
from protocol.directory import Directory
from protocol.errors import ProtocolError
from protocol.keys import SigningKey
from protocol.steps import TRAIL_MAX

#: Cases of one member that may wait for a person: what is handed in stays, so it is bounded. Each kind by itself, or
#: who contradicts itself towards a member would use up what that one has for its disputes.
OPEN_MAX: Final = {cases.DISPUTE: 10_000, cases.EQUIVOCATION: 1000}
#: A person decides in hours.
_FULL_S: Final = 3600
#: How far a member's clock may be ahead.
_AHEAD_MAX: Final = timedelta(minutes=5)


class UnknownCase(LookupError):  # noqa: N818 - names the fact
    """No case of this id."""


class RulingRefused(ValueError):  # noqa: N818 - names the fact
    """A ruling that cannot be made; the text says why."""


@dataclass(frozen=True, slots=True)
class Found:
    """What there is of a dispute for somebody it is about: whether it was handed in, and the ruling if there is one."""

    held: bool
    ruling: bytes | None = None


@dataclass(frozen=True, slots=True)
class Desk:
    """What this flow works with."""

    node_id: str
    db: Database
    clock_now: Callable[[], datetime]
    directory: Callable[[], Directory]

    async def take_dispute(self, caller: str, body: bytes) -> UUID:
        """Keep a dispute of a member and return its id; handing it in again changes nothing. Raises ProtocolError."""
        statement = parse_statement(body)
        if statement.holder != caller:
            raise ProtocolError("handling-violation", "only the holder of an item hands its dispute in", field="holder")
        case_id = UUID(statement.dispute)
        async with self.db.transaction("desk.take") as tx:
            await self._check_nodes(tx, statement)
            if not await cases.take(tx, case_id, cases.DISPUTE, caller, body, self.clock_now()):
                raise ProtocolError("id-conflict", "another dispute has this id", field="dispute")
            await _check_room(tx, caller, cases.DISPUTE)
        return case_id

    async def _check_nodes(self, tx: Transaction, statement: Statement) -> None:
        """Refuse names that are no member's, of now or before: they could name anything."""
        about = parties(statement)
        known = about & self.directory().nodes.keys()
        known |= await store.ever_listed(tx, about - known)
        named = [("other", statement.other)]
        named += [(f"trail[{number}].node", station.node) for number, station in enumerate(statement.trail)]
        for field, node in named:
            if node not in known:
                raise ProtocolError("schema-invalid", "no directory ever listed such a node", field=field)

    async def take_equivocation(self, caller: str, body: bytes) -> None:
        """Keep a contradiction that a member hands in; raises ProtocolError for what is none."""
        said, shown = parse_equivocation(body, self.directory())
        if shown.stream.aud != caller:
            raise ProtocolError(
                "handling-violation", "only the receiver of a stream hands its contradictions in", field="held"
            )
        now = self.clock_now()
        if said.seen_at > now + _AHEAD_MAX:
            raise ProtocolError("schema-invalid", "this is in the future", field="seen_at")
        async with self.db.transaction("desk.take") as tx:
            await cases.take(tx, new_id(now), cases.EQUIVOCATION, caller, body, now, shown.digest())
            await _check_room(tx, caller, cases.EQUIVOCATION)

    async def ruling(self, caller: str, case_id: UUID) -> Found:
        """Return the ruling in a dispute for a member whose item it is or was."""
        async with self.db.transaction("desk.read") as tx:
            row = await cases.case(tx, case_id)
        if row is None or row["kind"] != cases.DISPUTE or caller not in parties(read_statement(row["body"])):
            return Found(held=False)
        return Found(held=True, ruling=row["ruling"])

    async def cases(self, *, undecided: bool, limit: int) -> list[Row]:
        """Return the cases of the desk, the oldest first."""
        async with self.db.transaction("desk.read") as tx:
            return await cases.cases(tx, undecided=undecided, limit=limit)

    async def case(self, case_id: UUID) -> Row:
        """Return one case; raises UnknownCase."""
        async with self.db.transaction("desk.read") as tx:
            row = await cases.case(tx, case_id)
        if row is None:
            raise UnknownCase(str(case_id))
        return row

    async def open_cases(self) -> dict[str, int]:
        """Return how many cases of each kind wait for a person."""
        async with self.db.transaction("desk.read") as tx:
            return await cases.count_open(tx)

    async def decide(
        self, case_id: UUID, custodian: str, country: str, keys: Callable[[datetime], Sequence[SigningKey]]
    ) -> Ruling:
        """Sign a ruling with the keys of that moment and keep it for ever. Raises UnknownCase, RulingRefused."""
        if country not in COUNTRIES:
            raise RulingRefused("the country is not one of ISO 3166-1 as two capital letters")
        directory, now = self.directory(), self.clock_now()
        async with self.db.transaction("desk.decide") as tx:
            row = await cases.lock_case(tx, case_id)
            if row is None or row["kind"] != cases.DISPUTE:
                raise UnknownCase(str(case_id))
            if row["decided_at"] is not None:
                raise RulingRefused("this dispute is decided already, for ever")
            statement = read_statement(row["body"])
            _check_custodian(statement, custodian, directory)
            ruling = Ruling(
                desk=self.node_id,
                dispute=statement.dispute,
                case=statement.case,
                item=statement.item,
                custodian=custodian,
                country=country,
                at=now,
            )
            signed = sign_ruling(ruling, keys(now))
            try:
                # What hotlines would not believe is not kept: nobody could follow it, and it could not be changed.
                open_ruling(signed, directory)
            except ProtocolError as error:
                raise RulingRefused(f"no hotline would believe it: {error.detail}") from None
            await cases.decide(tx, case_id, signed, now)
        return ruling

    async def close(self, case_id: UUID) -> None:
        """Close a contradiction: somebody has seen to it. Raises UnknownCase."""
        async with self.db.transaction("desk.decide") as tx:
            row = await cases.lock_case(tx, case_id)
            if row is None or row["kind"] != cases.EQUIVOCATION:
                raise UnknownCase(str(case_id))
            await cases.decide(tx, case_id, None, self.clock_now())


def parties(statement: Statement) -> set[str]:
    """Return whom a dispute is about: who has the item, whose it would be, and who had it."""
    return {statement.other, *(station.node for station in statement.trail)}


async def _check_room(tx: Transaction, caller: str, kind: str) -> None:
    """Refuse a case too many; one that is handed in again is none."""
    if await cases.open_of(tx, caller, kind) > OPEN_MAX[kind]:
        raise over_quota(f"{OPEN_MAX[kind]} cases of this member wait for the desk", _FULL_S)


def _check_custodian(statement: Statement, custodian: str, directory: Directory) -> None:
    if custodian not in parties(statement):
        raise RulingRefused("this node has nothing to do with the dispute")
    if custodian not in directory.nodes:
        raise RulingRefused("this node is not in the directory")
    if custodian != statement.holder and len(statement.trail) > TRAIL_MAX:
        raise RulingRefused(f"after {TRAIL_MAX - 1} transfers the item stays with its holder")
