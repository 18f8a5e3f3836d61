"""The HX/1 signature profile: whatever changes in a signed message, it does not verify any more."""

import base64
from dataclasses import replace
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from protocol.httpsig import SignatureInput, format_signature_inputs, format_signatures, parse_signature_input
from protocol.profile import Request
from tests.protocol.test_profile import KEYS, NOW, OK, PUT, WINDOW_S, answered, code_of, code_of_response, signed

TEXTS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=30)
HEADERS = st.sampled_from(["content-type", "content-digest", "hx-version", "signature-input", "signature"])
PARAMETER_VALUES = {
    "created": st.integers(NOW - WINDOW_S, NOW + WINDOW_S),
    "expires": st.integers(NOW, NOW + 120),
    "nonce": st.binary(min_size=16, max_size=16).map(lambda raw: base64.b64encode(raw).decode("ascii")),
    "keyid": st.sampled_from(sorted(KEYS)) | TEXTS,
    "alg": st.sampled_from(["ed25519", "ml-dsa-44", "hmac-sha256"]),
    "tag": TEXTS,
}


@given(
    st.fixed_dictionaries(
        {},
        optional={"method": TEXTS, "target_uri": TEXTS, "body": st.binary(max_size=40)},
    ),
    st.dictionaries(HEADERS, TEXTS, max_size=2),
)
def test_any_change_of_a_covered_value_is_refused(parts: dict[str, Any], headers: dict[str, str]) -> None:
    sent = signed(PUT)
    changed = replace(sent, **parts).adding(headers)
    assume(changed != sent)
    assert code_of(changed) in {"malformed", "bad-signature", "digest-mismatch"}


@given(st.data())
def test_any_change_of_a_signature_parameter_is_refused(data: st.DataObject) -> None:
    sent = signed(PUT)
    one = parse_signature_input(sent.headers["signature-input"])["hx"]
    name = data.draw(st.sampled_from(sorted(PARAMETER_VALUES)))
    value: Any = data.draw(PARAMETER_VALUES[name])
    assume(dict(one.params)[name] != value)
    params = tuple((key, value if key == name else old) for key, old in one.params)
    text = format_signature_inputs({"hx": SignatureInput(one.components, params)})
    assert code_of(sent.adding({"signature-input": text})) in {"malformed", "bad-signature", "unknown-key"}


@given(st.permutations(range(5)), st.permutations(range(6)))
def test_any_other_order_is_refused(components: list[int], params: list[int]) -> None:
    sent = signed(PUT)
    one = parse_signature_input(sent.headers["signature-input"])["hx"]
    shuffled = SignatureInput(
        tuple(one.components[index] for index in components),
        tuple(one.params[index] for index in params),
    )
    assume(shuffled != one)
    assert code_of(sent.adding({"signature-input": format_signature_inputs({"hx": shuffled})})) == "bad-signature"


@given(st.integers(0, 64 * 8 - 1))
def test_any_bit_of_the_signature_counts(bit: int) -> None:
    sent = signed(PUT)
    raw = base64.b64decode(sent.headers["signature"].removeprefix("hx=:").removesuffix(":"))
    flipped = (int.from_bytes(raw, "big") ^ (1 << bit)).to_bytes(64, "big")
    assert code_of(sent.adding({"signature": format_signatures({"hx": flipped})})) == "bad-signature"


@given(
    st.fixed_dictionaries({}, optional={"status": st.integers(0, 1100), "body": st.binary(max_size=40)}),
    st.dictionaries(HEADERS.filter(lambda name: name != "hx-version"), TEXTS, max_size=2),
    st.fixed_dictionaries({}, optional={"method": TEXTS, "target_uri": TEXTS}),
    st.dictionaries(HEADERS.filter(lambda name: name != "signature-input"), TEXTS, max_size=2),
)
def test_any_change_around_a_response_is_refused(
    parts: dict[str, Any],
    headers: dict[str, str],
    request_parts: dict[str, Any],
    request_headers: dict[str, str],
) -> None:
    sent = signed(PUT)
    reply = answered(OK, sent)
    changed = replace(reply, **parts).adding(headers)
    asked = replace(sent, **request_parts).adding(request_headers)
    assume((changed, asked) != (reply, sent))
    assert code_of_response(changed, asked) in {"malformed", "bad-signature", "digest-mismatch"}


@given(st.dictionaries(HEADERS, st.text(max_size=40)), st.binary(max_size=20))
def test_any_headers_end_in_a_problem(headers: dict[str, str], body: bytes) -> None:
    code_of(Request("PUT", PUT.target_uri, headers, body))
