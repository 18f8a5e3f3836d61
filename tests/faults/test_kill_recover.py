"""`kill -9` of `hotline recover` at each side of each of its commits: it is run again, and both sides agree."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import aiohttp

from node.hotline.domain.acts import ActionAsked
from node.hotline.domain.assessment import Assessment
from protocol.codes import Action, Classification
from tests.catchup.copies import copied, receipts_agree
from tests.faults.dying_serve import run_recovery
from tests.faults.orders import both_sides
from tests.faults.station import Station as Processes
from tests.hotline.network import ILLEGAL, Station, eventually, station
from tests.moves.chain import accounted_for, arrived, move
from tests.world import ADDRESS, World

AT = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
#: In the order in which a recovery comes to them.
_STEPS = (
    "recover.begin",
    "recover.own",
    "receive.store",
    "recover.epochs",
    "apply.store",
    "recover.replay",
    "recover.end",
)


async def _items(one: Station) -> list[dict[str, Any]]:
    async with one.node.db.transaction("test.read") as tx:
        rows = await tx.fetch(
            "SELECT id, state, reason, assigned_node, report_hash, qualification->>'classification' AS own, "
            "peer_qualification->>'classification' AS peers, (SELECT array_agg(a.action ORDER BY a.id) FROM actions a "
            "WHERE a.item_id = items.id) AS actions FROM items ORDER BY id"
        )
    return [dict(row) for row in rows]


async def _exchange(fr: Station, nl: Station, name: str) -> None:
    """One item in each direction: the one is acted on, the other moves back; nothing is under way at the end."""
    theirs = (await nl.report(f"http://{ADDRESS['FR']}/{name}", qualification=ILLEGAL)).items[0].id
    await arrived(fr, theirs, "assigned")
    await fr.node.store.assessor().assess(theirs, Assessment(Classification.BASELINE, AT))
    await fr.node.store.actor().act(theirs, ActionAsked(Action.REMOVED, AT))
    await arrived(nl, theirs, "done")
    ours = await _moved_back(fr, nl, name)
    assert ours != theirs

    async def quiet() -> bool:
        return not any(
            [
                await one.value(
                    "SELECT EXISTS (SELECT 1 FROM outbound_streams s JOIN delivery_cursors c ON c.stream = s.id "
                    "WHERE s.next_index > c.acked_size) OR EXISTS (SELECT 1 FROM inbound_streams s "
                    "JOIN apply_cursors c ON c.stream = s.id WHERE s.size > c.applied)"
                )
                for one in (fr, nl)
            ]
        )

    await eventually(quiet, limit_s=30)


async def _moved_back(fr: Station, nl: Station, name: str) -> UUID:
    theirs = (await nl.report(f"http://{ADDRESS['FR']}/{name}-back", qualification=ILLEGAL)).items[0].id
    await arrived(fr, theirs, "assigned")
    await move(fr, theirs, ip=ADDRESS["NL"])
    await arrived(fr, theirs, "transferred")
    await arrived(nl, theirs, "kept")
    return theirs


async def test_a_recovery_killed_anywhere_is_run_again(world: World) -> None:
    world.sign_directory()
    await world.create_field_keys()
    fr_node, nl_node = world.nodes
    async with station(nl_node) as nl:
        async with station(fr_node) as fr:
            await _exchange(fr, nl, "before")
        older = await copied(fr_node)
        async with station(fr_node) as fr:
            await _exchange(fr, nl, "after")
            before = [await _items(one) for one in (fr, nl)]
        async with aiohttp.ClientSession() as session:
            recovering = await Processes.prepare(older, session)
            try:
                for order in both_sides(*_STEPS):
                    await recovering.struck(await recovering.start(kill=order, target=run_recovery))
            finally:
                await recovering.end()
        # What died last had ended the recovery: the node serves.
        async with station(older) as fr:
            await _exchange_is_over(fr, nl)
            assert [await _items(one) for one in (fr, nl)] == before
            assert await fr.value("SELECT max(epoch) FROM outbound_streams") == 2
            for one in (fr, nl):
                assert await one.value("SELECT count(*) FROM equivocations") == 0
                assert await one.value("SELECT count(*) FROM inbox_refusals") == 0
                assert await one.value("SELECT count(*) FROM outbox_refusals") == 0
            await accounted_for([fr, nl])
            assert await receipts_agree(fr, nl)
            assert await receipts_agree(nl, fr)
            await _exchange(fr, nl, "afterwards")


async def _exchange_is_over(fr: Station, nl: Station) -> None:
    async def over() -> bool:
        return await receipts_agree(fr, nl) and await receipts_agree(nl, fr)

    await eventually(over, limit_s=30)
