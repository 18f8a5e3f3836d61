"""A recovery, and records of a peer that nobody can read."""

from node.hotline.assembly import Node
from node.hotline.domain.assessment import Assessment
from node.hotline.flows.replay import REFUSED
from node.hotline.store import outbound
from node.platform.ids import new_id
from protocol.codes import Classification, WithdrawalReason
from protocol.merkle import leaf_hash
from tests.catchup.copies import copied, standing_still
from tests.catchup.test_recover import recovered
from tests.hotline.network import Station, eventually, station
from tests.hotline.test_exchange import told
from tests.moves.chain import arrived
from tests.world import ADDRESS, World


async def _unreadable(node: Node, peer: str) -> None:
    """Let a node say what is no record."""
    raw, now = b'{"type":"note"}', node.clock.now()
    async with node.db.transaction("test.unreadable") as tx:
        head = (await outbound.lock_streams(tx, [peer]))[peer]
        sealed = node.store.vault.seal_record("outbox", head.id, head.next_index, raw)
        row = outbound.OutboxRow(head.next_index, new_id(now), None, "note", leaf_hash(raw), sealed)
        await outbound.append(tx, head, [row], now)


async def _refused_it(one: Station) -> bool:
    return bool(await one.value("SELECT count(*) = 1 FROM inbox_refusals"))


async def test_what_nobody_can_read_does_not_stop_a_recovery(world: World) -> None:
    """It comes next in its stream when a record of ours is refused, and it is looked for outcomes."""
    await world.create_field_keys()
    fr_node, nl_node = world.nodes
    async with standing_still(nl_node) as still:
        await _unreadable(still, fr_node.id)
    async with station(fr_node) as fr:
        item = (await fr.report(f"http://{ADDRESS['NL']}/late")).items[0].id
        await fr.until(item, "waiting")
    older = await copied(fr_node)
    async with station(fr_node) as fr:
        await fr.node.store.assessor().assess(item, Assessment(Classification.NATIONAL, fr.clock.now()))
        await fr.until(item, "sent")
        async with station(nl_node) as nl:
            await arrived(nl, item, "assigned")
            await eventually(lambda: _refused_it(fr))
            await told(fr, 1)
    async with station(older) as fr:
        await fr.node.store.amender().withdraw(item, WithdrawalReason.REPORTED_IN_ERROR)
    async with station(nl_node) as nl:
        done = await recovered(older)
        assert done.left == {REFUSED: 1}
        async with station(older):
            await arrived(nl, item, "withdrawn")
