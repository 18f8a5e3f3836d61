"""Which spellings of a URL are one item, which are not, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.hotline.domain.urls import (
    URL_BYTES_MAX,
    HostKind,
    UrlFault,
    UrlRefused,
    defang,
    parse_reported_url,
)

BASE = "http://host.example/a/b?c=d"

SAME = [
    (BASE, "HTTP://HOST.EXAMPLE/a/b?c=d"),
    (BASE, "http://host.example:80/a/b?c=d"),
    (BASE, "http://host.example:/a/b?c=d"),
    (BASE, "http://host.example./a/b?c=d"),
    (BASE, "http://host.example/a/b?c=d#part"),
    (BASE, "http://host.example/a/b?c=d#"),
    (BASE, "http://user:word@host.example/a/b?c=d"),
    (BASE, "http://user@host.example/a/b?c=d"),
    (BASE, "http://host.example/x/../a/./b?c=d"),
    (BASE, "http://host.example/x/%2e%2E/a/%2e/b?c=d"),
    (BASE, "http:\\\\host.example\\a\\b?c=d"),
    (BASE, "http:/host.example/a/b?c=d"),
    (BASE, "http:host.example/a/b?c=d"),
    (BASE, "  http://host.example/a/b?c=d "),
    (BASE, "http://%68ost.example/a/b?c=d"),
    (BASE, "http://ho\u00adst.example/a/b?c=d"),
    (BASE, "http://\uff48ost.example/a/b?c=d"),
    (BASE, "http://host\u3002example/a/b?c=d"),
    (BASE, "http://host.example/%61/%62?%63=%64"),
    ("http://host.example", "http://host.example/"),
    ("http://host.example/", "http://host.example/?"),
    ("http://host.example/", "http://host.example/?#"),
    ("https://host.example:443/", "https://host.example/"),
    ("http://host.example/~u", "http://host.example/%7Eu"),
    ("http://host.example/%c3%a9", "http://host.example/\u00e9"),
    ("http://host.example/?q=%c3%a9", "http://host.example/?q=\u00e9"),
    ("http://host.example/a%2fb", "http://host.example/a%2Fb"),
    ("http://host.example/a b", "http://host.example/a%20b"),
    ("http://b\u00fccher.example/", "http://xn--bcher-kva.example/"),
    ("http://B\u00dcCHER.example/", "http://xn--bcher-kva.example/"),
    ("http://192.0.2.1/", "http://3221225985/"),
    ("http://192.0.2.1/", "http://0300.0.02.01/"),
    ("http://192.0.2.1/", "http://0xC0000201/"),
    ("http://192.0.2.1/", "http://0xc0.0.0x2.1/"),
    ("http://192.0.2.1/", "http://192.0.513/"),
    ("http://192.0.2.1/", "http://192.0.2.1./"),
    ("http://192.0.2.1/", "http://[::ffff:192.0.2.1]/"),
    ("http://192.0.2.1:81/", "http://[::FFFF:c000:0201]:81/"),
    ("http://[2001:db8::1]/", "http://[2001:0DB8:0:0::0001]:80/"),
    ("ipfs://CidCid", "ipfs://CidCid/"),
    ("ipfs://CidCid/a", "IPFS://CidCid/x/../a#part"),
]

DIFFERENT = [
    (BASE, "https://host.example/a/b?c=d"),
    (BASE, "http://www.host.example/a/b?c=d"),
    (BASE, "http://host.example:81/a/b?c=d"),
    (BASE, "http://host.example/a/b/?c=d"),
    (BASE, "http://host.example/A/b?c=d"),
    (BASE, "http://host.example/a//b?c=d"),
    (BASE, "http://host.example/a/b?c=D"),
    (BASE, "http://host.example/a/b?c=d&e"),
    (BASE, "http://host.example/a%2Fb?c=d"),
    ("http://host.example/?a&b", "http://host.example/?b&a"),
    ("http://host.example/a%20b", "http://host.example/a+b"),
    ("http://host.example/%", "http://host.example/%25"),
    ("http://host.example/%%34%31", "http://host.example/A"),
    ("http://host.example/%%34%31", "http://host.example/%41"),
    ("http://host.example/%2541", "http://host.example/A"),
    ("http://host.example/?%", "http://host.example/?%25"),
    ("http://host.example/?", "http://host.example/??"),
    ("http://192.0.2.1/", "http://[::192.0.2.1]/"),
    ("http://192.0.2.1/", "http://192.0.2.1.example/"),
    ("ipfs://CidCid/", "ipfs://cidcid/"),
    ("ipfs://CidCid/", "ipns://CidCid/"),
]

REFUSED = [
    ("", UrlFault.EMPTY),
    ("   ", UrlFault.EMPTY),
    ("host.example/a", UrlFault.NOT_A_URL),
    ("//host.example/a", UrlFault.NOT_A_URL),
    ("seen on a page", UrlFault.NOT_A_URL),
    ("http://", UrlFault.NOT_A_URL),
    ("http://ho st.example/", UrlFault.NOT_A_URL),
    ("http://host.example:99999/", UrlFault.NOT_A_URL),
    ("http://192.0.2.256/", UrlFault.NOT_A_URL),
    ("http://[2001:db8::1/", UrlFault.NOT_A_URL),
    ("http://[fe80::1%25eth0]/", UrlFault.NOT_A_URL),
    ("javascript:alert(1)", UrlFault.UNSUPPORTED_SCHEME),
    ("JavaScript://host.example/%0aalert(1)", UrlFault.UNSUPPORTED_SCHEME),
    ("file:///etc/hosts", UrlFault.UNSUPPORTED_SCHEME),
    ("data:text/html,x", UrlFault.UNSUPPORTED_SCHEME),
    ("ftp://host.example/", UrlFault.UNSUPPORTED_SCHEME),
    ("ws://host.example/", UrlFault.UNSUPPORTED_SCHEME),
    ("mailto:someone@host.example", UrlFault.UNSUPPORTED_SCHEME),
    ("hxxps://host.example/", UrlFault.UNSUPPORTED_SCHEME),
    ("host.example:8080/a", UrlFault.UNSUPPORTED_SCHEME),
    ("http://host.example/\x00", UrlFault.CONTROL_CHARACTER),
    ("http://host.example/a\nb", UrlFault.CONTROL_CHARACTER),
    ("http://host.example/a\tb", UrlFault.CONTROL_CHARACTER),
    ("\x1bhttp://host.example/", UrlFault.CONTROL_CHARACTER),
    ("http://host.example/\x7f", UrlFault.CONTROL_CHARACTER),
    ("http://host.example/\x85", UrlFault.CONTROL_CHARACTER),
    ("http://host.example/\ud800", UrlFault.BROKEN_UNICODE),
    ("http://\udc00.example/", UrlFault.BROKEN_UNICODE),
    ("http://host..example/", UrlFault.BAD_HOST),
    ("http://host.example../", UrlFault.BAD_HOST),
    ("http://.host.example/", UrlFault.BAD_HOST),
    ("http://./", UrlFault.BAD_HOST),
    (f"http://{'a' * 64}.example/", UrlFault.BAD_HOST),
    (f"http://{'a.' * 124}example/", UrlFault.BAD_HOST),
    ("ipfs:CidCid", UrlFault.BAD_HOST),
    ("ipfs:/CidCid", UrlFault.BAD_HOST),
    ("ipfs:///CidCid", UrlFault.BAD_HOST),
    ("ipfs:CidCid://x", UrlFault.BAD_HOST),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_spellings_of_one_resource_have_one_normal_form(one: str, other: str) -> None:
    assert parse_reported_url(one).normal == parse_reported_url(other).normal


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_what_a_server_can_tell_apart_stays_apart(one: str, other: str) -> None:
    assert parse_reported_url(one).normal != parse_reported_url(other).normal


@pytest.mark.parametrize(("text", "reason"), REFUSED)
def test_refused_with_its_reason_and_without_its_text(text: str, reason: UrlFault) -> None:
    with pytest.raises(UrlRefused) as refused:
        parse_reported_url(text)
    assert refused.value.reason is reason
    assert not text.strip() or text not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "host", "kind", "scheme"),
    [
        ("http://Host.Example.:80/", "host.example", HostKind.NAME, "http"),
        ("http://localhost/", "localhost", HostKind.NAME, "http"),
        ("https://0x7f.1/", "127.0.0.1", HostKind.IPV4, "https"),
        ("http://[::FFFF:192.0.2.1]/", "192.0.2.1", HostKind.IPV4, "http"),
        ("http://[2001:DB8::1]:8080/", "2001:db8::1", HostKind.IPV6, "http"),
        ("http://Abc.Onion/", "abc.onion", HostKind.ONION, "http"),
        ("https://www.abc.onion./", "www.abc.onion", HostKind.ONION, "https"),
        ("http://site.i2p/", "site.i2p", HostKind.I2P, "http"),
        ("http://onion.example/", "onion.example", HostKind.NAME, "http"),
        ("http://myonion/", "myonion", HostKind.NAME, "http"),
        ("ipfs://CidCid/a", "CidCid", HostKind.IPFS, "ipfs"),
        ("ipns://Name.example/a", "Name.example", HostKind.IPFS, "ipns"),
        ("http://cid.ipfs.gateway.example/", "cid.ipfs.gateway.example", HostKind.NAME, "http"),
    ],
)
def test_host_kind_and_scheme(text: str, host: str, kind: HostKind, scheme: str) -> None:
    url = parse_reported_url(text)
    assert (url.host, url.host_kind, url.scheme) == (host, kind, scheme)


def test_the_original_is_kept_as_it_was_received() -> None:
    text = " HTTP://user:word@HOST.example:80/%7e#part "
    url = parse_reported_url(text)
    assert url.original == text
    assert url.normal == "http://host.example/~"


def test_the_length_is_counted_in_bytes() -> None:
    head = "http://host.example/"
    parse_reported_url(head + "a" * (URL_BYTES_MAX - len(head)))
    for text in (head + "a" * (URL_BYTES_MAX - len(head) + 1), head + "\u00e9" * (URL_BYTES_MAX // 2)):
        with pytest.raises(UrlRefused) as refused:
            parse_reported_url(text)
        assert refused.value.reason is UrlFault.TOO_LONG


def test_the_length_counts_for_the_normal_form_too() -> None:
    text = "http://host.example/" + "\u00e9" * (URL_BYTES_MAX // 3)
    assert len(text.encode()) < URL_BYTES_MAX
    with pytest.raises(UrlRefused) as refused:
        parse_reported_url(text)
    assert refused.value.reason is UrlFault.TOO_LONG


def test_a_url_never_shows_in_a_repr() -> None:
    assert "host" not in repr(parse_reported_url("http://host.example/secret")).replace("<ReportedUrl", "")


@pytest.mark.parametrize(
    ("normal", "short", "whole"),
    [
        ("https://host.example/", "hxxps://host[.]example/", "hxxps://host[.]example/"),
        ("http://host.example/a/b?c", "hxxp://host[.]example/…", "hxxp://host[.]example/a/b?c"),
        ("http://host.example:81/?c", "hxxp://host[.]example:81/…", "hxxp://host[.]example:81/?c"),
        ("http://192.0.2.1/", "hxxp://192[.]0[.]2[.]1/", "hxxp://192[.]0[.]2[.]1/"),
        ("http://[2001:db8::1]:81/a", "hxxp://[2001[:]db8[:][:]1]:81/…", "hxxp://[2001[:]db8[:][:]1]:81/a"),
        ("ipfs://CidCid/a", "ipfs[:]//CidCid/…", "ipfs[:]//CidCid/a"),
    ],
)
def test_defanged_for_the_screen(normal: str, short: str, whole: str) -> None:
    assert defang(normal) == short
    assert defang(normal, whole=True) == whole


def test_what_is_defanged_is_refused_again() -> None:
    with pytest.raises(UrlRefused) as refused:
        parse_reported_url(defang("https://host.example/a"))
    assert "hxxp" in refused.value.sentence


_PIECE = st.text("aA0.-_~%24fF/\\?#&=:@[]!*'\"|^{} \u00e9\u3002\u00df\u20ac\U0001f600", max_size=24)
_HOST = st.one_of(
    st.sampled_from(["host.example", "192.0.2.1", "[2001:db8::1]", "[::ffff:192.0.2.1]", "0xc0000201", "a.onion"]),
    _PIECE,
)


@given(st.sampled_from(["http", "https", "HTTP", "ipfs", "ipns"]), _PIECE, _HOST, _PIECE, _PIECE)
def test_the_normal_form_of_a_normal_form_is_itself(scheme: str, user: str, host: str, path: str, query: str) -> None:
    for text in (f"{scheme}://{host}/{path}?{query}", f"{scheme}://{user}@{host}/{path}?{query}"):
        try:
            url = parse_reported_url(text)
        except UrlRefused:
            continue
        again = parse_reported_url(url.normal)
        assert again.normal == url.normal
        assert (again.host, again.host_kind, again.scheme) == (url.host, url.host_kind, url.scheme)
        assert url.normal.isascii()
        assert "#" not in url.normal


@given(st.text())
def test_any_text_is_read_or_refused_and_nothing_else(text: str) -> None:
    for candidate in (text, f"http://{text}", f"http://host.example/{text}", f"ipfs://{text}"):
        try:
            url = parse_reported_url(candidate)
        except UrlRefused:
            continue
        assert url.original == candidate
        assert url.host


@given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), max_size=40))
def test_a_defanged_address_has_no_scheme_to_follow_and_no_dot_in_its_name(path: str) -> None:
    try:
        url = parse_reported_url(f"https://host.example/{path}")
    except UrlRefused:
        return
    shown = defang(url.normal)
    assert shown in {"hxxps://host[.]example/…", "hxxps://host[.]example/"}
