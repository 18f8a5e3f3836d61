"""Decides from evidence where a host stands, how sure that is, and why. Pure: the same evidence, the same verdict.

The confidence of `hosted` is a base (95 with a geolocation file, 70 with registry data alone) times the share of the
votes that the winning country has, less 5 for each doubt that is noted. A geolocation file has three votes for each
address, a registry file one.
"""

from dataclasses import dataclass
from enum import StrEnum

from geo.address import may_host
from geo.evidence import AddressEvidence, CountryRecord, DatabaseName, Evidence, evidence_json
from geo.host import NoCountry, Unusable
from geo.outcome import Answer, NoAddress, NoSuchName, TemporaryFailure
from geo.proxies import ProxyMatch

_BASE_LOCATED = 95
_BASE_REGISTRY = 70
_DOUBT = 5
_VOTES_LOCATED = 3
_VOTES_REGISTRY = 1
_SURE = 100
_PROXY_CONFIDENCE = 95
_CONFIDENCE_MIN = 1


class VerdictKind(StrEnum):
    """What became of the question "where is it hosted?"."""

    HOSTED = "hosted"
    PROXIED = "proxied"  # behind a relay: the visible country is not the hosting country
    NO_COUNTRY = "no-country"  # a network without hosting countries
    UNLOCATED = "unlocated"  # a fact: no such name, no address, or nobody knows the address
    NOT_HOSTED = "not-hosted"  # an address nobody hosts at, or no host at all
    RETRY = "retry"  # no fact: try again later


@dataclass(frozen=True, slots=True)
class Verdict:
    """Where a host stands. `country` is set for `HOSTED` alone; `confidence` is 0 to 100; `reasons` are tokens."""

    kind: VerdictKind
    country: str | None
    registered_country: str | None
    confidence: int
    reasons: tuple[str, ...]
    evidence: dict[str, object]


def judge(evidence: Evidence, *, allow_reserved: bool) -> Verdict:
    """The verdict on one host. `allow_reserved` as in `geo.address.may_host`."""
    settled = _without_addresses(evidence)
    if settled is not None:
        return settled
    hosting = [one for one in evidence.addresses if may_host(one.kind, allow_reserved=allow_reserved)]
    if not hosting:
        kinds = sorted({one.kind.value for one in evidence.addresses})
        return _plain(VerdictKind.NOT_HOSTED, _SURE, tuple(kinds), evidence)
    tally = _count(hosting, evidence.databases)
    if len(hosting) < len(evidence.addresses):
        tally.doubts.append("reserved-among-addresses")
    if isinstance(evidence.dns, Answer) and evidence.dns.partial is not None:
        tally.doubts.append("partial-answer")
    relayed = [one.proxy for one in hosting if one.proxy is not None]
    if evidence.proxy_name is not None:
        return _proxied(evidence.proxy_name, tally, evidence, partly=False)
    if relayed:
        proxy = min(relayed, key=lambda match: (match.provider, match.by, match.match))
        return _proxied(proxy, tally, evidence, partly=len(relayed) < len(hosting))
    return _hosted(tally, evidence)


def _without_addresses(evidence: Evidence) -> Verdict | None:
    match evidence.host:
        case NoCountry(network=network):
            return _plain(VerdictKind.NO_COUNTRY, _SURE, (network.value,), evidence)
        case Unusable(reason=reason):
            return _plain(VerdictKind.NOT_HOSTED, _SURE, (reason,), evidence)
    match evidence.dns:
        case TemporaryFailure(reason=reason):
            return _plain(VerdictKind.RETRY, 0, (f"dns-{reason}",), evidence)
        case NoSuchName():
            return _plain(VerdictKind.UNLOCATED, _SURE, ("nxdomain",), evidence)
        case NoAddress(reason=reason):
            token = "no-address" if reason == "no-data" else reason
            return _plain(VerdictKind.UNLOCATED, _SURE, (token,), evidence)
    return None


_Votes = dict[str, int]


@dataclass(slots=True)
class _Tally:
    """The votes for countries, and what was noted while they were counted."""

    votes: _Votes
    registered: dict[str, _Votes]
    base: int
    doubts: list[str]
    notes: list[str]


def _first_of_most(votes: _Votes) -> str | None:
    """The country with most votes; of equals the first in the alphabet, so that order never matters."""
    if len(votes) == 1:
        return next(iter(votes))
    return min(votes, key=lambda code: (-votes[code], code), default=None)


def _count(hosting: list[AddressEvidence], databases: tuple[DatabaseName, ...]) -> _Tally:
    tally = _Tally({}, {}, _BASE_REGISTRY, [], [])
    winners = set()
    for one in hosting:
        votes: _Votes = {}
        for place, record in one.countries:
            code = _code(record)
            registry = databases[place].is_registry
            votes[code] = votes.get(code, 0) + (_VOTES_REGISTRY if registry else _VOTES_LOCATED)
            if record.registered_country is not None:
                registered = tally.registered.setdefault(code, {})
                registered[record.registered_country] = registered.get(record.registered_country, 0) + 1
            if record.country is None:
                tally.doubts.append("registered-only")
            elif not registry:
                tally.base = _BASE_LOCATED
        if not votes:
            tally.doubts.append("address-unknown")
        elif len(votes) > 1:
            tally.notes.append("databases-differ")
        winners.add(_first_of_most(votes))
        for code, number in votes.items():
            tally.votes[code] = tally.votes.get(code, 0) + number
    if len(winners - {None}) > 1:
        tally.notes.append("several-countries")
    return tally


def _code(record: CountryRecord) -> str:
    code = record.country or record.registered_country
    assert code is not None  # noqa: S101 (a record without either is no opinion, geo.mmdb.country_of)
    return code


def _hosted(tally: _Tally, evidence: Evidence) -> Verdict:
    country = _first_of_most(tally.votes)
    if country is None:
        return _plain(VerdictKind.UNLOCATED, 0, ("no-opinion",), evidence)
    registered = _first_of_most(tally.registered.get(country, {}))
    doubts = list(tally.doubts)
    if registered is not None and registered != country:
        doubts.append("registered-elsewhere")
    notes = list(tally.notes)
    if tally.base == _BASE_REGISTRY:
        notes.append("registry-data-only")
    share = tally.base * tally.votes[country] // sum(tally.votes.values())
    confidence = max(share - _DOUBT * len(set(doubts)), _CONFIDENCE_MIN)
    reasons = tuple(sorted({*doubts, *notes}))
    return Verdict(VerdictKind.HOSTED, country, registered, confidence, reasons, evidence_json(evidence, None))


def _proxied(proxy: ProxyMatch, tally: _Tally, evidence: Evidence, *, partly: bool) -> Verdict:
    reasons = (f"proxy-by-{proxy.by}", *(("proxy-partly",) if partly else ()))
    out: dict[str, object] = {"provider": proxy.provider, "by": proxy.by, "match": proxy.match}
    visible = _first_of_most(tally.votes)
    if visible is not None:
        out["visible_country"] = visible
    return Verdict(VerdictKind.PROXIED, None, None, _PROXY_CONFIDENCE, reasons, evidence_json(evidence, out))


def _plain(kind: VerdictKind, confidence: int, reasons: tuple[str, ...], evidence: Evidence) -> Verdict:
    return Verdict(kind, None, None, confidence, reasons, evidence_json(evidence, None))
