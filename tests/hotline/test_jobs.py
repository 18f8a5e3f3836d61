"""The loops of a node at their end: nothing is begun after the word to stop, and nothing is left running."""

import asyncio

import pytest

from node.hotline.jobs import Jobs
from protocol.directory import NodeEntry
from tests.hotline.network import ILLEGAL, station
from tests.world import ADDRESS, World


async def test_no_delivery_is_begun_once_the_node_is_told_to_stop(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose turn it is was being asked when the word came: the answer must not begin what nobody would wait for."""
    asked, told = asyncio.Event(), asyncio.Event()
    begun: list[str] = []

    class Late(Jobs):
        async def _peers_due(self) -> list[NodeEntry]:
            asked.set()
            await told.wait()
            return [entry for entry in self._node.directory().nodes.values() if entry.id != self._node.settings.node_id]

        async def _deliver(self, peer: NodeEntry) -> None:
            begun.append(peer.id)

        async def stop(self) -> None:
            self._stop.set()
            told.set()
            await super().stop()

    monkeypatch.setattr("node.hotline.serve.Jobs", Late)
    await world.create_field_keys(world.nodes[:1])
    async with station(world.nodes[0]) as fr:
        await fr.report(f"http://{ADDRESS['NL']}/x", qualification=ILLEGAL)
        await asked.wait()
    assert begun == []


async def test_a_node_that_ended_leaves_no_task_behind(world: World) -> None:
    """Its peer is away, so deliveries fail and begin again all the time while it is told to stop."""
    await world.create_field_keys(world.nodes[:1])
    before = asyncio.all_tasks()
    for n in range(3):
        async with station(world.nodes[0]) as fr:
            item = (await fr.report(f"http://{ADDRESS['NL']}/{n}", qualification=ILLEGAL)).items[0].id
            await fr.until(item, "sent")
        assert asyncio.all_tasks() <= before
