"""The error registry of HX/1 and its RFC 9457 bodies; never trusts or repeats what a peer's error text says.

Our own errors go out through `problem_body`. A peer's come in through `parse_problem`, which survives anything.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import msgspec

from protocol.errors import ProtocolError
from protocol.strictjson import INTEGER_MAX

MEDIA_TYPE: Final = "application/problem+json"
TYPE_PREFIX: Final = "urn:hx:problem:"

# A peer's answer is read no further than this.
PROBLEM_BYTES_MAX: Final = 16 * 1024
_DETAIL_CHARS_MAX: Final = 300
_TEXT_CHARS_MAX: Final = 80
# The code given to an answer that names no code of the registry.
UNRECOGNISED: Final = "unrecognised"


class Scope(StrEnum):
    """How far a problem reaches: what else the sender must treat as refused."""

    REQUEST = "request"
    BATCH = "batch"
    RECORD = "record"
    STREAM = "stream"
    PEER = "peer"


@dataclass(frozen=True, slots=True)
class Problem:
    """One error of the registry. `retryable`: the same records may be taken later without a person's doing."""

    code: str
    status: int
    title: str
    retryable: bool
    scope: Scope


_PROBLEMS: Final = (
    # Who is speaking? 401 asks for other proof, 403 does not.
    Problem("bad-signature", 401, "A required signature is absent or invalid", retryable=False, scope=Scope.REQUEST),
    # The receiver's directory may be older than the key.
    Problem("unknown-key", 401, "The key is not known here", retryable=True, scope=Scope.PEER),
    Problem("key-revoked", 403, "The key no longer counts", retryable=False, scope=Scope.PEER),
    # A retry is signed anew, with its own nonce and time.
    Problem("replay", 409, "This signed request was seen before", retryable=True, scope=Scope.REQUEST),
    Problem("clock-skew", 401, "The two clocks differ too much", retryable=True, scope=Scope.PEER),
    # What arrived is not what was sent: the next attempt may arrive whole.
    Problem("digest-mismatch", 400, "The body is not the one that was signed", retryable=True, scope=Scope.REQUEST),
    Problem("malformed", 400, "The message breaks its format", retryable=False, scope=Scope.REQUEST),
    Problem("schema-invalid", 422, "The record breaks its schema", retryable=False, scope=Scope.RECORD),
    Problem("unknown-critical", 422, "A critical member is not understood", retryable=False, scope=Scope.RECORD),
    # RFC 9110, section 15.5.20: sent to a server that does not answer for the target.
    Problem("wrong-audience", 421, "This is addressed to another node", retryable=False, scope=Scope.STREAM),
    Problem("not-competent", 409, "This hotline is not the competent one", retryable=False, scope=Scope.RECORD),
    Problem("stream-gap", 409, "Records before these are missing here", retryable=True, scope=Scope.STREAM),
    # Cut anew from the sender's table the batch may be right; a sender that lies gains nothing by retrying.
    Problem("root-mismatch", 422, "The records do not lead to the signed root", retryable=True, scope=Scope.BATCH),
    Problem("equivocation", 409, "The stream contradicts what it said before", retryable=False, scope=Scope.STREAM),
    Problem("id-conflict", 409, "This id belongs to another record", retryable=False, scope=Scope.RECORD),
    # A smaller cut of the same records can pass.
    Problem("too-large", 413, "The message is over the limit", retryable=True, scope=Scope.BATCH),
    Problem("over-quota", 429, "More records than can be taken now", retryable=True, scope=Scope.PEER),
    Problem("maintenance", 503, "The node is in maintenance", retryable=True, scope=Scope.PEER),
    Problem("directory-stale", 503, "The node's directory is too old", retryable=True, scope=Scope.PEER),
    Problem("handling-violation", 403, "The handling rules forbid this", retryable=False, scope=Scope.RECORD),
)

REGISTRY: Final[dict[str, Problem]] = {problem.code: problem for problem in _PROBLEMS}

_NUMBERS: Final = ("expected", "credit", "index", "retry_after", "server_time")
_TEXTS: Final = ("field", "server_time")


@dataclass(frozen=True, slots=True)
class RemoteProblem:
    """What a peer's error says, made safe to log and to act on.

    `code` is one of REGISTRY or UNRECOGNISED. `extra` holds at most the members that HX/1 names (`expected`,
    `credit`, `index`, `retry_after`, `server_time`, `field`), each an integer from 0 to 2^53 - 1 or a short line.
    """

    code: str
    detail: str
    retryable: bool
    scope: Scope
    extra: Mapping[str, int | str] = field(default_factory=dict)


def problem_body(err: ProtocolError) -> dict[str, object]:
    """Return the members of the RFC 9457 answer to `err`; raises KeyError for a code outside REGISTRY.

    Members of `err.extra` stand beside the registered ones and never replace them.
    """
    problem = REGISTRY[err.code]
    body: dict[str, object] = {
        "type": TYPE_PREFIX + problem.code,
        "title": problem.title,
        "status": problem.status,
        "detail": err.detail,
        "code": problem.code,
        "retryable": problem.retryable,
        "scope": problem.scope.value,
    }
    if err.field is not None:
        body["field"] = err.field
    return {**err.extra, **body}


def parse_problem(body: bytes) -> RemoteProblem:
    """Return what a peer's error body says; never raises.

    What is no problem document, is over PROBLEM_BYTES_MAX or names no registered code is UNRECOGNISED and retryable:
    an answer nobody understands is no reason to give a record up.
    """
    members = _members(body)
    code = members.get("code")
    known = REGISTRY.get(code) if isinstance(code, str) else None
    if known is None:
        return RemoteProblem(UNRECOGNISED, "the answer names no known problem", retryable=True, scope=Scope.REQUEST)
    retryable = members.get("retryable")
    scope = members.get("scope")
    extra: dict[str, int | str] = {}
    for name in _TEXTS:
        if (text := _line(members.get(name), _TEXT_CHARS_MAX)) is not None:
            extra[name] = text
    for name in _NUMBERS:
        number = members.get(name)
        if type(number) is int and 0 <= number <= INTEGER_MAX:
            extra[name] = number
    return RemoteProblem(
        known.code,
        _line(members.get("detail"), _DETAIL_CHARS_MAX) or known.title,
        retryable=retryable if isinstance(retryable, bool) else known.retryable,
        scope=Scope(scope) if isinstance(scope, str) and scope in Scope.__members__.values() else known.scope,
        extra=extra,
    )


def _members(body: bytes) -> dict[str, object]:
    if len(body) > PROBLEM_BYTES_MAX:
        return {}
    try:
        tree: object = msgspec.json.decode(body)
    except (ValueError, RecursionError):
        # msgspec's errors and those of UTF-8 are ValueErrors.
        return {}
    return tree if isinstance(tree, dict) else {}


def _line(value: object, chars_max: int) -> str | None:
    """Return a peer's text as one printable line, or None; a text that may hold a URL is not repeated."""
    if not isinstance(value, str) or "/" in value:
        return None
    return "".join(char if char.isprintable() else " " for char in value[:chars_max]).strip() or None
