"""The HX/1 signature profile: what is signed and how an answer is bound; and the signers the other tests share."""

import base64
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from node.conformance import speaker
from protocol.digest import content_digest
from protocol.errors import ProtocolError
from protocol.httpsig import (
    Component,
    parse_signature_input,
)
from protocol.keys import Algorithm, PublicKey, SigningKey
from protocol.profile import (
    Request,
    Response,
    sign_request,
    sign_response,
    verify_request,
    verify_response,
)

NOW = 1_795_363_200  # 2026-11-22T16:00:00Z
WINDOW_S = 300
NONCE = base64.b64encode(bytes(range(16))).decode("ascii")
FR = SigningKey(Algorithm.ED25519, b"fr" * 16)
NL = SigningKey(Algorithm.ED25519, b"nl" * 16)
PQ = SigningKey(Algorithm.ML_DSA_44, b"pq" * 16)
KEYS = {key.public().thumbprint(): key.public() for key in (FR, NL, PQ)}

PUT = Request(
    "PUT",
    "https://nl.hotline.example/peer/v1/inbox/fr.hotline.example/1/0",
    {"host": "proxy.test", "content-type": "application/vnd.hx.batch", "accept": "*/*"},
    b"note\n\nrecord\n",
)
GET = Request("GET", "https://nl.hotline.example/peer/v1/streams/fr.hotline.example", {"host": "proxy.test"}, b"")
OK = Response(200, {"content-type": "text/plain", "server": "test"}, b"receipt")
NO_CONTENT = Response(204, {}, b"")


def find_key(keyid: str) -> PublicKey:
    try:
        return KEYS[keyid]
    except KeyError:
        raise ProtocolError("unknown-key", "no key of this name is in the directory", field="keyid") from None


def signed(req: Request, key: SigningKey = FR, *, created: int = NOW) -> Request:
    return req.adding(sign_request(req, key, created=created, nonce=NONCE))


def answered(resp: Response, req: Request, key: SigningKey = NL, *, created: int = NOW) -> Response:
    return resp.adding(sign_response(resp, req, key, created=created))


def code_of(req: Request, *, now: int = NOW) -> str:
    with pytest.raises(ProtocolError) as failure:
        verify_request(req, find_key, now=now)
    return failure.value.code


def code_of_response(resp: Response, req: Request, *, now: int = NOW) -> str:
    with pytest.raises(ProtocolError) as failure:
        verify_response(resp, req, find_key, now=now)
    return failure.value.code


PARAMETERS: dict[str, Any] = {
    "created": NOW,
    "expires": NOW + 60,
    "nonce": NONCE,
    "keyid": FR.public().thumbprint(),
    "alg": "ed25519",
    "tag": "hx-peer-v1",
}
COMPONENTS = ('"@method"', '"@target-uri"', '"content-type"', '"content-digest"', '"hx-version"')


def forged(
    req: Request,
    *,
    components: tuple[str, ...] = COMPONENTS,
    parameters: Mapping[str, Any] = PARAMETERS,
    label: str = "hx",
    key: SigningKey = FR,
) -> Request:
    """A request with a true signature over whatever it is told to cover, as a misbehaving peer would make it."""
    with_digest = {"content-digest": content_digest(req.body), **req.headers}
    whole = replace(req, headers=with_digest)
    return speaker.forged(whole, components=components, parameters=parameters, label=label, key=key)


# What is made.


def test_headers_of_a_request_with_a_body() -> None:
    added = sign_request(PUT, FR, created=NOW, nonce=NONCE)
    assert list(added) == ["hx-version", "content-digest", "signature-input", "signature"]
    assert added["hx-version"] == "1"
    assert added["content-digest"] == content_digest(PUT.body)
    assert added["signature-input"] == (
        'hx=("@method" "@target-uri" "content-type" "content-digest" "hx-version");created=1795363200'
        f';expires=1795363260;nonce="AAECAwQFBgcICQoLDA0ODw==";keyid="{FR.public().thumbprint()}"'
        ';alg="ed25519";tag="hx-peer-v1"'
    )


def test_headers_of_a_request_without_a_body() -> None:
    added = sign_request(GET, FR, created=NOW, nonce=NONCE)
    assert list(added) == ["hx-version", "signature-input", "signature"]
    assert added["signature-input"].startswith('hx=("@method" "@target-uri" "hx-version");')


def test_headers_of_a_response() -> None:
    added = sign_response(OK, signed(PUT), NL, created=NOW)
    assert list(added) == ["content-digest", "signature-input", "signature"]
    assert added["signature-input"] == (
        'hx=("@status" "content-type" "content-digest" "@method";req "@target-uri";req "content-type";req '
        '"content-digest";req "hx-version";req "signature";req;key="hx");created=1795363200'
        f';expires=1795363260;keyid="{NL.public().thumbprint()}";alg="ed25519";tag="hx-peer-v1"'
    )
    assert sign_response(NO_CONTENT, signed(GET), NL, created=NOW)["signature-input"].startswith(
        'hx=("@status" "content-digest" "@method";req "@target-uri";req "hx-version";req "signature";req;key="hx");',
    )


@pytest.mark.parametrize("key", [FR, PQ], ids=["ed25519", "ml-dsa-44"])
@pytest.mark.parametrize("req", [PUT, GET], ids=["put", "get"])
@pytest.mark.parametrize("resp", [OK, NO_CONTENT], ids=["ok", "no-content"])
def test_there_and_back(key: SigningKey, req: Request, resp: Response) -> None:
    sent = signed(req, key)
    asked = verify_request(sent, find_key, now=NOW)
    assert (asked.keyid, asked.nonce, asked.created) == (key.public().thumbprint(), NONCE, NOW)
    assert sent.headers["signature"] == f"hx=:{asked.signature_b64}:"
    reply = answered(resp, sent, key)
    told = verify_response(reply, sent, find_key, now=NOW)
    assert (told.keyid, told.nonce, told.created) == (key.public().thumbprint(), "", NOW)
    assert reply.headers["signature"] == f"hx=:{told.signature_b64}:"


def test_headers_that_are_not_covered_may_change() -> None:
    sent = signed(PUT)
    verify_request(sent.adding({"host": "nl.hotline.example", "via": "1.1 proxy"}), find_key, now=NOW)


def test_a_body_announced_by_its_digest_only_is_covered() -> None:
    empty = replace(PUT, body=b"")
    sent = signed(empty.adding({"content-digest": "of another body"}))
    assert sent.headers["content-digest"] == content_digest(b"")
    verify_request(sent, find_key, now=NOW)


@pytest.mark.parametrize(
    "nonce", ["", "AAECAwQFBgcICQoLDA0ODw", "AAECAwQFBgcICQoLDA0ODx==", "AA==", "-" * 24, "é" * 24]
)
def test_own_mistakes_are_value_errors(nonce: str) -> None:
    with pytest.raises(ValueError, match="nonce"):
        sign_request(GET, FR, created=NOW, nonce=nonce)


@pytest.mark.parametrize("lifetime", [0, 61])
def test_own_lifetimes_are_bounded(lifetime: int) -> None:
    with pytest.raises(ValueError, match="60 seconds"):
        sign_request(GET, FR, created=NOW, nonce=NONCE, expires_in_s=lifetime)


def test_a_body_without_a_type_is_not_signed() -> None:
    with pytest.raises(ValueError, match="field is not in the message"):
        sign_request(replace(PUT, headers={}), FR, created=NOW, nonce=NONCE)
    with pytest.raises(ValueError, match="field is not in the message"):
        sign_response(replace(OK, headers={}), signed(GET), NL, created=NOW)


def test_upper_case_names_are_refused() -> None:
    with pytest.raises(ValueError, match="lower case"):
        Request("GET", GET.target_uri, {"Signature": "hx=:AA==:"}, b"")
    with pytest.raises(ValueError, match="lower case"):
        Response(200, {"Content-Type": "text/plain"}, b"")


# The response and its request.


def test_an_answer_to_another_request() -> None:
    first, second = signed(PUT), PUT.adding(sign_request(PUT, FR, created=NOW, nonce="A" * 22 + "=="))
    reply = answered(OK, first)
    verify_response(reply, first, find_key, now=NOW)
    assert code_of_response(reply, second) == "bad-signature"
    assert code_of_response(reply, signed(GET)) == "bad-signature"
    for changed in (
        replace(first, method="POST"),
        replace(first, target_uri=GET.target_uri),
        first.adding({"content-digest": content_digest(b"another")}),
        first.adding({"content-type": "text/plain"}),
    ):
        assert code_of_response(reply, changed) == "bad-signature"


def test_a_response_that_is_not_bound_to_the_request_signature() -> None:
    """Whoever takes the signature off the request gets an answer that the sender does not take for his."""
    stripped = signed(PUT)
    headers = {name: value for name, value in stripped.headers.items() if name != "signature"}
    reply = answered(OK, replace(stripped, headers=headers))
    assert '"signature";req' not in reply.headers["signature-input"]
    assert code_of_response(reply, signed(PUT)) == "bad-signature"


def test_an_altered_response() -> None:
    sent = signed(PUT)
    reply = answered(OK, sent)
    assert code_of_response(replace(reply, status=201), sent) == "bad-signature"
    assert code_of_response(reply.adding({"content-type": "text/html"}), sent) == "bad-signature"
    taken_away = {name: value for name, value in reply.headers.items() if name != "content-digest"}
    assert code_of_response(Response(200, taken_away, b""), sent) == "bad-signature"
    assert code_of_response(replace(reply, body=b""), sent) == "digest-mismatch"
    assert code_of_response(OK, sent) == "bad-signature"


def test_a_request_is_no_response() -> None:
    sent = signed(PUT)
    as_response = Response(200, sent.headers, sent.body)
    assert code_of_response(as_response, sent) == "bad-signature"


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"signature": "no structured field"},
        {"signature": "hx=:A:", "hx-version": "1"},
        {"signature": "hx=:AAA=:, other=:AAA=:", "hx-version": "\x00"},
        {"signature": "hx=:AA==:", "hx-version": "\udcff"},
        {"content-digest": "\N{LATIN SMALL LETTER E WITH ACUTE}"},
        {"content-digest": "sha-256=:AA==:", "content-type": "a\nb"},
    ],
)
@pytest.mark.parametrize("target", [GET.target_uri, "https://nl.hotline.example/\udcff"])
def test_any_request_can_be_answered_with_a_signature(headers: dict[str, str], target: str) -> None:
    """A problem is signed like any answer, whatever the request looked like."""
    received = Request("GET", target, headers, b"")
    reply = answered(OK, received)
    verify_response(reply, received, find_key, now=NOW)


def test_component_of_the_request_signature_is_the_rfcs() -> None:
    """`"signature";req;key="hx"`, in this order of parameters, as the specification shows it."""
    reply = answered(OK, signed(PUT))
    components = parse_signature_input(reply.headers["signature-input"])["hx"].components
    assert components[-1] == Component("signature", (("req", True), ("key", "hx")))


def test_the_fields_of_an_answer_that_its_reader_acts_on_are_signed() -> None:
    hints = {"hx-credit": "12", "hx-directory": "7", "retry-after": "30"}
    sent = signed(PUT)
    reply = answered(OK.adding(hints), sent)
    assert verify_response(reply, sent, find_key, now=NOW).covered >= set(hints)
    for name in hints:
        assert code_of_response(reply.adding({name: "999"}), sent) == "bad-signature"
        lacking = {each: value for each, value in reply.headers.items() if each != name}
        assert code_of_response(replace(reply, headers=lacking), sent) == "bad-signature"


def test_a_field_that_somebody_adds_on_the_way_is_not_covered() -> None:
    sent = signed(PUT)
    reply = answered(OK, sent).adding({"hx-credit": "0", "retry-after": "999"})
    covered = verify_response(reply, sent, find_key, now=NOW).covered
    assert covered == {"@status", "content-type", "content-digest"}
