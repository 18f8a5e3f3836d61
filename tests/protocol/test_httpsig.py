"""RFC 9421, section 2 and 4: component values, signature bases and header fields, with the RFC's own examples.

Names and values are typed from the RFC; its `example.com` is a name reserved by RFC 2606.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import httpsig
from protocol.httpsig import (
    STRUCTURED_FIELDS,
    Component,
    ComponentError,
    Context,
    FieldError,
    RequestContext,
    ResponseContext,
    SignatureInput,
    component_value,
    format_signature_inputs,
    format_signatures,
    group_field_lines,
    parse_signature,
    parse_signature_input,
    signature_base,
)


def request(
    target: str = "https://www.example.com/path?param=value",
    *lines: tuple[str, str],
    method: str = "POST",
    request_target: str | None = None,
) -> RequestContext:
    return RequestContext(group_field_lines(lines), method, target, request_target)


def base_lines(components: str, message: Context) -> list[str]:
    """The base for a list of components as it stands in a Signature-Input, without the last line."""
    signed = parse_signature_input(f"sig=({components})")["sig"]
    lines = (
        signature_base(signed, message, structured={**STRUCTURED_FIELDS, "example-dict": "dictionary"})
        .decode("ascii")
        .split("\n")
    )
    assert lines.pop() == f'"@signature-params": ({components})'
    return lines


def refused(components: str, message: Context) -> str:
    with pytest.raises(ComponentError) as failure:
        base_lines(components, message)
    return str(failure.value)


# Section 2.1, HTTP fields.


def test_field_values() -> None:
    message = request(
        "https://www.example.com/",
        ("Host", "www.example.com"),
        ("Date", "Tue, 20 Apr 2021 02:07:56 GMT"),
        ("X-OWS-Header", "   Leading and trailing whitespace.   "),
        ("X-Obs-Fold-Header", "Obsolete\r\n    line folding."),
        ("Cache-Control", "max-age=60"),
        ("Cache-Control", "    must-revalidate"),
        ("Example-Dict", "  a=1,    b=2;x=1;y=2,   c=(a   b   c)"),
        ("X-Empty-Header", " "),
    )
    names = '"host" "date" "x-ows-header" "x-obs-fold-header" "cache-control" "example-dict" "x-empty-header"'
    assert base_lines(names, message) == [
        '"host": www.example.com',
        '"date": Tue, 20 Apr 2021 02:07:56 GMT',
        '"x-ows-header": Leading and trailing whitespace.',
        '"x-obs-fold-header": Obsolete line folding.',
        '"cache-control": max-age=60, must-revalidate',
        '"example-dict": a=1,    b=2;x=1;y=2,   c=(a   b   c)',
        '"x-empty-header": ',
    ]


def test_strict_serialisation() -> None:  # section 2.1.1
    message = request("https://www.example.com/", ("Example-Dict", "  a=1,    b=2;x=1;y=2,   c=(a   b   c)"))
    assert base_lines('"example-dict";sf', message) == ['"example-dict";sf: a=1, b=2;x=1;y=2, c=(a b c)']


def test_dictionary_members() -> None:  # section 2.1.2
    message = request("https://www.example.com/", ("Example-Dict", "  a=1, b=2;x=1;y=2, c=(a   b    c), d"))
    members = [f'"example-dict";key="{key}"' for key in "adbc"]
    assert base_lines(" ".join(members), message) == [
        '"example-dict";key="a": 1',
        '"example-dict";key="d": ?1',
        '"example-dict";key="b": 2;x=1;y=2',
        '"example-dict";key="c": (a b c)',
    ]
    assert base_lines('"example-dict";sf;key="b"', message) == ['"example-dict";sf;key="b": 2;x=1;y=2']


def test_binary_wrapped_lines() -> None:  # section 2.1.3
    two = request(
        "https://www.example.com/",
        ("Example-Header", "value, with, lots"),
        ("Example-Header", "of, commas"),
    )
    one = request("https://www.example.com/", ("Example-Header", "value, with, lots, of, commas"))
    assert base_lines('"example-header"', two) == base_lines('"example-header"', one)
    assert base_lines('"example-header";bs', two) == [
        '"example-header";bs: :dmFsdWUsIHdpdGgsIGxvdHM=:, :b2YsIGNvbW1hcw==:',
    ]
    assert base_lines('"example-header";bs', one) == [
        '"example-header";bs: :dmFsdWUsIHdpdGgsIGxvdHMsIG9mLCBjb21tYXM=:',
    ]


# Section 2.2, derived components.


@pytest.mark.parametrize(
    ("component", "target", "line"),
    [
        ('"@method"', "https://www.example.com/path?param=value", '"@method": POST'),
        (
            '"@target-uri"',
            "https://www.example.com/path?param=value",
            '"@target-uri": https://www.example.com/path?param=value',
        ),
        ('"@authority"', "https://www.example.com/path?param=value", '"@authority": www.example.com'),
        ('"@authority"', "https://WWW.Example.com:443/", '"@authority": www.example.com'),
        ('"@authority"', "http://www.example.com:80/", '"@authority": www.example.com'),
        ('"@authority"', "http://www.example.com:443/", '"@authority": www.example.com:443'),
        ('"@authority"', "https://www.example.com:8443", '"@authority": www.example.com:8443'),
        ('"@authority"', "https://[2001:DB8::1]:8443/", '"@authority": [2001:db8::1]:8443'),
        ('"@authority"', "https://[2001:db8::1]/", '"@authority": [2001:db8::1]'),
        ('"@scheme"', "HTTP://www.example.com/path?param=value", '"@scheme": http'),
        ('"@path"', "https://www.example.com/path?param=value", '"@path": /path'),
        ('"@path"', "https://www.example.com?param=value", '"@path": /'),
        ('"@path"', "https://www.example.com/a%2Fb/%7e", '"@path": /a%2Fb/%7e'),
        (
            '"@query"',
            "https://www.example.com/path?param=value&foo=bar&baz=bat%2Dman",
            '"@query": ?param=value&foo=bar&baz=bat%2Dman',
        ),
        ('"@query"', "https://www.example.com/path?queryString", '"@query": ?queryString'),
        ('"@query"', "https://www.example.com/path", '"@query": ?'),
        ('"@query"', "https://www.example.com/path?", '"@query": ?'),
    ],
)
def test_derived_components_of_a_request(component: str, target: str, line: str) -> None:
    assert base_lines(component, request(target)) == [line]


@pytest.mark.parametrize(
    "target", ["/path?param=value", "https://www.example.com/path?param=value", "www.example.com:80", "*"]
)
def test_request_target_is_the_one_of_the_request_line(target: str) -> None:  # section 2.2.5
    assert base_lines('"@request-target"', request(request_target=target)) == [f'"@request-target": {target}']
    assert "request target is not known" in refused('"@request-target"', request())


def test_query_parameters() -> None:  # section 2.2.8
    message = request("https://www.example.com/path?param=value&foo=bar&baz=batman&qux=")
    names = '"@query-param";name="baz" "@query-param";name="qux" "@query-param";name="param"'
    assert base_lines(names, message) == [
        '"@query-param";name="baz": batman',
        '"@query-param";name="qux": ',
        '"@query-param";name="param": value',
    ]
    message = request(
        "https://www.example.com/parameters?var=this%20is%20a%20big%0Amultiline%20value"
        "&bar=with+plus+whitespace&fa%C3%A7ade%22%3A%20=something&tilde=~*-._",
    )
    names = (
        '"@query-param";name="var" "@query-param";name="bar" "@query-param";name="fa%C3%A7ade%22%3A%20" '
        '"@query-param";name="tilde"'
    )
    assert base_lines(names, message) == [
        '"@query-param";name="var": this%20is%20a%20big%0Amultiline%20value',
        '"@query-param";name="bar": with%20plus%20whitespace',
        '"@query-param";name="fa%C3%A7ade%22%3A%20": something',
        '"@query-param";name="tilde": %7E*-._',
    ]


def test_status_and_components_of_the_request() -> None:  # sections 2.2.9 and 2.4
    asked = request("https://www.example.com/path?a=b", ("Signature", "sig1=:AQID:"))
    answer = ResponseContext({}, 200, asked)
    assert base_lines('"@status"', answer) == ['"@status": 200']
    assert base_lines('"@method";req "@query-param";name="a";req "signature";req;key="sig1"', answer) == [
        '"@method";req: POST',
        '"@query-param";name="a";req: b',
        '"signature";req;key="sig1": :AQID:',
    ]


# Section 2.5: what makes no base.

FIELDS = (
    ("A", "1"),
    ("Example-Dict", "a=1"),
    ("Broken", "a=1"),
    ("Bell", "\x07"),
    ("Break", "a\nb"),
    ("Accent", "\N{LATIN SMALL LETTER E WITH ACUTE}"),
)


@pytest.mark.parametrize(
    "components",
    [
        '"absent"',
        '"A"',
        '"a" "a"',
        '"@method" "@method"',
        '"example-dict";sf;key="a" "example-dict";key="a";sf',
        '"a";unknown',
        '"a";tr',
        '"a";sf',  # its type is not known
        '"a";key="x"',
        '"a";bs;sf',
        '"a";bs=1',
        '"example-dict";sf=1',
        '"example-dict";key="b"',
        '"example-dict";key=a',  # a token is no string
        '"example-dict";key',
        '"bell"',
        '"break"',
        '"accent"',
        '"accent";bs',
        '"a";req',
        '"@method";req',
        '"@method";sf',
        '"@status"',
        '"@unknown"',
        '"@signature-params"',
        '"@query-param"',
        '"@query-param";name',
        '"@query-param";name="absent"',
        '"@query-param";name="twice"',
        '"@query-param";name="param";other',
    ],
)
def test_no_base_for_a_request(components: str) -> None:
    message = request("https://www.example.com/path?param=value&twice=1&twice=2", *FIELDS)
    assert refused(components, message).startswith("covered component ")


@pytest.mark.parametrize(
    "components",
    ['"@method"', '"@target-uri"', '"@status";req', '"@method";req=1', '"absent";req', '"@status";sf', '"a";req;req=1'],
)
def test_no_base_for_a_response(components: str) -> None:
    try:
        reason = refused(components, ResponseContext({"a": ("1",)}, 200, request("https://www.example.com/")))
    except FieldError as error:
        reason = f"covered component: {error}"
    assert reason.startswith("covered component")


def test_no_base_without_the_request_or_with_a_broken_status() -> None:
    assert "not known" in refused('"@method";req', ResponseContext({}, 200))
    assert "three digits" in refused('"@status"', ResponseContext({}, 99))
    assert "three digits" in refused('"@status"', ResponseContext({}, 1000))


@pytest.mark.parametrize(
    "target",
    [
        "/path",
        "www.example.com:80",
        "https://user@www.example.com/",
        "https:///path",
        "https://www.example.com/#fragment",
        "https://www.example.com:80:80/",
        "https://[2001:db8::1/",
    ],
)
def test_no_authority_without_an_absolute_target(target: str) -> None:
    assert "covered component 1" in refused('"@authority"', request(target))


@pytest.mark.parametrize(
    "target", ["https://www.example.com/\n", " https://www.example.com/", "https://www.example/\t"]
)
def test_no_control_character_or_outer_space_in_a_derived_value(target: str) -> None:
    assert "cannot be signed" in refused('"@target-uri"', request(target))


def test_a_structured_field_that_is_none_has_no_member() -> None:
    broken = request("https://www.example.com/", ("Example-Dict", "a=="))
    assert "not of its structured type" in refused('"example-dict";key="a"', broken)
    assert "not of its structured type" in refused('"example-dict";sf', broken)
    empty = request("https://www.example.com/", ("Example-Dict", ""))
    assert "not of its structured type" in refused('"example-dict";sf', empty)


def test_errors_hold_no_text_of_the_message() -> None:
    message = request("https://www.example.com/secret-path?secret-query", ("Secret-Field", "\x00secret"))
    for components in ('"secret-field"', '"@query-param";name="secret-name"', '"secret-absent"', '"@secret"'):
        assert "secret" not in refused(components, message)


# Section 4: the two header fields.


def test_fields_with_several_signatures() -> None:  # section 4.3
    value = (
        'sig1=("@method" "@authority" "@path" "content-digest" "content-type" "content-length")'
        ';created=1618884475;keyid="test-key-ecc-p256", '
        'proxy_sig=("@method" "@authority" "@path" "content-digest" "content-type" "content-length" "forwarded")'
        ';created=1618884480;keyid="test-key-rsa";alg="rsa-v1_5-sha256";expires=1618884540'
    )
    inputs = parse_signature_input(value)
    assert list(inputs) == ["sig1", "proxy_sig"]
    assert inputs["sig1"].params == (("created", 1618884475), ("keyid", "test-key-ecc-p256"))
    assert inputs["proxy_sig"].components[-1] == Component("forwarded")
    assert format_signature_inputs(inputs) == value
    assert parse_signature("sig1=:AQID:, proxy_sig=:BAUG:") == {"sig1": b"\1\2\3", "proxy_sig": b"\4\5\6"}
    assert parse_signature_input("") == {}
    assert parse_signature("") == {}


@pytest.mark.parametrize(
    "value",
    [
        "sig=()  ",
        'sig=("a"  "b")',
        'sig=( "a")',
        'sig=("a"); created=1',
        'sig=("a");created=01',
        'sig=("a");flag=?1',
        'sig=("a"),sig2=("b")',
        'sig=("a"), sig=("a")',
        'sig=("a"), sig=("b")',
        'sig=("a";req;req)',
        'sig=("a");created=1;created=2',
        'sig="a"',
        "sig",
        "sig=(a)",
        "sig=(1)",
        'sig=("a"',
        'Sig=("a")',
        '("a")',
        'sig=("a\N{LATIN SMALL LETTER E WITH ACUTE}")',
        'sig=("a")\n',
    ],
)
def test_signature_input_is_taken_in_canonical_form_only(value: str) -> None:
    with pytest.raises(FieldError):
        parse_signature_input(value)


@pytest.mark.parametrize(
    "value",
    [
        "sig=:AQID: ",
        "sig=:AQID:,sig2=:AQID:",
        "sig=:AQID:, sig=:AQID:",
        "sig=:AQI:",  # padding left out
        "sig=:AQJ=:",  # stray bits behind the last byte
        "sig=:AQ_-:",
        "sig=:AQID:;a",
        "sig=AQID",
        'sig="AQID"',
        "sig=(:AQID:)",
        ":AQID:",
        "sig=:AQID",
    ],
)
def test_signature_is_taken_in_canonical_form_only(value: str) -> None:
    with pytest.raises(FieldError):
        parse_signature(value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Component("caf\N{LATIN SMALL LETTER E WITH ACUTE}"),
        lambda: Component("a", (("Key", True),)),
        lambda: SignatureInput((), (("created", 10**15),)),
        lambda: SignatureInput((), (("nonce", "\n"),)),
        lambda: format_signatures({"No Label": b""}),
        lambda: format_signature_inputs({"": SignatureInput((), ())}),
    ],
)
def test_what_cannot_be_written_is_not_made(make: object) -> None:
    assert callable(make)
    with pytest.raises(FieldError):
        make()


def test_component_identity_ignores_the_order_of_parameters() -> None:
    one = Component("a", (("req", True), ("key", "x")))
    other = Component("a", (("key", "x"), ("req", True)))
    assert one.identity == other.identity
    assert one != other
    assert one.text != other.text
    assert one.identity != Component("a", (("req", True),)).identity


@given(st.text(max_size=60))
def test_any_text_is_read_whole_or_refused_by_name(text: str) -> None:
    try:
        assert format_signature_inputs(parse_signature_input(text)) == text
    except FieldError as error:
        assert str(error)  # noqa: PT017 -- nearly every text ends here, some are read: both are right
    try:
        assert format_signatures(parse_signature(text)) == text
    except FieldError as error:
        assert str(error)  # noqa: PT017 -- as above


KEYS = st.from_regex(r"[a-z*][a-z0-9_.*-]{0,8}", fullmatch=True)
VALUES = (
    st.booleans()
    | st.integers(-(10**15) + 1, 10**15 - 1)
    | st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=12)
    | st.binary(max_size=12)
)
PARAMS = st.dictionaries(KEYS, VALUES, max_size=3).map(lambda params: tuple(params.items()))
NAMES = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=10)
INPUTS = st.builds(
    SignatureInput,
    st.lists(st.builds(Component, NAMES, PARAMS), max_size=4).map(tuple),
    PARAMS,
)


@given(st.dictionaries(KEYS, INPUTS, min_size=1, max_size=3), st.dictionaries(KEYS, st.binary(max_size=70), min_size=1))
def test_what_is_written_is_read_back(inputs: dict[str, SignatureInput], signatures: dict[str, bytes]) -> None:
    assert parse_signature_input(format_signature_inputs(inputs)) == inputs
    assert parse_signature(format_signatures(signatures)) == signatures


LINES = st.lists(st.text(st.characters(min_codepoint=9, max_codepoint=255), max_size=20), min_size=1, max_size=3)


@given(LINES)
def test_a_base_never_has_more_lines_than_components(lines: Sequence[str]) -> None:
    """A value with a line break could otherwise pose as a further component."""
    message = RequestContext({"a": lines}, "GET", "https://www.example.com/")
    try:
        value = component_value(Component("a"), message)
    except ComponentError:
        return
    base = signature_base(SignatureInput((Component("a"),), ()), message)
    assert base == f'"a": {value}\n"@signature-params": ("a")'.encode("ascii")
    assert base.count(b"\n") == 1
    assert not any(byte < 32 and byte not in b"\t\n" for byte in base)


NEARLY_PLAIN = st.sampled_from(
    [
        "sig",
        "=",
        "(",
        ")",
        '"a"',
        '"@method"',
        ";req",
        ";",
        "a",
        "=1",
        "-0",
        '="x y"',
        '"\\""',
        " ",
        ", ",
        ":YQ==:",
        ":",
        "?0",
    ]
)


@given(st.lists(NEARLY_PLAIN, max_size=9).map("".join))
def test_what_is_read_here_is_read_as_the_library_reads_it(rest: str) -> None:
    for value in (f"sig={rest}", f"sig=({rest}", f'sig=("a"){rest}', f'sig=("a";req{rest}', f"sig=:{rest}"):
        for read in (parse_signature_input, parse_signature):
            here = _read(read, value)
            with patch.object(httpsig, "_INPUT", NOTHING), patch.object(httpsig, "_BYTES", NOTHING):
                there = _read(read, value)
            with patch.object(httpsig, "_params_text", lambda _params: None):
                written = _read(read, value)
            assert here == there == written


@given(st.sampled_from(["sig", "sig1", "sag"]), st.text("YQ=+/h:;, ", max_size=9))
def test_a_member_of_a_field_is_written_here_as_the_library_writes_it(key: str, rest: str) -> None:
    member = Component("signature", (("key", key),))
    for value in (f"sig=:{rest}:", f"sig={rest}", f"sig=:YQ==:{rest}", "sig=:YR==:", "sig=:YQ==:, sag=:YQ==:"):
        message = request("https://a.example/", ("signature", value))
        here = _value(member, message)
        with patch.object(httpsig, "_BYTES", NOTHING):
            assert here == _value(member, message)


def _value(component: Component, message: Context) -> str | None:
    try:
        return component_value(component, message)
    except ComponentError:
        return None


NOTHING = re.compile(r"(?!)")


def _read(read: Callable[[str], Mapping[str, object]], value: str) -> object:
    try:
        found = read(value)
    except FieldError:
        return None
    # Dataclasses leave their text out of the comparison, and 1 is True in Python.
    return repr(found), [one.text for one in found.values() if isinstance(one, SignatureInput)]
