"""Location through the whole node: from a reported URL, real DNS and real files to the item's state and evidence."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from geo.mmdb import AGE_WARNING_DAYS
from node.hotline.api.health import warnings_of
from node.platform.ids import new_id
from tests.geo.dns_server import Entry, Fault
from tests.geo.mmdb_files import write_asn, write_country
from tests.hotline.network import ILLEGAL, NOT_ILLEGAL, Station, eventually, relay_suffix, station
from tests.world import ADDRESS, World

ZONE: Mapping[str, Sequence[Entry]] = {
    "fr.example": [f"A {ADDRESS['FR']}"],
    "nl.example": [f"A {ADDRESS['NL']}"],
    "alias.example": ["CNAME nl.example."],
    "us.example": [f"A {ADDRESS['US']}"],
    "xn--bcher-kva.example": [f"A {ADDRESS['NL']}"],
    "empty.example": ["TXT nothing"],
    "loop.example": ["CNAME loop.example."],
    "inside.example": ["A 10.0.0.1"],
    "cdn.example": [f"CNAME customer.{relay_suffix()}."],
    f"customer.{relay_suffix()}": [f"A {ADDRESS['NL']}"],
    "nowhere.example": ["A 198.18.0.1"],
}


def evidence(one: Station, row: Mapping[str, object]) -> dict[str, object]:
    item_id, sealed = row["id"], row["evidence_enc"]
    assert isinstance(item_id, UUID)
    assert isinstance(sealed, bytes)
    opened: dict[str, object] = json.loads(one.node.store.vault.open("items", "evidence_enc", item_id, sealed))
    return opened


@pytest.mark.parametrize("qualified", [True, False])
async def test_where_each_kind_of_host_leads(world: World, *, qualified: bool) -> None:
    """State, reason and country of each; what is not qualified waits wherever it would have gone."""
    await world.create_field_keys(world.nodes[:1])
    expected: dict[str, tuple[str, str | None, str | None, str]] = {
        "https://fr.example/x": ("kept", "own-country", "FR", "hosted"),
        "https://nl.example/x": ("sent", "hosting-country", "NL", "hosted"),
        "https://alias.example:8443/x": ("sent", "hosting-country", "NL", "hosted"),
        "https://BÜCHER.example/x": ("sent", "hosting-country", "NL", "hosted"),
        f"http://{ADDRESS['NL']}/1": ("sent", "hosting-country", "NL", "hosted"),
        "http://0xC6336401/2": ("sent", "hosting-country", "NL", "hosted"),
        "http://[::ffff:198.51.100.1]/3": ("sent", "hosting-country", "NL", "hosted"),
        "https://us.example/x": ("undeliverable", "no-competent-hotline", "US", "hosted"),
        "https://nobody.example/x": ("unlocated", "nxdomain", None, "unlocated"),
        "https://empty.example/x": ("unlocated", "no-address", None, "unlocated"),
        "https://loop.example/x": ("unlocated", "cname-loop", None, "unlocated"),
        "https://nowhere.example/x": ("unlocated", "no-opinion", None, "unlocated"),
        "https://cdn.example/x": ("origin-lookup", "proxy-by-cname", None, "proxied"),
        f"http://{'b' * 56}.onion/x": ("kept", "onion", None, "no-country"),
        "http://name.i2p/x": ("kept", "i2p", None, "no-country"),
        "ipfs://bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi/x": ("kept", "ipfs", None, "no-country"),
        "http://localhost/x": ("unlocated", "localhost", None, "not-hosted"),
        "http://224.0.0.1/x": ("unlocated", "multicast", None, "not-hosted"),
    }
    fields = {"qualification": ILLEGAL} if qualified else {}
    async with station(world.nodes[0], ZONE) as fr:
        items = {url: (await fr.report(url, **fields)).items[0].id for url in expected}
        await fr.settled()
        for url, (state, reason, country, verdict) in expected.items():
            row = await fr.item(items[url])
            held = verdict == "hosted" and not qualified
            assert (row["state"], row["reason"]) == (("waiting", None) if held else (state, reason)), url
            assert (row["hosting_country"], row["verdict"]) == (country, verdict), url
        assert not [query for query in fr.dns.queries if query.name.endswith((".onion", ".i2p"))]


async def test_the_evidence_is_kept_with_the_verdict(world: World) -> None:
    await world.create_field_keys(world.nodes[:1])
    async with station(world.nodes[0], ZONE) as fr:
        item = (await fr.report("https://alias.example/x")).items[0].id
        row = await fr.until(item, "waiting")
        told = json.dumps(evidence(fr, row))
        assert all(part in told for part in ("nl.example", ADDRESS["NL"], fr.dns.address[0]))
        assert row["located_at"] is not None
        assert 0 < row["confidence"] <= 100


async def test_a_relay_is_known_by_its_network_too(world: World) -> None:
    await world.create_field_keys(world.nodes[:1])
    asn = min(ProxyAsns.known())
    file = write_asn(world.folder / "asn.mmdb", {"198.51.100.0/24": (asn, "Relay")}, built=datetime.now(UTC))
    async with station(world.nodes[0], ZONE, geo_asn_databases=(file,)) as fr:
        row = await fr.until(
            (await fr.report("https://nl.example/x", qualification=ILLEGAL)).items[0].id, "origin-lookup"
        )
        assert (row["reason"], row["hosting_country"], row["assigned_country"]) == ("proxy-by-asn", None, None)
        assert f"AS{asn}" in json.dumps(evidence(fr, row))


class ProxyAsns:
    """The networks of the project's own table of relays."""

    @staticmethod
    def known() -> list[int]:
        from geo.proxies import ProxyTable  # noqa: PLC0415 - read once

        return list(ProxyTable.load()._asns)


async def test_reserved_addresses_are_never_hosted_unless_a_setting_says_so(world: World) -> None:
    await world.create_field_keys(world.nodes[:1])
    expected = {
        "http://10.1.2.3/": "private",
        "http://127.0.0.1/": "loopback",
        "http://169.254.0.1/": "link-local",
        f"http://{ADDRESS['NL']}/": "documentation",
        "http://[2001:db8::1]/": "documentation",
        "https://nl.example/": "documentation",
        "https://inside.example/": "private",
    }
    async with station(world.nodes[0], ZONE, geo_allow_reserved=False) as fr:
        items = {url: (await fr.report(url, qualification=ILLEGAL)).items[0].id for url in expected}
        await fr.settled()
        for url, reason in expected.items():
            row = await fr.item(items[url])
            assert (row["state"], row["verdict"], row["reason"]) == ("unlocated", "not-hosted", reason), url


async def test_two_files_that_differ_are_both_kept_and_lower_the_confidence(world: World) -> None:
    await world.create_field_keys(world.nodes[:1])
    built = datetime.now(UTC)
    one = write_country(world.folder / "one.mmdb", {"198.51.100.0/24": "NL"}, built=built)
    two = write_country(world.folder / "two.mmdb", {"198.51.100.0/24": ("US", "NL")}, built=built)
    async with station(world.nodes[0], ZONE, geo_country_databases=(one, one)) as fr:
        agreed = await fr.until((await fr.report("https://nl.example/1")).items[0].id, "waiting")
    async with station(world.nodes[0], ZONE, geo_country_databases=(one, two)) as fr:
        differ = await fr.until((await fr.report("https://nl.example/2")).items[0].id, "waiting")
        assert (agreed["hosting_country"], differ["hosting_country"]) == ("NL", "NL")
        assert differ["confidence"] < agreed["confidence"]
        assert "databases-differ" in differ["verdict_reasons"]
        told = json.dumps(evidence(fr, differ))
        assert '"US"' in told
        assert '"NL"' in told


async def test_servfail_is_asked_again_and_the_item_goes_on_when_it_passes(world: World) -> None:
    await world.create_field_keys(world.nodes[:1])
    async with station(world.nodes[0], {"flaky.example": [Fault.SERVFAIL]}) as fr:
        item = (await fr.report("https://flaky.example/x", qualification=ILLEGAL)).items[0].id
        await asked_again(fr, item, 1)
        assert (await fr.item(item))["state"] == "locating"
        fr.dns.zone["flaky.example"] = [f"A {ADDRESS['NL']}"]
        fr.clock.ahead_s += 60
        row = await fr.until(item, "sent")
        assert row["hosting_country"] == "NL"


async def test_servfail_for_good_is_unlocated_after_the_last_attempt(world: World) -> None:
    await world.create_field_keys(world.nodes[:1])
    async with station(world.nodes[0], {"broken.example": [Fault.SERVFAIL]}, locate_attempts_max=3) as fr:
        item = (await fr.report("https://broken.example/x", qualification=ILLEGAL)).items[0].id
        for attempt in (1, 2):
            await asked_again(fr, item, attempt)
            fr.clock.ahead_s += 30 * 2**attempt
        row = await fr.until(item, "unlocated")
        assert (row["reason"], row["verdict"]) == ("dns-servfail", "retry")
        assert {query.name for query in fr.dns.queries} == {"broken.example"}
        assert len([query for query in fr.dns.queries if query.rdtype == "A"]) == 3
        assert await fr.value("SELECT count(*) FROM location_queue") == 0


async def asked_again(one: Station, item: UUID, attempts: int) -> None:
    """Wait until so many attempts have failed."""

    async def failed() -> bool:
        query = "SELECT attempts FROM location_queue WHERE item_id = $1"
        return bool(await one.value(query, item) == attempts)

    await eventually(failed)


async def test_an_unqualified_item_leaves_once_it_is_qualified_and_not_before(world: World) -> None:
    await world.create_field_keys(world.nodes[:1])
    async with station(world.nodes[0], ZONE) as fr:
        first = (await fr.report("https://nl.example/1")).items[0].id
        second = (await fr.report("https://nl.example/2", qualification=NOT_ILLEGAL)).items[0].id
        await fr.until(first, "waiting")
        await fr.until(second, "closed")
        assert await fr.value("SELECT count(*) FROM outbox") == 0


async def test_a_hotline_that_may_not_assess_forwards_without_qualification(world: World) -> None:
    await world.create_field_keys(world.nodes[:1])
    async with station(world.nodes[0], ZONE, forward_unqualified=True) as fr:
        abroad = (await fr.report("https://nl.example/1")).items[0].id
        home = (await fr.report("https://fr.example/1")).items[0].id
        closed = (await fr.report("https://nl.example/2", qualification=NOT_ILLEGAL)).items[0].id
        assert (await fr.until(abroad, "sent"))["qualification"] is None
        await fr.until(home, "kept")
        await fr.until(closed, "closed")


async def test_what_was_ready_is_held_back_when_forwarding_is_switched_off(world: World) -> None:
    """The item was released under the old setting; the node was stopped before it left."""
    await world.create_field_keys(world.nodes[:1])
    async with station(world.nodes[0], ZONE) as fr:
        item = (await fr.report("https://nl.example/1")).items[0].id
        await fr.until(item, "waiting")
        async with fr.node.db.transaction("test.ready") as tx:
            await tx.execute("UPDATE items SET state = 'ready' WHERE id = $1", item)
            await tx.notify("dispatch")
        await fr.until(item, "waiting")
        assert await fr.value("SELECT count(*) FROM outbox") == 0


async def test_a_new_country_file_is_taken_into_use_and_an_old_one_is_warned_of(world: World) -> None:
    await world.create_field_keys(world.nodes[:1])
    file = world.folder / "aging.mmdb"
    old = datetime.now(UTC) - timedelta(days=AGE_WARNING_DAYS + 1)
    write_country(file, {"198.51.100.0/24": "DE"}, built=old)
    async with station(world.nodes[0], ZONE, geo_country_databases=(file,)) as fr:
        row = await fr.until((await fr.report("https://nl.example/1")).items[0].id, "waiting")
        assert row["hosting_country"] == "DE"
        (warning,) = warnings_of(fr.node)
        assert f"{AGE_WARNING_DAYS + 1} days old" in warning
        write_country(file, {"198.51.100.0/24": "NL"}, built=datetime.now(UTC))
        fr.clock.ahead_s += 6
        row = await fr.until((await fr.report("https://nl.example/2")).items[0].id, "waiting")
        assert row["hosting_country"] == "NL"
        assert warnings_of(fr.node) == []


async def test_a_damaged_row_holds_up_nobody(world: World) -> None:
    """Whoever can write to the database can stop one item, not the queue."""
    await world.create_field_keys(world.nodes[:1])
    async with station(world.nodes[0], ZONE, dns_timeout_ms=200) as fr:
        fr.dns.zone["held.example"] = [Fault.SERVFAIL]
        bad = (await fr.report("https://held.example/", qualification=ILLEGAL)).items[0].id
        await asked_again(fr, bad, 1)
        async with fr.node.db.transaction("test.damage") as tx:
            await tx.execute("UPDATE items SET url_enc = set_byte(url_enc, 20, 255 - get_byte(url_enc, 20))")
            await tx.execute("UPDATE location_queue SET due_at = now() - interval '1 hour'")
        good = [(await fr.report(f"https://nl.example/{n}", qualification=ILLEGAL)).items[0].id for n in range(3)]
        for item in good:
            await fr.until(item, "sent", limit_s=10)
        row = await fr.until(bad, "unlocated", limit_s=5)
        assert row["reason"] == "unreadable"


async def test_a_damaged_verdict_holds_up_nobody(world: World) -> None:
    await world.create_field_keys(world.nodes[:1])
    async with station(world.nodes[0], ZONE) as fr:
        bad, good = [(await fr.report(f"https://nl.example/{n}")).items[0].id for n in range(2)]
        for item in (bad, good):
            await fr.until(item, "waiting")
        async with fr.node.db.transaction("test.damage") as tx:
            await tx.execute(
                "UPDATE items SET evidence_enc = (SELECT evidence_enc FROM items WHERE id = $2) WHERE id = $1",
                bad,
                good,
            )
            await tx.execute(
                'UPDATE items SET qualification = \'{"classification": "national", '
                '"at": "2026-01-01T00:00:00Z"}\', state = \'ready\''
            )
            await tx.notify("dispatch")
        await fr.until(good, "sent", limit_s=5)
        row = await fr.until(bad, "undeliverable", limit_s=5)
        assert row["reason"] == "unreadable"


async def test_what_was_queued_while_the_clock_was_ahead_does_not_wait_for_that_time(world: World) -> None:
    await world.create_field_keys(world.nodes[:1])
    async with station(world.nodes[0]) as fr:
        fr.clock.ahead_s = 7200.0
        taken = await fr.report(f"http://{ADDRESS['NL']}/early", qualification=ILLEGAL)
        fr.clock.ahead_s = 0.0
        retried = new_id(fr.clock.now())
        async with fr.node.db.transaction("test.queue") as tx:
            # Whether the loop was faster than the clock's return, it is queued as if it had not been.
            await tx.execute("UPDATE items SET state = 'locating' WHERE id = $1", taken.items[0].id)
            await tx.execute("DELETE FROM location_queue")
            await tx.execute(
                "INSERT INTO location_queue (item_id, due_at, attempts) VALUES "
                "($1, now() + interval '2 hours', 0), ($2, now() + interval '2 hours', 9)",
                taken.items[0].id,
                retried,
            )
        assert await fr.node.locating.recall() == 1
        await fr.until(taken.items[0].id, "sent")
        # After nine attempts a wait of hours is nothing to wonder at.
        assert await fr.value("SELECT item_id FROM location_queue") == retried
