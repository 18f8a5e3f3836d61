"""Hosts in, verdicts out, on a real DNS server and real files."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from geo.locator import Locator
from geo.mmdb import AsnDatabase, CountryDatabase, Refresh
from geo.proxies import ProxyTable
from geo.resolver import Resolver, ResolverLimits
from geo.verdict import Verdict, VerdictKind
from tests.geo.clock import Clock
from tests.geo.dns_server import Entry, Fault, LoopbackDns
from tests.geo.mmdb_files import write_asn, write_country

BUILT = datetime(2026, 11, 1, tzinfo=UTC)
NOW = datetime(2026, 11, 22, 16, tzinfo=UTC)
COUNTRIES = {"192.0.2.0/25": "FR", "192.0.2.128/25": "NL", "198.51.100.0/24": "US", "2001:db8::/33": "FR"}
ZONE: Mapping[str, Sequence[Entry]] = {
    "fr.example": ["A 192.0.2.1", "AAAA 2001:db8::1"],
    "nl.example": ["A 192.0.2.129"],
    "both.example": ["A 192.0.2.1", "A 192.0.2.129"],
    "relayed.example": ["CNAME relayed.example.cdn.relay.example."],
    "relayed.example.cdn.relay.example": ["A 192.0.2.1"],
    "network.example": ["A 198.51.100.1"],
    "range.example": ["A 192.0.2.65"],
    "broken.example": [Fault.SERVFAIL],
    "inside.example": ["A 127.0.0.1"],
    "nowhere.example": ["A 203.0.113.1"],
}
PROXIES = ProxyTable(
    [{"name": "relay", "asns": [64500], "suffixes": ["cdn.relay.example"], "prefixes": ["192.0.2.64/28"]}]
)


class Bench:
    """A locator with its files, clock and DNS server."""

    def __init__(self, locator: Locator, dns: LoopbackDns, clock: Clock, folder: Path) -> None:
        self.locator = locator
        self.dns = dns
        self.clock = clock
        self.folder = folder

    async def one(self, host: str) -> Verdict:
        (verdict,) = await self.locator.locate([host])
        return verdict


#: The server is in this process: a busy machine answers late, and not never.
PATIENT = ResolverLimits(timeout_s=30.0, lookup_timeout_s=120.0)


@asynccontextmanager
async def bench(tmp_path: Path, *, allow_reserved: bool = True, opinions_max: int = 100) -> AsyncIterator[Bench]:
    clock = Clock()
    country = CountryDatabase(write_country(tmp_path / "country.mmdb", COUNTRIES, built=BUILT))
    asn = AsnDatabase(
        write_asn(
            tmp_path / "asn.mmdb", {"198.51.100.0/24": (64500, "Relay"), "192.0.2.0/24": (64496, "Host")}, built=BUILT
        )
    )
    async with LoopbackDns(ZONE) as dns:
        locator = Locator(
            Resolver([dns.address], now_s=clock, limits=PATIENT),
            [country],
            [asn],
            PROXIES,
            allow_reserved=allow_reserved,
            now_s=clock,
            opinions_max=opinions_max,
        )
        try:
            yield Bench(locator, dns, clock, tmp_path)
        finally:
            await locator.close()


async def test_each_kind_of_host(tmp_path: Path) -> None:
    expected = {
        "fr.example": (VerdictKind.HOSTED, "FR", ()),
        "FR.example.": (VerdictKind.HOSTED, "FR", ()),
        "nl.example": (VerdictKind.HOSTED, "NL", ()),
        "both.example": (VerdictKind.HOSTED, "FR", ("several-countries",)),
        "192.0.2.130": (VerdictKind.HOSTED, "NL", ()),
        "[2001:db8::5]": (VerdictKind.HOSTED, "FR", ()),
        "[::ffff:192.0.2.130]": (VerdictKind.HOSTED, "NL", ()),
        "relayed.example": (VerdictKind.PROXIED, None, ("proxy-by-cname",)),
        "x.cdn.relay.example": (VerdictKind.UNLOCATED, None, ("nxdomain",)),
        "network.example": (VerdictKind.PROXIED, None, ("proxy-by-asn",)),
        "range.example": (VerdictKind.PROXIED, None, ("proxy-by-prefix",)),
        "gone.example": (VerdictKind.UNLOCATED, None, ("nxdomain",)),
        "nowhere.example": (VerdictKind.UNLOCATED, None, ("no-opinion",)),
        "broken.example": (VerdictKind.RETRY, None, ("dns-servfail",)),
        f"{'a' * 56}.onion": (VerdictKind.NO_COUNTRY, None, ("onion",)),
        "site.i2p": (VerdictKind.NO_COUNTRY, None, ("i2p",)),
        "localhost": (VerdictKind.NOT_HOSTED, None, ("localhost",)),
        "224.0.0.1": (VerdictKind.NOT_HOSTED, None, ("multicast",)),
        "a b": (VerdictKind.NOT_HOSTED, None, ("invalid-host",)),
    }
    async with bench(tmp_path) as b:
        verdicts = await b.locator.locate(list(expected))
    got = {
        host: (verdict.kind, verdict.country, verdict.reasons) for host, verdict in zip(expected, verdicts, strict=True)
    }
    assert got == expected


async def test_reserved_addresses_are_not_hosted_by_default(tmp_path: Path) -> None:
    async with bench(tmp_path, allow_reserved=False) as b:
        fr, inside = await b.locator.locate(["fr.example", "inside.example"])
    assert (fr.kind, fr.reasons) == (VerdictKind.NOT_HOSTED, ("documentation",))
    assert (inside.kind, inside.reasons) == (VerdictKind.NOT_HOSTED, ("loopback",))


async def test_a_host_that_comes_many_times_is_resolved_once(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        verdicts = await b.locator.locate(["fr.example"] * 500 + ["nl.example"] * 500)
        assert [verdict.country for verdict in verdicts] == ["FR"] * 500 + ["NL"] * 500
        assert len(b.dns.queries) == 4


async def test_more_hosts_than_are_worked_on_at_once(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        hosts = [f"n{i}.example" for i in range(600)]
        for host in hosts:
            b.dns.zone[host] = ["A 192.0.2.1", "AAAA 2001:db8::1"]
        verdicts = await b.locator.locate(hosts)
        assert {verdict.country for verdict in verdicts} == {"FR"}
        assert len(b.dns.queries) == 1200


async def test_the_warm_path_asks_nobody(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        hosts = ["fr.example", "192.0.2.130", "site.i2p"]
        assert [verdict is None for verdict in b.locator.locate_cached(hosts)] == [True, False, False]
        slow = await b.locator.locate(hosts)
        assert b.locator.locate_cached(hosts) == slow
        assert len(b.dns.queries) == 2


async def test_the_evidence_tells_all_it_rests_on(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        verdict = await b.one("relayed.example")
        port = b.dns.address[1]
    assert verdict.evidence == {
        "at": "2026-11-22T16:00:00.000Z",
        "dns": {
            "outcome": "answer",
            "server": f"127.0.0.1:{port}",
            "ttl": 300,
            "chain": ["relayed.example.cdn.relay.example"],
        },
        "addresses": [
            {
                "ip": "192.0.2.1",
                "kind": "documentation",
                "countries": [{"db": 0, "country": "FR", "registered": "FR"}],
                "networks": [{"db": 1, "asn": 64496, "org": "Host"}],
            }
        ],
        "databases": [{"type": "Test-Country", "built": "2026-11-01"}, {"type": "Test-ASN", "built": "2026-11-01"}],
        "proxy": {"provider": "relay", "by": "cname", "match": "cdn.relay.example", "visible_country": "FR"},
    }
    assert len(json.dumps(verdict.evidence)) < 1536


async def test_a_replaced_file_changes_what_is_said(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        assert (await b.one("fr.example")).country == "FR"
        write_country(
            tmp_path / "country.mmdb", {"192.0.2.0/24": "DE", "2001:db8::/32": "DE"}, built=BUILT + timedelta(days=7)
        )
        assert (await b.one("fr.example")).country == "FR", "files are looked at every 5 seconds"
        b.clock.now += 6
        verdict = await b.one("fr.example")
        assert verdict.country == "DE"
        databases = verdict.evidence["databases"]
        assert isinstance(databases, list)
        assert databases[0] == {"type": "Test-Country", "built": "2026-11-08"}


async def test_old_and_broken_files_are_warned_of(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        assert b.locator.warnings(NOW) == []
        assert [info.age_days for info in b.locator.databases(NOW)] == [21, 21]
        assert len(b.locator.warnings(BUILT + timedelta(days=45))) == 0
        late = b.locator.warnings(BUILT + timedelta(days=46))
        assert late[0] == "country.mmdb: built 2026-11-01, 46 days old; locations go wrong after 45 days"
        assert len(late) == 2
        (tmp_path / "new").write_text("not a database")
        (tmp_path / "new").replace(tmp_path / "country.mmdb")
        assert b.locator.refresh() == [Refresh.KEPT_OLD, Refresh.UNCHANGED]
        assert b.locator.warnings(NOW) == ["country.mmdb: not a MaxMind DB file; the one read before stays in use"]


async def test_opinions_in_memory_are_bounded(tmp_path: Path) -> None:
    async with bench(tmp_path, opinions_max=10) as b:
        await b.locator.locate([f"192.0.2.{i}" for i in range(100)])
        assert len(b.locator._view.opinions) == 10


async def test_files_may_be_looked_at_in_another_thread(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        before = await b.one("fr.example")
        view = b.locator._view
        write_country(tmp_path / "country.mmdb", {"192.0.2.0/24": "DE", "2001:db8::/32": "DE"}, built=BUILT)
        b.clock.now += 6
        assert await asyncio.to_thread(b.locator.refresh) == [Refresh.RELOADED, Refresh.UNCHANGED]
        assert view.opinions, "who holds the old view keeps it whole"
        assert (before.country, (await b.one("fr.example")).country) == ("FR", "DE")
