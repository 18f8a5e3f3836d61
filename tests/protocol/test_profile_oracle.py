"""An independent implementation, `http_message_signatures`, verifies what we sign and signs what we verify.

Its clock is switched off: it reads the wall clock, and time is not what it is asked about here.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from http_message_signatures import (
    HTTPMessageSigner,
    HTTPMessageVerifier,
    InvalidSignature,
    MappingKeyResolver,
    VerifyResult,
    algorithms,
)

from protocol.errors import ProtocolError
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
NONCE = base64.b64encode(bytes(range(16))).decode("ascii")
KEY = SigningKey(Algorithm.ED25519, b"fr" * 16)
KEYID = KEY.public().thumbprint()
RESOLVER = MappingKeyResolver(
    public_keys={KEYID: Ed25519PublicKey.from_public_bytes(KEY.public().raw)},
    private_keys={KEYID: Ed25519PrivateKey.from_private_bytes(KEY.seed)},
)

PUT = Request(
    "PUT",
    "https://nl.hotline.example/peer/v1/inbox/fr.hotline.example/1/0",
    {"content-type": "application/vnd.hx.batch", "accept": "*/*"},
    b"note\n\nrecord\n",
)
GET = Request("GET", "https://nl.hotline.example/peer/v1/outbox/fr.hotline.example/1?from=17", {}, b"")
OK = Response(200, {"content-type": "text/plain"}, b"receipt")
NO_CONTENT = Response(204, {}, b"")


@dataclass
class OracleRequest:
    method: str
    url: str
    headers: dict[str, str]


@dataclass
class OracleResponse:
    status_code: int
    headers: dict[str, str]
    request: OracleRequest = field(repr=False)


class Timeless(HTTPMessageVerifier):
    def validate_created_and_expires(self, sig_input: Any, max_age: Any = None) -> None:
        """Nothing: see the head of this module."""


def find_key(keyid: str) -> PublicKey:
    assert keyid == KEYID
    return KEY.public()


def oracle_request(req: Request) -> OracleRequest:
    return OracleRequest(req.method, req.target_uri, dict(req.headers))


def oracle_response(resp: Response, req: Request) -> OracleResponse:
    return OracleResponse(resp.status, dict(resp.headers), oracle_request(req))


def oracle_verifies(message: OracleRequest | OracleResponse, body: bytes, demanded: Sequence[str]) -> VerifyResult:
    verifier: Any = Timeless(signature_algorithm=algorithms.ED25519, key_resolver=RESOLVER)
    (result,) = verifier.verify(
        message,
        expect_tag="hx-peer-v1",
        expect_label="hx",
        require_components=demanded,
        body=body,
    )
    assert isinstance(result, VerifyResult)
    return result


def oracle_signs(
    message: OracleRequest | OracleResponse,
    covered: Sequence[str],
    *,
    body: bytes | None,
    nonce: str | None = None,
) -> dict[str, str]:
    signer: Any = HTTPMessageSigner(signature_algorithm=algorithms.ED25519, key_resolver=RESOLVER)
    signer.sign(
        message,
        key_id=KEYID,
        created=datetime.fromtimestamp(NOW, UTC),
        expires=datetime.fromtimestamp(NOW + 60, UTC),
        nonce=nonce,
        label="hx",
        tag="hx-peer-v1",
        covered_component_ids=covered,
        body=body,
    )
    return {name.lower(): value for name, value in message.headers.items()}


def signed(req: Request) -> Request:
    return req.adding(sign_request(req, KEY, created=NOW, nonce=NONCE))


@pytest.mark.parametrize("req", [PUT, GET], ids=["put", "get"])
def test_it_verifies_our_requests(req: Request) -> None:
    sent = signed(req)
    demanded = ["@method", "@target-uri", "hx-version", *(["content-type", "content-digest"] if req.body else [])]
    result = oracle_verifies(oracle_request(sent), sent.body, demanded)
    assert result.nonce == NONCE
    assert result.parameters["keyid"] == KEYID
    assert result.covered_components['"@target-uri"'] == req.target_uri


@pytest.mark.parametrize("req", [PUT, GET], ids=["put", "get"])
@pytest.mark.parametrize("resp", [OK, NO_CONTENT], ids=["ok", "no-content"])
def test_it_verifies_our_responses(req: Request, resp: Response) -> None:
    sent = signed(req)
    reply = resp.adding(sign_response(resp, sent, KEY, created=NOW))
    demanded = ["@status", "content-digest", '"@method";req', '"@target-uri";req', '"signature";req;key="hx"']
    result = oracle_verifies(oracle_response(reply, sent), reply.body, demanded)
    assert result.covered_components['"signature";req;key="hx"'] == sent.headers["signature"].removeprefix("hx=")


def test_it_refuses_what_we_refuse() -> None:
    sent = signed(PUT)
    reply = OK.adding(sign_response(OK, sent, KEY, created=NOW))
    other = GET.adding(sign_request(GET, KEY, created=NOW, nonce=NONCE))
    with pytest.raises(InvalidSignature):
        oracle_verifies(oracle_response(reply, other), reply.body, [])
    with pytest.raises(ProtocolError):
        verify_response(reply, other, find_key, now=NOW)
    with pytest.raises(InvalidSignature):
        oracle_verifies(oracle_request(sent.adding({"content-type": "text/plain"})), sent.body, [])
    with pytest.raises(InvalidSignature):
        oracle_verifies(oracle_request(sent), b"another body", [])


@pytest.mark.parametrize("req", [PUT, GET], ids=["put", "get"])
def test_we_verify_its_requests(req: Request) -> None:
    covered = ["@method", "@target-uri", "hx-version", *(["content-type", "content-digest"] if req.body else [])]
    message = OracleRequest(req.method, req.target_uri, {**req.headers, "hx-version": "1"})
    headers = oracle_signs(message, covered, body=req.body or None, nonce=NONCE)
    received = Request(req.method, req.target_uri, headers, req.body)
    verified = verify_request(received, find_key, now=NOW)
    assert (verified.keyid, verified.nonce, verified.created) == (KEYID, NONCE, NOW)


@pytest.mark.parametrize("req", [PUT, GET], ids=["put", "get"])
def test_we_verify_its_responses(req: Request) -> None:
    sent = signed(req)
    covered = [
        "@status",
        "content-type",
        "content-digest",
        '"@method";req',
        '"@target-uri";req',
        '"hx-version";req',
        *(['"content-type";req', '"content-digest";req'] if req.body else []),
        '"signature";req;key="hx"',
    ]
    headers = oracle_signs(oracle_response(OK, sent), covered, body=OK.body)
    verified = verify_response(Response(OK.status, headers, OK.body), sent, find_key, now=NOW)
    assert verified.keyid == KEYID


def test_its_signature_over_less_is_refused() -> None:
    message = OracleRequest(PUT.method, PUT.target_uri, {**PUT.headers, "hx-version": "1"})
    headers = oracle_signs(message, ["@method", "@target-uri"], body=PUT.body, nonce=NONCE)
    with pytest.raises(ProtocolError, match="not covered"):
        verify_request(Request(PUT.method, PUT.target_uri, headers, PUT.body), find_key, now=NOW)
