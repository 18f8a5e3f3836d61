"""The HX/1 profile of HTTP Message Signatures (PROTOCOL, section 4); never remembers a nonce, never reads a clock.

The target that is signed and verified is the one the caller composes from a configured base address and a path,
never one made from the Host header. Whether a nonce was seen before is asked by the caller, in its transaction.
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NoReturn, Self, cast

from protocol.digest import content_digest, verify_content_digest
from protocol.errors import ProtocolError
from protocol.httpsig import (
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
from protocol.keys import PublicKey, SignatureInvalid, SigningKey
from protocol.timestamps import format_time
from protocol.versions import MAJOR

LABEL: Final = "hx"
TAG: Final = "hx-peer-v1"
VERSION: Final = MAJOR

WINDOW_S: Final = 300
LIFETIME_S_MAX: Final = 60
NONCE_BYTES: Final = 16  # 128 bit: two of them never meet by chance within the 15 minutes they are remembered
# Ours is 227 bytes for a request, 281 for a response; the rest is for components a later version adds.
SIGNATURE_INPUT_BYTES_MAX: Final = 2048
# An ML-DSA-44 signature is 3228 characters of Base64, an Ed25519 one 88.
SIGNATURE_BYTES_MAX: Final = 4096
COMPONENTS_MAX: Final = 24

_VERSION_FIELD: Final = "hx-version"
_INPUT_FIELD: Final = "signature-input"
_SIGNATURE_FIELD: Final = "signature"
_DIGEST_FIELD: Final = "content-digest"
_TYPE_FIELD: Final = "content-type"
#: Fields of an answer that its reader acts on. They are covered where they are there, and count only if they are.
SIGNED_HINTS: Final = ("hx-credit", "hx-directory", "retry-after")

_METHOD: Final = Component("@method")
_TARGET_URI: Final = Component("@target-uri")
_STATUS: Final = Component("@status")
_HX_VERSION: Final = Component(_VERSION_FIELD)
_CONTENT_TYPE: Final = Component(_TYPE_FIELD)
_CONTENT_DIGEST: Final = Component(_DIGEST_FIELD)
_HINTS: Final = tuple(Component(name) for name in SIGNED_HINTS)
# One signature under our label. Parsing would say the same, at 0.2 ms for an ML-DSA signature.
_SIGNATURE_FORM: Final = re.compile(
    rf"{LABEL}=:(?:[A-Za-z0-9+/]{{4}})*(?:[A-Za-z0-9+/]{{2}}==|[A-Za-z0-9+/]{{3}}=)?:",
)
_REQUEST_SIGNATURE: Final = Component(_SIGNATURE_FIELD, (("req", True), ("key", LABEL)))
_OF_REQUEST: Final = {
    component: Component(component.name, (("req", True),))
    for component in (_METHOD, _TARGET_URI, _HX_VERSION, _CONTENT_TYPE, _CONTENT_DIGEST)
}


@dataclass(frozen=True, slots=True)
class Request:
    """A request as signed or received: absolute `target_uri` as configured, lower-case header names, whole body.

    Raises ValueError for a header name with an upper-case letter: it would be invisible to every check.
    """

    method: str
    target_uri: str
    headers: Mapping[str, str]
    body: bytes

    def __post_init__(self) -> None:
        """Check the names."""
        _refuse_upper_case(self.headers)

    def adding(self, headers: Mapping[str, str]) -> Self:
        """Return this request with more headers, as it is sent; `verify_response` wants the request as sent."""
        return type(self)(self.method, self.target_uri, {**self.headers, **headers}, self.body)


@dataclass(frozen=True, slots=True)
class Response:
    """A response as signed or received: lower-case header names, whole body; ValueError for other names."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def __post_init__(self) -> None:
        """Check the names."""
        _refuse_upper_case(self.headers)

    def adding(self, headers: Mapping[str, str]) -> Self:
        """Return this response with more headers, as it is sent."""
        return type(self)(self.status, {**self.headers, **headers}, self.body)


@dataclass(frozen=True, slots=True)
class Verified:
    """What a message that verified says of its signature; `nonce` is empty for a response.

    `created` is in seconds since 1970. `signature_b64` is what a later `signature;req` is compared with. `covered` are
    the fields of this message itself that the signature covers: anybody on the way may have written the others.
    """

    keyid: str
    nonce: str
    created: int
    signature_b64: str
    covered: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Parameters:
    """The signature parameters of HX/1, of the right types (RFC 9421, section 2.3)."""

    created: int
    nonce: str
    keyid: str
    alg: str | None
    tag: str


def combine_headers(lines: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Return one value a header, by lower-case name, from all header lines in the order received.

    Lines of one name are joined with ", " (RFC 9421, section 2.1), so that a second Signature or Content-Digest
    line is seen and refused. Taking the first or the last line instead would let two readers see two messages.
    """
    return {name: ", ".join(values) for name, values in group_field_lines(lines).items()}


def sign_request(
    req: Request,
    key: SigningKey,
    *,
    created: int,
    nonce: str,
    expires_in_s: int = LIFETIME_S_MAX,
) -> dict[str, str]:
    """Return the headers to add: hx-version, signature-input, signature, and content-digest when there is a body.

    `created` is in seconds since 1970, `nonce` is 16 fresh random bytes in Base64. A request with a body needs
    its content-type. Raises ValueError for what this node itself got wrong.
    """
    if not _is_nonce(nonce):
        raise ValueError("a nonce is 16 bytes in Base64")
    if not 0 < expires_in_s <= LIFETIME_S_MAX:
        raise ValueError(f"a signature lives from 1 to {LIFETIME_S_MAX} seconds")
    added = {_VERSION_FIELD: VERSION}
    if _has_content(req.headers, req.body):
        added[_DIGEST_FIELD] = content_digest(req.body)
    sent = req.adding(added)
    times = (("created", created), ("expires", created + expires_in_s), ("nonce", nonce))
    added.update(_sign(_request_context(sent), _request_components(sent), times, key))
    return added


def sign_response(resp: Response, req: Request, key: SigningKey, *, created: int) -> dict[str, str]:
    """Return the headers to add: content-digest, signature-input, signature, bound to the request as received.

    Covers SIGNED_HINTS where they are there, what the request's own signature covers, and that signature where there
    is one, so that an answer cannot be moved to another request (RFC 9421, section 2.4). A request that could not be
    verified is answered with the same call. `created` is in seconds since 1970. A response with a body needs its
    content-type. Raises ValueError for what this node itself got wrong.
    """
    added = {_DIGEST_FIELD: content_digest(resp.body)}
    sent = resp.adding(added)
    times = (("created", created), ("expires", created + LIFETIME_S_MAX))
    hints = tuple(component for component in _HINTS if component.name in sent.headers)
    own, of_request = _response_components(sent, req)
    added.update(_sign(_response_context(sent, req), (*own, *hints, *of_request), times, key))
    return added


def verify_request(
    req: Request,
    find_key: Callable[[str], PublicKey],
    *,
    now: int,
    window_s: int = WINDOW_S,
) -> Verified:
    """Return who signed this request, or raise ProtocolError; the caller then asks whether the nonce is new.

    `find_key` returns the public key of a keyid, or raises ProtocolError (`unknown-key`, `key-revoked`).
    `now` and `window_s` are in seconds. Codes: `malformed`, `bad-signature`, `clock-skew`, `digest-mismatch`.
    """
    return _verify(
        _request_context(req),
        _request_components(req),
        headers=req.headers,
        body=req.body,
        find_key=find_key,
        now=now,
        window_s=window_s,
    )


def verify_request_head(
    req: Request,
    find_key: Callable[[str], PublicKey],
    *,
    has_body: bool,
    now: int,
    window_s: int = WINDOW_S,
) -> Verified:
    """Return who signed the head of this request, whose body has not been read: steps 1 to 6.

    `has_body` tells whether one comes. So a stranger's body need not be read; `verify_request_body` has to follow.
    Codes as in `verify_request`.
    """
    return _verify(
        _request_context(req),
        _request_components(req, has_body=has_body),
        headers=req.headers,
        body=None,
        find_key=find_key,
        now=now,
        window_s=window_s,
    )


def verify_request_body(req: Request) -> None:
    """Check the body of a request whose head was verified: step 7. Codes: `digest-mismatch`, `malformed`."""
    if _DIGEST_FIELD in req.headers:
        verify_content_digest(req.headers[_DIGEST_FIELD], req.body)
    elif req.body:
        _bad_signature("the body has no digest", _DIGEST_FIELD)


def verify_response(
    resp: Response,
    req: Request,
    find_key: Callable[[str], PublicKey],
    *,
    now: int,
    window_s: int = WINDOW_S,
) -> Verified:
    """Return who signed this answer to `req`, the request as it was sent, or raise ProtocolError.

    Arguments and codes as in `verify_request`. That the key belongs to the node that was asked is for
    `find_key` or the caller to see. There is no nonce to remember: the answer is bound to that of the request.
    """
    own, of_request = _response_components(resp, req)
    return _verify(
        _response_context(resp, req),
        (*own, *of_request),
        headers=resp.headers,
        body=resp.body,
        find_key=find_key,
        now=now,
        window_s=window_s,
    )


def _verify(
    message: Context,
    demanded: tuple[Component, ...],
    *,
    headers: Mapping[str, str],
    body: bytes | None,
    find_key: Callable[[str], PublicKey],
    now: int,
    window_s: int,
) -> Verified:
    # The numbers are those of docs/protocol.md, "HTTP profile"; each step relies on the ones before it.
    # (1) The version of this profile, one signature under our label, of bounded size and canonical form, with the
    # parameters of HX/1. A response has neither version nor nonce of its own: it is bound to those of its request.
    is_request = isinstance(message, RequestContext)
    if is_request and headers.get(_VERSION_FIELD) != VERSION:
        raise ProtocolError("malformed", f"HX-Version must be there once and be {VERSION}", field=_VERSION_FIELD)
    signed, signature = _read(headers)
    parameters = _parameters(signed, with_nonce=is_request)

    # (2) The tag: a signature made for another application is not one for this.
    if parameters.tag != TAG:
        _bad_signature(f"the tag is not {TAG}")

    # (3) The components. Further ones are welcome if they have a value here; `bs` speaks of single header lines,
    # which are joined by now. The base is made first: it is what refuses a flag with a value, which compares
    # equal to a plain flag in Python.
    if any("bs" in component.flags for component in signed.components):
        _bad_signature("a component uses `bs`")
    try:
        base = signature_base(signed, message)
    except ComponentError as error:
        _bad_signature(str(error))
    covered = {component.identity for component in signed.components}
    missing = [component.text for component in demanded if component.identity not in covered]
    if missing:
        _bad_signature(f"not covered: {', '.join(missing)}")

    # (4) The time. `expires` needs no look of its own: (1) bounds it to the 60 s after `created`, so it cannot be
    # older than the window while `created` is inside it.
    if abs(now - parameters.created) > window_s:
        server_time = format_time(datetime.fromtimestamp(now, UTC))
        raise ProtocolError(
            "clock-skew",
            f"the signature was not made within {window_s} s of this node's clock",
            field=_INPUT_FIELD,
            extra={"server_time": server_time},
        )

    # (5) The key, and with it the algorithm: the message may repeat it, never choose it.
    key = find_key(parameters.keyid)
    if parameters.alg is not None and parameters.alg != key.algorithm.value:
        _bad_signature("the algorithm is not that of the key")

    # (6) The signature.
    try:
        key.verify(signature, base)
    except SignatureInvalid:
        _bad_signature("the signature does not verify", _SIGNATURE_FIELD)

    # (7) The body, against a digest that is now known to be the signer's.
    if body is not None and _DIGEST_FIELD in headers:
        verify_content_digest(headers[_DIGEST_FIELD], body)
    own = frozenset(component.name for component in signed.components if "req" not in component.flags)
    return Verified(parameters.keyid, parameters.nonce, parameters.created, _base64(signature), own)


def _sign(
    message: Context,
    components: tuple[Component, ...],
    times: tuple[tuple[str, int | str], ...],
    key: SigningKey,
) -> dict[str, str]:
    identity = (("keyid", key.public().thumbprint()), ("alg", key.algorithm.value), ("tag", TAG))
    signed = SignatureInput(components, (*times, *identity))
    return {
        _INPUT_FIELD: format_signature_inputs({LABEL: signed}),
        _SIGNATURE_FIELD: format_signatures({LABEL: key.sign(signature_base(signed, message))}),
    }


def _read(headers: Mapping[str, str]) -> tuple[SignatureInput, bytes]:
    for name, bytes_max in ((_INPUT_FIELD, SIGNATURE_INPUT_BYTES_MAX), (_SIGNATURE_FIELD, SIGNATURE_BYTES_MAX)):
        if name not in headers:
            raise ProtocolError("bad-signature", "the message is not signed", field=name)
        if len(headers[name]) > bytes_max:
            raise ProtocolError("malformed", f"longer than {bytes_max} bytes", field=name)
    field = _INPUT_FIELD
    try:
        inputs = parse_signature_input(headers[_INPUT_FIELD])
        field = _SIGNATURE_FIELD
        signatures = parse_signature(headers[_SIGNATURE_FIELD])
    except FieldError as error:
        raise ProtocolError("malformed", str(error), field=field) from None
    if inputs.keys() != {LABEL} or signatures.keys() != {LABEL}:
        raise ProtocolError("malformed", f"there must be one signature, labelled {LABEL}", field=_INPUT_FIELD)
    if len(inputs[LABEL].components) > COMPONENTS_MAX:
        raise ProtocolError("malformed", f"more than {COMPONENTS_MAX} components", field=_INPUT_FIELD)
    return inputs[LABEL], signatures[LABEL]


def _parameters(signed: SignatureInput, *, with_nonce: bool) -> _Parameters:
    given = dict(signed.params)
    created, expires = given.pop("created", None), given.pop("expires", None)
    # `type`, for a Boolean is an int in Python and none in RFC 9651; an absent one is neither.
    if type(created) is not int or type(expires) is not int:
        _malformed_input("created and expires must be integers")
    if not 0 < expires - created <= LIFETIME_S_MAX:
        _malformed_input(f"expires must be 1 to {LIFETIME_S_MAX} seconds after created")
    if not {"keyid", "tag"} <= given.keys() <= {"keyid", "tag", "nonce", "alg"}:
        _malformed_input("a parameter is missing or unknown")
    if not all(isinstance(value, str) for value in given.values()):
        _malformed_input("keyid, tag, nonce and alg must be strings")
    texts = cast("dict[str, str]", given)
    nonce = texts.get("nonce", "")
    if with_nonce and not _is_nonce(nonce):
        _malformed_input("the nonce is not 16 bytes in Base64")
    return _Parameters(created, nonce, texts["keyid"], texts.get("alg"), texts["tag"])


def _request_context(req: Request) -> RequestContext:
    return RequestContext(_lines(req.headers), req.method, req.target_uri)


def _response_context(resp: Response, req: Request) -> ResponseContext:
    return ResponseContext(_lines(resp.headers), resp.status, _request_context(req))


def _lines(headers: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    return {name: (value,) for name, value in headers.items()}


def _request_components(req: Request, *, has_body: bool = False) -> tuple[Component, ...]:
    if has_body or _has_content(req.headers, req.body):
        return (_METHOD, _TARGET_URI, _CONTENT_TYPE, _CONTENT_DIGEST, _HX_VERSION)
    return (_METHOD, _TARGET_URI, _HX_VERSION)


def _response_components(resp: Response, req: Request) -> tuple[tuple[Component, ...], tuple[Component, ...]]:
    """Return what an answer has to cover of itself, and of its request."""
    # The digest is there without a body too: a body that somebody took away is then missed.
    own = (_STATUS, _CONTENT_TYPE, _CONTENT_DIGEST) if resp.body else (_STATUS, _CONTENT_DIGEST)
    # A signature of a signature alone covers nothing of what that one covers (RFC 9421, section 7.3.7). A request
    # that is answered with a problem may lack what it should have, or carry what cannot be signed: that component
    # is then left out, and who sent a proper request and looks for it will notice.
    context = _request_context(req)
    of_request = (_OF_REQUEST[component] for component in _request_components(req) if _has_value(component, context))
    is_signed = _SIGNATURE_FORM.fullmatch(req.headers.get(_SIGNATURE_FIELD, "")) is not None
    return own, (*of_request, _REQUEST_SIGNATURE) if is_signed else tuple(of_request)


def _has_value(component: Component, request: RequestContext) -> bool:
    try:
        component_value(component, request)
    except ComponentError:
        return False
    return True


def _has_content(headers: Mapping[str, str], body: bytes) -> bool:
    # The header counts too: a body that was announced and is not there is caught by its digest.
    return bool(body) or _DIGEST_FIELD in headers


def _is_nonce(text: str) -> bool:
    try:
        raw = base64.b64decode(text.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        return False
    return len(raw) == NONCE_BYTES and _base64(raw) == text


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def _refuse_upper_case(headers: Mapping[str, str]) -> None:
    names = "".join(headers)
    if names != names.lower():
        raise ValueError("header names are given in lower case")


def _malformed_input(reason: str) -> NoReturn:
    raise ProtocolError("malformed", reason, field=_INPUT_FIELD)


def _bad_signature(reason: str, field: str = _INPUT_FIELD) -> NoReturn:
    raise ProtocolError("bad-signature", reason, field=field)
