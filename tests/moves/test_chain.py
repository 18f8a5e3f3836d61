"""An item that moves from country to country: one custodian after the other, and the first reporter hears of each."""

from datetime import datetime
from uuid import UUID

from node.hotline.domain.acts import ActionAsked
from node.hotline.domain.assessment import Assessment
from node.hotline.store.steps import Listener
from node.hotline.store.telling import Telling
from protocol.codes import OVER, Action, Classification, StatusKind, WithdrawalReason
from protocol.evidence import verify_evidence
from protocol.record import Record, parse_record
from protocol.steps import StatusBody, TransferBody
from tests.hotline.network import Station, eventually, station
from tests.moves.chain import accounted_for, arrived, chain, custodians, knows, move, reported, way
from tests.world import ADDRESS, World


async def received(at: Station, item: UUID) -> Record:
    """Return the record with which a node got the item."""
    vault = at.node.store.vault
    async with at.node.db.transaction("test.read") as tx:
        row = await tx.row(
            "SELECT b.stream, b.idx, b.record_enc FROM items i JOIN inbox b ON b.stream = i.received_stream "
            "AND b.idx = i.received_idx WHERE i.id = $1",
            item,
        )
    assert row is not None
    return parse_record(vault.open_record("inbox", row["stream"], row["idx"], row["record_enc"]))


async def test_an_item_moves_through_four_countries(world: World) -> None:
    await world.create_field_keys()
    fr_node, nl_node, de_node, us_node = world.nodes
    async with station(fr_node) as fr, station(nl_node) as nl, station(de_node) as de, station(us_node) as us:
        item = await reported(fr, nl, "NL")
        await move(nl, item, ip=ADDRESS["DE"])
        await arrived(de, item, "assigned")
        await arrived(nl, item, "transferred")
        await knows(fr, item, "FR", "NL", "DE")
        assert (await fr.item(item))["assigned_node"] == de_node.id
        assert (await nl.item(item))["assigned_node"] == de_node.id
        await move(de, item, ip=ADDRESS["US"])
        await arrived(us, item, "assigned")
        await arrived(de, item, "transferred")
        await knows(fr, item, "FR", "NL", "DE", "US")
        assert await way(us, item) == ["FR", "NL", "DE", "US"]
        assert (await fr.item(item))["state"] == "sent"
        assert await custodians([fr, nl, de, us], item) == ["US"]
        second, third = [await received(at, item) for at in (de, us)]
        assert isinstance(second.body, TransferBody)
        assert isinstance(third.body, TransferBody)
        assert second.body.original == third.body.original
        assert third.envelope.hops == (nl_node.id, de_node.id)
        assert third.body.reason == "moved"
        finding = verify_evidence(third.body.original.encode(), fr.node.directory())
        assert (finding.iss, finding.aud, finding.type) == (fr_node.id, nl_node.id, "report")
        url = us.node.store.vault.open("items", "url_enc", item, (await us.item(item))["url_enc"])
        assert url == f"http://{ADDRESS['NL']}/page"


async def test_the_first_reporter_hears_of_it_when_the_one_between_is_down(world: World) -> None:
    await world.create_field_keys()
    fr_node, nl_node, de_node, us_node = world.nodes
    async with station(fr_node) as fr, station(de_node) as de, station(us_node) as us:
        async with station(nl_node) as nl:
            item = await reported(fr, nl, "NL")
            await move(nl, item, ip=ADDRESS["DE"])
            await arrived(nl, item, "transferred")
        await arrived(de, item, "assigned")
        await move(de, item, ip=ADDRESS["US"])
        await arrived(us, item, "assigned")
        await knows(fr, item, "FR", "NL", "DE", "US")
        assert await custodians([fr, de, us], item) == ["US"]


async def test_a_chain_goes_on_when_the_next_in_it_was_down(world: World) -> None:
    """The third is down while the second hands the item on, and the second goes down before that arrives, and after."""
    await world.create_field_keys()
    fr_node, nl_node, de_node, us_node = world.nodes
    async with station(fr_node) as fr, station(us_node) as us:
        async with station(nl_node) as nl:
            item = await reported(fr, nl, "NL")
            await move(nl, item, ip=ADDRESS["DE"])
            await arrived(nl, item, "leaving")
            assert await custodians([fr, nl, us], item) == ["NL"]
        async with station(de_node) as de:
            async with station(nl_node) as nl:
                await arrived(de, item, "assigned")
                await arrived(nl, item, "transferred")
            await knows(fr, item, "FR", "NL", "DE")
            await move(de, item, ip=ADDRESS["US"])
            await arrived(us, item, "assigned")
            await arrived(de, item, "transferred")
            await knows(fr, item, "FR", "NL", "DE", "US")
            assert await custodians([fr, de, us], item) == ["US"]


async def test_what_the_new_custodian_does_comes_home_while_the_one_between_is_down(world: World) -> None:
    await world.create_field_keys()
    fr_node, nl_node, de_node, _ = world.nodes
    async with station(fr_node) as fr, station(de_node) as de:
        async with station(nl_node) as nl:
            item = await reported(fr, nl, "NL")
            await move(nl, item, ip=ADDRESS["DE"])
            await arrived(nl, item, "transferred")
        await arrived(de, item, "assigned")
        now = de.clock.now()
        await de.node.store.assessor().assess(item, Assessment(Classification.NATIONAL, now))
        await de.node.store.actor().act(item, ActionAsked(Action.REMOVED, now))
        await arrived(fr, item, "done")
        assert await fr.value("SELECT node FROM actions WHERE item_id = $1", item) == de_node.id
        assert await fr.value("SELECT count(*) FROM inbox_refusals") == 0
        # The one between hears of it too, once it is back.
        async with station(nl_node) as nl:
            await arrived(nl, item, "done")


async def test_what_was_done_of_an_item_before_it_moves_home_is_taken_when_all_arrives_at_once(world: World) -> None:
    await world.create_field_keys()
    fr_node, nl_node, *_ = world.nodes
    async with station(nl_node) as nl:
        async with station(fr_node) as fr:
            item = await reported(fr, nl, "NL")
        now = nl.clock.now()
        await nl.node.store.assessor().assess(item, Assessment(Classification.NATIONAL, now))
        await nl.node.store.actor().act(item, ActionAsked(Action.HOSTER_NOTIFIED, now))
        await move(nl, item, ip=ADDRESS["FR"])

        async def written() -> bool:
            return bool(await nl.value("SELECT count(*) FROM outbox WHERE type = 'transfer'") == 1)

        await eventually(written)
        async with station(fr_node) as fr:
            await arrived(nl, item, "transferred")
            await arrived(fr, item, "kept")
            assert await fr.value("SELECT count(*) FROM inbox_refusals") == 0
            done = "SELECT count(*) FROM actions WHERE item_id = $1 AND action = 'hoster-notified' AND node = $2"
            assert await fr.value(done, item, nl_node.id) == 1
            await accounted_for([fr, nl])


async def test_an_item_comes_home_on_new_evidence_and_leaves_again(world: World) -> None:
    await world.create_field_keys()
    fr_node, nl_node, de_node, _ = world.nodes
    async with station(fr_node) as fr, station(nl_node) as nl, station(de_node) as de:
        item = await reported(fr, nl, "NL")
        await move(nl, item, ip=ADDRESS["FR"])
        await arrived(fr, item, "kept")
        await arrived(nl, item, "transferred")
        assert await way(fr, item) == ["FR", "NL", "FR"]
        await move(fr, item, ip=ADDRESS["DE"])
        await arrived(de, item, "assigned")
        await arrived(fr, item, "transferred")
        await move(de, item, country="NL")
        await arrived(nl, item, "assigned")
        await arrived(de, item, "transferred")
        await knows(fr, item, "FR", "NL", "FR", "DE", "NL")
        assert await custodians([fr, nl, de], item) == ["NL"]
        await accounted_for([fr, nl, de])


async def test_a_location_that_did_not_change_moves_nothing(world: World) -> None:
    await world.create_field_keys()
    async with station(world.nodes[0]) as fr, station(world.nodes[1]) as nl:
        item = await reported(fr, nl, "NL")
        await move(nl, item)
        await arrived(nl, item, "assigned")

        async def reason() -> bool:
            return bool((await nl.item(item))["reason"] == "not-moved")

        await eventually(reason)
        assert await nl.value("SELECT count(*) FROM relocations") == 0


async def test_a_wish_of_a_clock_that_was_ahead_does_not_wait_for_that_time(world: World) -> None:
    await world.create_field_keys()
    async with station(world.nodes[0]) as fr, station(world.nodes[1]) as nl, station(world.nodes[2]) as de:
        item = await reported(fr, nl, "NL")
        async with nl.node.db.transaction("test.queue") as tx:
            await tx.execute(
                "INSERT INTO relocations (item_id, ip_enc, asked_at, due_at, attempts) "
                "VALUES ($1, $2, now(), now() + interval '2 hours', 0)",
                item,
                nl.node.store.vault.seal("relocations", "ip_enc", item, ADDRESS["DE"]),
            )
        assert await nl.node.moving.relocator.recall() == 1
        await arrived(de, item, "assigned")


async def test_a_transfer_that_is_refused_brings_the_item_back_and_the_first_reporter_hears_of_it(
    world: World,
) -> None:
    """The German hotline has given its country up; the Dutch one has not heard of it when it hands the item on."""
    await world.create_field_keys()
    fr_node, nl_node, de_node, us_node = world.nodes
    async with station(fr_node) as fr, station(nl_node) as nl, station(us_node) as us:
        item = await reported(fr, nl, "NL")
        await move(nl, item, ip=ADDRESS["US"])
        await arrived(us, item, "assigned")
        await arrived(nl, item, "transferred")
        await knows(fr, item, "FR", "NL", "US")
        de_node.entry["countries"] = ["AT"]
        world.sign_directory()
        async with station(de_node) as de:
            await move(us, item, ip=ADDRESS["DE"])
            await returned(us, item, "not-competent")
            assert await custodians([fr, nl, us, de], item) == ["US"]
            assert await way(us, item) == ["FR", "NL", "US"]

            async def told() -> bool:
                return bool((await fr.item(item))["reason"] == "relay-failure")

            await eventually(told)
            assert await way(fr, item) == ["FR", "NL", "US"]
            assert await fr.value("SELECT assigned_node FROM items WHERE id = $1", item) == us_node.id
            # It is the American hotline's again, which acts on it or hands it on.
            await move(us, item, country="NL")
            await arrived(nl, item, "assigned")
            await knows(fr, item, "FR", "NL", "US", "NL")
            assert (await fr.item(item))["reason"] is None
            for one in (fr, nl, de, us):
                refusals = "SELECT count(*) FROM inbox_refusals"
                assert await one.value(refusals) == (one is de)
            await accounted_for([fr, nl, de, us])


async def test_a_hotline_that_gives_an_item_in_vain_where_it_had_it_from_hands_it_on_and_is_believed(
    world: World,
) -> None:
    """The German hotline gave it back and gave its country up; the Dutch one has not heard of that."""
    await world.create_field_keys()
    fr_node, nl_node, de_node, us_node = world.nodes
    async with station(fr_node) as fr, station(nl_node) as nl, station(us_node) as us:
        async with station(de_node) as de:
            item = await reported(fr, nl, "NL")
            await move(nl, item, ip=ADDRESS["DE"])
            await arrived(de, item, "assigned")
            await arrived(nl, item, "transferred")
            await move(de, item, country="NL")
            await arrived(nl, item, "assigned")
            await arrived(de, item, "transferred")
            await knows(fr, item, "FR", "NL", "DE", "NL")
        de_node.entry["countries"] = ["AT"]
        world.sign_directory()
        async with station(de_node) as de:
            await move(nl, item, country="DE")
            await returned(nl, item, "not-competent")

            async def told() -> bool:
                heard = [bool(await one.value("SELECT count(*) FROM taken_back")) for one in (fr, de)]
                return all(heard)

            await eventually(told)
            assert await way(fr, item) == ["FR", "NL", "DE", "NL"]
            await move(nl, item, ip=ADDRESS["US"])
            await arrived(us, item, "assigned")
            await knows(fr, item, "FR", "NL", "DE", "NL", "US")
            assert (await fr.item(item))["assigned_node"] == us_node.id
            await accounted_for([fr, nl, de, us])


async def test_an_old_word_of_who_had_the_item_changes_nothing_nor_does_any_once_it_has_ended(world: World) -> None:
    await world.create_field_keys()
    fr_node, nl_node, de_node, _ = world.nodes
    async with station(fr_node) as fr, station(nl_node) as nl, station(de_node) as de:
        item = await reported(fr, nl, "NL")
        await move(nl, item, ip=ADDRESS["DE"])
        await arrived(nl, item, "transferred")
        await knows(fr, item, "FR", "NL", "DE")
        given, before = await chain(fr, item), await fr.item(item)
        assert given is not None
        # As when it had not got through at first: said in the moment in which it was handed on once more.
        about = (await nl.item(item))["report_hash"].hex()
        failure = StatusBody(
            kind=StatusKind.RELAY_FAILURE,
            at=given.given_at,
            about=about,
            node=de_node.id,
            code="late",
            since=given.given_at,
            attempts=1,
        )
        disputed = StatusBody(kind=StatusKind.DISPUTED, at=given.given_at, about=about, code="same-evidence")
        await said(nl, fr, item, [failure, disputed], given.given_at)
        assert await way(fr, item) == ["FR", "NL", "DE"]
        after = await fr.item(item)
        assert (after["reason"], after["assigned_node"]) == (before["reason"], de_node.id)

        assert await fr.node.store.amender().withdraw(item, WithdrawalReason.REPORTED_IN_ERROR) == "withdrawn"
        before = await fr.item(item)
        await said(de, fr, item, [disputed], de.clock.now())
        assert (await fr.item(item))["reason"] == before["reason"]


async def test_a_dispute_that_is_over_leaves_no_mark_and_takes_no_other_away(world: World) -> None:
    """Said in one batch with the dispute, too: the desk was quick, or the line was slow."""
    await world.create_field_keys()
    fr_node, nl_node, de_node, _ = world.nodes
    async with station(fr_node) as fr, station(nl_node) as nl:
        item = await reported(fr, nl, "NL")
        about, now = (await nl.item(item))["report_hash"].hex(), nl.clock.now()
        disputed, over = (
            StatusBody(kind=StatusKind.DISPUTED, at=now, about=about, code=code) for code in ("same-evidence", OVER)
        )
        failure = StatusBody(
            kind=StatusKind.RELAY_FAILURE, at=now, about=about, node=de_node.id, code="late", since=now, attempts=1
        )
        for told, mark in (
            ([disputed], "disputed"),
            ([over], None),
            ([disputed, over], None),
            ([failure, over], "relay-failure"),
            ([disputed], "disputed"),
            ([over], None),
        ):
            await said(nl, fr, item, told, nl.clock.now())
            assert (await fr.item(item))["reason"] == mark


async def test_who_had_an_item_takes_it_from_nobody_by_its_word_alone(world: World) -> None:
    """It says to the holder that another, who handed the item on, never got it: that is for the first reporter."""
    await world.create_field_keys()
    fr_node, nl_node, de_node, us_node = world.nodes
    async with station(fr_node) as fr, station(nl_node) as nl, station(de_node) as de, station(us_node) as us:
        item = await reported(fr, nl, "NL")
        await move(nl, item, ip=ADDRESS["DE"])
        await arrived(de, item, "assigned")
        await move(de, item, ip=ADDRESS["US"])
        await arrived(us, item, "assigned")
        about, now = (await nl.item(item))["report_hash"].hex(), nl.clock.now()
        failure = StatusBody(
            kind=StatusKind.RELAY_FAILURE, at=now, about=about, node=de_node.id, code="late", since=now, attempts=1
        )
        await said(nl, us, item, [failure], now)
        assert await way(us, item) == ["FR", "NL", "DE", "US"]
        await us.node.store.actor().act(item, ActionAsked(Action.HOSTER_NOTIFIED, now))
        await arrived(us, item, "kept")


async def said(by: Station, to: Station, item: UUID, bodies: list[StatusBody], now: datetime) -> None:
    """Let a node say this of an item at that time, and wait until the other has accepted all of it."""
    row, peer = await by.item(item), to.node.settings.node_id
    listener = Listener(peer, item, row["case_id"], row["report_hash"])
    async with by.node.db.transaction("test.say") as tx:
        await by.node.store.teller().tell(tx, [Telling(listener, body) for body in bodies], now)
        await tx.notify("deliver")

    async def answered() -> bool:
        return bool(
            await by.value(
                "SELECT bool_and(o.idx < c.outcome_size) FROM outbound_streams s JOIN outbox o ON o.stream = s.id "
                "JOIN delivery_cursors c ON c.stream = s.id WHERE s.peer = $1 AND o.type = 'status'",
                peer,
            )
        )

    await eventually(answered)
    assert await by.value("SELECT count(*) FROM outbox_refusals") == 0


async def returned(at: Station, item: UUID, code: str) -> None:
    """Wait until an item is back at who handed it on, with the code of the refusal."""

    async def back() -> bool:
        row = await at.item(item)
        return (row["state"], row["reason"]) == ("assigned", code)

    await eventually(back, limit_s=30)
