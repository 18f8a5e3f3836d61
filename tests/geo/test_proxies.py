"""The table of relays: what it recognises, and that its data file is sound."""

import tomllib
from ipaddress import ip_address
from pathlib import Path

import pytest

from geo.proxies import DEFAULT_FILE, ProxiesInvalid, ProxyMatch, ProxyTable

TABLE = ProxyTable(
    [
        {
            "name": "relay",
            "asns": [64500],
            "suffixes": ["cdn.relay.example"],
            "prefixes": ["198.51.100.0/25", "2001:db8:cd::/48"],
        }
    ]
)


def test_by_network() -> None:
    assert TABLE.by_asn(64500) == ProxyMatch("relay", "asn", "AS64500")
    assert TABLE.by_asn(64501) is None


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("cdn.relay.example", True),
        ("customer.host.example.cdn.relay.example", True),
        ("xcdn.relay.example", False),
        ("relay.example", False),
        ("cdn.relay.example.host.example", False),
    ],
)
def test_by_name(name: str, *, known: bool) -> None:
    assert (TABLE.by_name(name) == ProxyMatch("relay", "cname", "cdn.relay.example")) is known


@pytest.mark.parametrize(
    ("address", "known"),
    [("198.51.100.127", True), ("198.51.100.128", False), ("2001:db8:cd::1", True), ("2001:db8:ce::1", False)],
)
def test_by_published_range(address: str, *, known: bool) -> None:
    assert (TABLE.by_address(ip_address(address)) is not None) is known


def test_the_data_file_is_sound() -> None:
    table = ProxyTable.load()
    document = tomllib.loads(DEFAULT_FILE.read_text(encoding="utf-8"))
    names = [provider["name"] for provider in document["proxy"]]
    assert len(names) == len(set(names))
    for member in ("asns", "suffixes", "prefixes"):
        entries = [entry for provider in document["proxy"] for entry in provider.get(member, [])]
        assert len(entries) == len(set(entries)), f"an entry of {member} stands twice"
    assert all(
        suffix == suffix.lower().strip(".") for provider in document["proxy"] for suffix in provider.get("suffixes", [])
    )
    cloudflare = table.by_asn(13335)
    assert cloudflare is not None
    assert cloudflare.provider == "cloudflare"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[[proxy]]\nasns = [1]\n", "has a name"),
        ('[[proxy]]\nname = "x"\ncolour = "red"\n', "nothing else"),
        ('[[proxy]]\nname = "x"\nasns = ["1"]\n', "asns is not a list of int"),
        ('[[proxy]]\nname = "x"\nasns = [true]\n', "asns is not a list of int"),
        ('[[proxy]]\nname = "x"\nprefixes = ["198.51.100.1/24"]\n', "a prefix is no network"),
        ("[[relay]]\n", "only"),
        ("proxy = 1\n", "only"),
        ("proxy = [", "not TOML"),
    ],
)
def test_a_bad_file_is_refused_in_words(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "proxies.toml"
    path.write_text(text)
    with pytest.raises(ProxiesInvalid, match=reason):
        ProxyTable.load(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ProxiesInvalid, match="cannot be read"):
        ProxyTable.load(tmp_path / "none.toml")
