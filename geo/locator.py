"""The one door: hosts in, verdicts out, with everything between them cached; decides nothing itself.

Used from one event loop. The evidence of verdicts is to be read only: equal hosts and equal addresses share it.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from geo.address import IPAddress, classify
from geo.evidence import AddressEvidence, DatabaseName, Evidence, choose_addresses
from geo.host import Host, Literal, Name, parse_host
from geo.mmdb import AGE_WARNING_DAYS, AsnDatabase, CountryDatabase, DatabaseInfo, Refresh
from geo.outcome import Answer, Outcome
from geo.proxies import ProxyMatch, ProxyTable
from geo.resolver import Resolver
from geo.verdict import Verdict, judge

_OPINIONS_MAX = 100_000  # addresses; about 1 KiB each with two files


@dataclass(frozen=True, slots=True)
class _View:
    """The files by name and the opinions formed with them; a new one replaces it when a file is taken anew."""

    names: tuple[DatabaseName, ...]
    opinions: OrderedDict[IPAddress, AddressEvidence]


class Locator:
    """Finds where hosts stand."""

    def __init__(
        self,
        resolver: Resolver,
        databases: Sequence[CountryDatabase],
        asn_databases: Sequence[AsnDatabase],
        proxies: ProxyTable,
        *,
        allow_reserved: bool,
        now_s: Callable[[], float],
        opinions_max: int = _OPINIONS_MAX,
    ) -> None:
        """The order of the databases is the order in which their opinions stand in the evidence.

        `now_s` is the wall clock in seconds since 1970; `allow_reserved` as in `geo.address.may_host`.
        """
        self._resolver = resolver
        self._countries = tuple(databases)
        self._networks = tuple(asn_databases)
        self._proxies = proxies
        self._allow_reserved = allow_reserved
        self._now_s = now_s
        self._opinions_max = opinions_max
        self._view = self._new_view()

    async def locate(self, hosts: Sequence[str]) -> list[Verdict]:
        """A verdict for each host, in order. Each host is resolved once, many at a time; never raises for a host."""
        self.refresh()
        verdicts: dict[str, Verdict] = {}
        waiting: list[tuple[str, Name]] = []
        at = self._at()
        for text in dict.fromkeys(hosts):
            host = parse_host(text)
            verdict = self._without_asking(host, at)
            if verdict is not None:
                verdicts[text] = verdict
            elif isinstance(host, Name):
                waiting.append((text, host))
        if waiting:
            # A few workers over one iterator, and not a task a name: a call may bring a hundred thousand.
            todo = iter(waiting)
            workers = min(len(waiting), self._resolver.names_in_flight_max)
            await asyncio.gather(*(self._work(todo, verdicts) for _ in range(workers)))
        return [verdicts[text] for text in hosts]

    def locate_cached(self, hosts: Sequence[str]) -> list[Verdict | None]:
        """As `locate`, without asking anybody: None for a host that would have to be resolved."""
        self.refresh()
        at = self._at()
        verdicts = {text: self._without_asking(parse_host(text), at) for text in dict.fromkeys(hosts)}
        return [verdicts[text] for text in hosts]

    def refresh(self) -> list[Refresh]:
        """Take database files that changed on disk; every call of `locate` does, each file at most every 5 s.

        May run in another thread than `locate`: the view is replaced, never changed.
        """
        now_s = self._now_s()
        results = [database.refresh(now_s) for database in (*self._countries, *self._networks)]
        if Refresh.RELOADED in results:
            self._view = self._new_view()
        return results

    def databases(self, now: datetime) -> list[DatabaseInfo]:
        """The files in use, for status and health."""
        return [database.info(now) for database in (*self._countries, *self._networks)]

    def warnings(self, now: datetime) -> list[str]:
        """What health should warn of, a sentence each: files that are old, or whose replacement is no good."""
        sentences = []
        for info in self.databases(now):
            if info.problem is not None:
                sentences.append(f"{info.problem}; the one read before stays in use")
            if info.age_days > AGE_WARNING_DAYS:
                built = info.build_date.date().isoformat()
                age = f"built {built}, {info.age_days} days old"
                sentences.append(f"{info.path.name}: {age}; locations go wrong after {AGE_WARNING_DAYS} days")
        return sentences

    async def close(self) -> None:
        """Give up what is in flight, close the sockets and the files."""
        await self._resolver.close()
        for database in (*self._countries, *self._networks):
            database.close()

    async def _work(self, todo: Iterator[tuple[str, Name]], verdicts: dict[str, Verdict]) -> None:
        for text, host in todo:
            outcome = await self._resolver.lookup(host.text)
            verdicts[text] = self._judge_name(host, outcome, self._at())

    def _without_asking(self, host: Host, at: str) -> Verdict | None:
        if isinstance(host, Name):
            outcome = self._resolver.cached(host.text)
            return None if outcome is None else self._judge_name(host, outcome, at)
        view = self._view
        addresses = (self._opinion(host.address, view),) if isinstance(host, Literal) else ()
        evidence = Evidence(at, host, None, addresses, len(addresses), view.names)
        return judge(evidence, allow_reserved=self._allow_reserved)

    def _judge_name(self, host: Name, outcome: Outcome, at: str) -> Verdict:
        view = self._view
        addresses: tuple[AddressEvidence, ...] = ()
        total = 0
        proxy: ProxyMatch | None = None
        if isinstance(outcome, Answer):
            addresses = tuple(self._opinion(address, view) for address in choose_addresses(outcome.addresses))
            total = len(outcome.addresses)
            names = (host.text, *(name.lower() for name in outcome.chain))
            proxy = next(filter(None, map(self._proxies.by_name, names)), None)
        evidence = Evidence(at, host, outcome, addresses, total, view.names, proxy)
        return judge(evidence, allow_reserved=self._allow_reserved)

    def _opinion(self, address: IPAddress, view: _View) -> AddressEvidence:
        known = view.opinions.get(address)
        if known is not None:
            view.opinions.move_to_end(address)
            return known
        opinion = self._form_opinion(address)
        view.opinions[address] = opinion
        if len(view.opinions) > self._opinions_max:
            view.opinions.popitem(last=False)
        return opinion

    def _form_opinion(self, address: IPAddress) -> AddressEvidence:
        classified = classify(address)
        countries = [(place, database.lookup(classified.address)) for place, database in enumerate(self._countries)]
        networks = [
            (place, database.lookup(classified.address))
            for place, database in enumerate(self._networks, len(self._countries))
        ]
        known_networks = tuple((place, record) for place, record in networks if record is not None)
        proxy = self._proxies.by_address(classified.address)
        for _, record in known_networks:
            proxy = self._proxies.by_asn(record.asn) or proxy
        return AddressEvidence(
            str(classified.address),
            classified.kind,
            classified.wrapping,
            tuple((place, record) for place, record in countries if record is not None),
            known_networks,
            proxy,
        )

    def _new_view(self) -> _View:
        names = tuple(
            DatabaseName.of(database.kind, database.type, database.build_date.date())
            for database in (*self._countries, *self._networks)
        )
        return _View(names, OrderedDict())

    def _at(self) -> str:
        return datetime.fromtimestamp(self._now_s(), UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
