"""What a reported URL is: refused, or read as browsers read it and given one normal form. Never resolves or fetches.

Two reports are about the same item when the normal forms are equal.
A wrong "equal" loses an item and a wrong "different" only costs work, so a rule stands here only where
the two spellings reach the same resource whatever the server is:

1.  WHATWG URL parsing and serialising (`ada_url`), since the reporter saw the content through a browser:
    scheme and host in lower case, backslashes, dot segments, IDNA to A-labels, percent-encoded host characters,
    IPv4 literals in decimal, octal or hexadecimal, RFC 5952 text of IPv6 literals.
2.  Default port dropped, empty path `/` (WHATWG): the same request is sent.
3.  Fragment removed: it never leaves the browser, the server cannot tell the spellings apart.
4.  User name and password removed: they say who asks, not what is asked for. The original keeps them.
5.  One trailing dot of the host removed: DNS already reads both as the same absolute name.
6.  IPv4-mapped IPv6 literals become the IPv4 address: the connection is made to that address (RFC 4291 2.5.5.2).
7.  An empty query is dropped: a lone `?` carries no data.
8.  In path and query, percent-encoded unreserved characters are decoded and hexadecimal digits are upper case
    (RFC 3986 6.2.2.1, 6.2.2.2). A path or query with a stray `%` is left as it is: what its server reads is unknown.

Kept apart, although many servers treat them alike: http and https, `www.` and none,
order of the query, a trailing slash.
"""

import ipaddress
import re
from enum import StrEnum

import ada_url
import msgspec

URL_BYTES_MAX = 8192
"""Bytes of UTF-8, for the original and for the normal form; servers take request lines up to about this size."""

_LABEL_OCTETS_MAX = 63  # RFC 1035 2.3.4
_NAME_OCTETS_MAX = 253  # RFC 1035 2.3.4: 255 octets on the wire, of which the text form shows 253

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SCHEME = re.compile(r" *([A-Za-z][A-Za-z0-9+.\-]*):")
_TRIPLET = re.compile(r"%[0-9A-Fa-f]{2}")
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")

# RFC 3986 2.3; every spelling of a triplet leads to its normal one, so that one dictionary look-up does the work.
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_NORMAL_TRIPLET = {
    f"%{high}{low}": chr(octet) if (octet := int(high + low, 16)) in _UNRESERVED else f"%{high}{low}".upper()
    for high in "0123456789ABCDEFabcdef"
    for low in "0123456789ABCDEFabcdef"
}

_WEB = frozenset({"http", "https"})
_CONTENT_ADDRESSED = frozenset({"ipfs", "ipns"})
_DEFANGED = frozenset({"hxxp", "hxxps"})


class HostKind(StrEnum):
    """What stands in the place of the host; the last three have no hosting country."""

    NAME = "name"
    IPV4 = "ipv4"
    IPV6 = "ipv6"
    ONION = "onion"
    I2P = "i2p"
    IPFS = "ipfs"


class UrlFault(StrEnum):
    """Why a URL is refused."""

    EMPTY = "empty"
    NOT_A_URL = "not-a-url"
    UNSUPPORTED_SCHEME = "unsupported-scheme"
    TOO_LONG = "too-long"
    CONTROL_CHARACTER = "control-character"
    BROKEN_UNICODE = "broken-unicode"
    BAD_HOST = "bad-host"


_SENTENCES = {
    UrlFault.EMPTY: "the URL is empty",
    UrlFault.NOT_A_URL: "this is not a URL: a browser could not open it",
    UrlFault.UNSUPPORTED_SCHEME: "only http, https, ipfs and ipns addresses can be reported",
    UrlFault.TOO_LONG: f"the URL is longer than {URL_BYTES_MAX} bytes, as written or percent-encoded",
    UrlFault.CONTROL_CHARACTER: "the URL holds a control character",
    UrlFault.BROKEN_UNICODE: "the URL holds half a character (a lone surrogate)",
    UrlFault.BAD_HOST: "the host is no possible DNS name: a part of it is empty or too long",
}
_REFANG = "the address is written defanged (hxxp); send it with its real scheme"
_IPFS_FORM = "ipfs and ipns addresses are written ipfs://name/path"


class UrlRefused(Exception):  # noqa: N818 -- names the fact, as the callers and the documents do
    """The text cannot be reported as a URL. `reason` is a token, `sentence` is for a person; neither holds the text."""

    def __init__(self, reason: UrlFault, sentence: str | None = None) -> None:
        """Name the fault; the sentence of the fault serves unless a better one is known."""
        self.reason = reason
        self.sentence = sentence or _SENTENCES[reason]
        super().__init__(f"{reason}: {self.sentence}")


class ReportedUrl(msgspec.Struct, frozen=True):
    """A URL as it was received and as it is identified.

    `original` is the text untouched. `normal` is ASCII and the identity.
    `host` is in lower case, A-labels, without a trailing dot; for addresses the canonical text, IPv6 without brackets;
    for IPFS the content identifier or name as written (identifiers are case-sensitive).
    """

    original: str
    normal: str
    host: str
    host_kind: HostKind
    scheme: str

    def __repr__(self) -> str:
        """Show the kind only: a repr ends in log lines and tracebacks."""
        return f"<ReportedUrl {self.scheme} {self.host_kind}>"


def located_name(url: ReportedUrl) -> str:
    """Return what is to be located; a content identifier or an IPNS name has no country, whatever it looks like."""
    return f"{url.host}.ipfs" if url.host_kind is HostKind.IPFS else url.host


def parse_reported_url(text: str) -> ReportedUrl:
    """Read `text` as a browser does and give its normal form; of a normal form, the normal form is itself.

    Raises UrlRefused, which never carries the text.
    """
    _check_text(text)
    scheme = _scheme(text)
    try:
        href = ada_url.normalize_url(text)
    except ValueError:
        raise UrlRefused(UrlFault.NOT_A_URL) from None
    href = href.partition("#")[0]
    prefix = f"{scheme}://"
    if not href.startswith(prefix):
        raise UrlRefused(UrlFault.BAD_HOST, _IPFS_FORM)
    rest, _, query = href[len(prefix) :].partition("?")
    authority, _, path = rest.partition("/")
    authority = authority.rpartition("@")[2]
    if "%" in path:
        path = _normal_percent(path)
    if scheme in _CONTENT_ADDRESSED:
        if not authority:
            raise UrlRefused(UrlFault.BAD_HOST, _IPFS_FORM)
        host, host_kind = authority, HostKind.IPFS
    else:
        authority, host, host_kind = _normal_authority(authority)
    normal = f"{prefix}{authority}/{path}"
    if query:
        normal = f"{normal}?{_normal_percent(query) if '%' in query else query}"
    if len(normal) > URL_BYTES_MAX:
        raise UrlRefused(UrlFault.TOO_LONG)
    return ReportedUrl(text, normal, host, host_kind, scheme)


def defang(normal: str, *, whole: bool = False) -> str:
    """Write a normal form so that it cannot be followed: `hxxps://host[.]example/…`.

    Path and query are shown only when `whole`; who asks for that is recorded by the caller.
    """
    scheme, _, rest = normal.partition("://")
    authority, _, tail = rest.partition("/")
    if scheme in _CONTENT_ADDRESSED:
        head = f"{scheme}[:]//{authority.replace('.', '[.]')}"
    elif authority.startswith("["):
        address, _, port = authority[1:].partition("]")
        head = f"{scheme.replace('tt', 'xx')}://[{address.replace(':', '[:]')}]{port}"
    else:
        head = f"{scheme.replace('tt', 'xx')}://{authority.replace('.', '[.]')}"
    if whole or not tail:
        return f"{head}/{tail}"
    return f"{head}/…"


def _check_text(text: str) -> None:
    """Refuse what no parser needs to see; raises UrlRefused."""
    if text.isascii():
        octets = len(text)
    else:
        try:
            octets = len(text.encode())
        except UnicodeEncodeError:
            raise UrlRefused(UrlFault.BROKEN_UNICODE) from None
    if octets > URL_BYTES_MAX:
        raise UrlRefused(UrlFault.TOO_LONG)
    # WHATWG parsing drops tabs, line ends and outer controls silently; here they are a sign of a damaged report.
    if _CONTROL.search(text):
        raise UrlRefused(UrlFault.CONTROL_CHARACTER)


def _scheme(text: str) -> str:
    """Return the scheme in lower case when it is one that can be reported; raises UrlRefused."""
    match = _SCHEME.match(text)
    if match is None:
        raise UrlRefused(UrlFault.NOT_A_URL if text.strip(" ") else UrlFault.EMPTY)
    scheme = match[1].lower()
    if scheme not in _WEB and scheme not in _CONTENT_ADDRESSED:
        raise UrlRefused(UrlFault.UNSUPPORTED_SCHEME, _REFANG if scheme in _DEFANGED else None)
    return scheme


def _normal_percent(component: str) -> str:
    """Decode unreserved triplets, upper-case the others, unless a stray percent sign makes the meaning unsure."""
    if _STRAY_PERCENT.search(component):
        return component
    return _TRIPLET.sub(lambda triplet: _NORMAL_TRIPLET[triplet[0]], component)


def _normal_authority(authority: str) -> tuple[str, str, HostKind]:
    """Return authority, host and kind of a web URL that the WHATWG parser has serialised; raises UrlRefused."""
    if authority.startswith("["):
        literal, _, port = authority[1:].partition("]")
        mapped = ipaddress.IPv6Address(literal).ipv4_mapped
        if mapped is None:
            return authority, literal, HostKind.IPV6
        return f"{mapped}{port}", str(mapped), HostKind.IPV4
    host, colon, port = authority.partition(":")
    last = host.rpartition(".")[2]
    # The WHATWG parser lets no host end in a number unless it is an IPv4 address, which it writes in dotted decimal.
    if last.isdigit():
        return authority, host, HostKind.IPV4
    if not last:
        host = host[:-1]
        last = host.rpartition(".")[2]
        authority = f"{host}{colon}{port}"
    if len(host) > _NAME_OCTETS_MAX or not all(0 < len(label) <= _LABEL_OCTETS_MAX for label in host.split(".")):
        raise UrlRefused(UrlFault.BAD_HOST)
    if last == "onion":
        return authority, host, HostKind.ONION
    if last == "i2p":
        return authority, host, HostKind.I2P
    return authority, host, HostKind.NAME
