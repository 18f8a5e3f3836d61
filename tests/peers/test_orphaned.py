"""Items of peers for a country without a hotline, once it has one: what one peer wrote holds up no other's item."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from uuid import UUID

import pytest
import pytest_asyncio

from protocol.bodies import Hosting
from protocol.desk import DatabaseUsed, Statement, read_statement
from protocol.errors import ProtocolError
from protocol.record import HOPS_MAX
from tests.peers.conftest import run_hub
from tests.peers.network import Hub, Network, ShiftedClock
from tests.peers.simulator import PeerSimulator
from tests.peers.transfers import Chain, at_address
from tests.world import World

#: Listed by no node until a test lists one.
COUNTRY = "ZW"


@pytest_asyncio.fixture
async def mandated(tmp_path: Path, database: Callable[[], str]) -> AsyncIterator[Hub]:
    """A node that has the items of countries without a hotline, and forwards what nobody qualified."""

    def make() -> Network:
        world = World(tmp_path, database)
        tested = world.add("NL", backoff_base_s=900, backoff_cap_s=900, forward_unqualified=True)
        world.mandated = [tested.id]
        world.sign_directory()
        return Network(world, tested)

    # In a thread, because making a database runs a loop of its own.
    network = await asyncio.to_thread(make)
    network.free.remove(COUNTRY)
    async with run_hub(network, network.tested, ShiftedClock(haste=100)) as hub:
        yield hub


def orphan(
    giver: PeerSimulator, reporter: PeerSimulator, evidence: dict[str, object], *, hops: int
) -> tuple[UUID, bytes]:
    """Return an item for a country without a hotline, and the transfer in which it comes after so many hops."""
    chain = Chain(reporter, [giver])
    middle = [chain.station(f"m{n}.example", "NL", at_address(f"192.0.2.{20 + n}")) for n in range(hops - 2)]
    last = chain.station(giver.id, COUNTRY, evidence)
    first = chain.steps[1:2] if hops > 1 else []
    hosting = Hosting(country=COUNTRY, assigned_country="NL", confidence=90, reasons=(), evidence=evidence)
    return UUID(chain.item), chain.transfer(trail=(chain.steps[0], *first, *middle, last), hosting=hosting)


async def stand(hub: Hub, *items: UUID) -> list[tuple[str, str | None]]:
    """Let the country have a hotline, look for its items twice, and return where each stands and why."""
    await hub.peer(COUNTRY)
    for _ in range(2):
        await hub.node.moving.orphans.run(hub.node.directory())
    # A round of the node itself may have them in hand.
    await hub.until("SELECT bool_and(state <> 'assigned' OR reason LIKE 'record-%') AS met FROM items")
    rows = [await hub.row("SELECT state, reason FROM items WHERE id = $1", item) for item in items]
    return [(row["state"], row["reason"]) for row in rows]


async def test_a_dispute_names_of_a_peers_databases_what_the_desk_takes(mandated: Hub) -> None:
    hub = mandated
    giver, reporter = await hub.peer(), await hub.peer()
    listed = [
        {"type": "x", "built": "not a day"},
        {"type": "x", "built": 20_261_101},
        {"type": "Countries 1/2", "built": "2026-11-01"},
        {"type": "x", "built": "2026-11-01\n"},
        {"built": "2026-11-01"},
        "x",
    ]
    evidence = {**at_address("192.0.2.9"), "databases": listed}
    item, transfer = orphan(giver, reporter, evidence, hops=HOPS_MAX)
    await giver.deliver([transfer])
    await hub.applied(giver)
    assert await stand(hub, item) == [("disputed", "too-many-hops")]
    statement = read_statement((await hub.row("SELECT statement FROM disputes"))["statement"])
    assert statement.databases == (DatabaseUsed("Countries 1-2", "2026-11-01"),)


async def test_an_item_whose_dispute_cannot_be_written_stays_and_the_others_go(
    mandated: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = mandated
    giver, reporter = await hub.peer(), await hub.peer()

    def unwritten(_said: Statement) -> bytes:
        raise ProtocolError("schema-invalid", "no desk would take it")

    monkeypatch.setattr("node.hotline.flows.transfer.relay.encode", unwritten)
    contested, first = orphan(giver, reporter, at_address("192.0.2.9"), hops=HOPS_MAX)
    goes, second = orphan(giver, reporter, at_address("192.0.2.10"), hops=1)
    await giver.deliver([first, second])
    await hub.applied(giver)
    assert await stand(hub, contested, goes) == [("assigned", "record-schema-invalid"), ("leaving", "hotline-joined")]
    (told,) = hub.logged(action="move.not-carried", alarm=True)
    assert (told["item"], told["code"]) == (str(contested), "schema-invalid")
    assert await hub.rows("SELECT 1 FROM disputes") == []
