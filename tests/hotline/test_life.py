"""The life of an item at two nodes: each step of the hotline that has it is seen by the one that sent it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from uuid import UUID

import pytest

from node.hotline.domain.acts import ActionAsked
from node.hotline.domain.assessment import Assessment, AssessmentRefused
from node.hotline.domain.lifecycle import RecordRefused, TransitionRefused
from node.platform.database import Row
from protocol.bodies import Hash
from protocol.codes import Action, ActionReason, Classification, HashAlgorithm, SiteType, WithdrawalReason
from protocol.steps import Corrected
from tests.hotline.network import ILLEGAL, Station, eventually, station
from tests.hotline.network import NOT_ILLEGAL as NOT_ILLEGAL_IN
from tests.world import ADDRESS, World

AT = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
NATIONAL = Assessment(Classification.NATIONAL, AT, law="article 240b", by="analyst-7")
BASELINE = Assessment(Classification.BASELINE, AT)
NOT_ILLEGAL = Assessment(Classification.NOT_ILLEGAL, AT)


@asynccontextmanager
async def two(world: World) -> AsyncIterator[tuple[Station, Station]]:
    await world.create_field_keys()
    async with station(world.nodes[0]) as fr, station(world.nodes[1]) as nl:
        yield fr, nl


async def handed_over(fr: Station, nl: Station, path: str = "page", **fields: object) -> UUID:
    """Report an item at FR until NL has it."""
    item = (await fr.report(f"http://{ADDRESS['NL']}/{path}", qualification=ILLEGAL, **fields)).items[0].id

    async def there() -> bool:
        return bool(await nl.value("SELECT count(*) FROM items WHERE id = $1", item))

    await eventually(there)
    return item


async def history(one: Station, table: str, item: UUID) -> list[Row]:
    async with one.node.db.transaction("test.read") as tx:
        return await tx.fetch(f"SELECT * FROM {table} WHERE item_id = $1 ORDER BY id", item)  # noqa: S608 - ours


async def seen(one: Station, item: UUID, count: int) -> None:
    """Wait until so many steps of an item are in a node's histories."""

    async def there() -> bool:
        found = await one.value(
            "SELECT (SELECT count(*) FROM actions WHERE item_id = $1) "
            "+ (SELECT count(*) FROM assessments WHERE item_id = $1)",
            item,
        )
        return bool(found == count)

    await eventually(there)


async def test_the_reporter_sees_each_step_until_the_content_is_gone(world: World) -> None:
    async with two(world) as (fr, nl):
        item = await handed_over(fr, nl)
        assert await nl.node.store.assessor().assess(item, NATIONAL) == "kept"
        await seen(fr, item, 1)
        assert (await fr.item(item))["state"] == "sent"
        assert (await fr.item(item))["peer_qualification"]["law"] == "article 240b"
        actor = nl.node.store.actor()
        for at, action in enumerate((Action.AUTHORITIES_INFORMED, Action.HOSTER_NOTIFIED), start=2):
            assert await actor.act(item, ActionAsked(action, AT, "analyst-7")) == "kept"
            await seen(fr, item, at)
        assert await actor.act(item, ActionAsked(Action.REMOVED)) == "done"
        row = await fr.until(item, "done")
        assert row["reason"] == "removed"
        ours, theirs = await history(nl, "actions", item), await history(fr, "actions", item)
        assert [(row["node"], row["action"], row["at"], row["by"]) for row in theirs] == [
            (row["node"], row["action"], row["at"], row["by"]) for row in ours
        ]
        # The history names the record that said it, at both sides.
        assert [row["record_hash"] for row in theirs] == [row["record_hash"] for row in ours]
        assert all(row["record_hash"] for row in ours)
        assert await nl.value("SELECT count(*) FROM outbox_refusals") == 0
        # The same again, as a caller does that had no answer: nothing new is said.
        said = await nl.value("SELECT sum(next_index) FROM outbound_streams")
        assert await actor.act(item, ActionAsked(Action.REMOVED)) == "done"
        assert await actor.act(item, ActionAsked(Action.HOSTER_NOTIFIED, AT, "analyst-7")) == "done"
        assert await nl.node.store.assessor().assess(item, NATIONAL) == "done"
        assert await nl.value("SELECT sum(next_index) FROM outbound_streams") == said


async def test_what_the_rules_forbid_is_refused_here_before_it_is_said(world: World) -> None:
    async with two(world) as (fr, nl):
        item = await handed_over(fr, nl)
        fr_assessor, nl_assessor = fr.node.store.assessor(), nl.node.store.assessor()
        # Only the assigned hotline acts; what is not illegal would be withdrawn.
        with pytest.raises(RecordRefused, match="sent"):
            await fr.node.store.actor().act(item, ActionAsked(Action.REMOVED))
        with pytest.raises(RecordRefused, match="sent"):
            await fr_assessor.assess(item, NOT_ILLEGAL)
        # The reporter may say otherwise until it is taken up.
        assert await fr_assessor.assess(item, BASELINE) == "sent"
        await seen(nl, item, 1)
        assert (await nl.item(item))["peer_qualification"]["classification"] == "baseline"
        # Baseline is final, whoever said it.
        for finding in (NATIONAL, NOT_ILLEGAL):
            with pytest.raises(RecordRefused, match="baseline"):
                await nl_assessor.assess(item, finding)
        with pytest.raises(RecordRefused, match="baseline"):
            await nl.node.store.actor().act(item, ActionAsked(Action.NOT_ILLEGAL, reason=ActionReason.ADULT))
        assert await nl_assessor.assess(item, BASELINE) == "kept"
        with pytest.raises((RecordRefused, AssessmentRefused), match="baseline"):
            await nl_assessor.assess(item, Assessment(Classification.BASELINE, AT, law="another"))
        await seen(fr, item, 2)
        with pytest.raises(RecordRefused):
            await fr_assessor.assess(item, Assessment(Classification.BASELINE, AT, law="another"))
        assert await nl.value("SELECT count(*) FROM outbox_refusals") == 0
        assert await fr.value("SELECT count(*) FROM outbox_refusals") == 0


async def test_no_second_action_of_a_kind_and_none_after_the_end(world: World) -> None:
    async with two(world) as (fr, nl):
        item = await handed_over(fr, nl)
        actor, assessor = nl.node.store.actor(), nl.node.store.assessor()
        assert await actor.act(item, ActionAsked(Action.HOSTER_NOTIFIED)) == "kept"
        with pytest.raises(RecordRefused, match="once"):
            await actor.act(item, ActionAsked(Action.HOSTER_NOTIFIED, AT))
        # An action was recorded: the reporter's national qualification stands.
        with pytest.raises(RecordRefused, match="stands"):
            await assessor.assess(item, NOT_ILLEGAL)
        assert await actor.act(item, ActionAsked(Action.NOT_ILLEGAL, reason=ActionReason.BELOW_THRESHOLD)) == "done"
        for action in (Action.REMOVED, Action.AUTHORITIES_INFORMED):
            with pytest.raises(RecordRefused, match="done"):
                await actor.act(item, ActionAsked(action))
        with pytest.raises(RecordRefused, match="done"):
            await assessor.assess(item, BASELINE)
        row = await fr.until(item, "done")
        assert row["reason"] == "not-illegal"


async def test_not_illegal_there_is_seen_here_and_may_be_taken_back(world: World) -> None:
    async with two(world) as (fr, nl):
        item = await handed_over(fr, nl)
        assert await nl.node.store.assessor().assess(item, NOT_ILLEGAL) == "closed"
        assert (await fr.until(item, "declined"))["reason"] == "not-illegal"
        assert await nl.node.store.assessor().assess(item, NATIONAL) == "kept"
        await fr.until(item, "sent")


async def test_acting_needs_an_item_that_is_assigned(world: World) -> None:
    async with two(world) as (fr, _):
        waiting = (await fr.report(f"http://{ADDRESS['NL']}/not-qualified")).items[0].id
        await fr.until(waiting, "waiting")
        again = (await fr.report(f"http://{ADDRESS['NL']}/not-qualified")).items[0].id
        for item in (waiting, again):
            with pytest.raises(RecordRefused):
                await fr.node.store.actor().act(item, ActionAsked(Action.REMOVED))
        with pytest.raises(TransitionRefused):
            await fr.node.store.assessor().assess(again, NATIONAL)
        kept = (await fr.report(f"http://{ADDRESS['FR']}/here", qualification=ILLEGAL)).items[0].id
        await fr.until(kept, "kept")
        assert await fr.node.store.actor().act(kept, ActionAsked(Action.REMOVED)) == "done"


async def test_what_is_reported_again_after_its_end_is_a_new_item(world: World) -> None:
    async with two(world) as (fr, nl):
        first = await handed_over(fr, nl)
        await nl.node.store.actor().act(first, ActionAsked(Action.REMOVED))
        await fr.until(first, "done")
        second = await handed_over(fr, nl)
        assert second != first
        assert (await nl.item(second))["state"] == "assigned"
        assert (await fr.item(second))["state"] == "sent"


async def test_a_withdrawal_reaches_the_hotline_that_has_the_item(world: World) -> None:
    async with two(world) as (fr, nl):
        item = await handed_over(fr, nl)
        amender = fr.node.store.amender()
        with pytest.raises(RecordRefused, match="another hotline"):
            await nl.node.store.amender().withdraw(item, WithdrawalReason.OTHER)
        assert await amender.withdraw(item, WithdrawalReason.REPORTED_IN_ERROR) == "withdrawn"
        row = await nl.until(item, "withdrawn")
        assert (row["reason"], row["withdrawn_reason"]) == ("reported-in-error", "reported-in-error")
        said = await fr.value("SELECT sum(next_index) FROM outbound_streams")
        assert await amender.withdraw(item, WithdrawalReason.OTHER) == "withdrawn"
        assert await fr.value("SELECT sum(next_index) FROM outbound_streams") == said
        assert await nl.value("SELECT count(*) FROM outbox_refusals") == 0
        # The URL is free again: a new report of it is a new item, at both.
        again = await handed_over(fr, nl)
        assert (await nl.item(again))["state"] == "assigned"


async def test_what_was_withdrawn_before_it_left_never_leaves(world: World) -> None:
    async with two(world) as (fr, nl):
        item = (await fr.report(f"http://{ADDRESS['NL']}/page")).items[0].id
        again = (await fr.report(f"http://{ADDRESS['NL']}/page", qualification=NOT_ILLEGAL_IN)).items[0].id
        await fr.until(item, "closed")
        assert await fr.node.store.amender().withdraw(item, WithdrawalReason.OTHER) == "withdrawn"
        # The other report of the URL stands for itself now: what is said of it alone counts.
        assert (await fr.item(again))["state"] == "closed"
        with pytest.raises(RecordRefused):
            await fr.node.store.assessor().assess(item, NATIONAL)
        await fr.settled()
        assert await nl.value("SELECT count(*) FROM items") == 0


async def test_a_correction_reaches_every_item_of_the_report(world: World) -> None:
    async with two(world) as (fr, nl):
        item = await handed_over(fr, nl, media=[f"http://{ADDRESS['NL']}/1.jpg"], reference="R-7")
        case = (await fr.item(item))["case_id"]
        sealed = await nl.value("SELECT wire_reference_enc FROM cases WHERE id = $1", case)
        assert nl.node.store.vault.reference(case, sealed, None) == "R-7"
        other = await fr.value("SELECT id FROM items WHERE case_id = $1 AND id <> $2", case, item)
        await fr.until(other, "sent")
        amender = fr.node.store.amender()
        members = Corrected(
            referrer="http://board.example/thread/1",
            hashes=(Hash(HashAlgorithm.MD5, "f" * 32),),
            site_type=SiteType.FORUM,
        )
        assert await amender.correct(item, members) == "sent"

        async def corrected() -> bool:
            return bool(await nl.value("SELECT site_type = 'forum' FROM cases WHERE id = $1", case))

        await eventually(corrected)
        assert (await nl.item(item))["hashes"] == [{"alg": "md5", "value": "f" * 32}]
        assert (await nl.item(other))["hashes"] is None
        sent = await fr.value("SELECT count(*) FROM outbox WHERE type = 'correction'")
        assert sent == 2
        # What is said already is not said again.
        assert await amender.correct(item, members) == "sent"
        assert await fr.value("SELECT count(*) FROM outbox WHERE type = 'correction'") == sent
        with pytest.raises(RecordRefused):
            await nl.node.store.amender().correct(item, members)
