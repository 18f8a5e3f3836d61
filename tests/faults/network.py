"""Two nodes and what flows from one to the other: waited for, and checked to the last record."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import aiohttp

from node.hotline.flows.prove import Prover
from node.platform.membership import read_directory
from protocol.bodies import ReportBody
from protocol.directory import Directory
from protocol.evidence import verify_evidence
from tests.faults.feed import Feed
from tests.faults.ledger import check_outcomes, check_streams, received
from tests.faults.station import LIMIT_S, Station, until
from tests.faults.steps import READ_ONLY
from tests.world import World

_NEW_ITEMS = "SELECT count(*) FROM items WHERE received_stream IS NULL AND state = 'sent'"
_RECEIVED = "SELECT count(*) FROM items WHERE received_stream IS NOT NULL AND state = 'assigned'"
_DISTINCT = "SELECT count(DISTINCT url_digest) FROM items"
_PROBLEMS = (
    "SELECT (SELECT count(*) FROM outbox_refusals) + (SELECT count(*) FROM inbox_refusals) "
    "+ (SELECT count(*) FROM equivocations) + (SELECT count(*) FROM location_queue)"
)


@dataclass(slots=True)
class Network:
    """The French node hands over to the Dutch one, whose outcomes come back."""

    world: World
    fr: Station
    nl: Station
    feed: Feed

    @classmethod
    async def prepare(cls, world: World, session: aiohttp.ClientSession) -> "Network":
        """Prepare both nodes; none runs yet."""
        fr, nl = [await Station.prepare(node, session) for node in world.nodes]
        return cls(world, fr, nl, Feed(fr))

    def directory(self) -> Directory:
        """Return the directory that both nodes trust."""
        return read_directory(self.world.repository, self.fr.settings.directory_root).directory

    async def end(self) -> None:
        """Kill what still runs."""
        await asyncio.gather(self.fr.end(), self.nl.end())

    def check_exempt_steps(self) -> None:
        """Check that a step said to be read-only changed nothing in any process."""
        changed = {step for station in (self.fr, self.nl) for _, _, step in station.steps()}
        assert not changed & READ_ONLY.keys()

    async def quiet(self) -> bool:
        """Tell whether everything handed in has arrived, is applied, and the outcome of it is back."""
        return await _through(self.fr, self.nl, self.feed.handed_in) and await _through(self.nl, self.fr, 1)

    async def settle(self, limit_s: float = LIMIT_S) -> None:
        """Wait until everything handed in arrived and its outcome is back."""
        try:
            await until(self.quiet, f"{self.feed.handed_in} records arrive", limit_s=limit_s)
        except AssertionError as error:
            seen = [await station.status() for station in (self.fr, self.nl)]
            raise AssertionError(f"{error}\n{seen}\n{self.fr.tail()}\n{self.nl.tail()}") from None

    async def check(self) -> None:
        """Check that everything handed in arrived once, in one order, with receipts that both sides hold."""
        count = self.feed.handed_in
        # Intake that was acknowledged is there, and nothing else is.
        assert sorted(self.feed.acknowledged) == list(range(count))
        assert await self.fr.count(_NEW_ITEMS) == await self.fr.count("SELECT count(*) FROM items") == count
        # Each item arrived once, and none was taken for another report of one already known.
        assert await self.nl.count(_RECEIVED) == await self.nl.count("SELECT count(*) FROM items") == count
        assert await self.nl.count(_DISTINCT) == count
        for station in (self.fr, self.nl):
            assert await station.count(_PROBLEMS) == 0
            unforeseen = station.unforeseen()
            assert not unforeseen, unforeseen
        await check_streams([self.fr, self.nl])
        records = await received(self.nl, self.fr.id)
        assert all(isinstance(record.body, ReportBody) for record in records)
        items = {record.envelope.item for record in records}
        assert len(records) == len({record.envelope.id for record in records}) == len(items) == count
        assert items == set(self.feed.acknowledged.values())
        check_outcomes(await received(self.fr, self.nl.id), count)
        await self._check_proofs(self.directory())

    async def _check_proofs(self, directory: Directory) -> None:
        """Both sides can prove the first and the last record to a third party."""
        for item in (self.feed.acknowledged[0], self.feed.acknowledged[self.feed.handed_in - 1]):
            for station in (self.fr, self.nl):
                prover = Prover(station.db, await station.vault())
                finding = verify_evidence(await prover.prove(UUID(item)), directory)
                assert (finding.item, finding.iss, finding.aud) == (item, self.fr.id, self.nl.id)


async def _through(sender: Station, receiver: Station, at_least: int) -> bool:
    """Tell whether a stream of `at_least` records is receipted, applied and answered to its end."""
    out, into = await sender.status(), await receiver.status()
    written = _stream(out["streams_out"], receiver.id)
    arrived = _stream(into["streams_in"], sender.id)
    return (
        written.get("written", 0) >= at_least
        and written["written"] == written["receipted"] == arrived.get("held") == arrived.get("applied")
        and written["told"] in {written["written"], 0 if sender.id.startswith("nl") else None}
    )


def _stream(streams: list[dict[str, Any]], peer: str) -> dict[str, Any]:
    return next((stream for stream in streams if stream["peer"] == peer), {})


async def together(*work: Awaitable[object]) -> None:
    """Do several things at once; the first failure ends the others."""
    async with asyncio.TaskGroup() as group:
        for one in work:
            group.create_task(_done(one))


async def _done(work: Awaitable[object]) -> None:
    await work
