"""Runs one soak: starts nodes, feeds them, does harm, heals, waits until all is quiet, accounts for everything."""

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp

from tests.faults.station import until
from tests.soak.faults import LIMIT_S, Faults
from tests.soak.hostile import Hostile, Target
from tests.soak.hostile import run as run_hostile
from tests.soak.intake import MARK, Feed, _pause
from tests.soak.node import SoakNode, start_process
from tests.soak.site import Site

#: What a process may take, whatever the hostile member sends it (docs/protocol.md, I12).
RSS_MAX: Final = 400 * 1024 * 1024
_QUIET_S: Final = 420.0
_TELL_S: Final = 20.0
#: States in which a node that was given an item has it, or the desk does; who handed it on may hear that it is done.
_IN_CUSTODY: Final = frozenset({"assigned", "kept", "leaving", "disputed", "closed", "done", "duplicate"})
#: What may have become of an item that was cleared to leave; one that was moved back home is kept there, and one that
#: its hotline did the last thing about is done.
_LEFT: Final = frozenset({"sent", "done", "duplicate", "kept", "transferred", "disputed"})
_ROOT: Final = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Plan:
    """How long, with how much, from which seed."""

    seconds: float
    seed: int
    reports_per_s: float = 40.0
    gap_s: float = 2.0


@dataclass(slots=True)
class Outcome:
    """What a soak came to; `wrong` is empty when everything is accounted for."""

    seed: int
    faults: dict[str, int] = field(default_factory=dict)
    hostile: dict[str, int] = field(default_factory=dict)
    acknowledged: int = 0
    tries: int = 0
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
    nodes: list[SoakNode] = field(default_factory=list)
    feeds: list[Feed] = field(default_factory=list)

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
                await self._harm(session, outcome)
                await self._quiet(outcome)
                await self._account(outcome)
            finally:
                await self._end()
        return outcome

    async def _start(self) -> None:
        for node in self.nodes:
            node.start()
        for node in self.nodes:
            await node.serving(LIMIT_S)

    async def _harm(self, session: aiohttp.ClientSession, outcome: Outcome) -> None:
        """Feed and do harm for the planned time; then let every fault be over and every report be acknowledged."""
        plan, stop = self.plan, asyncio.Event()
        draw = random.Random(plan.seed)  # noqa: S311 - replayable, no secret
        hostile = self._hostile()
        feeding = self.nodes[: max(2, len(self.nodes) * 2 // 3)]
        countries = [node.country for node in self.nodes]
        self.feeds = [
            Feed(node, countries, session, random.Random(draw.getrandbits(64)))  # noqa: S311 - replayable, no secret
            for node in feeding
        ]
        faults = Faults(self.site, self.nodes, random.Random(draw.getrandbits(64)))  # noqa: S311 - as above
        started = time.monotonic()
        bad = start_process(run_hostile, hostile, "hostile")
        try:
            async with asyncio.TaskGroup() as group:
                for feed in self.feeds:
                    group.create_task(feed.run(stop, plan.reports_per_s / len(self.feeds)))
                group.create_task(faults.run(stop, plan.gap_s))
                group.create_task(self._watch(stop, started, faults))
        finally:
            bad.kill()
            bad.join(10)
        outcome.seconds["faults"] = time.monotonic() - started
        outcome.faults = dict(faults.done)
        with suppress(FileNotFoundError):
            outcome.hostile = json.loads(hostile.said.read_text())
        outcome.acknowledged = sum(len(feed.acknowledged) for feed in self.feeds)
        outcome.tries = sum(feed.tries for feed in self.feeds)
        outcome.acts = dict(sum((feed.acts for feed in self.feeds), Counter()))

    async def _watch(self, stop: asyncio.Event, started: float, faults: Faults) -> None:
        """Look at every process again and again, say how it goes, and end the harm when its time is over."""
        said = started
        while (now := time.monotonic()) - started < self.plan.seconds:
            await _pause(stop, 1.0)
            for node in self.nodes:
                node.look()
            if now - said > _TELL_S:
                said = now
                acknowledged = sum(len(feed.acknowledged) for feed in self.feeds)
                self.say(f"{now - started:.0f} s: {acknowledged} reports acknowledged, {faults.done.total()} faults")
        stop.set()

    def _hostile(self) -> Hostile:
        bad = self.site.hostile
        assert bad is not None
        own = bad.settings
        assert own.peer_tls_certificate_file is not None
        assert own.peer_tls_key_file is not None
        return Hostile(
            bad.id,
            own.keys_dir,
            int(own.listen_peer.rsplit(":", 1)[1]),
            self.site.authority.file,
            own.peer_tls_certificate_file,
            own.peer_tls_key_file,
            tuple(
                Target(node.id, node.node.settings.base_url, node.country)
                for node in self.nodes
                if node.id != self.site.fetching
            ),
            self.plan.seed,
            own.data_dir / "hostile.json",
        )

    async def _quiet(self, outcome: Outcome) -> None:
        """Wait until nothing is on its way between the nodes any more, twice in a row: one's end is another's begin."""
        started = time.monotonic()
        others = [node.id for node in self.nodes]
        quiet, said = 0, started

        async def all_over() -> bool:
            nonlocal quiet, said
            waiting = {node.id: found for node in self.nodes if (found := await node.waiting(others))}
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
        for node in self.nodes:
            node.look()
            wrong += node.deaths
            wrong += [f"{node.id} logged {json.dumps(line)}" for line in node.unforeseen()[:5]]
            if node.rss_max > RSS_MAX:
                wrong.append(f"{node.id} took {node.rss_max >> 20} MiB")
        outcome.rss_max_mib = max(node.rss_max for node in self.nodes) >> 20
        wrong += _leaks(self.site)
        wrong += await self._reports()
        for node in self.nodes:
            async with node.db.transaction("test.counts") as tx:
                outcome.equivocations += await tx.value("SELECT count(*) FROM equivocations")
                outcome.refused += await tx.value("SELECT count(*) FROM inbox_refusals")
        started = time.monotonic()
        status, said = await asyncio.to_thread(audit, [node.file for node in self.nodes])
        outcome.seconds["audit"] = time.monotonic() - started
        both = [one for one in said.get("streams", []) if one["looked_at"] == "both sides"]
        outcome.records = sum(one["records"] for one in both)
        outcome.receipts = sum(one["receipts"] for one in both)
        wrong += [f"hotline audit-network: {json.dumps(each)}" for each in said.get("differences", [])[:50]]
        if status:
            waiting = [f"{one['stream']} {one['under_way']}" for one in said.get("streams", []) if one["under_way"]]
            wrong.append(f"hotline audit-network ended with {status}; under way: {waiting}")

    async def _reports(self) -> list[str]:
        """Each acknowledged reference is there with its item, and what went abroad has one custodian."""
        wrong: list[str] = []
        sent: set[str] = set()
        custodians: Counter[str] = Counter()
        for node in self.nodes:
            async with node.db.transaction("test.items") as tx:
                own = await tx.fetch(
                    "SELECT c.reference, i.id, i.state FROM items i JOIN cases c ON c.id = i.case_id "
                    "WHERE c.reference IS NOT NULL"
                )
                held = await tx.fetch(
                    "SELECT id FROM items i WHERE received_stream IS NOT NULL AND state = ANY($1) AND NOT EXISTS "
                    "(SELECT 1 FROM custody c WHERE c.item_id = i.id AND c.holder <> $2)",
                    list(_IN_CUSTODY),
                    node.id,
                )
            kept = {row["reference"]: (str(row["id"]), row["state"]) for row in own}
            sent |= {item for item, state in kept.values() if state == "sent"}
            custodians.update(str(row["id"]) for row in held)
            for feed in self.feeds:
                if feed.node is node:
                    wrong += _missing(feed, kept)
        wrong += [
            f"item {item} was sent and has {custodians[item]} custodians" for item in sent if custodians[item] != 1
        ]
        return wrong[:50]

    async def _end(self) -> None:
        for node in self.nodes:
            if node.process is not None:
                node.process.kill()
                node.process.join(30)
            await node.db.close()
        await self.site.close()


def _missing(feed: Feed, kept: dict[str, tuple[str, str]]) -> list[str]:
    wrong = []
    for reference, item in feed.acknowledged.items():
        found, state = kept.get(reference, ("", ""))
        if found != item:
            wrong.append(
                f"{feed.node.id} acknowledged reference {reference} with item {item} and has {found or 'none'}"
            )
        elif reference in feed.abroad and state not in _LEFT:
            wrong.append(f"item {item} at {feed.node.id} is {state}, and was to leave")
    if len(kept) != len(feed.acknowledged):
        wrong.append(f"{feed.node.id} has {len(kept)} reports and acknowledged {len(feed.acknowledged)}")
    return wrong


def _leaks(site: Site) -> list[str]:
    """Return the log files, of nodes and of database servers, in which something reported stands."""
    mark = MARK.encode()
    logs = [*site.folder.glob("*/log"), *(server.pgdata / "server.log" for server in site.servers)]
    return [f"something reported stands in {path}" for path in logs if mark in path.read_bytes()]


def audit(files: Sequence[Path]) -> tuple[int, dict[str, Any]]:
    """Run `hotline audit-network` over the nodes' settings files; returns its status and what it says."""
    words = [sys.executable, "-m", "node", "audit-network", "--strict", "--json", "--nodes", *map(str, files)]
    kept = {name: text for name, text in os.environ.items() if not name.startswith("HOTLINE_")}
    done = subprocess.run(words, check=False, capture_output=True, text=True, env=kept, cwd=_ROOT)
    if not done.stdout.startswith("{"):
        return done.returncode, {"differences": [{"what": done.stderr.strip()}]}
    said: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, said
