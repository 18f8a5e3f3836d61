"""A transfer that brings an item back ahead of the word that it is elsewhere: it is taken, and one alone has it."""

from collections.abc import Awaitable, Callable
from uuid import UUID

import pytest

from node.hotline.domain.assessment import Assessment
from node.hotline.domain.delivery import BatchAnswer, Problem
from node.hotline.gateways.peers import PeerGateway
from protocol.codes import Classification
from protocol.directory import NodeEntry
from tests.hotline.network import Station, eventually, station
from tests.moves.chain import accounted_for, arrived, custodians, knows, move, reported, way
from tests.world import ADDRESS, World

PutBatch = Callable[[PeerGateway, NodeEntry, int, int, bytes], Awaitable[BatchAnswer]]


async def assessed(at: Station, item: UUID, classification: Classification) -> None:
    await at.node.store.assessor().assess(item, Assessment(classification, at.clock.now()))


async def applied(at: Station, peer: Station, records: int) -> None:
    """Wait until a node has applied so many records of another."""
    said = "SELECT sum(c.applied) FROM inbound_streams s JOIN apply_cursors c ON c.stream = s.id WHERE s.peer = $1"

    async def there() -> bool:
        return bool((await at.value(said, peer.node.settings.node_id) or 0) >= records)

    await eventually(there, limit_s=30)


async def nobody_refused(*stations: Station) -> None:
    for one in stations:
        assert await one.value("SELECT count(*) FROM inbox_refusals") == 0


async def test_an_item_comes_back_before_the_receipt_for_its_leaving(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answers to the Dutch hotline are lost: the German one has the item, finds it elsewhere and gives it back."""
    await world.create_field_keys()
    fr_node, nl_node, de_node, _ = world.nodes
    async with station(fr_node) as fr, station(nl_node) as nl, station(de_node) as de:
        item = await reported(fr, nl, "NL")
        real: PutBatch = PeerGateway.put_batch

        async def lost(self: PeerGateway, peer: NodeEntry, epoch: int, first: int, body: bytes) -> BatchAnswer:
            answer = await real(self, peer, epoch, first, body)
            return BatchAnswer(None, Problem("unreachable-timeout")) if peer.id == de_node.id else answer

        with monkeypatch.context() as broken:
            broken.setattr(PeerGateway, "put_batch", lost)
            await move(nl, item, ip=ADDRESS["DE"])
            await arrived(de, item, "assigned")
            assert (await nl.item(item))["state"] == "leaving"
            await move(de, item, country="NL")
            await arrived(nl, item, "assigned")
            await arrived(de, item, "transferred")
            assert await custodians([fr, nl, de], item) == ["NL"]
            assert await way(nl, item) == ["FR", "NL", "DE", "NL"]
        # The receipt for what it once gave away comes, and takes nothing from it.
        await accounted_for([fr, nl, de])
        assert (await nl.item(item))["state"] == "assigned"
        await knows(fr, item, "FR", "NL", "DE", "NL")
        await nobody_refused(fr, nl, de)


async def test_what_does_not_come_from_whom_it_went_to_is_refused_while_it_leaves(world: World) -> None:
    """Of an item that is on its way to one hotline, another one says that it gives it back."""
    await world.create_field_keys()
    fr_node, nl_node, de_node, us_node = world.nodes
    async with station(fr_node) as fr, station(nl_node) as nl, station(de_node) as de:
        item = await reported(fr, nl, "NL")
        await move(nl, item, ip=ADDRESS["DE"])
        await arrived(de, item, "assigned")
        await arrived(nl, item, "transferred")
        # As if it had been given to a hotline that is away, and not to the one that has it.
        async with nl.node.db.transaction("test.leaving") as tx:
            await tx.execute("UPDATE items SET state = 'leaving', assigned_node = $1 WHERE id = $2", us_node.id, item)
            await tx.execute("UPDATE custody SET holder = $1 WHERE item_id = $2", us_node.id, item)
        await move(de, item, country="NL")

        async def refused() -> bool:
            return bool((await de.item(item))["reason"] == "id-conflict")

        await eventually(refused, limit_s=30)
        assert (await nl.item(item))["state"] == "leaving"
        assert (await de.item(item))["state"] == "assigned"


async def test_an_item_comes_home_before_it_is_heard_that_it_was_found_illegal_after_all(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the Dutch hotline found at last does not get through; from who has the item now it comes back meanwhile."""
    await world.create_field_keys()
    fr_node, nl_node, de_node, _ = world.nodes
    async with station(fr_node) as fr, station(nl_node) as nl, station(de_node) as de:
        item = await reported(fr, nl, "NL")
        await assessed(nl, item, Classification.NOT_ILLEGAL)
        await arrived(fr, item, "declined")
        real: PutBatch = PeerGateway.put_batch

        async def stopped(self: PeerGateway, peer: NodeEntry, epoch: int, first: int, body: bytes) -> BatchAnswer:
            if peer.id == fr_node.id and self._own_id == nl_node.id:
                return BatchAnswer(None, Problem("unreachable-timeout"))
            return await real(self, peer, epoch, first, body)

        with monkeypatch.context() as broken:
            broken.setattr(PeerGateway, "put_batch", stopped)
            await assessed(nl, item, Classification.NATIONAL)
            await move(nl, item, ip=ADDRESS["DE"])
            await arrived(de, item, "assigned")
            await move(de, item, ip=ADDRESS["FR"])
            await arrived(fr, item, "kept")
            await arrived(de, item, "transferred")
            assert await custodians([fr, nl, de], item) == ["FR"]
            await nobody_refused(fr, nl, de)
        await accounted_for([fr, nl, de])
        assert (await fr.item(item))["state"] == "kept"
        assert await custodians([fr, nl, de], item) == ["FR"]
