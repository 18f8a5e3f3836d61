"""From a report to the competent country's node, and a signed receipt home: the whole chain, in one process."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from node.clock import SystemClock
from node.hotline.assembly import Node
from node.hotline.domain.intake import check_report
from node.hotline.domain.schema import convert_report
from node.hotline.flows.intake import Submission, Taken
from node.hotline.serve import running
from node.hotline.store.status import read_status
from node.platform.telemetry import make_logger
from protocol.evidence import verify_evidence
from tests.world import ADDRESS, World


@pytest.fixture
def world(tmp_path: Path, new_database: Callable[[], str]) -> World:
    made = World(tmp_path, new_database)
    made.add("FR")
    made.add("NL")
    made.sign_directory()
    return made


@pytest.fixture
async def nodes(world: World) -> AsyncIterator[list[Node]]:
    await world.create_field_keys()
    async with AsyncExitStack() as stack:
        made = []
        for one in world.nodes:
            log = make_logger("warning", "json")
            node, _, _ = await stack.enter_async_context(running(one.settings, clock=SystemClock(), log=log))
            made.append(node)
        yield made


async def report(node: Node, url: str, **fields: object) -> Taken:
    """Hand one report in at `node`."""
    received = convert_report({"url": url, **fields})
    checked = check_report(received, node.clock.now())
    (taken,) = await node.store.intake().take_in([Submission("test", checked.reference, checked)])
    assert isinstance(taken, Taken)
    return taken


async def until(node: Node, condition: Callable[[dict[str, object]], bool], limit_s: float = 20.0) -> dict[str, object]:
    """Wait until the node's status meets `condition`."""
    async with asyncio.timeout(limit_s):
        while True:
            async with node.db.transaction("test.status") as tx:
                status = await read_status(tx, node.clock.now())
            if condition(status):
                return status
            await node.signals.wait("test", 0.05)


async def test_an_illegal_item_reaches_the_hosting_country_and_its_receipt_comes_home(nodes: list[Node]) -> None:
    fr, nl = nodes
    taken = await report(fr, f"http://{ADDRESS['NL']}/page", qualification={"classification": "national"})
    await until(fr, lambda s: any(x["receipted"] == 1 and x["told"] == 1 for x in s["streams_out"]))  # type: ignore[attr-defined]
    status = await until(nl, lambda s: any(x["applied"] >= 1 for x in s["streams_in"]))  # type: ignore[attr-defined]
    assert [(row["state"], row["items"]) for row in status["items"]] == [("assigned", 1)]  # type: ignore[attr-defined]
    proof = await fr.store.prover().prove(taken.items[0].id)
    finding = verify_evidence(proof, fr.directory())
    assert (finding.iss, finding.aud) == (fr.settings.node_id, nl.settings.node_id)
    assert await nl.store.prover().prove(taken.items[0].id) == proof
