"""From a report to the competent country's node, and a signed receipt home: the whole chain, in one process."""

import shutil
from dataclasses import replace

from node.hotline.store.status import read_status
from protocol.evidence import verify_evidence
from tests.hotline.network import ILLEGAL, Station, eventually, station
from tests.world import ADDRESS, World


async def told(one: Station, records: int, *, limit_s: float = 30.0) -> None:
    """Wait until the outcome of so many of the node's records, or more, is home: its own outcomes are records, too."""

    async def home() -> bool:
        return bool(await one.value("SELECT coalesce(sum(outcome_size), 0) >= $1 FROM delivery_cursors", records))

    await eventually(home, limit_s=limit_s)


async def test_an_illegal_item_reaches_the_hosting_country_and_its_receipt_comes_home(world: World) -> None:
    await world.create_field_keys()
    async with station(world.nodes[0]) as fr, station(world.nodes[1]) as nl:
        taken = await fr.report(f"http://{ADDRESS['NL']}/page", qualification=ILLEGAL)
        item = taken.items[0].id
        await told(fr, 1)
        assert (await nl.item(item))["state"] == "assigned"
        async with nl.node.db.transaction("test.status") as tx:
            status = await read_status(tx, nl.clock.now())
        assert [(row["state"], row["received"], row["items"]) for row in status["items"]] == [("assigned", True, 1)]
        proof = await fr.node.store.prover().prove(item)
        finding = verify_evidence(proof, fr.node.directory())
        assert (finding.iss, finding.aud) == (fr.node.settings.node_id, nl.node.settings.node_id)
        assert await nl.node.store.prover().prove(item) == proof


async def test_receipts_are_the_same_bytes_on_both_sides(world: World) -> None:
    await world.create_field_keys()
    async with station(world.nodes[0], batch_records_max=10) as fr, station(world.nodes[1]) as nl:
        for n in range(35):
            await fr.report(f"http://{ADDRESS['NL']}/{n}", qualification=ILLEGAL)
        await told(fr, 35)
        async with fr.node.db.transaction("test.read") as tx:
            ours = {row["size"]: row["note"] for row in await tx.fetch("SELECT size, note FROM receipts")}
        async with nl.node.db.transaction("test.read") as tx:
            theirs = {
                row["size"]: row["receipt"] for row in await tx.fetch("SELECT size, receipt FROM inbound_batches")
            }
        assert ours == theirs
        assert max(ours) == 35
        assert len(ours) >= 4


async def test_a_record_that_the_peer_refuses_blocks_none_behind_it(world: World) -> None:
    """The Dutch node does not know yet that it answers for another country too: it refuses that, and takes the rest."""
    older = world.folder / "older"
    shutil.copytree(world.repository, older)
    world.nodes[1].entry["countries"] = ["NL", "US"]
    world.sign_directory()
    await world.create_field_keys()
    async with (
        station(world.nodes[0]) as fr,
        station(
            replace(world.nodes[1], settings=replace(world.nodes[1].settings, directory_sources=(str(older),)))
        ) as nl,
    ):
        # Else it would hear of the newer one from the other node.
        nl.node.membership._mirror = None
        refused = (await fr.report(f"http://{ADDRESS['US']}/x", qualification=ILLEGAL)).items[0].id
        taken = (await fr.report(f"http://{ADDRESS['NL']}/x", qualification=ILLEGAL)).items[0].id
        row = await fr.until(refused, "refused")
        assert row["reason"] == "not-competent"
        await told(fr, 2)
        assert (await fr.item(taken))["state"] == "sent"
        assert await nl.value("SELECT count(*) FROM items") == 1
        # Refused, but received: the proof of that holds like any other.
        assert verify_evidence(await fr.node.store.prover().prove(refused), fr.node.directory()).item == str(refused)


async def test_what_both_hotlines_know_is_linked_at_the_receiver(world: World) -> None:
    await world.create_field_keys()
    async with station(world.nodes[0]) as fr, station(world.nodes[1]) as nl:
        known = (await nl.report(f"http://{ADDRESS['NL']}/x")).items[0].id
        sent = (await fr.report(f"http://{ADDRESS['NL']}:80/x#y", qualification=ILLEGAL)).items[0].id
        await told(fr, 1)
        row = await nl.item(sent)
        assert (row["state"], row["duplicate_of"]) == ("duplicate", known)
        assert await nl.value("SELECT times_seen FROM url_identities") == 2
