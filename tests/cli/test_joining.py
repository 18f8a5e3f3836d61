"""A hotline joins a network whose nodes run: every step of its own and of those who sign by its command."""

import asyncio
import json
from contextlib import AsyncExitStack

from node.clock import SystemClock
from node.coordinator.serve import running
from node.platform.keyfiles import NodeKeys
from node.platform.telemetry import make_logger
from node.settings import load_settings
from tests.cli.conftest import Home, Hotline, NewHome, published
from tests.hotline.network import ILLEGAL, Station, eventually, heard_of, station
from tests.moves.chain import arrived
from tests.world import ADDRESS, TestNode


def as_served(home: Home) -> TestNode:
    """Return the node as `hotline serve` reads it from its settings file."""
    settings = load_settings(home.settings, {})
    entry = json.loads((home.data / "descriptor.json").read_bytes())
    return TestNode(settings, NodeKeys.load(settings.keys_dir), entry)


async def receipted(at: Station, peer: str) -> None:
    """Wait until a peer has receipted everything that a node has written to it."""

    async def done() -> bool:
        return bool(
            await at.value(
                "SELECT s.next_index > 0 AND c.acked_size = s.next_index FROM outbound_streams s "
                "JOIN delivery_cursors c ON c.stream = s.id WHERE s.peer = $1",
                peer,
            )
        )

    await eventually(done, limit_s=30)


async def test_running_nodes_deliver_to_a_newcomer_without_a_restart(
    coordinator: Home, new_home: NewHome, hotline: Hotline
) -> None:
    async def says(home: Home, *words: object) -> str:
        said = await asyncio.to_thread(hotline, "--settings", home.settings, *words)
        assert said.status == 0, said
        return said.out

    folder = coordinator.folder
    fr, nl = [await asyncio.to_thread(new_home, country) for country in ("FR", "NL")]
    pin = await asyncio.to_thread(published, coordinator, hotline, [fr, nl])
    settings, log = load_settings(coordinator.settings, {}), make_logger("error", "json")
    async with AsyncExitStack() as stack:
        publisher, _, _ = await stack.enter_async_context(running(settings, clock=SystemClock(), log=log))
        for home in (fr, nl):
            assert "is listed" in await says(home, "join", settings.base_url, "--root-fingerprint", pin)
        french, dutch = [await stack.enter_async_context(station(as_served(home))) for home in (fr, nl)]
        # What is hosted where there is no hotline yet waits at its reporter.
        before = (await french.report(f"http://{ADDRESS['DE']}/before", qualification=ILLEGAL)).items[0].id
        await french.until(before, "undeliverable", limit_s=30)

        de = await asyncio.to_thread(new_home, "DE")
        assert "is not listed yet" in await says(de, "join", settings.base_url, "--root-fingerprint", pin)
        await says(coordinator, "directory", "export", folder / "export")
        proposal, member = folder / "second", de.data / "descriptor.json"
        said = await says(
            coordinator, "directory", "propose", proposal, "--published", folder / "export", "--member", member
        )
        assert f"{de.id} joins as active" in said
        await says(coordinator, "directory", "sign", proposal, "--key", folder / "ada.key")
        await says(coordinator, "directory", "publish", proposal)
        # As the coordinator and the nodes look for it on their schedules.
        await publisher.read()
        for one in (french, dutch):
            await heard_of(one.node, 2)
            await one.node.rerouter.run()
        # It serves later than it is listed: what is for it is written, and waits for its answer.
        await french.until(before, "sent", limit_s=30)
        assert "state active" in await says(de, "join", settings.base_url, "--root-fingerprint", pin)
        german = await stack.enter_async_context(station(as_served(de)))
        await arrived(german, before, "assigned")
        after = (await dutch.report(f"http://{ADDRESS['DE']}/after", qualification=ILLEGAL)).items[0].id
        await arrived(german, after, "assigned")
        for one in (french, dutch):
            await receipted(one, de.id)
        # What it says itself is taken as well.
        own = (await german.report(f"http://{ADDRESS['NL']}/own", qualification=ILLEGAL)).items[0].id
        await arrived(dutch, own, "assigned")
