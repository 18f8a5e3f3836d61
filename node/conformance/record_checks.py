"""Checks of the checking order, steps 9 to 13: what the node's outcomes say of records that break one rule each."""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final

from node.clock import rfc3339
from node.conformance.checks import Check, NotRun, Run, fail
from node.conformance.outcomes import Fetched
from node.conformance.speaker import changed
from protocol.codes import COUNTRIES
from protocol.errors import ProtocolError
from protocol.keys import SignatureInvalid
from protocol.record import HOPS_MAX

_SECTION: Final = "6. Checking order, step"
_OTHER_NODE: Final = "other.hotline.example"
#: More than two clocks may differ by.
_LONG_PAST: Final = timedelta(hours=1)
_NO_UUID7: Final = "019abc12-0000-4000-8000-000000000001"

Make = Callable[[Run], bytes]


def _told(verdict: str, make: Make) -> Callable[[Run], Awaitable[None]]:
    """A record is stored, and an outcome then says `verdict` of it."""

    async def run_check(run: Run) -> None:
        index = len(run.speaker.taken)
        await _awaited(run, [make(run)], index, verdict)

    return run_check


async def _awaited(run: Run, records: list[bytes], index: int, verdict: str) -> None:
    if run.outcomes is None:
        raise NotRun("nobody reads the node's outcomes here")
    await run.deliver(records)
    try:
        told = await run.outcomes.about(run.speaker.stream.origin(), index)
    except (ProtocolError, SignatureInvalid):
        raise NotRun("what was fetched from the node is no batch, which another check is about") from None
    if told is None and isinstance(run.outcomes, Fetched) and not run.outcomes.offered:
        raise NotRun("the node has no outbox to fetch its outcomes from; --listen takes them as it delivers them")
    if told is None:
        fail("no outcome speaks of the record in time")
    if told.verdict != verdict:
        fail(f"the outcome says {told.verdict}, not {verdict}")


async def _not_answered(run: Run) -> None:
    """An outcome that is refused is spoken of in no outcome, or two nodes would answer each other for ever."""
    index = len(run.speaker.taken)
    ours = run.speaker.outcome(accepted=[(0, 0)], stream=run.speaker.stream)
    await _awaited(run, [ours, *run.speaker.reports(1)], index + 1, "kept")
    if run.outcomes is not None and (await run.outcomes.known(run.speaker.stream.origin(), index)) is not None:
        fail("an outcome is spoken of in an outcome")


def _spoiled(**members: object) -> Make:
    return lambda run: run.speaker.spoiled(**members)


def _bytes(change: Callable[[bytes], bytes]) -> Make:
    return lambda run: change(run.speaker.report())


def _abroad(run: Run) -> bytes:
    served = run.exchange.directory.nodes[run.exchange.node_id].countries
    return run.speaker.report(country=min(COUNTRIES - set(served)))


_RECORDS: Final[tuple[tuple[str, int, str, str, Make], ...]] = (
    ("no-json", 9, "a line that is no JSON", "malformed", lambda _run: b"no JSON"),
    (
        "member-twice",
        9,
        "a member that occurs twice",
        "malformed",
        _bytes(lambda raw: raw.replace(b'{"v":1,', b'{"v":1,"v":1,', 1)),
    ),
    (
        "a-fraction",
        9,
        "a number with a fraction",
        "malformed",
        _bytes(lambda raw: raw.replace(b'"v":1,', b'"v":1.0,', 1)),
    ),
    (
        "deep",
        9,
        "17 containers inside one another",
        "malformed",
        _bytes(lambda raw: raw.replace(b'"crit":[]', b'"crit":' + b"[" * 17 + b"]" * 17, 1)),
    ),
    ("large-record", 9, "a record of more than 60 KiB", "too-large", lambda _run: b'"' + b"x" * 61_440 + b'"'),
    ("record-of-version-2", 10, "v 2", "schema-invalid", _spoiled(v=2)),
    ("no-uuid7", 10, "an id that is no UUIDv7", "schema-invalid", _spoiled(id=_NO_UUID7)),
    ("time-with-offset", 10, "a time with an offset", "schema-invalid", _spoiled(iat="2026-11-22T17:00:00.123+01:00")),
    ("many-hops", 10, f"{HOPS_MAX + 1} hops", "schema-invalid", _spoiled(hops=[_OTHER_NODE] * (HOPS_MAX + 1))),
    ("nul", 10, "U+0000 in a string", "schema-invalid", _spoiled(body__reference="\x00")),
    ("unknown-critical", 10, "an unknown name in crit", "unknown-critical", _spoiled(crit=["body.novelty"])),
    ("unknown-code", 10, "a kind that is none", "schema-invalid", _spoiled(body__kind="video")),
    ("addressed-to-another", 11, "another addressee", "wrong-audience", _spoiled(aud=_OTHER_NODE)),
    ("said-by-another", 11, "another issuer", "schema-invalid", _spoiled(iss=_OTHER_NODE)),
    ("unknown-purpose", 12, "a purpose nobody knows", "handling-violation", _spoiled(handling__purpose="training")),
    (
        "to-be-erased-before",
        12,
        "a record that was to be erased before it came",
        "handling-violation",
        lambda run: changed(run.speaker.report(), handling__retain_until=rfc3339(run.speaker.now() - _LONG_PAST)),
    ),
    ("assigned-abroad", 13, "an item assigned to a country the node does not serve", "not-competent", _abroad),
    ("other-scheme", 13, "a URL of another scheme", "schema-invalid", _spoiled(body__url="ftp://host.example/")),
    (
        "unknown-type",
        10,
        "a record of an unknown type",
        "kept",
        lambda run: changed(run.speaker.report(), type="conformance-note", body={"schema": 1}),
    ),
    ("later-schema", 10, "a report of schema 99", "kept", _spoiled(body__schema=99)),
)

RECORD_CHECKS: Final = (
    *(
        Check(name, f"{_SECTION} {step}", sends, f"an outcome that says {verdict}", _told(verdict, make))
        for name, step, sends, verdict, make in _RECORDS
    ),
    Check(
        "outcome-not-answered",
        "3. outcome",
        "an outcome about a stream that is not the node's",
        "no outcome that speaks of it",
        _not_answered,
    ),
    Check(
        "good-report",
        f"{_SECTION} 13",
        "a good report on a reserved name",
        "an outcome that says accepted",
        _told("accepted", lambda run: run.speaker.report()),
        "an item on a reserved name in the node's queue",
    ),
    Check(
        "unknown-members",
        "12. Versions",
        "a good report with members that nobody knows",
        "an outcome that says accepted",
        _told("accepted", _spoiled(novelty={"a": 1}, body__novelty=[1])),
        "an item on a reserved name in the node's queue",
    ),
)
