"""Runs one soak: starts everybody, feeds nodes, does harm, heals, waits until all is quiet, accounts for everything."""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import aiohttp

from tests.faults.station import until
from tests.soak import custody
from tests.soak.ceremonies import Ceremonies
from tests.soak.commands import Commands
from tests.soak.coordination import Coordination
from tests.soak.custody import Acknowledged
from tests.soak.faults import LIMIT_S, Faults
from tests.soak.hostile import Hostile, Target
from tests.soak.hostile import run as run_hostile
from tests.soak.intake import MARK, Feed, Pace
from tests.soak.node import SoakNode
from tests.soak.process import SoakProcess, pause, start_process
from tests.soak.restore import Restore
from tests.soak.site import HOSTILE_COUNTRY, Site

#: What a process may take, whatever the hostile member sends it (docs/protocol.md, I12).
RSS_MAX: Final = 400 * 1024 * 1024
#: As long as a refused word of who has an item is waited for (`node.AGAIN_S`), and what it then sets going.
_QUIET_S: Final = 600.0
_TELL_S: Final = 20.0
#: So much may wait at each node on the average before the feeds go slower.
_WAITING_MAX: Final = 60
_LOOK_S: Final = 5.0
#: A soak of this length loses two databases, a shorter one.
_LONG_S: Final = 240.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How long, with how much, from which seed."""

    seconds: float
    seed: int
    reports_per_s: float = 15.0
    gap_s: float = 2.0
    ceremony_gap_s: float = 5.0
    #: However long they take; each kind comes once before one comes twice.
    ceremonies_min: int = 6


@dataclass(slots=True)
class Outcome:
    """What a soak came to; `wrong` is empty when everything is accounted for."""

    seed: int
    faults: dict[str, int] = field(default_factory=dict)
    ceremonies: dict[str, int] = field(default_factory=dict)
    restored: list[dict[str, Any]] = field(default_factory=list)
    directory_version: int = 0
    changes_begun_anew: int = 0
    hostile: dict[str, int] = field(default_factory=dict)
    acknowledged: int = 0
    tries: int = 0
    slowest_share: float = 1.0
    custody: dict[str, int] = field(default_factory=dict)
    acts: dict[str, int] = field(default_factory=dict)
    records: int = 0
    receipts: int = 0
    equivocations: int = 0
    refused: int = 0
    rss_max_mib: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Soak:
    """One soak under way."""

    site: Site
    plan: Plan
    say: Callable[[str], None]
    commands: Commands = field(init=False)
    coordination: Coordination = field(init=False)
    nodes: list[SoakNode] = field(default_factory=list)
    feeds: list[Feed] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Know where commands write to."""
        self.commands = Commands(self.site.folder / "commands")

    async def run(self) -> Outcome:
        """Run it to its end; what is wrong is in the outcome."""
        outcome = Outcome(self.plan.seed)
        started = time.monotonic()
        await self.site.open()
        async with aiohttp.ClientSession() as session:
            self.nodes = [await SoakNode.prepare(node) for node in self.site.nodes]
            try:
                await self._start()
                outcome.seconds["start"] = time.monotonic() - started
                self.say(f"everybody serves after {outcome.seconds['start']:.0f} s")
                await self._harm(session, outcome)
                await self._quiet(outcome)
                await self._account(outcome)
            finally:
                await self._end()
        return outcome

    @property
    def _everybody(self) -> list[SoakProcess]:
        return [*self.nodes, self.coordination.coordinator]

    async def _start(self) -> None:
        """Set up the coordinator, publish the directory, let every node join over TLS, and start all of them."""
        self.coordination = await Coordination.set_up(self.site, self.commands)
        self.coordination.coordinator.start()
        await self.coordination.coordinator.serving(LIMIT_S)
        await asyncio.gather(*(self.coordination.join(node.file) for node in self.nodes))
        for node in self.nodes:
            node.read_settings()
            node.start()
        for node in self.nodes:
            await node.serving(LIMIT_S)

    async def _harm(self, session: aiohttp.ClientSession, outcome: Outcome) -> None:
        """Feed, do harm and hold ceremonies for the planned time; then let everything of it come to its end."""
        plan, stop = self.plan, asyncio.Event()
        draw = random.Random(plan.seed)  # noqa: S311 - replayable, no secret
        hostile = self._hostile()
        feeding = self.nodes[: max(2, len(self.nodes) * 2 // 3)]
        countries = [node.country for node in self.nodes]
        self.feeds = [Feed(node, countries, session, _branch(draw)) for node in feeding]
        faults = Faults(self.site, self.nodes, self.coordination.coordinator, _branch(draw))
        ceremonies = Ceremonies(self.site, self.nodes, self.coordination, faults, _branch(draw), self.say)
        pace = Pace(plan.reports_per_s, _WAITING_MAX * len(self.nodes))
        restores = self._restores(hostile.id, faults, _branch(draw))
        started = time.monotonic()
        bad = start_process(run_hostile, hostile, "hostile")
        try:
            async with asyncio.TaskGroup() as group:
                for feed in self.feeds:
                    group.create_task(feed.run(stop, pace, len(self.feeds)))
                group.create_task(faults.run(stop, plan.gap_s))
                least = plan.ceremonies_min
                group.create_task(ceremonies.run(stop, plan.seconds, plan.ceremony_gap_s, restores, least))
                group.create_task(self._watch(stop, started, faults, pace))
        finally:
            bad.kill()
            bad.join(10)
        outcome.seconds["faults"] = time.monotonic() - started
        outcome.faults, outcome.ceremonies = dict(faults.done), dict(ceremonies.done)
        outcome.restored = [asdict(one) for one in ceremonies.restored]
        outcome.directory_version = self.coordination.version
        outcome.changes_begun_anew = self.coordination.begun_anew
        with suppress(FileNotFoundError):
            outcome.hostile = json.loads(hostile.said.read_text())
        outcome.acknowledged = sum(len(feed.acknowledged) for feed in self.feeds)
        outcome.tries = sum(feed.tries for feed in self.feeds)
        outcome.acts = dict(sum((feed.acts for feed in self.feeds), Counter()))
        outcome.slowest_share = pace.slowest

    def _restores(self, hostile: str, faults: Faults, draw: random.Random) -> list[Restore]:
        """Return whose databases are lost; what these were sent by the hostile member is touched by nobody."""
        chosen = draw.sample(self.feeds, 2 if self.plan.seconds >= _LONG_S and len(self.feeds) > 1 else 1)
        for feed in chosen:
            feed.spared = hostile
        return [
            Restore(feed, [node for node in self.nodes if node is not feed.node], hostile, faults, self.commands, draw)
            for feed in chosen
        ]

    async def _watch(self, stop: asyncio.Event, started: float, faults: Faults, pace: Pace) -> None:
        """Look at every process again and again, say how it goes, and end the harm when its time is over."""
        said, looked, asked_s = started, started, 0.0
        others = [node.id for node in self.nodes]
        while (now := time.monotonic()) - started < self.plan.seconds:
            await pause(stop, 1.0)
            for one in self._everybody:
                one.look()
            if now - looked > _LOOK_S:
                looked = now
                found = await asyncio.gather(*(node.waiting(others) for node in self.nodes))
                asked_s = time.monotonic() - now
                pace.look(sum(sum(one.values()) for one in found), asked_s)
            if now - said > _TELL_S:
                said = now
                acknowledged = sum(len(feed.acknowledged) for feed in self.feeds)
                self.say(
                    f"{now - started:.0f} s: {acknowledged} reports acknowledged, {faults.done.total()} faults, "
                    f"share {pace.share:.2f}, asked within {asked_s:.1f} s"
                )
        stop.set()

    def _hostile(self) -> Hostile:
        bad = self.site.hostile
        assert bad is not None
        own = bad.settings
        assert own.peer_tls_certificate_file is not None
        assert own.peer_tls_key_file is not None
        coordinator = self.coordination.coordinator.settings
        return Hostile(
            bad.id,
            own.keys_dir,
            int(own.listen_peer.rsplit(":", 1)[1]),
            self.site.authority.file,
            own.peer_tls_certificate_file,
            own.peer_tls_key_file,
            (
                *(
                    Target(node.id, node.settings.base_url, node.country)
                    for node in self.nodes
                    if node.id != self.site.fetching
                ),
                Target(coordinator.node_id, coordinator.base_url, HOSTILE_COUNTRY),
            ),
            self.plan.seed,
            own.data_dir / "hostile.json",
        )

    async def _quiet(self, outcome: Outcome) -> None:
        """Wait until nothing is on its way between the nodes any more, twice in a row: one's end is another's begin."""
        started = time.monotonic()
        others, version = [node.id for node in self.nodes], self.coordination.version
        quiet, said = 0, started

        async def all_over() -> bool:
            nonlocal quiet, said
            waiting = {node.id: found for node in self.nodes if (found := await node.waiting(others, version))}
            quiet = 0 if waiting else quiet + 1
            if waiting and time.monotonic() - said > _TELL_S:
                said = time.monotonic()
                self.say(f"after {said - started:.0f} s there waits {json.dumps(waiting)}")
            return quiet > 1

        await until(all_over, "everything is delivered and applied", limit_s=_QUIET_S)
        outcome.seconds["quiet"] = time.monotonic() - started

    async def _account(self, outcome: Outcome) -> None:
        """Account for everything: processes, memory, logs, acknowledged reports, and every record on both sides."""
        wrong = outcome.wrong
        for one in self._everybody:
            one.look()
            wrong += one.deaths
            wrong += [f"{one.id} logged {json.dumps(line)}" for line in one.unforeseen()[:5]]
            if one.rss_max > RSS_MAX:
                wrong.append(f"{one.id} took {one.rss_max >> 20} MiB")
        outcome.rss_max_mib = max(one.rss_max for one in self._everybody) >> 20
        wrong += _leaks(self.site)
        wrong += await self._custody(outcome)
        for node in self.nodes:
            async with node.db.transaction("test.counts") as tx:
                outcome.equivocations += await tx.value("SELECT count(*) FROM equivocations")
                outcome.refused += await tx.value("SELECT count(*) FROM inbox_refusals")
        started = time.monotonic()
        status, said = await self._audit()
        outcome.seconds["audit"] = time.monotonic() - started
        both = [one for one in said.get("streams", []) if one["looked_at"] == "both sides"]
        outcome.records = sum(one["records"] for one in both)
        outcome.receipts = sum(one["receipts"] for one in both)
        wrong += [f"hotline audit-network: {json.dumps(each)}" for each in said.get("differences", [])[:50]]
        if status:
            waiting = [f"{one['stream']} {one['under_way']}" for one in said.get("streams", []) if one["under_way"]]
            wrong.append(f"hotline audit-network ended with {status}; under way: {waiting}")

    async def _audit(self) -> tuple[int, dict[str, Any]]:
        """Run `hotline audit-network` over the nodes' settings files; returns its status and what it says."""
        files = [str(node.file) for node in self.nodes]
        begun = self.commands.begin(None, "audit-network", "--strict", "--json", "--nodes", *files)
        done = await self.commands.finish(*begun)
        if not done.text.startswith("{"):
            return done.status, {"differences": [{"what": done.text.strip()}]}
        said: dict[str, Any] = json.loads(done.text)
        return done.status, said

    async def _custody(self, outcome: Outcome) -> list[str]:
        """Account for every acknowledged report, and for every item that was reported (`custody`)."""
        told = {feed.node.id: Acknowledged.of(feed) for feed in self.feeds}
        found = custody.account(await custody.read(self.nodes), told, await custody.told_again(self.nodes))
        outcome.custody = dict(found.where)
        desk = await custody.unknown_to_the_desk(self.nodes, self.site.coordinator_database)
        return [*found.wrong, *desk][:50]

    async def _end(self) -> None:
        self.commands.kill()
        coordination = getattr(self, "coordination", None)
        if coordination is not None:
            coordination.coordinator.kill()
        for node in self.nodes:
            node.kill()
            await node.db.close()
        await self.site.close()


def _branch(draw: random.Random) -> random.Random:
    """Return another row of draws, so that what one part draws does not depend on the others."""
    return random.Random(draw.getrandbits(64))  # noqa: S311 - replayable, no secret


def _leaks(site: Site) -> list[str]:
    """Return the files in which something reported stands: logs of nodes and servers, and what commands printed."""
    mark = MARK.encode()
    logs = [
        *site.folder.glob("*/log"),
        *site.folder.glob("commands/*"),
        *(server.pgdata / "server.log" for server in site.servers),
    ]
    return [f"something reported stands in {path}" for path in logs if mark in path.read_bytes()]
