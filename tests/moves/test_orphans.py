"""Countries without a hotline, hotlines that are gone or never answer: the item goes another way, to one alone."""

import io
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial
from uuid import UUID

import pytest

from node.hotline.domain.lifecycle import TABLE, Event, State
from node.hotline.jobs import Jobs
from node.hotline.rounds import Rounds
from node.hotline.store import custody, outbound
from node.hotline.store.items import queue_depths
from node.hotline.store.status import read_status
from node.platform.database import Transaction
from node.platform.telemetry import make_logger
from protocol.codes import StatusKind, WithdrawalReason
from protocol.record import parse_record
from protocol.steps import StatusBody
from tests.hotline.network import ILLEGAL, Station, eventually, station
from tests.moves.chain import accounted_for, arrived, custodians, knows, move, reported, way
from tests.world import ADDRESS, World


async def failures(at: Station, item: UUID) -> list[tuple[str, str]]:
    """Return the negative evidence of an item: which node, and why."""
    async with at.node.db.transaction("test.read") as tx:
        rows = await tx.fetch("SELECT node, code FROM relay_failures WHERE item_id = $1", item)
    return [(row["node"], row["code"]) for row in rows]


async def told_of_failure(at: Station) -> StatusBody:
    """Wait until a node has a relay failure in its inbox, and return it."""
    found: list[StatusBody] = []

    async def there() -> bool:
        async with at.node.db.transaction("test.read") as tx:
            rows = await tx.fetch("SELECT stream, idx, record_enc FROM inbox")
        for row in rows:
            opened = at.node.store.vault.open_record("inbox", row["stream"], row["idx"], row["record_enc"])
            body = parse_record(opened).body
            if isinstance(body, StatusBody) and body.kind is StatusKind.RELAY_FAILURE:
                found.append(body)
        return bool(found)

    await eventually(there)
    return found[0]


async def test_a_report_that_is_not_receipted_in_time_goes_to_the_mandated_hotline(world: World) -> None:
    fr_node, nl_node, _, us_node = world.nodes
    world.mandated.append(us_node.id)
    world.sign_directory()
    await world.create_field_keys()
    async with station(fr_node) as fr, station(us_node) as us:
        item = (await fr.report(f"http://{ADDRESS['NL']}/page", qualification=ILLEGAL)).items[0].id
        await fr.until(item, "sent")
        assert await fr.node.moving.fallback.run(fr.node.directory()) == 0
        async with fr.node.db.transaction("test.age") as tx:
            await tx.execute("UPDATE outbox SET created_at = created_at - interval '31 days'")
        fr.clock.ahead_s = 31 * 86_400.0
        assert await fr.node.moving.fallback.run(fr.node.directory()) == 1
        fr.clock.ahead_s = 0.0
        await arrived(us, item, "assigned")
        assert (await fr.item(item))["assigned_node"] == us_node.id
        assert await failures(fr, item) == [(nl_node.id, "deliver-by-passed")]
        await Jobs(fr.node, Rounds(fr.node))._gauges()
        gauge = f'hotline_relay_failures{{code="deliver-by-passed",peer="{nl_node.id}"}} 1.0'
        assert gauge in fr.node.metrics.render().decode()
        assert await us.value("SELECT hosting_country || assigned_country FROM items") == "NLUS"
        # The first record stays in the stream of the hotline that was away, and what takes it back follows.
        kinds = "SELECT string_agg(type, ' ' ORDER BY idx) FROM outbox o JOIN outbound_streams s ON s.id = o.stream "
        assert await fr.value(kinds + "WHERE s.peer = $1", nl_node.id) == "report withdrawal"
        assert await fr.node.moving.fallback.run(fr.node.directory()) == 0


async def test_a_hotline_that_reads_a_report_after_its_time_finds_it_taken_back(world: World) -> None:
    """By every clock the `deliver_by` is past and the fallback taken; then the report is withdrawn for good."""
    fr_node, nl_node, _, us_node = world.nodes
    world.mandated.append(us_node.id)
    world.sign_directory()
    await world.create_field_keys()

    async def a_month_on(one: Station) -> None:
        one.clock.ahead_s = timedelta(days=31).total_seconds()
        await one.node.membership.refresh()

    async with station(fr_node) as fr, station(us_node) as us:
        item = (await fr.report(f"http://{ADDRESS['NL']}/page", qualification=ILLEGAL)).items[0].id
        await fr.until(item, "sent")
        for one in (fr, us):
            await a_month_on(one)
        assert await fr.node.moving.fallback.run(fr.node.directory()) == 1
        await arrived(us, item, "assigned")
        async with station(nl_node) as nl:
            await a_month_on(nl)
            await arrived(nl, item, "withdrawn")
            assert (await nl.item(item))["reason"] == WithdrawalReason.REROUTED
            sealed = await nl.value("SELECT record_enc FROM inbox WHERE idx = 0")
            stream = await nl.value("SELECT stream FROM inbox WHERE idx = 0")
            late = parse_record(nl.node.store.vault.open_record("inbox", stream, 0, sealed)).envelope
            assert late.deliver_by is not None
            assert late.deliver_by < nl.clock.now()
            assert await custodians([fr, nl, us], item) == ["US"]
            # Its reporter takes it back: who has it now hears of it, and who read it too late has nothing to do.
            assert await fr.node.store.amender().withdraw(item, WithdrawalReason.REPORTED_IN_ERROR) == "withdrawn"
            await arrived(us, item, "withdrawn")
            await accounted_for([fr, nl, us])
            assert await custodians([fr, nl, us], item) == []
            for one in (fr, nl, us):
                assert await one.value("SELECT count(*) FROM inbox_refusals") == 0


async def test_what_a_suspended_hotline_did_not_take_goes_another_way(world: World) -> None:
    fr_node, nl_node, de_node, us_node = world.nodes
    world.mandated.append(us_node.id)
    world.sign_directory()
    await world.create_field_keys()
    async with station(fr_node) as fr, station(nl_node) as nl, station(us_node) as us:
        item = await reported(fr, nl, "NL")
        await move(nl, item, ip=ADDRESS["DE"])
        await arrived(nl, item, "leaving")

        async def tried() -> bool:
            return bool(await nl.value("SELECT failures > 0 FROM peers WHERE node_id = $1", de_node.id))

        await eventually(tried)
        de_node.entry["state"] = "suspended"
        world.sign_directory()
        for one in (fr, nl, us):
            await one.node.membership.refresh()
        assert await nl.node.moving.fallback.run(nl.node.directory()) == 1
        await arrived(us, item, "assigned")
        await arrived(nl, item, "transferred")
        await knows(fr, item, "FR", "NL", "US")
        assert await failures(nl, item) == [(de_node.id, "suspended")]
        assert await custodians([fr, nl, us], item) == ["US"]
        # The first reporter has the evidence as it is kept: since when, and after how many attempts.
        told = await told_of_failure(fr)
        assert (told.node, told.code) == (de_node.id, "suspended")
        kept = "SELECT count(*) FROM relay_failures f JOIN outbox o ON o.item_id = f.item_id AND o.type = 'transfer' "
        kept += "AND o.leaf_hash = f.record_hash AND f.since = o.created_at WHERE f.attempts = $1 "
        assert await nl.value(kept + "AND date_trunc('milliseconds', f.since) = $2", told.attempts, told.since) == 1
        assert told.attempts is not None
        assert told.attempts >= 1


async def test_what_is_refused_goes_again_after_a_while_and_not_for_ever(world: World) -> None:
    """Refused by a hotline that is not there: what it would answer is noted as if it had."""
    fr_node, nl_node, de_node, _ = world.nodes
    await world.create_field_keys()
    lines = io.StringIO()
    async with station(fr_node) as fr, station(nl_node, log=make_logger("error", "json", lines)) as nl:
        item = await reported(fr, nl, "NL")
        await move(nl, item, ip=ADDRESS["DE"])
        await arrived(nl, item, "leaving")
        transfers = "SELECT count(*) FROM outbox WHERE type = 'transfer'"
        waits_min = [1, 4, 16, 64]
        for refusals, wait_min in enumerate([*waits_min, 7 * 24 * 60], start=1):
            assert await nl.value(transfers) == refusals
            async with nl.node.db.transaction("test.refuse") as tx:
                place = await tx.row("SELECT out_stream, out_idx FROM custody WHERE item_id = $1", item)
                assert place is not None
                said = (place["out_idx"], "handling-violation", "the proof fails at step 5")
                await outbound.refuse(tx, place["out_stream"], [said], nl.clock.now())
            row = await nl.item(item)
            assert (row["state"], row["reason"], row["assigned_node"]) == ("assigned", "handling-violation", nl_node.id)
            await nl.node.moving.orphans.run(nl.node.directory())
            nl.clock.ahead_s += wait_min * 60 - 20
            await nl.node.moving.orphans.run(nl.node.directory())
            assert await nl.value(transfers) == refusals
            nl.clock.ahead_s += 21
            await nl.node.moving.orphans.run(nl.node.directory())
            expected = "leaving" if refusals <= len(waits_min) else "assigned"
            assert (await nl.item(item))["state"] == expected
        await nl.node.moving.orphans.run(nl.node.directory())
        assert (await nl.item(item))["reason"] == "refused-too-often"
        (line,) = [json.loads(line) for line in lines.getvalue().splitlines() if "move.not-taken" in line]
        assert (line["item"], line["peer"], line["code"]) == (str(item), de_node.id, "handling-violation")
        # A person may let it go once more.
        await move(nl, item, ip=ADDRESS["DE"])
        await arrived(nl, item, "leaving")


async def test_an_outcome_or_a_receipt_moves_an_item_as_the_table_says(world: World) -> None:
    """They are read by statements of the database, over many items at once: in every state, what the table has."""
    nl_node = world.nodes[1]
    await world.create_field_keys([nl_node])
    async with station(nl_node) as nl:
        item = (await nl.report(f"http://{ADDRESS['DE']}/page", qualification=ILLEGAL)).items[0].id
        await nl.until(item, "sent")

        async def after(state: State, illegal: str, happens: Callable[[Transaction, int], Awaitable[None]]) -> str:
            async with nl.node.db.transaction("test.table") as tx:
                stream = await tx.value("SELECT stream FROM outbox WHERE type = 'report'")
                trail = json.dumps([{"node": nl_node.id, "country": "DE", "evidence": "0" * 64}])
                await tx.execute("DELETE FROM outbox_refusals")
                await tx.execute("DELETE FROM custody")
                await tx.execute(
                    "INSERT INTO custody "
                    "(item_id, holder, trail, given_at, out_stream, out_idx, receipted, updated_at) "
                    "VALUES ($1, 'de.hotline.example', $2::text::jsonb, now(), $3, 0, false, now())",
                    item,
                    trail,
                    stream,
                )
                said = json.dumps({"classification": illegal})
                await tx.execute(
                    "UPDATE items SET state = $1, qualification = $2::text::jsonb WHERE id = $3", state, said, item
                )
                await happens(tx, stream)
                return str(await tx.value("SELECT state FROM items WHERE id = $1", item))

        async def refused(tx: Transaction, stream: int) -> None:
            # A report and a transfer stand at this place, as far as the two statements look.
            await outbound.refuse(tx, stream, [(0, "not-competent", "no")], nl.clock.now())

        async def receipted(tx: Transaction, stream: int) -> None:
            await custody.receipted(tx, stream, 1, nl.clock.now())

        for state in State:
            sent = TABLE.get((state, Event.REFUSED_BY_PEER))
            back = TABLE.get((state, Event.RETURNED))
            assert await after(state, "not-illegal", refused) == (sent or back or state)
            kept = back and TABLE[back, Event.QUALIFIED_ILLEGAL]
            assert await after(state, "national", refused) == (sent or kept or state)
            assert await after(state, "national", receipted) == TABLE.get((state, Event.RECEIPTED), state)


async def test_what_no_record_can_carry_is_marked_and_told_once(world: World) -> None:
    fr_node, nl_node, _, _ = world.nodes
    await world.create_field_keys()
    lines = io.StringIO()
    async with station(fr_node) as fr, station(nl_node, log=make_logger("error", "json", lines)) as nl:
        item = await reported(fr, nl, "NL")
        large = nl.node.store.vault.seal("items", "evidence_enc", item, json.dumps({"note": "x" * 30_000}))
        hosted = "UPDATE items SET hosting_country = 'DE', evidence_enc = $2 WHERE id = $1 RETURNING true"
        assert await nl.value(hosted, item, large)
        for _ in range(3):
            await nl.node.moving.orphans.run(nl.node.directory())
            row = await nl.item(item)
            assert (row["state"], row["reason"]) == ("assigned", "record-too-large")
            nl.clock.ahead_s += 61
        assert await nl.value("SELECT updated_at < $1 FROM items", nl.clock.now() - timedelta(seconds=150))
        (line,) = [json.loads(line) for line in lines.getvalue().splitlines() if "move.not-carried" in line]
        assert (line["item"], line["code"], line["alarm"]) == (str(item), "too-large", True)


async def _delivered(at: Station, left: frozenset[str]) -> bool:
    async with at.node.db.transaction("test.read") as tx:
        return not (await queue_depths(tx, left))["deliver"]


async def test_what_nobody_else_may_take_stays_here(world: World) -> None:
    fr_node, nl_node, de_node, _ = world.nodes
    await world.create_field_keys()
    lines = io.StringIO()
    async with station(fr_node) as fr, station(nl_node, log=make_logger("warning", "json", lines)) as nl:
        item = await reported(fr, nl, "NL")
        await move(nl, item, ip=ADDRESS["DE"])
        await arrived(nl, item, "leaving")
        de_node.entry["state"] = "left"
        world.sign_directory()
        await nl.node.membership.refresh()
        assert await nl.node.moving.fallback.run(nl.node.directory()) == 1
        row = await nl.item(item)
        assert (row["state"], row["reason"], row["assigned_node"]) == ("assigned", "no-competent-hotline", nl_node.id)
        assert await custodians([fr, nl], item) == ["NL"]
        # The transfer and what takes it back wait for nobody, and that is told.
        left = nl.node.directory().left()
        assert left == {de_node.id}
        await eventually(partial(_delivered, nl, left))
        async with nl.node.db.transaction("test.read") as tx:
            depths = await queue_depths(tx, left)
            (given_up,) = await outbound.given_up(tx, left)
            assert (depths["deliver"], depths["given_up"]) == (0, 2)
            assert (given_up["peer"], given_up["records"]) == (de_node.id, 2)
            assert (await queue_depths(tx))["deliver"] == 2
            assert (await read_status(tx, nl.clock.now(), nl_node.id, nl.node.directory()))["queues"] == depths
        jobs = Jobs(nl.node, Rounds(nl.node))
        await jobs._gauges()
        assert 'hotline_queue_depth{queue="given_up"} 2.0' in nl.node.metrics.render().decode()
        lines.truncate(lines.seek(0))
        await jobs._tell_given_up()
        (line,) = [json.loads(line) for line in lines.getvalue().splitlines() if "deliver.given-up" in line]
        assert (line["peer"], line["records"], line["level"]) == (de_node.id, 2, "warning")
        # It comes back, reads the transfer and behind it that it was taken back, and has nothing.
        async with station(de_node) as de:
            de_node.entry["state"] = "active"
            world.sign_directory()
            for one in (fr, nl, de):
                await one.node.membership.refresh()
            await arrived(de, item, "withdrawn")
            assert await custodians([fr, nl, de], item) == ["NL"]


async def test_open_orphans_move_when_their_country_gains_a_hotline(world: World) -> None:
    """Held by mandate: one from another hotline goes on in a transfer, one reported at home in a report."""
    fr_node, nl_node, de_node, us_node = world.nodes
    world.nodes.remove(de_node)
    world.mandated.append(us_node.id)
    world.sign_directory()
    await world.create_field_keys([fr_node, nl_node, de_node, us_node])
    async with station(fr_node) as fr, station(us_node) as us:
        item = (await fr.report(f"http://{ADDRESS['DE']}/page", qualification=ILLEGAL)).items[0].id
        await arrived(us, item, "assigned")
        own = (await us.report(f"http://{ADDRESS['DE']}/other", qualification=ILLEGAL)).items[0].id
        await us.until(own, "kept")
        assert (await us.item(own))["reason"] == "mandated"
        world.nodes.append(de_node)
        world.sign_directory()
        async with station(de_node) as de:
            for one in (fr, us):
                await one.node.membership.refresh()
            await us.node.moving.orphans.run(us.node.directory())
            await arrived(de, item, "assigned")
            await arrived(de, own, "assigned")
            await arrived(us, item, "transferred")
            await us.until(own, "sent")
            await knows(fr, item, "FR", "US", "DE")
            assert await custodians([fr, us, de], item) == ["DE"]
            assert await de.value("SELECT hosting_country || assigned_country FROM items WHERE id = $1", item) == "DEDE"


async def test_an_orphan_that_comes_after_its_country_gained_a_hotline_moves_on(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its reporter had not heard of the new hotline yet, and the mandated one had."""
    monkeypatch.setattr("node.hotline.jobs._ORPHANS_S", 1)
    fr_node, nl_node, de_node, us_node = world.nodes
    world.nodes.remove(de_node)
    world.mandated.append(us_node.id)
    world.sign_directory()
    await world.create_field_keys([fr_node, nl_node, de_node, us_node])
    async with station(fr_node) as fr, station(us_node) as us:
        world.nodes.append(de_node)
        world.sign_directory()
        await us.node.membership.refresh()
        await us.node.moving.orphans.run(us.node.directory())
        item = (await fr.report(f"http://{ADDRESS['DE']}/page", qualification=ILLEGAL)).items[0].id
        await arrived(us, item, "assigned", "leaving")
        async with station(de_node) as de:
            await arrived(de, item, "assigned")
            await knows(fr, item, "FR", "US", "DE")
            assert await custodians([fr, us, de], item) == ["DE"]


async def test_what_went_wrong_before_an_item_moved_on_is_no_news_after_it(world: World) -> None:
    """The first reporter was away, and hears of the item from who has it now before it hears from who had it."""
    fr_node, nl_node, de_node, us_node = world.nodes
    await world.create_field_keys()
    async with station(de_node) as de:
        async with station(nl_node) as nl:
            async with station(fr_node) as fr:
                item = await reported(fr, nl, "NL")
            await move(nl, item, ip=ADDRESS["US"])
            await arrived(nl, item, "leaving")
            us_node.entry["state"] = "left"
            world.sign_directory()
            await nl.node.membership.refresh()
            assert await nl.node.moving.fallback.run(nl.node.directory()) == 1
            await arrived(nl, item, "assigned")
            await move(nl, item, ip=ADDRESS["DE"])
            await arrived(de, item, "assigned")
        async with station(fr_node) as fr:
            await knows(fr, item, "FR", "NL", "DE")
            async with station(nl_node) as nl:
                applied = (
                    "SELECT count(*) FROM inbox b JOIN inbound_streams s ON s.id = b.stream "
                    "JOIN apply_cursors c ON c.stream = s.id "
                    "WHERE s.peer = $1 AND b.idx < c.applied AND NOT EXISTS "
                    "(SELECT FROM inbound_streams n JOIN apply_cursors m ON m.stream = n.id WHERE m.applied < n.size)"
                )

                async def heard() -> bool:
                    return bool(await fr.value(applied, nl_node.id) >= 2)

                await eventually(heard, limit_s=30)
                assert (await fr.item(item))["reason"] == "hosting-country"
                assert await way(fr, item) == ["FR", "NL", "DE"]


async def test_who_had_a_transfer_that_was_taken_back_is_not_believed_after_it(world: World) -> None:
    """The taker is listed as having left and back at once: it reads transfer and withdrawal, and says it had it."""
    await world.create_field_keys()
    fr_node, nl_node, de_node, _ = world.nodes
    async with station(fr_node) as fr, station(nl_node) as nl:
        item = await reported(fr, nl, "NL")
        await move(nl, item, ip=ADDRESS["DE"])
        await arrived(nl, item, "leaving")
        for state in ("left", "active"):
            de_node.entry["state"] = state
            world.sign_directory()
            await nl.node.membership.refresh()
            assert await nl.node.moving.fallback.run(nl.node.directory()) == (state == "left")
        await told_of_failure(fr)
        async with station(de_node) as de:
            await fr.node.membership.refresh()
            await arrived(de, item, "withdrawn")
            said = "SELECT count(*) FROM inbox b JOIN inbound_streams s ON s.id = b.stream "
            said += "JOIN apply_cursors c ON c.stream = s.id WHERE s.peer = $1 AND b.idx < c.applied"

            async def heard() -> bool:
                return bool(await fr.value(said, de_node.id))

            await eventually(heard, limit_s=30)
            assert (await fr.item(item))["assigned_node"] == nl_node.id
            assert await custodians([fr, nl, de], item) == ["NL"]
            for one in (fr, nl, de):
                assert await one.value("SELECT count(*) FROM inbox_refusals") == 0


async def _aged(fr: Station) -> UUID:
    """Return an item in the stream of a hotline that is away, whose time has passed."""
    item = (await fr.report(f"http://{ADDRESS['NL']}/page", qualification=ILLEGAL)).items[0].id
    await fr.until(item, "sent")
    async with fr.node.db.transaction("test.age") as tx:
        await tx.execute("UPDATE outbox SET created_at = created_at - interval '31 days'")
    fr.clock.ahead_s = timedelta(days=31).total_seconds()
    return item


async def test_after_an_outage_of_our_own_nobody_is_late_before_it_could_be_asked(world: World) -> None:
    fr_node, nl_node, _, us_node = world.nodes
    world.mandated.append(us_node.id)
    world.sign_directory()
    await world.create_field_keys([fr_node])
    async with station(fr_node) as fr:
        item = await _aged(fr)
        jobs = Jobs(fr.node, Rounds(fr.node))
        await jobs._fallback()
        fr.clock.ahead_s += fr.node.settings.backoff_cap_s - 60
        await jobs._fallback()
        assert await failures(fr, item) == []
        fr.clock.ahead_s += 60
        await jobs._fallback()
        assert await failures(fr, item) == [(nl_node.id, "deliver-by-passed")]
