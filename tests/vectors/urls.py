"""Vectors of the URLs that a report can carry: what is taken, as what it is read, and what is refused for good."""

from typing import Any, Final

from node.hotline.domain.urls import URL_BYTES_MAX, parse_reported_url

Case = dict[str, Any]

_HEAD: Final = "http://host.example/"
#: One character of two bytes that six stand for once it is percent-encoded.
_GROWING: Final = "\u00e9"
_FITTING: Final = (URL_BYTES_MAX - len(_HEAD)) // 6

_TAKEN: Final = (
    ("an ordinary address", "https://gallery.host.example/albums/7?page=2"),
    ("capitals, a default port, a trailing dot", "HTTP://Host.Example.:80/Path"),
    ("blanks around it", "  http://host.example/a "),
    ("backslashes and dot segments", "http:\\\\host.example\\x\\..\\a"),
    ("no slash, one slash", "http:/host.example/a"),
    ("a user name and a password", "http://user:word@host.example/a"),
    ("a fragment", "http://host.example/a?b#part"),
    ("an empty query", "http://host.example/a?"),
    ("triplets of unreserved characters, others in lower case", "http://host.example/%7e%c3%a9?q=%61%2f"),
    ("a percent sign that begins no triplet", "http://host.example/100%?q=%61"),
    ("a name that is no ASCII", "http://b\u00fccher.example/"),
    ("a host without a dot", "http://localhost/"),
    ("an IPv4 address in octal", "http://0300.0.02.01/"),
    ("an IPv6 address", "http://[2001:DB8:0::1]:8080/"),
    ("an IPv4 address written as IPv6", "http://[::ffff:192.0.2.1]:81/"),
    ("an onion service", "http://Abc.Onion/"),
    ("an I2P site", "http://site.i2p/"),
    ("a content identifier, whose capitals count", "ipfs://CidCid/a"),
    ("a name of IPNS", "ipns://Name.example"),
    ("a label of 63 octets", f"http://{'a' * 63}.example/"),
    ("8,192 bytes once it is percent-encoded", _HEAD + _GROWING * _FITTING),
)

_REFUSED: Final = (
    ("blanks alone", "   "),
    ("no scheme", "host.example/a"),
    ("a scheme-relative reference", "//host.example/a"),
    ("no host", "http://"),
    ("a blank in the host", "http://ho st.example/"),
    ("a port above 65,535", "http://host.example:99999/"),
    ("an IPv4 address that is none", "http://192.0.2.256/"),
    ("an IPv6 address with a zone", "http://[fe80::1%25eth0]/"),
    ("another scheme", "ftp://host.example/"),
    ("a scheme that carries its content", "data:text/html,x"),
    ("a script", "javascript:alert(1)"),
    ("a defanged scheme", "hxxps://host.example/"),
    ("a port that reads as a scheme", "host.example:8080/a"),
    ("an empty label", "http://host..example/"),
    ("two trailing dots", "http://host.example../"),
    ("a label of 64 octets", f"http://{'a' * 64}.example/"),
    ("a name of more than 253 octets", f"http://{'a.' * 124}example/"),
    ("ipfs without slashes", "ipfs:CidCid"),
    ("ipfs without an identifier", "ipfs:///CidCid"),
    ("more than 8,192 bytes once it is percent-encoded", _HEAD + _GROWING * (_FITTING + 1)),
)


def urls() -> Case:
    """Return the URLs."""
    return {
        "taken": [{"what": what, "url": text, **read(text)} for what, text in _TAKEN],
        "refused": [
            {"what": what, "url": text, "step": 13, "code": "schema-invalid", "field": "body.url"}
            for what, text in _REFUSED
        ],
    }


def read(text: str) -> Case:
    """Return normal form, host and kind of host; raises UrlRefused."""
    url = parse_reported_url(text)
    return {"normal": url.normal, "host": url.host, "kind": url.host_kind.value}
