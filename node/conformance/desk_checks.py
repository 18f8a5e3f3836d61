"""Checks of the network's desk, as any member can make them. Hands nothing in that a desk would keep."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

from node.clock import rfc3339
from node.conformance.checks import Check, Run, expect_outside, expect_problem, fail, said, stranger_key
from node.conformance.exchange import Answer
from node.platform.ids import new_id
from protocol.checkpoint import Checkpoint, StreamId
from protocol.cosignature import sign_checkpoint
from protocol.desk import EQUIVOCATION_BYTES_MAX, STATEMENT_BYTES_MAX
from protocol.keys import KeyUse
from protocol.profile import Request

_DISPUTES: Final = "/peer/v1/disputes"
_EQUIVOCATIONS: Final = "/peer/v1/equivocations"
_DISPUTE: Final = "5. POST /peer/v1/disputes"
_RULING: Final = "5. GET /peer/v1/disputes/{dispute}"
_EQUIVOCATION: Final = "5. POST /peer/v1/equivocations"
_NOT_FOUND: Final = 404
#: No directory lists it: the name is reserved.
_NOBODY: Final = "nobody.invalid"

Members = dict[str, object]


def _as_json(request: Request) -> Request:
    return replace(request, headers={"content-type": "application/json"})


async def _post(run: Run, path: str, body: bytes) -> Answer:
    return await run.exchange.send(run.speaker.signed("POST", path, body, before=_as_json))


def _statement(run: Run, **members: object) -> Members:
    """Return a dispute of ours with nobody, which no desk takes."""
    now = run.speaker.now()
    at, evidence = rfc3339(now), "0" * 64
    return {
        "v": 1,
        **{name: str(new_id(now)) for name in ("dispute", "case", "item")},
        "holder": run.speaker.id,
        "other": _NOBODY,
        "code": "same-evidence",
        "received": evidence,
        "trail": [{"node": run.speaker.id, "country": "AQ", "evidence": evidence, "at": at}],
        "databases": [],
        "at": at,
        **members,
    }


def _stories(run: Run, *, same: bool = False) -> Members:
    """Return two checkpoints of one size that we sign, of a stream that nobody receives."""
    now = run.speaker.now()
    origin = StreamId(run.speaker.id, _NOBODY, 1).origin()
    held, offered = (
        sign_checkpoint(
            Checkpoint(origin, 1, root), run.speaker.keys.signing(KeyUse.STREAM), now_s=int(now.timestamp())
        )
        .to_bytes()
        .decode()
        for root in (b"1" * 32, b"1" * 32 if same else b"2" * 32)
    )
    return {"v": 1, "held": held, "offered": offered, "seen_at": rfc3339(now)}


def _dispute(code: str, field: str | None, **members: object) -> Callable[[Run], Awaitable[None]]:
    """A dispute with these members is refused."""

    async def run_check(run: Run) -> None:
        answer = await _post(run, _DISPUTES, json.dumps(_statement(run, **members)).encode())
        expect_problem(answer, code, **({} if field is None else {"field": field}))

    return run_check


def _stories_refused(code: str, field: str, *, same: bool) -> Callable[[Run], Awaitable[None]]:
    async def run_check(run: Run) -> None:
        answer = await _post(run, _EQUIVOCATIONS, json.dumps(_stories(run, same=same)).encode())
        expect_problem(answer, code, field=field)

    return run_check


def _too_large(path: str, bytes_max: int) -> Callable[[Run], Awaitable[None]]:
    async def run_check(run: Run) -> None:
        expect_problem(await _post(run, path, b"x" * (bytes_max + 1)), "too-large")

    return run_check


async def _no_json(run: Run) -> None:
    expect_problem(await _post(run, _DISPUTES, b"no JSON"), "malformed")


async def _stranger(run: Run) -> None:
    request = run.speaker.signed("POST", _DISPUTES, b"{}", key=stranger_key(), before=_as_json)
    expect_problem(await run.exchange.send(request), "unknown-key")


async def _no_dispute(run: Run) -> None:
    answer = await run.get(f"{_DISPUTES}/{new_id(run.speaker.now())}")
    if answer.status != _NOT_FOUND or answer.members() != {"ruling": None, "held": False}:
        fail(f"answered {said(answer)}, not 404 with ruling null and held false")


async def _no_id(run: Run) -> None:
    expect_outside(await run.get(f"{_DISPUTES}/none"), 422, "invalid")


DESK_CHECKS: Final = (
    Check("desk-stranger", _DISPUTE, "a dispute, signed by a key that is not listed", "401 unknown-key", _stranger),
    Check("desk-no-json", _DISPUTE, "a dispute that is no JSON", "400 malformed", _no_json),
    Check(
        "desk-dispute-too-large",
        _DISPUTE,
        "a dispute of more than 16 KiB",
        "413 too-large",
        _too_large(_DISPUTES, STATEMENT_BYTES_MAX),
    ),
    Check(
        "desk-not-the-holder",
        _DISPUTE,
        "a dispute of another holder",
        "403 handling-violation, field holder",
        _dispute(
            "handling-violation",
            "holder",
            holder=_NOBODY,
            trail=[{"node": _NOBODY, "country": "AQ", "evidence": "0" * 64, "at": "2026-01-01T00:00:00.000Z"}],
        ),
    ),
    Check(
        "desk-member-more",
        _DISPUTE,
        "a dispute with a member more",
        "422 schema-invalid",
        _dispute("schema-invalid", None, url="https://gallery.host.example/"),
    ),
    Check(
        "desk-no-such-node",
        _DISPUTE,
        "a dispute with a node that was never listed",
        "422 schema-invalid, field other",
        _dispute("schema-invalid", "other"),
    ),
    Check("desk-no-ruling", _RULING, "a question for a dispute that nobody has", "404, held false", _no_dispute),
    Check("desk-no-id", _RULING, "a question for what is no id", "422 invalid", _no_id),
    Check(
        "desk-stories-too-large",
        _EQUIVOCATION,
        "a contradiction of more than 60 KiB",
        "413 too-large",
        _too_large(_EQUIVOCATIONS, EQUIVOCATION_BYTES_MAX),
    ),
    Check(
        "desk-one-story",
        _EQUIVOCATION,
        "one checkpoint twice",
        "422 schema-invalid, field offered",
        _stories_refused("schema-invalid", "offered", same=True),
    ),
    Check(
        "desk-not-the-receiver",
        _EQUIVOCATION,
        "a contradiction in a stream to another",
        "403 handling-violation, field held",
        _stories_refused("handling-violation", "held", same=False),
    ),
)
