"""Who reported an item did not believe who has it, by an old proof: it is told again, with one that counts now."""

import io
import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from uuid import UUID

import pytest

from node.hotline.domain.acts import ActionAsked
from node.hotline.domain.assessment import Assessment
from node.hotline.store import outbound
from node.platform.membership import Membership
from node.platform.telemetry import make_logger
from protocol.codes import Action, Classification, StatusKind
from protocol.keys import KeyUse
from protocol.record import parse_record
from protocol.steps import StatusBody
from tests.catchup.copies import receipts_agree
from tests.catchup.test_worthless import Change, heard, later, retired, stolen
from tests.hotline.network import ILLEGAL, Station, eventually, station
from tests.moves.chain import accounted_for, arrived, custodians, knows, move, reported, way
from tests.world import ADDRESS, World


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    """No node hears of a newer directory by itself."""

    async def hears_nothing(_self: Membership) -> bool:
        return False

    monkeypatch.setattr(Membership, "refresh_if_due", hears_nothing)


async def told(at: Station, item: UUID) -> list[tuple[int, int]]:
    """Return where in its streams a node told that it has the item."""
    async with at.node.db.transaction("test.read") as tx:
        rows = await tx.fetch(
            "SELECT stream, idx, record_enc FROM outbox WHERE item_id = $1 AND type = 'status' ORDER BY stream, idx",
            item,
        )
    found = []
    for row in rows:
        place = row["stream"], row["idx"]
        body = parse_record(at.node.store.vault.open_record("outbox", *place, row["record_enc"])).body
        if isinstance(body, StatusBody) and body.kind is StatusKind.DELIVERED:
            found.append(place)
    return found


async def again(at: Station, wait_s: float) -> None:
    """Let so much time pass at a node, and let it tell again what is due."""
    at.clock.ahead_s += wait_s
    await at.node.moving.reteller.run()


async def waiting(at: Station) -> int:
    """Return how many refusals are still to be looked at."""
    return int(await at.value("SELECT count(*) FROM outbox_refusals WHERE again_at IS NOT NULL"))


def refused(at: Station, code: str, count: int) -> Callable[[], Awaitable[bool]]:
    """Return what tells whether a node heard of so many refusals of this code."""

    async def there() -> bool:
        return bool(await at.value("SELECT count(*) FROM outbox_refusals WHERE code = $1", code) == count)

    return there


CASES = {
    "the giver's stream keys are retired": (1, KeyUse.STREAM, retired),
    "the giver's stream keys were stolen": (1, KeyUse.STREAM, stolen),
    "the taker's receipt keys are retired": (2, KeyUse.RECEIPT, retired),
    "the taker's receipt keys were stolen": (2, KeyUse.RECEIPT, stolen),
}


@pytest.mark.usefixtures("deaf")
@pytest.mark.parametrize(("node", "use", "change"), CASES.values(), ids=CASES.keys())
async def test_who_reported_an_item_hears_who_has_it_with_the_new_receipt(
    world: World, node: int, use: KeyUse, change: Change
) -> None:
    """France has heard of the change of keys, the others have not while the item moves and is acted on."""
    await world.create_field_keys()
    fr_node, nl_node, de_node, _ = world.nodes
    async with station(fr_node) as fr, station(nl_node) as nl, station(de_node) as de:
        item = await reported(fr, nl, "NL")
        moment = later(fr, nl, de)
        change(world.nodes[node], [use], moment)
        await heard(world, fr)
        await move(nl, item, ip=ADDRESS["DE"])
        await arrived(de, item, "assigned")
        now = de.clock.now()
        await de.node.store.assessor().assess(item, Assessment(Classification.NATIONAL, now))
        await de.node.store.actor().act(item, ActionAsked(Action.HOSTER_NOTIFIED, now))
        await de.node.store.actor().act(item, ActionAsked(Action.REMOVED, now))
        await eventually(refused(de, "handling-violation", 1), limit_s=30)
        assert await way(fr, item) == []
        assert (await fr.item(item))["assigned_node"] == nl_node.id

        # Germany has heard; who gave it the item has not, and so there is no receipt that counts.
        await heard(world, de)
        # Only now: while its receipts prove nothing to France, the first word of that is repeated, and none follows it.
        await eventually(refused(de, "not-competent", 4), limit_s=30)
        await again(de, 61)
        assert len(await told(de, item)) == 1
        await heard(world, nl)
        await eventually(lambda: receipts_agree(nl, de), limit_s=30)
        await again(de, 61)
        await knows(fr, item, "FR", "NL", "DE")
        await arrived(fr, item, "done")
        seen = "SELECT count(*) FROM assessments a JOIN actions b ON b.item_id = a.item_id AND b.node = a.node "
        seen += "WHERE a.item_id = $1 AND a.node = $2"

        async def known() -> bool:
            return bool(await fr.value(seen, item, de_node.id) == 2)

        await eventually(known)
        row = await fr.item(item)
        assert (row["state"], row["assigned_node"], row["assigned_country"]) == ("done", de_node.id, "DE")
        await accounted_for([fr, nl, de])
        # All that a custodian says goes behind it, also that the item is closed.
        said = "SELECT o.type, count(*) FROM outbox o JOIN outbound_streams s ON s.id = o.stream "
        said += "WHERE s.peer = $1 AND o.item_id = $2 GROUP BY 1 ORDER BY 1"
        async with de.node.db.transaction("test.read") as tx:
            counts = {row["type"]: row["count"] for row in await tx.fetch(said, fr_node.id, item)}
        assert counts == {"action": 4, "assessment": 2, "status": 4}
        # Once it is believed it is not said again.
        await again(de, 3600)
        assert len(await told(de, item)) == 2
        assert await waiting(de) == 0


@pytest.mark.usefixtures("deaf")
async def test_who_reported_an_item_knows_its_own_report_by_a_stolen_receipt(world: World) -> None:
    """The Dutch hotline had receipted the report by a key that was stolen; nobody else can prove that anew."""
    await world.create_field_keys()
    _, nl_node, *_ = world.nodes
    async with station(world.nodes[0]) as fr, station(nl_node) as nl, station(world.nodes[2]) as de:
        item = await reported(fr, nl, "NL")
        stolen(nl_node, [KeyUse.RECEIPT], later(fr, nl, de))
        await heard(world, fr)
        await move(nl, item, ip=ADDRESS["DE"])
        await arrived(de, item, "assigned")
        await knows(fr, item, "FR", "NL", "DE")
        assert await fr.value("SELECT count(*) FROM inbox_refusals") == 0


@pytest.mark.usefixtures("deaf")
async def test_it_is_told_again_after_a_while_and_not_for_ever(world: World) -> None:
    """Refused by a reporter that is not there: what it would answer is noted as if it had."""
    await world.create_field_keys()
    fr_node, nl_node, de_node, _ = world.nodes
    lines = io.StringIO()
    async with station(nl_node) as nl:
        async with station(fr_node) as fr:
            item = await reported(fr, nl, "NL")
        async with station(de_node, log=make_logger("error", "json", lines)) as de:
            await move(nl, item, ip=ADDRESS["DE"])
            await arrived(de, item, "assigned")
            waits_min = [1, 4, 16, 64]
            for refusals, wait_min in enumerate([*waits_min, 7 * 24 * 60], start=1):
                tellings = await told(de, item)
                assert len(tellings) == refusals
                await _refuse(de, tellings[-1])
                await again(de, wait_min * 60 - 20)
                assert len(await told(de, item)) == refusals
                await again(de, 21)
                assert len(await told(de, item)) == min(refusals + 1, 5)
            assert await waiting(de) == 0
            (line,) = [json.loads(line) for line in lines.getvalue().splitlines() if "move.not-believed" in line]
            assert (line["item"], line["peer"], line["code"]) == (str(item), fr_node.id, "handling-violation")
            assert line["alarm"] is True
        # A start tells nothing more; the reporter comes back, and reads all of it.
        async with station(de_node) as de, station(fr_node) as fr:
            await knows(fr, item, "FR", "NL", "DE")
            assert await custodians([fr, nl, de], item) == ["DE"]
            await again(de, 0)
            assert len(await told(de, item)) == 5


async def _refuse(at: Station, place: tuple[int, int]) -> None:
    async with at.node.db.transaction("test.refuse") as tx:
        said = (place[1], "handling-violation", "the proof fails at step 5")
        await outbound.refuse(tx, place[0], [said], at.clock.now())


@pytest.mark.usefixtures("deaf")
async def test_one_whose_record_was_altered_does_not_hold_the_others_up(world: World) -> None:
    await world.create_field_keys()
    async with station(world.nodes[1]) as nl, station(world.nodes[2]) as de:
        async with station(world.nodes[0]) as fr:
            items = [await reported(fr, nl, "NL")]
            items.append((await fr.report(f"http://{ADDRESS['NL']}/2", qualification=ILLEGAL)).items[0].id)
            await arrived(nl, items[1], "assigned")
        for item in items:
            await move(nl, item, ip=ADDRESS["DE"])
            await arrived(de, item, "assigned")
        (altered,), (whole,) = [await told(de, item) for item in items]
        for place in (altered, whole):
            await _refuse(de, place)
        async with de.node.db.transaction("test.alter") as tx:
            await tx.execute("UPDATE outbox SET record_enc = 'altered' WHERE stream = $1 AND idx = $2", *altered)
        await again(de, 0)
        await again(de, 61)
        assert await de.value("SELECT count(*) FROM outbox WHERE type = 'status' AND item_id = $1", items[0]) == 1
        assert len(await told(de, items[1])) == 2
        assert await waiting(de) == 0


@pytest.mark.usefixtures("deaf")
async def test_only_who_has_the_item_or_handed_it_on_tells_it_again(world: World) -> None:
    """In whatever state the item is by then: not where its giver took it back, or it is another's end."""
    await world.create_field_keys()
    fr_node, nl_node, de_node, us_node = world.nodes
    async with station(nl_node) as nl, station(de_node) as de:
        async with station(fr_node) as fr:
            item = await reported(fr, nl, "NL")
        await move(nl, item, ip=ADDRESS["DE"])
        await arrived(de, item, "assigned")
        own, others, giver = de_node.id, us_node.id, nl_node.id
        for state, assigned, holder, is_told in (
            ("withdrawn", own, own, False),
            ("transferred", giver, own, False),
            ("done", others, others, False),
            ("done", own, own, True),
            ("leaving", others, others, True),
            ("transferred", others, others, True),
        ):
            before = await told(de, item)
            async with de.node.db.transaction("test.state") as tx:
                await tx.execute("UPDATE outbox_refusals SET again_at = refused_at")
                await tx.execute("UPDATE items SET state = $1, assigned_node = $2 WHERE id = $3", state, assigned, item)
                await tx.execute("UPDATE custody SET holder = $1 WHERE item_id = $2", holder, item)
            await _refuse(de, before[-1])
            await again(de, timedelta(hours=2).total_seconds())
            assert len(await told(de, item)) - len(before) == is_told, (state, assigned)
            assert await waiting(de) == 0
