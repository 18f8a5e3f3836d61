"""What is said of an item that has moved: the hotline that has it is heard, and a withdrawal reaches every holder."""

from datetime import UTC, datetime
from uuid import UUID

import pytest

from node.hotline.domain.acts import ActionAsked
from node.hotline.domain.assessment import Assessment
from node.hotline.domain.lifecycle import RecordRefused
from protocol.bodies import Hash
from protocol.codes import Action, Classification, HashAlgorithm, SiteType, WithdrawalReason
from protocol.steps import Corrected
from tests.hotline.network import Station, eventually, station
from tests.moves.chain import arrived, knows, move, reported
from tests.world import ADDRESS, World

AT = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)


async def actions(at: Station, item: object) -> list[tuple[str, str]]:
    async with at.node.db.transaction("test.read") as tx:
        rows = await tx.fetch("SELECT node, action FROM actions WHERE item_id = $1 ORDER BY id", item)
    return [(row["node"], row["action"]) for row in rows]


async def test_the_hotline_that_has_it_now_is_heard_by_those_before(world: World) -> None:
    await world.create_field_keys()
    fr_node, nl_node, de_node, _ = world.nodes
    async with station(fr_node) as fr, station(nl_node) as nl, station(de_node) as de:
        item = await reported(fr, nl, "NL")
        await nl.node.store.actor().act(item, ActionAsked(Action.AUTHORITIES_INFORMED))
        await move(nl, item, ip=ADDRESS["DE"])
        await arrived(nl, item, "transferred")
        await knows(fr, item, "FR", "NL", "DE")
        # It is for the new custodian to act, and each custodian informs its own authorities.
        with pytest.raises(RecordRefused):
            await nl.node.store.actor().act(item, ActionAsked(Action.REMOVED))
        assert await de.node.store.assessor().assess(item, Assessment(Classification.BASELINE, AT)) == "kept"
        for action in (Action.AUTHORITIES_INFORMED, Action.REMOVED):
            await de.node.store.actor().act(item, ActionAsked(action))
        theirs = [(de_node.id, "authorities-informed"), (de_node.id, "removed")]
        for one in (fr, nl):
            await arrived(one, item, "done")
            assert await actions(one, item) == [(nl_node.id, "authorities-informed"), *theirs]
            assert (await one.item(item))["peer_qualification"]["classification"] == "baseline"
        for one in (fr, nl, de):
            assert await one.value("SELECT count(*) FROM outbox_refusals") == 0


async def test_a_correction_reaches_who_has_the_item_now_also_where_the_reporter_did_not_know(world: World) -> None:
    await world.create_field_keys()
    fr_node, nl_node, de_node, _ = world.nodes
    async with station(nl_node) as nl:
        async with station(fr_node) as fr:
            item = await reported(fr, nl, "NL")
            amender = fr.node.store.amender()
            # Before it moved, and so not in the report that the transfer carries.
            await amender.correct(item, Corrected(site_type=SiteType.BLOG, reference="2026-000123"))
        async with station(de_node) as de:
            await move(nl, item, ip=ADDRESS["DE"])
            await arrived(de, item, "assigned")
            await arrived(nl, item, "transferred")
    # The reporter knows the Dutch hotline alone, and that one stays away from now on.
    async with station(fr_node) as fr:
        case = (await fr.item(item))["case_id"]
        hashes = (Hash(HashAlgorithm.MD5, "f" * 32),)
        amender = fr.node.store.amender()
        await amender.correct(item, Corrected(site_type=SiteType.FORUM, hashes=hashes))
        async with station(de_node) as de:
            await corrected(de, case, "forum")
            assert (await de.item(item))["hashes"] == [{"alg": "md5", "value": "f" * 32}]
            sealed = await de.value("SELECT wire_reference_enc FROM cases WHERE id = $1", case)
            assert de.node.store.vault.reference(case, sealed, None) == "2026-000123"
            # Now that it knows who has it, the next one goes there at once, and to the one before too.
            await amender.correct(item, Corrected(site_type=SiteType.IMAGE_BOARD))
            await corrected(de, case, "image-board")
            async with station(nl_node) as nl:
                await corrected(nl, case, "image-board")
                for one in (nl, de):
                    assert await one.value("SELECT count(*) FROM inbox_refusals") == 0


async def test_a_correction_reaches_who_gets_the_item_from_its_reporter_once_it_had_come_home(world: World) -> None:
    await world.create_field_keys()
    fr_node, nl_node, de_node, _ = world.nodes
    async with station(fr_node) as fr, station(nl_node) as nl, station(de_node) as de:
        item = await reported(fr, nl, "NL")
        case = (await fr.item(item))["case_id"]
        await fr.node.store.amender().correct(item, Corrected(site_type=SiteType.BLOG))
        await corrected(nl, case, "blog")
        await move(nl, item, ip=ADDRESS["FR"])
        await arrived(fr, item, "kept")
        await arrived(nl, item, "transferred")
        await move(fr, item, ip=ADDRESS["DE"])
        await arrived(de, item, "assigned")
        await corrected(de, case, "blog")
        assert await de.value("SELECT count(*) FROM inbox_refusals") == 0


async def corrected(at: Station, case: UUID, site_type: str) -> None:
    async def there() -> bool:
        return bool(await at.value("SELECT site_type = $2 FROM cases WHERE id = $1", case, site_type))

    await eventually(there, limit_s=30)


async def test_a_withdrawal_reaches_every_holder_also_where_the_reporter_knows_one_alone(world: World) -> None:
    await world.create_field_keys()
    fr_node, nl_node, de_node, _ = world.nodes
    async with station(fr_node) as fr, station(nl_node) as nl:
        item = await reported(fr, nl, "NL")
        async with station(de_node) as de:
            await move(nl, item, ip=ADDRESS["DE"])
            await arrived(de, item, "assigned")
            await arrived(nl, item, "transferred")
            await knows(fr, item, "FR", "NL", "DE")
        # As before the word of the delivery came: the first reporter knows the Dutch hotline alone.
        async with fr.node.db.transaction("test.write") as tx:
            await tx.execute("UPDATE items SET assigned_node = $2 WHERE id = $1", item, nl_node.id)
            await tx.execute("DELETE FROM custody WHERE item_id = $1", item)
        assert await fr.node.store.amender().withdraw(item, WithdrawalReason.REPORTED_IN_ERROR) == "withdrawn"
        await arrived(nl, item, "withdrawn")
        async with station(de_node) as de:
            await arrived(de, item, "withdrawn")

            async def told() -> bool:
                return bool(
                    await nl.value(
                        "SELECT c.outcome_size >= s.next_index FROM outbound_streams s "
                        "JOIN delivery_cursors c ON c.stream = s.id WHERE s.peer = $1",
                        de_node.id,
                    )
                )

            await eventually(told)
            assert await nl.value("SELECT count(*) FROM outbox WHERE type = 'withdrawal'") == 1
            assert await nl.value("SELECT count(*) FROM outbox_refusals") == 0
