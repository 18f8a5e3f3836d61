"""The network's desk in a history: the coordinator's own door, cases and rulings over virtual storage and network.

A person decides what is handed in. Somebody who got hold of its door, and not of its `desk` keys, may answer there.
"""

import asyncio
import random
from collections.abc import Awaitable
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import UUID

import asyncpg
from aiohttp import web

from node.coordinator.cases import DISPUTE
from node.coordinator.desk import Desk, Found, parties
from node.coordinator.deskdoor import DeskApi
from node.coordinator.serve import peer_door
from node.platform.httpclient import PeerUnreachable
from node.platform.telemetry import Logger
from node.platform.trust import Freshness
from node.platform.web import Limits, make_app
from node.settings import Settings
from protocol.desk import Ruling, Statement, read_statement, sign_ruling
from protocol.directory import Directory, parse_directory
from protocol.keys import Algorithm, KeyUse, SigningKey
from protocol.profile import Request, Response
from protocol.steps import TRAIL_MAX
from tests.simulation import members
from tests.simulation.database import Disk, MemoryDatabase
from tests.simulation.incoming import incoming
from tests.simulation.services import METRICS, Recorder, VirtualClock
from tests.simulation.sql.tables import Session, Tables

if TYPE_CHECKING:
    from tests.simulation.world import World

_BODY_BYTES_MAX: Final = 65_536
#: How often the person looks, and how often the first look at a case is not the last.
_LOOK_S: Final = (0.5, 6.0)
_THINKS_AGAIN: Final = 0.3
#: A country without a hotline, where an item may count as hosted all the same.
_ELSEWHERE: Final = "US"


class _Calm:
    """The fate of the desk's storage: statements take no time, and every commit is durable."""

    def statement(self) -> Awaitable[None] | None:
        """Let nothing happen."""
        return None

    def before_commit(self, name: str, session: Session) -> None:
        """Let nothing happen."""

    def after_commit(self, name: str, session: Session) -> None:
        """Let nothing happen."""


@dataclass(frozen=True)
class _Answering(Desk):
    """The desk as its door has it: what it says of a ruling may be somebody else's word."""

    of: "NetworkDesk"

    async def ruling(self, caller: str, case_id: UUID) -> Found:
        """Return what the desk has, or what was put in its place."""
        found = await Desk.ruling(self, caller, case_id)
        return self.of.forged(case_id) if found.held and self.of.forging else found


@dataclass(slots=True)
class NetworkDesk:
    """The desk; `signed` are its rulings, by dispute, whatever it has forgotten since."""

    world: "World"
    rng: random.Random
    id: str = members.DESK
    disk: Disk = field(default_factory=Disk)
    signed: dict[str, dict[bytes, Ruling]] = field(default_factory=dict)
    down: bool = False
    forging: bool = False
    _desk: _Answering = field(init=False)
    _app: web.Application = field(init=False)
    _read: dict[bytes, Directory] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Open its door."""
        clock = VirtualClock(self.world.loop)
        db = MemoryDatabase(self.disk, _Calm())
        log = cast("Logger", Recorder(cast("Any", self)))
        publisher: Any = _Publisher(self, db)
        settings = SimpleNamespace(base_url=f"https://{self.id}", clock_window_s=300, peer_requests_per_s=1000.0)
        keys: Any = SimpleNamespace(http=members.signing_key(f"{self.id} {KeyUse.HTTP}"))
        door = peer_door(cast("Settings", settings), publisher, keys, clock, log, METRICS)
        self._desk = _Answering(self.id, db, clock.now, door.membership.current, self)
        self._app = make_app(
            DeskApi(door, self._desk).routes(),
            log=log,
            metrics=METRICS,
            limits=Limits(body_bytes_max=_BODY_BYTES_MAX),
            finish=door.finish,
        )
        self._app.freeze()

    def directory(self) -> Directory:
        """Return the newest directory, which the coordinator itself publishes."""
        (raw,) = (raw for name, raw in self.world.directory().items() if name.endswith("directory.json"))
        if raw not in self._read:
            self._read = {raw: parse_directory(raw)}
        return self._read[raw]

    # What members ask.

    async def answer(self, request: Request) -> Response:
        """Answer at the door; what was begun is done, whatever becomes of the caller."""
        if self.down:
            raise PeerUnreachable("connect", "the desk does not take connections")
        return await asyncio.shield(self.world.loop.create_task(self._answer(request), context=Context()))

    async def _answer(self, request: Request) -> Response:
        said = await self._app._handle(incoming(self._app, request))
        body = said.body if isinstance(said, web.Response) and isinstance(said.body, bytes) else b""
        return Response(said.status, {name.lower(): value for name, value in said.headers.items()}, body)

    def forged(self, case_id: UUID) -> Found:
        """Return a ruling that the desk never signed: by other keys, by one of two, or its word on something else."""
        (case,) = self.disk.find("desk_cases", id=case_id)
        statement = read_statement(case["body"])
        others = [raw for dispute, rulings in self.signed.items() if dispute != statement.dispute for raw in rulings]
        if others and self.rng.random() < 0.3:
            return Found(held=True, ruling=self.rng.choice(others))
        custodian = self.rng.choice(self._may_have(statement))
        ours, theirs = _desk_keys(self.id), _desk_keys("thief.example")
        keys = self.rng.choice((theirs, [ours[0], theirs[1]], [theirs[0], ours[1]], ours[:1], ours[1:]))
        return Found(held=True, ruling=sign_ruling(self._ruling(statement, custodian), keys))

    # What its person does.

    async def sits(self) -> None:
        """Decide what is handed in, for as long as the history lasts."""
        while True:
            await asyncio.sleep(self.rng.uniform(*_LOOK_S))
            if not self.down:
                with suppress(asyncpg.PostgresError):
                    await self._decide()

    async def _decide(self) -> None:
        for row in await self._desk.cases(undecided=True, limit=10):
            if row["kind"] != DISPUTE or self.rng.random() < _THINKS_AGAIN:
                continue
            statement = read_statement(row["body"])
            said = self._ruling(statement, self.rng.choice(self._may_have(statement)))
            await self._desk.decide(row["id"], said.custodian, said.country, lambda _at: _desk_keys(self.id))
            for decided in self.disk.find("desk_cases", id=row["id"]):
                self.signed.setdefault(statement.dispute, {})[decided["ruling"]] = said
            self.world.note(self.id, "info", "rules", item=statement.item[-6:], custodian=said.custodian)

    def _may_have(self, statement: Statement) -> list[str]:
        """Return whose the item may be: of the honest nodes it is about, those that are members now, or the holder."""
        if len(statement.trail) > TRAIL_MAX:
            return [statement.holder]
        present = parties(statement) & self.world.stations.keys() - self.world.authority.away
        return sorted(present | {statement.holder})

    def _ruling(self, statement: Statement, custodian: str) -> Ruling:
        country = self.world.stations[custodian].country
        return Ruling(
            desk=self.id,
            dispute=statement.dispute,
            case=statement.case,
            item=statement.item,
            custodian=custodian,
            country=_ELSEWHERE if self.rng.random() < 0.15 else country,
            at=self._desk.clock_now(),
        )

    def restore(self, backup: Tables) -> None:
        """Put what it held earlier in the place of what it holds."""
        self.disk.restore(backup)


class _Publisher:
    """Stands where the coordinator's publisher stands: the directory is always fresh there."""

    def __init__(self, desk: NetworkDesk, db: MemoryDatabase) -> None:
        self.db = db
        self.node_id = desk.id
        self._desk = desk

    @property
    def published(self) -> Any:
        return SimpleNamespace(directory=self._desk.directory(), use=self)

    @staticmethod
    def freshness(_now: object) -> Freshness:
        return Freshness.FRESH


def _desk_keys(owner: str) -> list[SigningKey]:
    return [members.signing_key(f"{owner} {KeyUse.DESK}", 0, one) for one in Algorithm]
