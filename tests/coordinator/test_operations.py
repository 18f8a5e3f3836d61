"""The operations of the directory, each with running nodes that are not restarted and not called."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from uuid import UUID

import aiohttp
import pytest

from node.coordinator.publisher import Publisher
from node.errors import OperatorError
from node.hotline.api.health import warnings_of
from node.hotline.cli.rotating import announce, clear, replace_stolen, switch
from node.hotline.domain.acts import ActionAsked
from node.hotline.domain.assessment import Assessment
from node.hotline.domain.routing import Send, competent
from node.hotline.jobs import Jobs
from node.hotline.rounds import Rounds
from node.hotline.store.items import queue_depths
from node.platform.keyfiles import descriptor_path
from protocol.codes import Action, Classification
from protocol.keys import KeyUse
from protocol.note import parse_note
from tests.coordinator.conftest import Authority, coordinating, joined
from tests.hotline.network import ILLEGAL, Station, eventually, heard_of, station
from tests.hotline.test_exchange import told
from tests.moves.chain import arrived, custodians, knows
from tests.peers.simulator import PeerSimulator
from tests.ports import free_port
from tests.world import ADDRESS, TestNode, World

USES = [KeyUse.HTTP, KeyUse.STREAM, KeyUse.RECEIPT]


@dataclass
class Net:
    """A French and a Dutch node, running, and who publishes what they follow."""

    world: World
    authority: Authority
    publisher: Publisher
    fr: Station
    nl: Station
    sent: int = 0

    async def publish(self, **routing: object) -> None:
        """Publish the directory as the entries say it now, and let the nodes hear of it."""
        made = await self.publisher.publish(self.authority.propose(self.world.nodes, **routing))
        for one in (self.fr, self.nl):
            await heard_of(one.node, made.directory.version)

    async def report(self, country: str = "NL") -> UUID:
        self.sent += 1
        taken = await self.fr.report(f"http://{ADDRESS[country]}/{self.sent}", qualification=ILLEGAL)
        return taken.items[0].id

    async def delivered(self) -> bytes:
        """Hand a report in at the French node, wait for the Dutch one's receipt, and return it."""
        before = await self.fr.value("SELECT coalesce(max(size), 0) FROM receipts")
        await self.report()

        async def receipted() -> bool:
            return bool(await self.fr.value("SELECT coalesce(max(size), 0) FROM receipts") > before)

        await eventually(receipted, limit_s=40)
        note: bytes = await self.fr.value("SELECT note FROM receipts ORDER BY size DESC LIMIT 1")
        return bytes(note)

    def ahead(self, seconds: float) -> None:
        for one in (self.fr, self.nl):
            one.clock.ahead_s = seconds


@asynccontextmanager
async def network(authority: Authority, world: World) -> AsyncIterator[Net]:
    fr, nl, _ = joined(world, authority)
    await world.create_field_keys()
    async with AsyncExitStack() as stack:
        publisher = await stack.enter_async_context(coordinating(authority))
        await publisher.publish(authority.propose(world.nodes))
        french = await stack.enter_async_context(station(fr))
        dutch = await stack.enter_async_context(station(nl))
        yield Net(world, authority, publisher, french, dutch)


def described(node: TestNode) -> None:
    """Hand the node's descriptor over."""
    node.entry = json.loads(descriptor_path(node.settings).read_bytes())


def keep_descriptor(node: TestNode) -> None:
    descriptor_path(node.settings).write_text(json.dumps(node.entry))


def key_ids(note: bytes) -> set[bytes]:
    return {line.key_id for line in parse_note(note).signatures}


async def refused_as(caller: TestNode, callee: TestNode, ahead_s: float = 0.0) -> str | None:
    """Let a node call under the keys that the test holds of it; returns the code of the refusal, None for an answer."""
    async with aiohttp.ClientSession() as session:
        peer = PeerSimulator(caller, callee, session, lambda: datetime.now(UTC) + timedelta(seconds=ahead_s))
        answer = await peer.get(f"/peer/v1/streams/{caller.id}")
    return None if answer.status == HTTPStatus.OK else str(answer.problem["code"])


async def test_signing_keys_change_in_announced_steps(authority: Authority, world: World) -> None:
    async with network(authority, world) as net:
        for node in world.nodes[:2]:
            keep_descriptor(node)
        first = await net.delivered()
        now = datetime.now(UTC)
        for node in world.nodes[:2]:
            announce(node.settings, USES, now + timedelta(hours=50), now)
            with pytest.raises(OperatorError, match="announced already"):
                announce(node.settings, USES, None, now)
            described(node)
        await net.publish()
        assert key_ids(await net.delivered()) == key_ids(first)
        for node in world.nodes[:2]:
            switch(node.settings, USES, None, now)
            described(node)
        await net.publish()
        assert key_ids(await net.delivered()) == key_ids(first)
        # The moment comes: nobody restarts anything.
        net.ahead(timedelta(hours=50, minutes=1).total_seconds())
        assert not key_ids(await net.delivered()) & key_ids(first)
        later = now + timedelta(hours=51)
        assert [clear(node.settings, later) for node in world.nodes[:2]] == [5, 5]
        assert net.fr.node.keys.problem() is None
        await net.delivered()


async def test_stolen_keys_are_replaced_at_once(authority: Authority, world: World) -> None:
    async with network(authority, world) as net:
        keep_descriptor(world.nodes[0])
        first = await net.delivered()
        await told(net.fr, 1)
        now = datetime.now(UTC)
        with pytest.raises(OperatorError, match="since when the keys are stolen"):
            replace_stolen(world.nodes[0].settings, USES, None, now)
        replace_stolen(world.nodes[0].settings, USES, now, now)
        described(world.nodes[0])
        assert await refused_as(world.nodes[0], world.nodes[1]) is None
        await net.publish()
        net.ahead(2)
        second = await net.delivered()
        # Whoever has the old keys still is refused.
        assert await refused_as(world.nodes[0], world.nodes[1], 2) == "key-revoked"
        # The receiver's keys are the same, the sender's are new.
        assert len(key_ids(first) & key_ids(second)) == 2


async def test_a_suspended_node_is_refused_and_comes_back(authority: Authority, world: World) -> None:
    async with network(authority, world) as net:
        await net.delivered()
        fr, nl = world.nodes[:2]
        await told(net.fr, 1)
        assert await refused_as(nl, fr) is None
        nl.entry["state"] = "suspended"
        await net.publish()
        assert await refused_as(nl, fr) == "key-revoked"
        item = await net.report()
        await net.fr.until(item, "undeliverable", limit_s=40)
        nl.entry["state"] = "active"
        await net.publish()
        assert await refused_as(nl, fr) is None
        await net.delivered()


async def test_records_wait_for_a_node_in_maintenance(authority: Authority, world: World) -> None:
    async with network(authority, world) as net:
        await net.delivered()
        world.nodes[1].entry["state"] = "maintenance"
        await net.publish()
        assert warnings_of(net.nl.node) == ["the membership directory lists this node as maintenance"]
        assert warnings_of(net.fr.node) == []
        await Jobs(net.fr.node, Rounds(net.fr.node))._gauges()
        assert b'hotline_directory_expires_seconds{part="root"}' in net.fr.node.metrics.render()
        item = await net.report()
        await net.fr.until(item, "sent", limit_s=40)
        assert await net.fr.value("SELECT max(size) FROM receipts") == 1
        world.nodes[1].entry["state"] = "active"
        await net.publish()

        async def receipted() -> bool:
            return bool(await net.fr.value("SELECT max(size) = 2 FROM receipts"))

        await eventually(receipted, limit_s=40)


async def test_a_mandated_hotline_takes_what_is_hosted_where_there_is_none(authority: Authority, world: World) -> None:
    async with network(authority, world) as net:
        item = await net.report("US")
        await net.fr.until(item, "undeliverable", limit_s=40)
        await net.publish(mandated=["nl.hotline.example"])
        await net.fr.until(item, "sent", limit_s=40)
        await arrived(net.nl, item, "assigned")
        row = await net.nl.item(item)
        assert (row["hosting_country"], row["assigned_country"]) == ("US", "NL")


async def test_several_hotlines_of_a_country_share_its_cases_by_weight(authority: Authority, world: World) -> None:
    async with network(authority, world) as net:
        world.nodes[2].entry |= {"countries": ["DE", "NL"], "weight": 1_000_000}
        world.nodes[1].entry["weight"] = 0
        await net.publish()
        item = await net.report()
        row = await net.fr.until(item, "sent", limit_s=40)
        assert row["assigned_node"] == "de.hotline.example"


def by_the_document(case: UUID, weights: dict[str, int]) -> str:
    """Return whose a case is, by the sentences of docs/protocol.md, section 2, alone."""

    def score(node_id: str) -> tuple[float, str]:
        drawn = hashlib.sha256(b"hx/1/route\0" + node_id.encode() + b"\0" + case.bytes).digest()
        n = int.from_bytes(drawn[:8], "big") >> 12
        return -weights[node_id] / math.log((n + 0.5) / 2**52), node_id

    return max(weights, key=score)


async def test_shares_follow_the_weights_and_are_the_same_at_every_node(authority: Authority, world: World) -> None:
    """The Dutch hotline counts three times as much as the German one for what is hosted in the Netherlands."""
    async with network(authority, world) as net, station(world.nodes[2]) as german:
        world.nodes[2].entry |= {"countries": ["DE", "NL"], "weight": 1}
        world.nodes[1].entry["weight"] = 3
        await net.publish()
        await german.node.membership.refresh()
        stations = {one.node.settings.node_id: one for one in (net.fr, net.nl, german)}
        directories = [one.node.directory() for one in stations.values()]
        assert {directory.version for directory in directories} == {2}

        def whose(case: UUID) -> str:
            routes = {competent(directory, "NL", case, "fr.hotline.example") for directory in directories}
            (route,) = routes
            assert isinstance(route, Send)
            return route.node_id

        # The choice is the id's alone: these ids give these shares on every machine.
        shares = Counter(whose(UUID(int=number)) for number in range(1, 2001))
        assert 0.72 < shares["nl.hotline.example"] / 2000 < 0.78
        items = [await net.report() for _ in range(40)]
        expected: Counter[str] = Counter()
        for item in items:
            row = await net.fr.until(item, "sent", limit_s=40)
            holder = whose(row["case_id"])
            assert holder == by_the_document(row["case_id"], {"nl.hotline.example": 3, "de.hotline.example": 1})
            expected[holder] += 1
            assert row["assigned_node"] == holder
            await arrived(stations[holder], item, "assigned")
        held = {one: await stations[one].value("SELECT count(*) FROM items") for one in expected}
        assert held == expected


async def test_a_node_moves_to_another_address(authority: Authority, world: World) -> None:
    fr, nl, _ = joined(world, authority)
    await world.create_field_keys()
    async with coordinating(authority) as publisher:
        await publisher.publish(authority.propose(world.nodes))
        async with station(fr) as french:
            async with station(nl) as dutch:
                net = Net(world, authority, publisher, french, dutch)
                await net.delivered()
            port = free_port()
            url, listen = f"http://127.0.0.1:{port}", f"127.0.0.1:{port}"
            nl.settings = replace(nl.settings, base_url=url, listen_peer=listen)
            nl.entry["base_url"] = url
            # Published first, restarted later: what is written meanwhile waits.
            made = await publisher.publish(authority.propose(world.nodes))
            await heard_of(french.node, made.directory.version)
            net.sent = 100
            meanwhile = await net.report()
            await french.until(meanwhile, "sent")
            assert await french.value("SELECT max(size) FROM receipts") == 1
            async with station(nl) as dutch:
                await arrived(dutch, meanwhile, "assigned")
                net = Net(world, authority, publisher, french, dutch, sent=200)
                await net.delivered()
            # The other way round: restarted first, published later.
            port = free_port()
            url, listen = f"http://127.0.0.1:{port}", f"127.0.0.1:{port}"
            nl.settings = replace(nl.settings, base_url=url, listen_peer=listen)
            async with station(nl) as dutch:
                net = Net(world, authority, publisher, french, dutch, sent=300)
                (warning,) = warnings_of(dutch.node)
                assert "lists another address for this node" in warning
                meanwhile = await net.report()
                await french.until(meanwhile, "sent")
                nl.entry["base_url"] = url
                await net.publish()
                assert warnings_of(dutch.node) == []
                await arrived(dutch, meanwhile, "assigned")


async def test_a_hotline_leaves_and_what_it_has_open_goes_first(authority: Authority, world: World) -> None:
    """It gives its country up, and its items go where routing says; then it has left, and nobody sends to it."""
    dutch, german = world.nodes[1:]
    async with network(authority, world) as net, station(german) as de:
        await net.delivered()
        item = await net.fr.value("SELECT id FROM items")
        await arrived(net.nl, item, "assigned")
        dutch.entry["countries"] = []
        await net.publish(mandated=[german.id])
        await de.node.membership.refresh()
        await net.nl.node.moving.orphans.run(net.nl.node.directory())
        await arrived(de, item, "assigned")
        await arrived(net.nl, item, "transferred")
        await knows(net.fr, item, "FR", "NL", "DE")

        async def empty() -> bool:
            depths = []
            for one in (net.fr, net.nl, de):
                async with one.node.db.transaction("test.read") as tx:
                    found = await queue_depths(tx)
                depths += [found[name] for name in ("assigned", "leaving", "deliver", "apply") if one is not de]
            return not any(depths)

        await eventually(empty, limit_s=30)
        dutch.entry["state"] = "left"
        await net.publish(mandated=[german.id])
        await de.node.membership.refresh()
        written = "SELECT next_index FROM outbound_streams WHERE peer = $1"
        before = await net.fr.value(written, dutch.id)
        later = await net.report()
        await arrived(de, later, "assigned")
        assert (await net.fr.item(later))["assigned_node"] == german.id
        # What becomes of the item that moved comes home, from where it is now.
        now = de.clock.now()
        await de.node.store.assessor().assess(item, Assessment(Classification.NATIONAL, now))
        await de.node.store.actor().act(item, ActionAsked(Action.REMOVED, now))
        await arrived(net.fr, item, "done")
        assert await net.fr.value(written, dutch.id) == before
        assert await custodians([net.fr, net.nl, de], later) == ["DE"]
        for one in (net.fr, de):
            assert (
                await one.value("SELECT count(*) FROM items WHERE state IN ('undeliverable', 'leaving', 'ready')") == 0
            )
        async with aiohttp.ClientSession() as session:
            stranger = PeerSimulator(dutch, world.nodes[0], session)
            answer = await stranger.get(f"/peer/v1/streams/{dutch.id}")
            assert answer.problem["code"] == "key-revoked"
