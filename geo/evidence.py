"""What a verdict rests on, and its form in a record: answers, addresses, opinions, dates. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum

from geo.address import AddressKind, IPAddress, Wrapping
from geo.host import Host
from geo.outcome import Answer, NoAddress, NoSuchName, Outcome, TemporaryFailure
from geo.proxies import ProxyMatch

ADDRESSES_MAX = 8
"""Addresses of one name that are looked up and kept."""

REGISTRY_TYPE_PREFIX = "HX-RIR"
"""Type of files built from the registries' statistics: they know where a block is registered, not where it is used."""


NO_COUNTRY_CODES = frozenset({"ZZ", "EU", "AP"})
"""Codes that files use where they know no country: unknown, "Europe", "Asia-Pacific"."""


class DatabaseKind(StrEnum):
    """What a file tells."""

    COUNTRY = "country"
    ASN = "asn"


@dataclass(frozen=True, slots=True)
class CountryRecord:
    """Where an address is, and where its block is registered; ISO 3166-1 alpha-2 codes."""

    country: str | None
    registered_country: str | None


@dataclass(frozen=True, slots=True)
class NetworkRecord:
    """The network that announces an address."""

    asn: int
    organisation: str | None


@dataclass(frozen=True, slots=True)
class DatabaseName:
    """A file as a verdict names it, `built` an ISO date; opinions refer to it by its place in the list.

    `is_registry`: its countries are those of registration only.
    """

    kind: DatabaseKind
    type: str
    built: str
    is_registry: bool

    @property
    def json(self) -> dict[str, object]:
        """Its form in a record."""
        return {"type": self.type, "built": self.built}

    @classmethod
    def of(cls, kind: DatabaseKind, database_type: str, built: date) -> "DatabaseName":
        """The name of a file of a type, built on a day."""
        return cls(kind, database_type, built.isoformat(), database_type.startswith(REGISTRY_TYPE_PREFIX))


@dataclass(frozen=True, slots=True)
class AddressEvidence:
    """What is known of one address, `ip` its text; opinions as (place of the file in the list, opinion).

    `json` is its form in a record, made once: every verdict on this address holds the same object.
    """

    ip: str
    kind: AddressKind
    wrapping: Wrapping | None = None
    countries: tuple[tuple[int, CountryRecord], ...] = ()
    networks: tuple[tuple[int, NetworkRecord], ...] = ()
    proxy: ProxyMatch | None = None
    json: dict[str, object] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "json", _address_json(self))


@dataclass(frozen=True, slots=True)
class Evidence:
    """All a verdict is made of. `dns` is None for a literal address; `at` is RFC 3339 UTC."""

    at: str
    host: Host
    dns: Outcome | None = None
    addresses: tuple[AddressEvidence, ...] = ()
    addresses_total: int = 0
    databases: tuple[DatabaseName, ...] = ()
    proxy_name: ProxyMatch | None = None


def choose_addresses(addresses: Sequence[IPAddress]) -> tuple[IPAddress, ...]:
    """At most `ADDRESSES_MAX` of a name's addresses, IPv4 and IPv6 in turn, so that both are seen."""
    if len(addresses) <= ADDRESSES_MAX:
        return tuple(addresses)
    v4 = [address for address in addresses if address.version == 4]  # noqa: PLR2004 (the IP version)
    v6 = [address for address in addresses if address.version == 6]  # noqa: PLR2004 (the IP version)
    share = max(ADDRESSES_MAX // 2, ADDRESSES_MAX - len(v6))
    kept = v4[:share]
    return (*kept, *v6[: ADDRESSES_MAX - len(kept)])


def evidence_json(evidence: Evidence, proxy: dict[str, object] | None) -> dict[str, object]:
    """The evidence as JSON for a record: strings and integers only. To be read only: parts of it are shared."""
    out: dict[str, object] = {"at": evidence.at}
    if evidence.dns is not None:
        out["dns"] = _dns_json(evidence.dns)
    if evidence.addresses:
        out["addresses"] = [address.json for address in evidence.addresses]
        if evidence.addresses_total > len(evidence.addresses):
            out["addresses_total"] = evidence.addresses_total
        out["databases"] = [name.json for name in evidence.databases]
    if proxy is not None:
        out["proxy"] = proxy
    return out


def _dns_json(outcome: Outcome) -> dict[str, object]:
    out: dict[str, object] = {"outcome": _OUTCOMES[type(outcome)], "server": outcome.server}
    if isinstance(outcome, TemporaryFailure):
        out["reason"] = outcome.reason
        return out
    out["ttl"] = outcome.ttl_s
    if outcome.chain:
        out["chain"] = list(outcome.chain)
    if isinstance(outcome, NoAddress):
        out["reason"] = outcome.reason
    if isinstance(outcome, Answer) and outcome.partial is not None:
        out["partial"] = outcome.partial
    return out


_OUTCOMES: dict[type[Outcome], str] = {
    Answer: "answer",
    NoSuchName: "no-such-name",
    NoAddress: "no-address",
    TemporaryFailure: "temporary-failure",
}


def _address_json(evidence: AddressEvidence) -> dict[str, object]:
    out: dict[str, object] = {"ip": evidence.ip}
    if evidence.kind is not AddressKind.GLOBAL:
        out["kind"] = evidence.kind.value
    if evidence.wrapping is not None:
        out["wrapping"] = evidence.wrapping.value
    if evidence.countries:
        out["countries"] = [_country_json(place, record) for place, record in evidence.countries]
    if evidence.networks:
        out["networks"] = [
            {"db": place, "asn": record.asn} | ({"org": record.organisation} if record.organisation else {})
            for place, record in evidence.networks
        ]
    return out


def _country_json(place: int, record: CountryRecord) -> dict[str, object]:
    out: dict[str, object] = {"db": place}
    if record.country is not None:
        out["country"] = record.country
    if record.registered_country is not None:
        out["registered"] = record.registered_country
    return out
