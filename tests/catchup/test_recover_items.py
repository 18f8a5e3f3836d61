"""After a recovery each item stands where the records of both sides say, as before the loss: a day of everything."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from node.clock import SystemClock
from node.hotline.cli.audit_network import audit_nodes
from node.hotline.domain.acts import ActionAsked
from node.hotline.domain.assessment import Assessment
from node.hotline.domain.intake import check_report
from node.hotline.domain.schema import convert_report
from node.hotline.flows.intake import Submission, Taken
from node.hotline.flows.replay import DISPUTE_LOST, UNKNOWN
from node.hotline.recovery import recover
from node.hotline.rounds import Rounds
from node.hotline.store import heads as heads_store
from node.hotline.store.steps import Listener
from node.hotline.store.telling import Telling
from node.platform.ids import new_id
from protocol.bodies import Hash
from protocol.codes import Action, Classification, HashAlgorithm, PaymentMethod, SiteType, WithdrawalReason
from protocol.steps import ActionBody, Corrected
from tests.catchup.copies import copied, receipts_agree, standing_still
from tests.hotline.network import ILLEGAL, Station, eventually, station
from tests.moves.chain import accounted_for, arrived, knows, move
from tests.world import ADDRESS, World

AT = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
BASELINE = Assessment(Classification.BASELINE, AT)
NATIONAL = Assessment(Classification.NATIONAL, AT)
NOTIFIED = ActionBody(action=Action.HOSTER_NOTIFIED, at=AT)
NOT_ILLEGAL = Assessment(Classification.NOT_ILLEGAL, AT)

_ITEMS = (
    "SELECT i.id, i.state, i.reason, i.assigned_node, i.assigned_country, i.hosting_country, i.reporter, "
    "i.report_hash, i.duplicate_of, i.qualification - 'at' AS own, i.peer_qualification - 'at' AS peers, "
    "i.withdrawn_reason, c.site_type, k.holder, k.receipted, "
    "(SELECT array_agg(s->>'node') FROM jsonb_array_elements(k.trail) AS s) AS trail "
    "FROM items i JOIN cases c ON c.id = i.case_id LEFT JOIN custody k ON k.item_id = i.id ORDER BY i.id"
)
_STEPS = (
    "SELECT item_id, node, action AS what, record_hash FROM actions UNION ALL "
    "SELECT item_id, node, qualification->>'classification', record_hash FROM assessments "
    "WHERE record_hash IS NOT NULL ORDER BY 1, 2, 3, 4"
)
_SAID = (
    "SELECT s.peer, o.item_id, o.type, count(*) FROM outbox o JOIN outbound_streams s ON s.id = o.stream "
    "WHERE o.item_id IS NOT NULL GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"
)
_BACKLOG = (
    "SELECT EXISTS (SELECT 1 FROM outbound_streams s JOIN delivery_cursors c ON c.stream = s.id "
    "WHERE s.next_index > c.acked_size) OR EXISTS (SELECT 1 FROM inbound_streams s "
    "JOIN apply_cursors c ON c.stream = s.id WHERE s.size > c.applied) OR EXISTS (SELECT 1 FROM relocations) "
    "OR EXISTS (SELECT 1 FROM items WHERE state IN ('locating', 'ready', 'leaving'))"
)


#: What becomes of items that are the restored hotline's to act on, and of those that it reported.
_THEIRS = ("acted", "declined", "passed", "taken", "back")
_OURS = ("removed", "corrected", "withdrawn", "returned")


async def _rows(at: Station, query: str) -> list[dict[str, Any]]:
    async with at.node.db.transaction("test.read") as tx:
        return [dict(row) for row in await tx.fetch(query)]


@dataclass(slots=True)
class Day:
    """What happens between two hotlines and a third; the items by what becomes of them and when they came."""

    fr: Station
    nl: Station
    de: Station
    items: dict[str, UUID] = field(default_factory=dict)

    async def reported(self, half: str) -> None:
        """Both report what the other is competent for."""
        async with asyncio.TaskGroup() as group:
            for name in _THEIRS:
                group.create_task(self._reported(f"{name}-{half}", self.nl, self.fr, "FR"))
            for name in _OURS:
                group.create_task(self._reported(f"{name}-{half}", self.fr, self.nl, "NL"))

    async def linked(self) -> None:
        """Both report one URL, which the restored hotline keeps."""
        url = f"http://{ADDRESS['FR']}/linked"
        self.items["linked"] = (await self.fr.report(url, qualification=ILLEGAL)).items[0].id
        await self.fr.until(self.items["linked"], "kept")
        self.items["again"] = (await self.nl.report(url, qualification=ILLEGAL)).items[0].id
        await arrived(self.fr, self.items["again"], "duplicate")

    async def _linked(self) -> None:
        """What is done about the item that counts is told the reporter of the other."""
        await self.fr.node.store.assessor().assess(self.items["linked"], BASELINE)
        await self.fr.node.store.actor().act(self.items["linked"], ActionAsked(Action.REMOVED, AT))
        await arrived(self.nl, self.items["again"], "done")

    async def came_in(self, name: str) -> None:
        """The other reports one item that is ours to act on."""
        await self._reported(name, self.nl, self.fr, "FR")

    async def _reported(self, name: str, at: Station, to: Station, country: str) -> None:
        url = f"http://{ADDRESS[country]}/{name}"
        self.items[name] = (await at.report(url, qualification=ILLEGAL)).items[0].id
        await arrived(to, self.items[name], "assigned")

    async def done(self) -> None:
        """Something is done about each, which both sides hear of."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._linked())
            for half in ("a", "b"):
                for name in (*_THEIRS, *_OURS):
                    story = getattr(self, f"_{name}")
                    group.create_task(story(self.items[f"{name}-{half}"]))

    async def _acted(self, item: UUID) -> None:
        await self.fr.node.store.assessor().assess(item, BASELINE)
        for action in (Action.HOSTER_NOTIFIED, Action.REMOVED):
            await self.fr.node.store.actor().act(item, ActionAsked(action, AT))
        await arrived(self.nl, item, "done")

    async def _declined(self, item: UUID) -> None:
        await self.fr.node.store.assessor().assess(item, NOT_ILLEGAL)
        await arrived(self.nl, item, "declined")

    async def _passed(self, item: UUID) -> None:
        """Handed on to a third, which ends it."""
        await self.fr.node.store.assessor().assess(item, NATIONAL)
        await self.fr.node.store.actor().act(item, ActionAsked(Action.AUTHORITIES_INFORMED, AT))
        await move(self.fr, item, ip=ADDRESS["DE"])
        await arrived(self.fr, item, "transferred")
        await arrived(self.de, item, "assigned")
        await self.de.node.store.assessor().assess(item, NATIONAL)
        await self.de.node.store.actor().act(item, ActionAsked(Action.REMOVED, AT))
        await arrived(self.fr, item, "done")

    async def _taken(self, item: UUID) -> None:
        """Taken back by its reporter after something was done about it."""
        await self.fr.node.store.actor().act(item, ActionAsked(Action.AUTHORITIES_INFORMED, AT))
        await self.nl.node.store.amender().withdraw(item, WithdrawalReason.REPORTED_IN_ERROR)
        await arrived(self.fr, item, "withdrawn")

    async def _back(self, item: UUID) -> None:
        """Handed back to where it came from."""
        await move(self.fr, item, ip=ADDRESS["NL"])
        await arrived(self.fr, item, "transferred")
        await arrived(self.nl, item, "kept")

    async def _removed(self, item: UUID) -> None:
        await self.nl.node.store.assessor().assess(item, NATIONAL)
        await self.nl.node.store.actor().act(item, ActionAsked(Action.UNAVAILABLE, AT))
        await arrived(self.fr, item, "done")

    async def _corrected(self, item: UUID) -> None:
        await self.fr.node.store.amender().correct(item, Corrected(site_type=SiteType.FORUM))

    async def _withdrawn(self, item: UUID) -> None:
        await self.fr.node.store.amender().withdraw(item, WithdrawalReason.REPORTED_IN_ERROR)
        await arrived(self.nl, item, "withdrawn")

    async def _returned(self, item: UUID) -> None:
        """Handed back to us, and acted on here."""
        await move(self.nl, item, ip=ADDRESS["FR"])
        await arrived(self.fr, item, "kept")
        await self.fr.node.store.actor().act(item, ActionAsked(Action.HOSTER_NOTIFIED, AT))


async def _quiet(stations: Sequence[Station]) -> None:
    async def quiet() -> bool:
        return not any([await one.value(_BACKLOG) for one in stations])

    await eventually(quiet, limit_s=40)


def _differences(was: Sequence[dict[str, Any]], is_now: Sequence[dict[str, Any]]) -> list[object]:
    """Return what differs, member by member."""
    if len(was) != len(is_now):
        return [one for one in (*was, *is_now) if one not in was or one not in is_now]
    return [
        (list(one.values())[:3], name, one[name], other[name])
        for one, other in zip(was, is_now, strict=True)
        for name in one
        if one[name] != other[name]
    ]


async def _stands(stations: Sequence[Station]) -> list[list[dict[str, Any]]]:
    return [await _rows(one, query) for one in stations for query in (_ITEMS, _STEPS, _SAID)]


async def test_a_day_comes_back_whole(three: World) -> None:
    """Reports, findings, actions, corrections, withdrawals, transfers in both directions: nothing lost or doubled."""
    await three.create_field_keys()
    fr_node, nl_node, de_node = three.nodes
    async with station(nl_node) as nl, station(de_node) as de:
        async with station(fr_node) as fr:
            day = Day(fr, nl, de)
            await day.reported("a")
            await day.linked()
            await _quiet([fr, nl, de])
        older = await copied(fr_node)
        async with station(fr_node) as fr:
            day.fr = fr
            await day.reported("b")
            await day.done()
            await _quiet([fr, nl, de])
            before = await _stands([fr, nl, de])
        async with standing_still(older) as still:
            done = await recover(still, frozenset())
        assert done.left == {}
        async with station(older) as fr:
            await _quiet([fr, nl, de])
            for was, is_now in zip(before, await _stands([fr, nl, de]), strict=True):
                assert _differences(was, is_now) == []
            for one in (fr, nl, de):
                assert await one.value("SELECT count(*) FROM equivocations") == 0
                assert await one.value("SELECT count(*) FROM inbox_refusals") == 0
                assert await one.value("SELECT count(*) FROM outbox_refusals") == 0
            await accounted_for([fr, nl, de])
            for one, other in ((fr, nl), (nl, fr), (fr, de), (de, fr)):
                assert await receipts_agree(one, other)
            rounds = Rounds(fr.node)
            for peer in rounds.callable_peers():
                assert await rounds.compare(peer) is None
            async with fr.node.db.transaction("test.read") as tx:
                assert await heads_store.differences(tx) == []
            # It goes on: what came back is acted on, and the other side hears of it.
            item = day.items["returned-b"]
            await fr.node.store.actor().act(item, ActionAsked(Action.REMOVED, AT))
            await arrived(nl, item, "done")


async def test_what_a_peer_left_out_holds_is_done_when_it_is_asked(three: World) -> None:
    """An item whose report is lost with a peer that was left out cannot go again; it does once that peer is asked."""
    await three.create_field_keys()
    fr_node, nl_node, de_node = three.nodes
    async with station(de_node) as de:
        async with station(nl_node) as nl:
            async with station(fr_node) as fr:
                day = Day(fr, nl, de)
                await fr.report(f"http://{ADDRESS['NL']}/a", qualification=ILLEGAL)
                await _quiet([fr, nl, de])
            older = await copied(fr_node)
            async with station(fr_node) as fr:
                day.fr = fr
                await day.came_in("passed")
                item = day.items["passed"]
                await move(fr, item, ip=ADDRESS["DE"])
                await arrived(fr, item, "transferred")
                await arrived(de, item, "assigned")
                await _quiet([fr, nl, de])
        async with standing_still(older) as still:
            done = await recover(still, {nl_node.id})
        assert done.left == {UNKNOWN: 1}
        async with station(nl_node) as nl:
            async with standing_still(older) as still:
                done = await recover(still, frozenset())
            assert done.left == {}
            async with station(older) as fr:
                await _quiet([fr, nl, de])
                assert (await fr.item(item))["state"] == "transferred"
                await accounted_for([fr, nl, de])
                await de.node.store.actor().act(item, ActionAsked(Action.REMOVED, AT))
                await arrived(fr, item, "done")
                await arrived(nl, item, "done")


@pytest.mark.parametrize("at_home", ["", "waiting"])
async def test_what_a_third_says_of_an_item_that_was_lost_waits_for_who_knows_of_it(three: World, at_home: str) -> None:
    """The backup does not know the item, or not that it left; who got it was left out, and who has it says so."""
    await three.create_field_keys()
    fr_node, nl_node, de_node = three.nodes
    url = f"http://{ADDRESS['DE']}/lost"
    async with station(nl_node) as nl:
        async with station(de_node) as de:
            async with station(fr_node) as fr:
                await fr.report(f"http://{ADDRESS['NL']}/a", qualification=ILLEGAL)
                if at_home:
                    item = (await fr.report(url)).items[0].id
                    await fr.until(item, "waiting")
                await _quiet([fr, nl, de])
            older = await copied(fr_node)
            async with station(fr_node) as fr:
                if not at_home:
                    item = (await fr.report(url)).items[0].id
                await fr.until(item, "waiting")
                await fr.node.store.assessor().assess(item, NATIONAL)
                await arrived(de, item, "assigned")
                await move(de, item, ip=ADDRESS["NL"])
                await arrived(nl, item, "assigned")
                await knows(fr, item, "FR", "DE", "NL")
                await nl.node.store.actor().act(item, ActionAsked(Action.HOSTER_NOTIFIED, AT))
                await _quiet([fr, nl, de])
        async with standing_still(older) as still:
            await recover(still, {de_node.id})
        async with station(older) as fr:
            await nl.node.store.actor().act(item, ActionAsked(Action.REMOVED, AT))
            # Who has it now, both actions, and the end; nothing of it is refused, and nothing answered anew.
            await eventually(lambda: _count(fr, "inbox_waiting", 4))
            assert await fr.value("SELECT count(*) FROM inbox_refusals") == 0
            accounts = await audit_nodes([fr.node.settings], SystemClock())
            assert [each.words() for account in accounts for each in account.found.named] == []
        async with station(de_node) as de:
            async with standing_still(older) as still:
                done = await recover(still, frozenset())
            assert done.left == {}
            async with station(older) as fr:
                await _quiet([fr, nl, de])
                assert (await fr.item(item))["state"] == "done"
                await knows(fr, item, "FR", "DE", "NL")
                assert await fr.value("SELECT count(*) FROM actions WHERE item_id = $1", item) == 2
                assert await fr.value("SELECT count(*) FROM inbox_waiting") == 0
                for one in (fr, nl, de):
                    assert await one.value("SELECT count(*) FROM inbox_refusals") == 0
                await accounted_for([fr, nl, de])


async def test_an_offence_is_refused_when_everybody_was_asked(three: World) -> None:
    """Nobody knows of the item: what waited for it is refused after all, and its sender hears so."""
    await three.create_field_keys()
    fr_node, nl_node, de_node = three.nodes
    async with station(nl_node) as nl:
        async with station(de_node), station(fr_node) as fr:
            item = (await fr.report(f"http://{ADDRESS['NL']}/a", qualification=ILLEGAL)).items[0].id
            await arrived(nl, item, "assigned")
            await _quiet([fr, nl])
        async with standing_still(fr_node) as still:
            await recover(still, {de_node.id})
        async with station(fr_node) as fr:
            async with nl.node.db.transaction("test.offence") as tx:
                about = Listener(fr_node.id, new_id(AT), new_id(AT), bytes(32))
                await nl.node.store.teller().tell(tx, [Telling(about, NOTIFIED)], nl.clock.now())
            await eventually(lambda: _count(fr, "inbox_waiting", 1))
            assert await nl.value("SELECT count(*) FROM outbox_refusals") == 0
            async with station(de_node):
                await eventually(lambda: _count(nl, "outbox_refusals", 1), limit_s=60)
            assert await _count(fr, "inbox_waiting", 0)
            assert await _count(fr, "inbox_refusals", 1)


async def _count(at: Station, table: str, count: int) -> bool:
    return bool(await at.value(f"SELECT count(*) = {count} FROM {table}"))  # noqa: S608 - names of ours


async def test_what_was_told_of_a_report_whose_clock_was_fast(three: World) -> None:
    """By the times of our records, we had answered for who has the item before we had reported it."""
    await three.create_field_keys()
    fr_node, nl_node, de_node = three.nodes
    async with station(nl_node) as nl, station(de_node) as de:
        async with station(fr_node) as fr:
            await fr.report(f"http://{ADDRESS['NL']}/a", qualification=ILLEGAL)
            await _quiet([fr, nl, de])
        older = await copied(fr_node)
        async with station(fr_node) as fr:
            fr.clock.ahead_s = 240.0
            item = (await fr.report(f"http://{ADDRESS['NL']}/b", qualification=ILLEGAL)).items[0].id
            await arrived(nl, item, "assigned")
            await _quiet([fr, nl, de])
        async with station(fr_node) as fr:
            await move(nl, item, ip=ADDRESS["DE"])
            await arrived(de, item, "assigned")
            await knows(fr, item, "FR", "NL", "DE")
            await _quiet([fr, nl, de])
            before = await _stands([fr, nl, de])
        async with standing_still(older) as still:
            done = await recover(still, frozenset())
        assert done.left == {}
        async with station(older) as fr:
            await _quiet([fr, nl, de])
            for was, is_now in zip(before, await _stands([fr, nl, de]), strict=True):
                assert _differences(was, is_now) == []
            assert await fr.value("SELECT count(*) FROM inbox_refusals") == 0
            await accounted_for([fr, nl, de])


async def test_who_heard_of_a_dispute_that_is_lost_hears_that_it_is_over(three: World) -> None:
    """The reporter, and who gave the item, would wait for a ruling that the restored hotline does not ask for."""
    await three.create_field_keys()
    fr_node, nl_node, de_node = three.nodes
    async with station(nl_node) as nl, station(de_node) as de:
        async with station(fr_node) as fr:
            item = (await nl.report(f"http://{ADDRESS['FR']}/a", qualification=ILLEGAL)).items[0].id
            await arrived(fr, item, "assigned")
            for holder, to, country in ((fr, de, "DE"), (de, fr, "FR")):
                await move(holder, item, country=country)
                await arrived(to, item, "assigned")
                await arrived(holder, item, "transferred")
            await _quiet([fr, nl, de])
        older = await copied(fr_node)
        async with station(fr_node) as fr:
            await move(fr, item, country="DE")
            await arrived(fr, item, "disputed")
            await _quiet([fr, nl, de])
        assert [(await one.item(item))["reason"] for one in (nl, de)] == ["disputed"] * 2
        async with standing_still(older) as still:
            done = await recover(still, frozenset())
        assert done.left == {DISPUTE_LOST: 2}
        async with station(older) as fr:
            await _quiet([fr, nl, de])
            assert (await fr.item(item))["state"] == "assigned"
            assert [(await one.item(item))["reason"] for one in (nl, de)] == [None] * 2
            await accounted_for([fr, nl, de])


async def test_what_was_corrected_before_it_was_sent_comes_back(three: World) -> None:
    """The backup holds the item as it was reported first; what it was corrected to, its report alone says."""
    await three.create_field_keys()
    fr_node, nl_node, de_node = three.nodes
    checked = check_report(
        convert_report({"url": f"http://{ADDRESS['NL']}/a", "qualification": ILLEGAL, "site_type": "forum"}),
        datetime.now(UTC),
    )
    corrected = Corrected(
        site_type=SiteType.IMAGE_HOST,
        hashes=(Hash(HashAlgorithm.MD5, "0" * 32),),
        payment_methods=(PaymentMethod.PAYPAL,),
        referrer="https://referrer.example/",
    )
    async with standing_still(fr_node) as still:
        (taken,) = await still.store.intake().take_in([Submission("test", checked.reference, checked)])
    assert isinstance(taken, Taken)
    item = taken.items[0].id
    older = await copied(fr_node)
    async with standing_still(fr_node) as still:
        await still.store.amender().correct(item, corrected)
    async with station(nl_node) as nl, station(de_node):
        async with station(fr_node) as fr:
            await arrived(nl, item, "assigned")
            await eventually(lambda: receipts_agree(fr, nl))
            before = await _said_of(fr, item)
        async with standing_still(older) as still:
            done = await recover(still, frozenset())
        assert done.left == {}
        async with station(older) as fr:
            assert before == await _said_of(fr, item) == await _said_of(nl, item)
            assert before == ("image-host", [{"alg": "md5", "value": "0" * 32}], ["paypal"], corrected.referrer)


async def _said_of(at: Station, item: UUID) -> tuple[object, ...]:
    """Return what a report may be corrected in, as a node holds it."""
    async with at.node.db.transaction("test.read") as tx:
        row = await tx.row(
            "SELECT c.id, c.site_type, c.payment_methods, c.referrer_enc, i.hashes FROM items i "
            "JOIN cases c ON c.id = i.case_id WHERE i.id = $1",
            item,
        )
    assert row is not None
    referrer = at.node.store.vault.open("cases", "referrer_enc", row["id"], row["referrer_enc"])
    return row["site_type"], row["hashes"], list(row["payment_methods"]), referrer
