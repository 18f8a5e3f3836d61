"""The HX/1 signature profile, numbered checks (1) to (7): each by its failure, made by a signer that really signs."""

import base64
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from protocol.digest import content_digest
from protocol.errors import ProtocolError
from protocol.keys import Algorithm, PublicKey, SigningKey
from protocol.profile import (
    COMPONENTS_MAX,
    SIGNATURE_BYTES_MAX,
    SIGNATURE_INPUT_BYTES_MAX,
    Request,
    combine_headers,
    verify_request,
    verify_response,
)
from tests.protocol.test_profile import (
    COMPONENTS,
    GET,
    NL,
    NOW,
    OK,
    PARAMETERS,
    PUT,
    WINDOW_S,
    answered,
    code_of,
    code_of_response,
    find_key,
    forged,
    signed,
)

# (1) Presence, size, form.


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"hx-version": None}, "malformed"),
        ({"hx-version": "2"}, "malformed"),
        ({"hx-version": "1, 1"}, "malformed"),
        ({"signature-input": None}, "bad-signature"),
        ({"signature": None}, "bad-signature"),
        ({"signature-input": ""}, "malformed"),
        ({"signature": ""}, "malformed"),
        ({"signature-input": "hx"}, "malformed"),
        ({"signature": "hx=()"}, "malformed"),
        ({"signature": "hx=:AA==:, hx2=:AA==:"}, "malformed"),
        ({"signature": "sig=:AA==:"}, "malformed"),
        ({"signature": "hx=:AA==:"}, "bad-signature"),
        ({"signature-input": f"hx=();a={'1' * SIGNATURE_INPUT_BYTES_MAX}"}, "malformed"),
        ({"signature": f"hx=:{'A' * SIGNATURE_BYTES_MAX}:"}, "malformed"),
    ],
)
def test_check_1_presence_and_form(changes: dict[str, str | None], code: str) -> None:
    sent = signed(PUT)
    merged = {**sent.headers, **changes}
    headers = {name: value for name, value in merged.items() if value is not None}
    assert code_of(replace(sent, headers=headers)) == code


def test_check_1_two_signatures_under_one_label() -> None:
    sent, other = signed(PUT), signed(PUT, NL)
    for name in ("signature-input", "signature"):
        doubled = combine_headers([*sent.headers.items(), (name.title(), other.headers[name])])
        assert doubled[name] == f"{sent.headers[name]}, {other.headers[name]}"
        assert code_of(replace(sent, headers=doubled)) == "malformed"
    both = combine_headers(
        [*sent.headers.items(), *((name, other.headers[name]) for name in ("signature-input", "signature"))],
    )
    assert code_of(replace(sent, headers=both)) == "malformed"


def test_check_1_a_second_label() -> None:
    sent = signed(PUT)
    second = forged(PUT, label="sig1")
    merged = {name: f"{sent.headers[name]}, {second.headers[name]}" for name in ("signature-input", "signature")}
    assert code_of(sent.adding(merged)) == "malformed"
    assert code_of(forged(PUT, label="sig1")) == "malformed"


@pytest.mark.parametrize(
    "changes",
    [
        {"created": None},
        {"expires": None},
        {"created": True},
        {"created": True, "expires": 30},
        {"expires": str(NOW + 60)},
        {"expires": NOW},
        {"expires": NOW - 1},
        {"expires": NOW + 61},
        {"nonce": None},
        {"nonce": "AAECAwQFBgcICQoLDA0ODw"},
        {"nonce": "AAECAwQFBgcICQoLDA0ODx=="},
        {"nonce": base64.b64encode(bytes(15)).decode("ascii")},
        {"nonce": bytes(16)},
        {"keyid": None},
        {"keyid": 7},
        {"alg": True},
        {"tag": None},
        {"other": "x"},
    ],
)
def test_check_1_parameters(changes: dict[str, Any]) -> None:
    assert code_of(forged(PUT, parameters={**PARAMETERS, **changes})) == "malformed"


def test_check_1_components_are_counted() -> None:
    many = {f"x-{number}": "1" for number in range(COMPONENTS_MAX)}
    quoted = tuple(f'"{name}"' for name in many)
    spare = COMPONENTS_MAX - len(COMPONENTS)
    verify_request(forged(PUT.adding(many), components=COMPONENTS + quoted[:spare]), find_key, now=NOW)
    assert code_of(forged(PUT.adding(many), components=COMPONENTS + quoted[: spare + 1])) == "malformed"


# (2) The tag.


@pytest.mark.parametrize("tag", ["", "hx-peer-v2", "HX-PEER-V1", "web-bot-auth"])
def test_check_2_tag(tag: str) -> None:
    assert code_of(forged(PUT, parameters={**PARAMETERS, "tag": tag})) == "bad-signature"


# (3) The components.


@pytest.mark.parametrize("missing", COMPONENTS)
def test_check_3_each_component_is_demanded(missing: str) -> None:
    fewer = tuple(component for component in COMPONENTS if component != missing)
    req = forged(PUT, components=fewer)
    with pytest.raises(ProtocolError, match="not covered") as failure:
        verify_request(req, find_key, now=NOW)
    assert failure.value.code == "bad-signature"
    assert missing in failure.value.detail


@pytest.mark.parametrize("missing", ['"content-type"', '"content-digest"'])
def test_check_3_a_digest_alone_makes_its_coverage_demanded(missing: str) -> None:
    fewer = tuple(component for component in COMPONENTS if component != missing)
    assert code_of(forged(replace(PUT, body=b""), components=fewer)) == "bad-signature"


def test_check_3_a_body_put_under_a_signature_that_had_none() -> None:
    stuffed = signed(GET).adding({"content-type": "text/plain"})
    assert code_of(replace(stuffed, body=b"x")) == "bad-signature"
    assert code_of(replace(stuffed.adding({"content-digest": content_digest(b"x")}), body=b"x")) == "bad-signature"


def test_check_3_another_form_of_a_component_is_not_the_component() -> None:
    other = (*COMPONENTS[:3], '"content-digest";sf', '"hx-version"')
    assert code_of(forged(PUT, components=other)) == "bad-signature"


@pytest.mark.parametrize("extra", ['"accept"', '"@authority"', '"@path"', '"content-digest";key="sha-256"'])
def test_check_3_further_components_with_a_value_are_fine(extra: str) -> None:
    order = (extra, *reversed(COMPONENTS))
    verify_request(forged(PUT, components=order), find_key, now=NOW)


@pytest.mark.parametrize(
    "extra",
    ['"absent"', '"accept";tr', '"@status"', '"@method";req', '"@request-target"', '"@method"'],
)
def test_check_3_components_without_a_value_are_not(extra: str) -> None:
    sent = forged(PUT)
    text = sent.headers["signature-input"].replace(")", f" {extra})")
    with pytest.raises(ProtocolError, match="covered component 6") as failure:
        verify_request(sent.adding({"signature-input": text}), find_key, now=NOW)
    assert failure.value.code == "bad-signature"


def test_check_3_no_single_header_lines() -> None:
    assert code_of(forged(PUT, components=(*COMPONENTS, '"accept";bs'))) == "bad-signature"


@pytest.mark.parametrize("flag", ["1", "1.0"])
def test_check_3_a_flag_with_a_value_is_no_flag(flag: str) -> None:
    """True, 1 and 1.0 are equal in Python; in a component identifier they are three things."""
    sent = signed(PUT)
    reply = answered(OK, sent)
    text = reply.headers["signature-input"].replace('"@method";req', f'"@method";req={flag}')
    assert code_of_response(reply.adding({"signature-input": text}), sent) == "bad-signature"


# (4) The time.


@pytest.mark.parametrize("offset", [-WINDOW_S, -1, 0, 1, WINDOW_S])
def test_check_4_inside_the_window(offset: int) -> None:
    sent = signed(PUT, created=NOW + offset)
    assert verify_request(sent, find_key, now=NOW).created == NOW + offset
    reply = answered(OK, sent, created=NOW + offset)
    assert verify_response(reply, sent, find_key, now=NOW).created == NOW + offset


@pytest.mark.parametrize("offset", [-WINDOW_S - 1, WINDOW_S + 1, -NOW, 10**12])
def test_check_4_expired_or_from_the_future(offset: int) -> None:
    sent = signed(PUT, created=NOW + offset)
    with pytest.raises(ProtocolError) as asked:
        verify_request(sent, find_key, now=NOW)
    with pytest.raises(ProtocolError) as told:
        verify_response(answered(OK, sent, created=NOW + offset), sent, find_key, now=NOW)
    for failure in (asked.value, told.value):
        assert failure.code == "clock-skew"
        assert failure.extra == {"server_time": "2026-11-22T16:00:00.000Z"}


def test_check_4_the_window_is_the_callers() -> None:
    verify_request(signed(PUT, created=NOW - 900), find_key, now=NOW, window_s=900)
    with pytest.raises(ProtocolError, match="clock-skew"):
        verify_request(signed(PUT, created=NOW - 11), find_key, now=NOW, window_s=10)


# (5) The key.


def test_check_5_unknown_key() -> None:
    stranger = SigningKey(Algorithm.ED25519, b"xx" * 16)
    assert code_of(signed(PUT, stranger)) == "unknown-key"
    assert code_of_response(answered(OK, signed(PUT), stranger), signed(PUT)) == "unknown-key"


def test_check_5_what_find_key_raises_goes_through() -> None:
    def revoked(_keyid: str) -> PublicKey:
        raise ProtocolError("key-revoked", "the key is marked compromised", field="keyid")

    with pytest.raises(ProtocolError) as failure:
        verify_request(signed(PUT), revoked, now=NOW)
    assert failure.value.code == "key-revoked"


@pytest.mark.parametrize("alg", ["ml-dsa-44", "hmac-sha256", "ED25519", ""])
def test_check_5_another_algorithm_than_the_keys(alg: str) -> None:
    assert code_of(forged(PUT, parameters={**PARAMETERS, "alg": alg})) == "bad-signature"


def test_check_5_the_algorithm_may_be_left_out() -> None:
    verify_request(forged(PUT, parameters={**PARAMETERS, "alg": None}), find_key, now=NOW)


# (6) The signature.


def test_check_6_signed_by_another_key_than_named() -> None:
    assert code_of(forged(PUT, key=NL)) == "bad-signature"


@pytest.mark.parametrize(
    "change",
    [
        lambda req: replace(req, method="POST"),
        lambda req: replace(req, method="put"),
        lambda req: replace(req, target_uri=req.target_uri.replace("/0", "/1")),
        lambda req: replace(req, target_uri=req.target_uri.replace("nl.", "de.")),
        lambda req: replace(req, target_uri=req.target_uri.replace("https", "http")),
        lambda req: replace(req, target_uri=f"{req.target_uri}?from=1"),
        lambda req: req.adding({"content-type": "text/plain"}),
        lambda req: replace(req, body=b"altered").adding({"content-digest": content_digest(b"altered")}),
    ],
    ids=["method", "case", "path", "host", "scheme", "query", "type", "body-and-digest"],
)
def test_check_6_a_changed_request(change: Callable[[Request], Request]) -> None:
    assert code_of(change(signed(PUT))) == "bad-signature"


# (7) The body.


@pytest.mark.parametrize("body", [b"", b"note\n\nrecord", b"note\n\nrecord\n\n", b"another"])
def test_check_7_an_altered_body(body: bytes) -> None:
    assert code_of(replace(signed(PUT), body=body)) == "digest-mismatch"
    reply = answered(OK, signed(PUT))
    assert code_of_response(replace(reply, body=b"receipt " + body), signed(PUT)) == "digest-mismatch"


@pytest.mark.parametrize("value", ["md5=:AA==:", "sha-256", f"{content_digest(PUT.body)}, sha-256=:AA==:"])
def test_check_7_a_signed_digest_that_says_nothing(value: str) -> None:
    assert code_of(forged(PUT.adding({"content-digest": value}))) == "malformed"


def test_errors_hold_no_target_and_no_header_value() -> None:
    secret = Request("PUT", "https://nl.hotline.example/secret", {"content-type": "secret"}, b"secret")
    sent = signed(secret)
    for broken in (
        replace(sent, method="POST"),
        replace(sent, body=b"secrets"),
        sent.adding({"signature-input": "secret"}),
        sent.adding({"content-digest": "secret"}),
        forged(secret, parameters={**PARAMETERS, "tag": "secret"}),
        forged(secret, parameters={**PARAMETERS, "keyid": "secret"}),
    ):
        with pytest.raises(ProtocolError) as failure:
            verify_request(broken, find_key, now=NOW)
        assert "secret" not in f"{failure.value} {failure.value.extra}"
