"""Reads the host of a URL as an address, a DNS name, or a name that has no hosting country; never resolves it.

The host is expected as a WHATWG URL parser leaves it: lower case, IDNA applied, IPv4 dotted, IPv6 in brackets.
"""

import functools
import re
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address

from geo.address import IPAddress

_PARSED_MAX = 65_536  # hosts remembered; the same ones come again and again
_NAME_CHARS_MAX = 253  # RFC 1035 2.3.4: 255 octets on the wire are 253 characters without the root dot

# Printable ASCII without the WHATWG "forbidden domain code points" (URL Standard, 3.1 Host miscellaneous).
_LABEL = re.compile(r"[!\"$&'()*+,\-0-9;=_`a-z{}~]{1,63}")

# A name whose last label is a number is an IPv4 address or nothing (URL Standard, "ends in a number checker").
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")

# A content id alone: CIDv1 in base32 (multibase "b", version 1), an IPNS key in base36 ("k2"/"k5"), or a CIDv0 or
# peer id in base58, both lower-cased by the URL parser.
_BARE_IPFS = re.compile(r"ba[a-z2-7]{50,61}|k[25][0-9a-z]{48,61}|qm[1-9a-z]{44}|12d3koow[1-9a-z]{44}")


class Network(StrEnum):
    """A network whose names say nothing about where a machine stands."""

    ONION = "onion"
    I2P = "i2p"
    IPFS = "ipfs"


_NETWORK_OF_TLD = {
    "onion": Network.ONION,  # RFC 7686
    "i2p": Network.I2P,
    "ipfs": Network.IPFS,
    "ipns": Network.IPFS,
}


@dataclass(frozen=True, slots=True)
class Literal:
    """The host is an address."""

    address: IPAddress


@dataclass(frozen=True, slots=True)
class Name:
    """The host is a DNS name, lower case, without the root dot."""

    text: str


@dataclass(frozen=True, slots=True)
class NoCountry:
    """The host lives in a network without hosting countries."""

    network: Network


@dataclass(frozen=True, slots=True)
class Unusable:
    """The host is nothing that could be hosted; `reason` is a token (`localhost`, `invalid-host`)."""

    reason: str


Host = Literal | Name | NoCountry | Unusable

_INVALID = Unusable("invalid-host")


@functools.lru_cache(maxsize=_PARSED_MAX)
def parse_host(text: str) -> Host:
    """What a URL's host is. Total: never raises, an odd host is `Unusable`."""
    if not text.isascii():
        return _INVALID
    text = text.lower().removesuffix(".")
    if text.startswith("[") and text.endswith("]"):
        return _literal(text[1:-1])
    labels = text.split(".")
    if ":" in text or _NUMBER.fullmatch(labels[-1]):
        return _literal(text)
    if len(text) > _NAME_CHARS_MAX or not all(_LABEL.fullmatch(label) for label in labels):
        return _INVALID
    return _name(text, labels)


def _name(text: str, labels: list[str]) -> Host:
    network = _NETWORK_OF_TLD.get(labels[-1])
    if network is not None:
        return NoCountry(network)
    if labels[-1] == "localhost":  # RFC 6761 6.3: never asked of the DNS
        return Unusable("localhost")
    if len(labels) == 1 and _BARE_IPFS.fullmatch(text):
        return NoCountry(Network.IPFS)
    return Name(text)


def _literal(text: str) -> Host:
    if "%" in text:  # a zone id means something to one machine only (RFC 4007 6)
        return _INVALID
    try:
        return Literal(ip_address(text))
    except ValueError:
        return _INVALID
