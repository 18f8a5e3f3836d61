"""Whose item it is, through whole nodes: own country, another's, several, a mandate, nobody, and a new directory."""

import json
from collections import Counter

import pytest

from node.hotline.domain.routing import Send, competent
from node.hotline.jobs import Jobs
from protocol.evidence import verify_evidence
from protocol.record import parse_record
from tests.hotline.network import ILLEGAL, Station, eventually, heard_of, list_hotline, station
from tests.world import ADDRESS, World


def url(country: str, path: object = "x") -> str:
    return f"http://{ADDRESS[country]}/{path}"


async def arrived(one: Station, items: int) -> None:
    """Wait until so many items came from peers."""

    async def there() -> bool:
        return bool(await one.value("SELECT count(*) = $1 FROM items WHERE received_stream IS NOT NULL", items))

    await eventually(there)


@pytest.fixture
def three(world: World) -> World:
    """Germany too."""
    world.add("DE")
    world.sign_directory()
    return world


async def test_each_item_of_a_report_goes_to_its_own_hotline(three: World) -> None:
    world = three
    await world.create_field_keys()
    async with station(world.nodes[0]) as fr, station(world.nodes[1]) as nl, station(world.nodes[2]) as de:
        report = await fr.report(url("FR"), media=[url("NL"), url("DE"), url("FR", "y")], qualification=ILLEGAL)
        page, dutch, german, french = [item.id for item in report.items]
        await fr.settled()
        await arrived(nl, 1)
        await arrived(de, 1)
        for item, state, node in (
            (page, "kept", "fr.hotline.example"),
            (dutch, "sent", "nl.hotline.example"),
            (german, "sent", "de.hotline.example"),
            (french, "kept", "fr.hotline.example"),
        ):
            row = await fr.item(item)
            assert (row["state"], row["assigned_node"]) == (state, node)
        for peer, item in ((nl, dutch), (de, german)):
            row = await peer.item(item)
            assert (row["state"], row["kind"], row["case_id"], row["page_id"]) == (
                "assigned",
                "media",
                report.case_id,
                page,
            )


async def test_a_country_without_hotline_goes_to_a_mandated_one_and_stays_the_hosting_country(world: World) -> None:
    world.mandated = ["nl.hotline.example"]
    world.sign_directory()
    await world.create_field_keys()
    async with station(world.nodes[0]) as fr, station(world.nodes[1]) as nl:
        item = (await fr.report(url("US"), qualification=ILLEGAL)).items[0].id
        sent = await fr.until(item, "sent")
        await arrived(nl, 1)
        received = await nl.item(item)
        for row in (sent, received):
            assert (row["hosting_country"], row["assigned_country"]) == ("US", "NL")
        assert (sent["reason"], received["state"]) == ("mandated", "assigned")


async def test_a_mandated_hotline_keeps_what_it_reports_itself(world: World) -> None:
    world.mandated = ["fr.hotline.example"]
    world.sign_directory()
    await world.create_field_keys(world.nodes[:1])
    async with station(world.nodes[0]) as fr:
        row = await fr.until((await fr.report(url("US"), qualification=ILLEGAL)).items[0].id, "kept")
        assert (row["reason"], row["hosting_country"], row["assigned_country"]) == ("mandated", "US", "FR")


async def test_several_hotlines_of_a_country_share_its_cases_and_a_case_is_not_torn_apart(world: World) -> None:
    for name, weight in (("us-one", 1), ("us-two", 1)):
        list_hotline(world, f"{name}.hotline.example", ["US"], weight=weight)
    world.sign_directory()
    await world.create_field_keys(world.nodes[:1])
    async with station(world.nodes[0]) as fr:
        cases = [
            await fr.report(url("US", f"{n}/page"), media=[url("US", f"{n}/1.jpg")], qualification=ILLEGAL)
            for n in range(60)
        ]
        await fr.settled()
        shares: Counter[str] = Counter()
        for case in cases:
            route = competent(fr.node.directory(), "US", case.case_id, "fr.hotline.example")
            assert isinstance(route, Send)
            rows = [await fr.item(item.id) for item in case.items]
            assert {(row["state"], row["assigned_node"]) for row in rows} == {("sent", route.node_id)}
            shares[route.node_id] += 1
        assert len(shares) == 2


@pytest.mark.parametrize(
    ("state", "expected"),
    [("suspended", "undeliverable"), ("left", "undeliverable"), ("maintenance", "sent"), ("active", "sent")],
)
async def test_a_hotline_that_is_no_member_gets_nothing(world: World, state: str, expected: str) -> None:
    list_hotline(world, "us.hotline.example", ["US"], state=state)
    world.sign_directory()
    await world.create_field_keys(world.nodes[:1])
    async with station(world.nodes[0]) as fr:
        row = await fr.until((await fr.report(url("US"), qualification=ILLEGAL)).items[0].id, expected)
        assert row["hosting_country"] == "US"
        assert row["assigned_node"] == (None if expected == "undeliverable" else "us.hotline.example")


async def test_another_hotline_takes_the_share_of_one_that_is_suspended(world: World) -> None:
    list_hotline(world, "us-one.hotline.example", ["US"], state="suspended", weight=1000)
    list_hotline(world, "us-two.hotline.example", ["US"])
    world.sign_directory()
    await world.create_field_keys(world.nodes[:1])
    async with station(world.nodes[0]) as fr:
        for n in range(3):
            row = await fr.until((await fr.report(url("US", n), qualification=ILLEGAL)).items[0].id, "sent")
            assert row["assigned_node"] == "us-two.hotline.example"


async def test_what_nobody_was_competent_for_leaves_when_the_directory_names_somebody(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Jobs] = []

    class Watched(Jobs):
        def start(self) -> None:
            started.append(self)
            super().start()

    monkeypatch.setattr("node.hotline.serve.Jobs", Watched)
    await world.create_field_keys(world.nodes[:1])
    async with station(world.nodes[0]) as fr:
        item = (await fr.report(url("US"), qualification=ILLEGAL)).items[0].id
        row = await fr.until(item, "undeliverable")
        assert (row["reason"], row["hosting_country"], row["assigned_country"]) == ("no-competent-hotline", "US", None)
        await started[0]._refresh()
        assert (await fr.item(item))["state"] == "undeliverable"
        list_hotline(world, "us.hotline.example", ["US"])
        world.sign_directory()
        await started[0]._refresh()
        row = await fr.until(item, "sent")
        assert (row["assigned_node"], row["reason"]) == ("us.hotline.example", "hosting-country")


async def test_a_directory_that_changed_while_the_node_was_down_counts_too(world: World) -> None:
    await world.create_field_keys(world.nodes[:1])
    async with station(world.nodes[0]) as fr:
        item = (await fr.report(url("US"), qualification=ILLEGAL)).items[0].id
        await fr.until(item, "undeliverable")
    list_hotline(world, "us.hotline.example", ["US"])
    world.sign_directory()
    async with station(world.nodes[0]) as fr:
        await fr.until(item, "sent", limit_s=5)


async def test_the_record_says_what_was_reported(world: World) -> None:
    await world.create_field_keys()
    async with station(world.nodes[0]) as fr, station(world.nodes[1]) as nl:
        report = await fr.report(
            url("NL"),
            hashes=[{"algorithm": "sha1", "value": "DA39A3EE5E6B4B0D3255BFEF95601890AFD80709"}],
            referrer="https://search.example/?q",
            note="for us alone",
            reporter_email="someone@reporter.example",
            channel="professional",
            reference="R-1",
            site_type="forum",
            commerciality="commercial",
            payment_methods=["visa"],
            qualification={"classification": "baseline", "virtual": False, "law": "Article 227-23", "by": "analyst"},
        )
        item = report.items[0].id
        await arrived(nl, 1)
        sealed = await nl.value("SELECT record_enc FROM inbox WHERE idx = 0")
        stream = await nl.value("SELECT stream FROM inbox WHERE idx = 0")
        raw = nl.node.store.vault.open_record("inbox", stream, 0, sealed)
        told = json.loads(raw)
        assert parse_record(raw).envelope.item == str(item)
        assert told["case"] == str(report.case_id)
        body = told["body"]
        assert (body["url"], body["referrer"], body["reference"]) == (url("NL"), "https://search.example/?q", "R-1")
        assert (body["channel"], body["site_type"], body["commerciality"]) == ("professional", "forum", "commercial")
        assert body["payment_methods"] == ["visa"]
        assert body["hashes"] == [{"alg": "sha1", "value": "da39a3ee5e6b4b0d3255bfef95601890afd80709"}]
        assert body["qualification"]["classification"] == "baseline"
        assert body["qualification"]["flags"] == {"virtual": False}
        assert body["hosting"]["country"] == "NL"
        assert body["hosting"]["evidence"]
        # What the public said to this hotline is not the network's business.
        assert b"for us alone" not in raw
        assert b"reporter.example" not in raw
        row = await nl.item(item)
        assert row["peer_qualification"]["classification"] == "baseline"
        assert row["qualification"] is None
        assert row["hashes"] == [{"alg": "sha1", "value": "da39a3ee5e6b4b0d3255bfef95601890afd80709"}]


async def test_what_the_intake_takes_the_wire_carries(world: World) -> None:
    """The longest text that a report may hold is one that its record may hold."""
    await world.create_field_keys(world.nodes[:1])
    text = "\u4e2d" * 200
    async with station(world.nodes[0]) as fr:
        longest: dict[str, dict[str, object]] = {
            "reference": {"reference": text, "qualification": ILLEGAL},
            "law": {"qualification": {**ILLEGAL, "law": text}},
            "by": {"qualification": {**ILLEGAL, "by": text}},
        }
        for name, fields in longest.items():
            item = (await fr.report(url("NL", name), **fields)).items[0].id
            row = await fr.until(item, "sent", "undeliverable")
            assert (row["state"], row["reason"]) == ("sent", "hosting-country"), name


async def test_the_largest_report_that_the_intake_takes_is_carried(world: World) -> None:
    await world.create_field_keys(world.nodes[:1])
    long = "https://nl.example/" + "a" * (8192 - 19)
    hashes = [{"algorithm": "sha256", "value": f"{n:064x}"} for n in range(16)]
    zone = {"nl.example": [f"A 198.51.100.{n}" for n in range(1, 60)]}
    async with station(world.nodes[0], zone) as fr:
        report = await fr.report(long, referrer=long, hashes=hashes, qualification=ILLEGAL)
        await fr.until(report.items[0].id, "sent")


async def test_a_proof_holds_after_the_directory_moved_on(world: World) -> None:
    await world.create_field_keys()
    async with station(world.nodes[0]) as fr, station(world.nodes[1]) as nl:
        item = (await fr.report(url("NL"), qualification=ILLEGAL)).items[0].id
        await arrived(nl, 1)
        proof = await nl.node.store.prover().prove(item)
        world.sign_directory()
        await heard_of(fr.node, world.version)
        assert verify_evidence(proof, fr.node.directory()).item == str(item)
