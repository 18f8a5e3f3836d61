"""Recognises reverse proxies and CDNs from a data file, by network, name or published range; asks nobody."""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import TypeVar

from geo.address import IPAddress

DEFAULT_FILE = Path(__file__).with_name("data") / "proxies.toml"

_Item = TypeVar("_Item", int, str)

_MEMBERS = {"name", "asns", "suffixes", "prefixes"}


class ProxiesInvalid(Exception):  # noqa: N818 (named as what is wrong, like the errors of `protocol`)
    """The data file cannot be used; the text is one sentence."""


@dataclass(frozen=True, slots=True)
class ProxyMatch:
    """A provider that was recognised; `by` is `asn`, `cname` or `prefix`, `match` the entry that said so."""

    provider: str
    by: str
    match: str


class ProxyTable:
    """The providers, ready to be asked."""

    def __init__(self, providers: Iterable[Mapping[str, object]]) -> None:
        """Raises `ProxiesInvalid`."""
        self._asns: dict[int, ProxyMatch] = {}
        self._suffixes: dict[str, ProxyMatch] = {}
        # By IP version and number of host bits: a handful of sizes, each one dictionary look-up.
        self._prefixes: dict[tuple[int, int], dict[int, ProxyMatch]] = {}
        for provider in providers:
            self._add(provider)

    @classmethod
    def load(cls, path: Path = DEFAULT_FILE) -> "ProxyTable":
        """Read the table from a TOML file. Raises `ProxiesInvalid`."""
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            raise ProxiesInvalid(f"{path.name}: the file of proxies cannot be read") from None
        except tomllib.TOMLDecodeError as error:
            raise ProxiesInvalid(f"{path.name}: not TOML: {error}") from None
        providers = document.get("proxy", [])
        if set(document) - {"proxy"} or not isinstance(providers, list):
            raise ProxiesInvalid(f"{path.name}: only [[proxy]] tables are expected")
        return cls(providers)

    def by_asn(self, asn: int) -> ProxyMatch | None:
        """The provider a network belongs to."""
        return self._asns.get(asn)

    def by_name(self, name: str) -> ProxyMatch | None:
        """The provider a name (lower case, without the root dot) lives under."""
        while name:
            match = self._suffixes.get(name)
            if match is not None:
                return match
            _, _, name = name.partition(".")
        return None

    def by_address(self, address: IPAddress) -> ProxyMatch | None:
        """The provider that publishes an address as its own."""
        value = int(address)
        for (version, host_bits), networks in self._prefixes.items():
            if version == address.version:
                match = networks.get(value >> host_bits)
                if match is not None:
                    return match
        return None

    def _add(self, provider: Mapping[str, object]) -> None:
        name = provider.get("name")
        if not isinstance(name, str) or not name or set(provider) - _MEMBERS:
            raise ProxiesInvalid("a proxy has a name and any of asns, suffixes and prefixes, nothing else")
        for asn in _items(provider, name, "asns", int):
            self._asns[asn] = ProxyMatch(name, "asn", f"AS{asn}")
        for suffix in _items(provider, name, "suffixes", str):
            self._suffixes[suffix.lower().strip(".")] = ProxyMatch(name, "cname", suffix)
        for text in _items(provider, name, "prefixes", str):
            try:
                network = ip_network(text)
            except ValueError:
                raise ProxiesInvalid(f"{name}: a prefix is no network") from None
            host_bits = network.max_prefixlen - network.prefixlen
            sizes = self._prefixes.setdefault((network.version, host_bits), {})
            sizes[int(network.network_address) >> host_bits] = ProxyMatch(name, "prefix", text)


def _items(provider: Mapping[str, object], name: str, member: str, kind: type[_Item]) -> list[_Item]:
    values = provider.get(member, [])
    if not isinstance(values, list) or not all(type(value) is kind for value in values):
        raise ProxiesInvalid(f"{name}: {member} is not a list of {kind.__name__}")
    return values
