"""The API's errors as RFC 9457 problem details; never repeats what was sent, only which field and why.

The peer protocol has its own registry, `protocol.problems`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

import msgspec

from node.platform.telemetry import WITHHELD, withhold

MEDIA_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:hx:problem:"
_FIELD_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
_DETAIL_CHARS_MAX: Final = 200

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ProblemKind:
    """One kind of problem: its code, HTTP status and a title that never changes."""

    code: str
    status: int
    title: str


MALFORMED = ProblemKind("malformed", 400, "The request breaks its format")
INVALID = ProblemKind("invalid", 422, "A field has a value that cannot be taken")
UNAUTHENTICATED = ProblemKind("unauthenticated", 401, "An API key is needed")
FORBIDDEN = ProblemKind("forbidden", 403, "The API key has no role for this")
NOT_FOUND = ProblemKind("not-found", 404, "There is nothing here")
METHOD_NOT_ALLOWED = ProblemKind("method-not-allowed", 405, "The method is not offered here")
TOO_SLOW = ProblemKind("too-slow", 408, "The body did not arrive in time")
CONFLICT = ProblemKind("conflict", 409, "This contradicts what is stored")
TOO_LARGE = ProblemKind("too-large", 413, "The message is over the limit")
UNSUPPORTED_MEDIA_TYPE = ProblemKind("unsupported-media-type", 415, "The body is of a type that is not taken")
INTERNAL = ProblemKind("internal", 500, "The node failed")
OVERLOADED = ProblemKind("overloaded", 503, "The node cannot take more at the moment")
UNAVAILABLE = ProblemKind("unavailable", 503, "The node cannot answer this at the moment")

#: What the shell itself may answer to any request, and so belongs to every operation's description.
SHELL_KINDS: Final = (MALFORMED, TOO_LARGE, TOO_SLOW, UNSUPPORTED_MEDIA_TYPE, INTERNAL, OVERLOADED)


class FieldFault(msgspec.Struct, frozen=True):
    """One field at fault: where it is, a token for programs and a sentence for people."""

    field: str
    reason: str
    detail: str


class ProblemBody(msgspec.Struct, frozen=True, rename={"kind": "type"}):
    """An RFC 9457 problem: `code` tells programs what went wrong, `errors` which fields are at fault and why."""

    kind: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[FieldFault] = []


class ApiProblem(Exception):  # noqa: N818 -- RFC 9457 calls it a problem
    """Raised by a handler to answer with a problem; `detail` and `errors` never quote what was sent."""

    def __init__(
        self,
        kind: ProblemKind,
        detail: str,
        *,
        errors: tuple[FieldFault, ...] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Say what went wrong in one sentence; `headers` go with the answer (`Retry-After`)."""
        super().__init__(f"{kind.code}: {detail}")
        self.kind = kind
        self.detail = detail
        self.errors = errors
        self.headers = dict(headers or {})

    def body(self, request_id: str) -> bytes:
        """Return the problem as JSON."""
        return msgspec.json.encode(
            ProblemBody(
                kind=TYPE_PREFIX + self.kind.code,
                title=self.kind.title,
                status=self.kind.status,
                detail=self.detail,
                code=self.kind.code,
                request_id=request_id,
                errors=list(self.errors),
            )
        )


def field_problem(field: str, reason: str, detail: str) -> ApiProblem:
    """Return the problem that one field is at fault."""
    return ApiProblem(INVALID, f"{field or 'the body'}: {detail}", errors=(FieldFault(field, reason, detail),))


_REASONS: Final = (
    (re.compile(r"Invalid (enum )?value"), "not-allowed", "is not one of the values allowed here"),
    (re.compile(r"Expected `.*` of length >="), "too-short", None),
    (re.compile(r"Expected `.*` of length"), "too-long", None),
    (re.compile(r"Expected `.*` matching regex"), "bad-format", "has not the form this field needs"),
    (re.compile(r"Expected `(int|float|number|duration)` (<|>|that)"), "out-of-range", None),
    (re.compile(r"(Integer value|Number) out of range"), "out-of-range", None),
    (re.compile(r"Expected `.*`, got `"), "wrong-type", None),
    (re.compile(r"Expected `"), "bad-format", None),
    (re.compile(r"Invalid "), "bad-format", None),
)
_MISSING: Final = re.compile(r"Object missing required field `([^`]+)`")
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_AT: Final = re.compile(r"(.*) - at `(?:key in )?\$\.?([^`]*)`", re.DOTALL)


def fault_of(error: msgspec.ValidationError) -> FieldFault:
    """Return which field msgspec refused and why, without the value, which msgspec's own message may quote."""
    text = str(error)
    at = _AT.fullmatch(text)
    said, path = (at[1], at[2]) if at else (text, "")
    if (missing := _MISSING.fullmatch(said)) is not None:
        return FieldFault(_joined(path, missing[1]), "missing", "is required")
    if (unknown := _UNKNOWN.fullmatch(said)) is not None:
        # The name was sent to us and may be anything; one that looks like a name helps who mistyped it.
        name = unknown[1] if _FIELD_NAME.fullmatch(unknown[1]) else ""
        return FieldFault(_joined(path, name) if name else path, "unknown-field", "there is no such field")
    for form, reason, detail in _REASONS:
        if form.match(said):
            return FieldFault(path, reason, detail or said.replace("`", ""))
    # Raised by a check of our own structs.
    plain = withhold(said) if len(said) <= _DETAIL_CHARS_MAX else WITHHELD
    return FieldFault(path, "not-allowed", plain)


def _joined(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def decoded(raw: bytes, decoder: "msgspec.json.Decoder[T]") -> T:
    """Return the value of a JSON body; ApiProblem `malformed` or `invalid`, with the field and the reason."""
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        fault = fault_of(error)
        raise field_problem(fault.field, fault.reason, fault.detail) from None
    except UnicodeDecodeError:
        raise ApiProblem(MALFORMED, "the body is not UTF-8") from None
    except (msgspec.DecodeError, RecursionError):
        raise ApiProblem(MALFORMED, "the body is not JSON") from None
