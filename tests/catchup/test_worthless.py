"""Keys that changed before everybody knew: receipts given meanwhile prove nothing, and both sides come to new ones."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import pytest

from node.hotline.cli.rotating import announce, replace_stolen, switch
from node.hotline.domain.delivery import BatchAnswer, Problem
from node.hotline.gateways.peers import PeerGateway
from node.hotline.recovery import recover
from node.hotline.serve import recovery_door
from node.platform.keyfiles import descriptor_path
from node.platform.membership import Membership
from protocol.directory import Directory
from protocol.evidence import verify_evidence
from protocol.keys import KeyUse, SignatureInvalid
from protocol.receipt import open_receipt
from protocol.record import parse_record
from protocol.steps import TransferBody
from tests.catchup.copies import copied, receipts_agree, standing_still
from tests.hotline.network import ILLEGAL, Station, eventually, heard_of, station
from tests.hotline.test_exchange import told
from tests.moves.chain import accounted_for, arrived, move
from tests.ports import free_port
from tests.world import ADDRESS, TestNode, World

#: The clocks are set forward so far between what was receipted before a key changed and what came after.
_LATER = timedelta(minutes=5)

Change = Callable[[TestNode, Sequence[KeyUse], datetime], None]


def retired(node: TestNode, uses: Sequence[KeyUse], since: datetime) -> None:
    """List the keys as retired, and new ones in their place, without a notice."""
    path = descriptor_path(node.settings)
    path.write_text(json.dumps(node.entry))
    announce(node.settings, uses, since, since)
    switch(node.settings, uses, since, since)
    node.entry = json.loads(path.read_bytes())


def stolen(node: TestNode, uses: Sequence[KeyUse], since: datetime) -> None:
    """List the keys as compromised, and new ones in their place."""
    path = descriptor_path(node.settings)
    path.write_text(json.dumps(node.entry))
    replace_stolen(node.settings, uses, since, since)
    node.entry = json.loads(path.read_bytes())


async def heard(world: World, *stations: Station) -> None:
    """Publish the directory, and let these nodes hear of it."""
    world.sign_directory()
    for one in stations:
        await heard_of(one.node, world.version)
        await one.node.judge.run()


def later(*stations: Station) -> datetime:
    """Set the clocks forward and return a moment after all that was receipted before, and before all that will be."""
    for one in stations:
        one.clock.ahead_s += _LATER.total_seconds()
    return (stations[0].clock.now() - _LATER / 2).replace(microsecond=0)


def proves(note: bytes, directory: Directory) -> bool:
    try:
        open_receipt(note, directory)
    except SignatureInvalid:
        return False
    return True


async def report(fr: Station, path: str, country: str = "NL") -> UUID:
    return (await fr.report(f"http://{ADDRESS[country]}/{path}", qualification=ILLEGAL)).items[0].id


async def receipts(fr: Station) -> dict[int, bytes]:
    """Return the receipts that count of the French stream, by size."""
    async with fr.node.db.transaction("test.read") as tx:
        rows = await tx.fetch("SELECT size, note FROM receipts WHERE NOT worthless")
    return {row["size"]: row["note"] for row in rows}


@dataclass(frozen=True)
class Case:
    """Whose keys of which use change in which way, and whether what was receipted before then still counts."""

    node: int
    use: KeyUse
    change: Change
    earlier_counts: bool


CASES = {
    "the sender's stream keys are retired": Case(0, KeyUse.STREAM, retired, True),
    "the sender's stream keys were stolen": Case(0, KeyUse.STREAM, stolen, True),
    "the receiver's receipt keys are retired": Case(1, KeyUse.RECEIPT, retired, True),
    "the receiver's receipt keys were stolen": Case(1, KeyUse.RECEIPT, stolen, False),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
async def test_receipts_accepted_before_the_news_are_given_again(world: World, case: Case) -> None:
    await world.create_field_keys()
    async with station(world.nodes[0], batch_records_max=2) as fr, station(world.nodes[1]) as nl:
        items = [await report(fr, "1")]
        await told(fr, 1)
        moment = later(fr, nl)
        for n in range(2, 5):
            items.append(await report(fr, str(n)))
            await told(fr, n)
        before = await receipts(fr)
        states = [dict(await nl.item(item)) for item in items]
        case.change(world.nodes[case.node], [case.use], moment)
        await heard(world, fr, nl)

        async def again() -> bool:
            return 4 in await receipts(fr) and await receipts_agree(fr, nl)

        await eventually(again)
        after, directory = await receipts(fr), fr.node.directory()
        assert all(proves(note, directory) for note in after.values())
        assert (after.get(1) == before[1]) is case.earlier_counts
        assert not any(proves(note, directory) for size, note in before.items() if size > 1)
        # What was received is there once, as it was.
        assert [dict(await nl.item(item)) for item in items] == states
        assert await nl.value("SELECT count(*) FROM inbox") == 4
        for item in items:
            proof = await fr.node.store.prover().prove(item)
            assert verify_evidence(proof, directory).item == str(item)
            assert await nl.node.store.prover().prove(item) == proof
        await accounted_for([fr, nl])


async def test_a_lost_answer_under_a_key_that_was_retired_meanwhile_comes_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.create_field_keys()
    async with station(world.nodes[0], backoff_cap_s=0.1) as fr, station(world.nodes[1]) as nl:
        real = PeerGateway.put_batch

        async def lost(self: PeerGateway, *batch: object) -> BatchAnswer:
            answer = await real(self, *batch)  # type: ignore[arg-type] # as it was called
            return BatchAnswer(None, Problem("unreachable-timeout")) if answer.receipt is not None else answer

        moment = later(fr, nl)
        with monkeypatch.context() as broken:
            broken.setattr(PeerGateway, "put_batch", lost)
            item = await report(fr, "1")
            await arrived(nl, item, "assigned")
            first = await nl.value("SELECT receipt FROM inbound_batches")
            retired(world.nodes[0], [KeyUse.STREAM], moment)
            await heard(world, fr, nl)
        await told(fr, 1)
        await eventually(lambda: receipts_agree(fr, nl))
        assert (await receipts(fr))[1] != first
        assert await nl.value("SELECT count(*) FROM items") == 1
        await accounted_for([fr, nl])


async def test_the_receiver_may_hear_first(world: World) -> None:
    """It answers with what counts by the directory that it holds; the sender believes that once it has heard, too."""
    await world.create_field_keys()
    async with station(world.nodes[0]) as fr, station(world.nodes[1]) as nl:
        moment = later(fr, nl)
        await report(fr, "1")
        await told(fr, 1)
        retired(world.nodes[1], [KeyUse.RECEIPT], moment)
        await heard(world, nl)
        assert await nl.value("SELECT count(*) FROM inbound_batches WHERE worthless") == 1
        await report(fr, "2")

        async def not_believed() -> bool:
            return bool(await fr.value("SELECT count(*) FROM peers WHERE last_problem = 'bad-receipt'"))

        await eventually(not_believed)
        await heard_of(fr.node, world.version)
        await fr.node.judge.run()
        await told(fr, 2)
        await eventually(lambda: receipts_agree(fr, nl))
        assert all(proves(note, fr.node.directory()) for note in (await receipts(fr)).values())
        await accounted_for([fr, nl])


async def test_what_a_node_fetches_is_fetched_and_receipted_again(world: World) -> None:
    """The Dutch hotline cannot be called: it fetches what has no receipt that counts once more, and brings the new."""
    nl_node = world.nodes[1]
    nl_node.entry["delivery"] = "pull"
    nl_node.entry["base_url"] = f"http://127.0.0.1:{free_port()}"
    world.sign_directory()
    await world.create_field_keys()
    async with station(world.nodes[0]) as fr, station(nl_node, peer_timeout_s=2.0) as nl:
        moment = later(fr, nl)
        await report(fr, "1")
        await told(fr, 1)
        first = await receipts(fr)
        retired(world.nodes[0], [KeyUse.STREAM], moment)
        await heard(world, fr, nl)

        async def again() -> bool:
            return 1 in (kept := await receipts(fr)) and kept != first and await receipts_agree(fr, nl)

        await eventually(again, limit_s=40)
        assert await nl.value("SELECT count(*) FROM items WHERE received_stream IS NOT NULL") == 1
        await accounted_for([fr, nl])


async def test_a_transfer_proves_its_item_by_the_new_receipt(three: World) -> None:
    world = three
    await world.create_field_keys()
    fr_node, nl_node, de_node = world.nodes
    async with station(fr_node) as fr, station(nl_node) as nl, station(de_node) as de:
        moment = later(fr, nl, de)
        item = await report(fr, "1")
        await told(fr, 1)
        retired(fr_node, [KeyUse.STREAM], moment)
        await heard(world, de, nl)
        # The French node has not heard, and so nothing of its stream to the Dutch one is receipted again yet.
        await move(nl, item, ip=ADDRESS["DE"])

        async def waits() -> bool:
            return bool(await nl.value("SELECT count(*) FROM relocations WHERE attempts > 0"))

        await eventually(waits)
        assert (await nl.item(item))["state"] == "assigned"
        await heard_of(fr.node, world.version)
        await fr.node.judge.run()
        await eventually(lambda: receipts_agree(fr, nl))
        await nl.value("UPDATE relocations SET due_at = now() - interval '1 hour' RETURNING true")
        await arrived(de, item, "assigned")
        async with de.node.db.transaction("test.read") as tx:
            row = await tx.row("SELECT stream, idx, record_enc FROM inbox ORDER BY idx LIMIT 1")
        assert row is not None
        record = parse_record(de.node.store.vault.open_record("inbox", row["stream"], row["idx"], row["record_enc"]))
        assert isinstance(record.body, TransferBody)
        assert verify_evidence(record.body.original.encode(), de.node.directory()).item == str(item)
        await accounted_for([fr, nl, de])


async def test_a_transfer_that_was_refused_for_an_old_proof_goes_again(
    three: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Germany has heard of the French keys, who hands the item on has not: it comes back, and goes a while later."""
    world = three
    await world.create_field_keys()
    fr_node, nl_node, de_node = world.nodes
    async with station(fr_node) as fr, station(nl_node) as nl, station(de_node) as de:
        moment = later(fr, nl, de)
        item = await report(fr, "1")
        await told(fr, 1)
        retired(fr_node, [KeyUse.STREAM], moment)

        async def hears_nothing(_self: Membership) -> bool:
            return False

        with monkeypatch.context() as deaf:
            deaf.setattr(Membership, "refresh_if_due", hears_nothing)
            await heard(world, de)
            await move(nl, item, ip=ADDRESS["DE"])
            await arrived(nl, item, "assigned")

            async def refused() -> bool:
                return bool((await nl.item(item))["reason"] == "handling-violation")

            await eventually(refused)
        await heard(world, fr, nl)
        await eventually(lambda: receipts_agree(fr, nl))
        nl.clock.ahead_s += 61
        await nl.node.moving.orphans.run(nl.node.directory())
        await arrived(de, item, "assigned")
        await arrived(nl, item, "transferred")
        await accounted_for([fr, nl, de])


async def test_one_directory_is_judged_by_once(world: World) -> None:
    await world.create_field_keys()
    async with station(world.nodes[0]) as fr, station(world.nodes[1]) as nl:
        moment = later(fr, nl)
        await report(fr, "1")
        await told(fr, 1)
        retired(world.nodes[0], [KeyUse.STREAM], moment)
        world.sign_directory()
        await heard_of(fr.node, world.version)
        await fr.node.judge.run()
        assert (
            await fr.value("SELECT acked_size FROM delivery_cursors WHERE stream = (SELECT stream FROM receipts)") == 0
        )
        assert await fr.node.judge.run() == 0


async def test_receipts_of_a_peer_that_is_left_out_of_the_directory_keep_their_worth(world: World) -> None:
    await world.create_field_keys()
    fr_node, nl_node = world.nodes
    async with station(fr_node) as fr, station(nl_node) as nl:
        await report(fr, "1")
        await told(fr, 1)
        before = await receipts(fr)
        acked = await fr.value("SELECT max(acked_size) FROM delivery_cursors")
        world.nodes = [fr_node]
        await heard(world, fr)
        world.nodes = [nl_node]
        await heard(world, nl)
        assert await receipts(fr) == before
        assert await fr.value("SELECT max(acked_size) FROM delivery_cursors") == acked
        assert await nl.value("SELECT count(*) FROM inbound_batches WHERE worthless") == 0
        # Listed again, both go on from where they were.
        world.nodes = [fr_node, nl_node]
        await heard(world, fr, nl)
        await report(fr, "2")
        await told(fr, 2)
        assert before.items() <= (await receipts(fr)).items()
        await eventually(lambda: receipts_agree(fr, nl))
        await accounted_for([fr, nl])


@pytest.mark.parametrize("delivery", ["push", "pull"])
async def test_a_node_on_a_backup_of_before_the_news_takes_the_renewed_receipts(world: World, delivery: str) -> None:
    """The backup holds the records under receipts that count no more; the sender has had others since.

    One that cannot be called hears at the door of the node that recovers how far that is covered, and not what it has.
    """
    fr_node, nl_node = world.nodes
    fr_node.entry["delivery"] = delivery
    if delivery == "pull":
        fr_node.entry["base_url"] = f"http://127.0.0.1:{free_port()}"
    world.sign_directory()
    await world.create_field_keys()
    async with station(fr_node, peer_timeout_s=2.0, backoff_cap_s=0.2) as fr:
        async with station(nl_node) as nl:
            moment = fr.clock.now().replace(microsecond=0)
            items = [await report(fr, "1")]
            await told(fr, 1)
        older = await copied(nl_node)
        retired(fr_node, [KeyUse.STREAM], moment)
        await heard(world, fr)
        async with station(nl_node) as nl:
            await eventually(lambda: receipts_agree(fr, nl))
            items.append(await report(fr, "2"))
            await told(fr, 2)
            await eventually(lambda: receipts_agree(fr, nl))
        before = await receipts(fr)
        async with standing_still(older) as still:
            await recover(still, frozenset(), recovery_door(still), wait_s=30.0)
        async with station(older) as nl:
            await eventually(lambda: receipts_agree(fr, nl), limit_s=40)
            assert await receipts(fr) == before
            for item in items:
                await arrived(nl, item, "assigned")
            assert await nl.value("SELECT count(*) FROM equivocations") == 0


async def test_what_was_taken_before_a_restore_is_taken_again_whatever_became_of_its_proof(three: World) -> None:
    """Germany had taken a transfer, and said so; since then the proof in it counts no more."""
    world = three
    await world.create_field_keys()
    fr_node, nl_node, de_node = world.nodes
    async with station(fr_node) as fr, station(nl_node) as nl:
        item = await report(fr, "1")
        await told(fr, 1)
        older = await copied(de_node)
        moment = fr.clock.now().replace(microsecond=0) - timedelta(hours=1)
        async with station(de_node) as de:
            await move(nl, item, ip=ADDRESS["DE"])
            await arrived(nl, item, "transferred")
            await arrived(de, item, "assigned")
            await accounted_for([fr, nl, de])
        stolen(nl_node, [KeyUse.RECEIPT], moment)
        await heard(world, fr, nl)
        async with standing_still(older) as still:
            await recover(still, frozenset())
        async with station(older) as de:
            await arrived(de, item, "assigned")
            assert await de.value("SELECT count(*) FROM inbox_refusals") == 0
            assert await nl.value("SELECT count(*) FROM outbox_refusals") == 0
            await accounted_for([fr, nl, de])


async def test_no_receipt_is_given_by_a_clock_at_which_no_key_counts(world: World) -> None:
    """The Dutch clock is two minutes behind just after its keys were replaced: what it signed would prove nothing."""
    await world.create_field_keys()
    async with station(world.nodes[0], backoff_cap_s=0.2) as fr, station(world.nodes[1]) as nl:
        moment = nl.clock.now().replace(microsecond=0)
        stolen(world.nodes[1], [KeyUse.RECEIPT], moment)
        await heard(world, fr, nl)
        nl.clock.ahead_s = -120
        await report(fr, "1")

        async def refused() -> bool:
            return bool(await fr.value("SELECT count(*) FROM peers WHERE last_problem = 'maintenance'"))

        await eventually(refused)
        assert await nl.value("SELECT count(*) FROM inbound_batches") == 0
        nl.clock.ahead_s = 0
        await told(fr, 1)
        assert all(proves(note, fr.node.directory()) for note in (await receipts(fr)).values())
        await accounted_for([fr, nl])
