"""Checks of what stands before any batch: the well-known document, paths and media types, the answers' signatures."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from node.conformance.checks import (
    OK,
    Check,
    NotRun,
    Run,
    expect_outside,
    expect_problem,
    fail,
    own_stream,
    said,
    stranger_key,
)
from node.conformance.exchange import Answer, Fault
from node.conformance.speaker import with_headers
from protocol.batch import BATCH_BYTES_MAX, BATCH_RECORDS_MAX
from protocol.errors import ProtocolError
from protocol.profile import Request, Response, verify_response
from protocol.timestamps import parse_time
from protocol.versions import MAJOR, works_with

WELL_KNOWN: Final = "/.well-known/hx-node"
_NUMBERS: Final = ("batch_records_max", "batch_bytes_max", "body_bytes_max")


async def _well_known(run: Run, **how: Any) -> Answer:
    """Ask for the document, unsigned unless `how` says otherwise."""
    if how:
        return await run.get(WELL_KNOWN, **how)
    return await run.exchange.send(Request("GET", run.speaker.target_url + WELL_KNOWN, {}, b""))


async def _document(run: Run) -> None:
    answer = await _well_known(run)
    if answer.status != OK:
        fail(f"answered {said(answer)}, not 200")
    members = answer.members()
    for name, kind in {"node": str, "versions": list, "limits": dict, "directory_version": int, "epochs": dict}.items():
        if not isinstance(members.get(name), kind):
            fail(f"the member {name} is missing or of another type")
    if members["node"] != run.exchange.node_id:
        fail("it names another node than the directory lists at this address")
    try:
        parse_time(members.get("time", ""), field="time")
    except (ProtocolError, TypeError):
        fail("the member time is not a time as 2026-11-22T16:00:00.000Z")


async def _versions(run: Run) -> None:
    members = (await _well_known(run)).members()
    spoken = members.get("versions")
    listed = run.exchange.directory.nodes[run.exchange.node_id].versions
    if not isinstance(spoken, list) or not all(isinstance(one, str) for one in spoken):
        raise NotRun("the document has no list of versions")
    if not works_with(spoken):
        fail(f"no version {MAJOR}.x is spoken")
    if not set(listed) <= set(spoken):
        fail("the directory lists a version that the node does not say it speaks")


async def _limits(run: Run) -> None:
    limits = (await _well_known(run)).members().get("limits")
    if not isinstance(limits, dict):
        raise NotRun("the document has no limits")
    for name in _NUMBERS:
        if type(limits.get(name)) is not int or limits[name] < 1:
            fail(f"the limit {name} is missing or no positive number")
    if limits["batch_records_max"] > BATCH_RECORDS_MAX or limits["batch_bytes_max"] > BATCH_BYTES_MAX:
        fail("a batch may be larger here than the protocol allows")
    if limits["body_bytes_max"] < limits["batch_bytes_max"]:
        fail("a request may be smaller than the batch that it has to hold")


async def _epochs(run: Run) -> None:
    answer = await _well_known(run, before=None)
    if answer.status != OK:
        fail(f"signed, it was answered {said(answer)}, not 200")
    epochs = answer.members().get("epochs")
    if not isinstance(epochs, dict) or not epochs.keys() <= {run.speaker.id}:
        fail("epochs speaks of another node than the caller")
    if not all(type(epoch) is int and epoch >= 1 for epoch in epochs.values()):
        fail("an epoch is no number from 1 on")


async def _stranger(run: Run) -> None:
    answer = await _well_known(run, key=stranger_key())
    expect_problem(answer, "unknown-key")


async def _directory_header(run: Run) -> None:
    answer = await run.get(own_stream(run))
    if not answer.headers.get("hx-directory", "").isdigit():
        fail("the answer has no HX-Directory with the version of a directory")


# All answers of the run together: a node that signs badly fails here, and not everywhere.


def _signed(fault: Fault, sentence: str) -> Callable[[Run], Awaitable[None]]:
    async def run_check(run: Run) -> None:
        await run.get(own_stream(run))
        bad = [answer for answer in run.exchange.answers if answer.fault is fault]
        if bad:
            statuses = ", ".join(sorted({str(answer.status) for answer in bad}))
            reason = f" ({bad[0].reason})" if fault is not Fault.UNSIGNED else ""
            fail(f"{len(bad)} of {len(run.exchange.answers)} answers {sentence}, with status {statuses}{reason}")

    return run_check


async def _moved(run: Run) -> None:
    """The answer to one request is none to the next: what `;req` covers differs, if only in the signature."""
    first = run.speaker.signed("GET", own_stream(run))
    answer = await run.exchange.send(first)
    second = run.speaker.signed("GET", own_stream(run))
    if answer.fault is not None:
        raise NotRun("the answer does not verify for its own request")
    try:
        verify_response(
            Response(answer.status, answer.headers, answer.body),
            second,
            lambda keyid: run.exchange.directory.http_key(keyid, run.speaker.now())[1],
            now=int(run.speaker.now().timestamp()),
        )
    except ProtocolError:
        return
    fail("an answer verifies for another request than its own")


# Before everything else.


def _outside(
    status: int, code: str, make: Callable[[Run], tuple[str, str]], **headers: str
) -> Callable[[Run], Awaitable[None]]:
    async def run_check(run: Run) -> None:
        method, path = make(run)
        change = with_headers(**headers)
        body = b"x" if method == "PUT" else b""
        answer = await run.exchange.send(run.speaker.signed(method, path, body, before=change))
        expect_outside(answer, status, code)

    return run_check


WELL_KNOWN_CHECKS: Final = (
    Check(
        "well-known",
        "5. GET /.well-known/hx-node",
        "the well-known document, unsigned",
        "200, JSON with node, versions, limits, directory_version, time and epochs",
        _document,
    ),
    Check(
        "well-known-versions",
        "12. Versions",
        "the well-known document, unsigned",
        f"a version {MAJOR}.x, and every version that the directory lists",
        _versions,
    ),
    Check(
        "well-known-limits",
        "5. PUT /peer/v1/inbox/{iss}/{epoch}/{first}",
        "the well-known document, unsigned",
        "limits that are positive and not above those of the protocol",
        _limits,
    ),
    Check(
        "well-known-signed",
        "5. GET /.well-known/hx-node",
        "the well-known document, signed",
        "200, and epochs names nobody but the caller",
        _epochs,
    ),
    Check(
        "well-known-stranger",
        "5. GET /.well-known/hx-node",
        "the well-known document, signed by a key that the directory does not list",
        "401 unknown-key",
        _stranger,
    ),
    Check("directory-header", "5. Endpoints", "any request", "HX-Directory in the answer", _directory_header),
)

OUTSIDE_CHECKS: Final = (
    Check(
        "no-such-path",
        "5. Endpoints",
        "a path that nobody has",
        "404 not-found",
        _outside(404, "not-found", lambda _run: ("GET", "/peer/v1/conformance")),
    ),
    Check(
        "no-such-method",
        "5. Endpoints",
        "PUT where only GET is",
        "405 method-not-allowed",
        _outside(405, "method-not-allowed", lambda run: ("PUT", own_stream(run))),
    ),
    Check(
        "other-media-type",
        "5. Endpoints",
        "a batch of type text/plain",
        "415 unsupported-media-type",
        _outside(
            415, "unsupported-media-type", lambda run: ("PUT", run.speaker.inbox_path(0)), content_type="text/plain"
        ),
    ),
    Check(
        "content-encoding",
        "5. Endpoints",
        "a batch with a Content-Encoding",
        "415 unsupported-media-type",
        _outside(
            415, "unsupported-media-type", lambda run: ("PUT", run.speaker.inbox_path(0)), content_encoding="gzip"
        ),
    ),
    Check(
        "no-number",
        "5. Endpoints",
        "an index that is no number",
        "422 invalid",
        _outside(422, "invalid", lambda run: ("GET", f"/peer/v1/receipts/{run.speaker.id}/1/first")),
    ),
    Check(
        "query",
        "5. Endpoints",
        "a parameter in the query",
        "422 invalid",
        _outside(422, "invalid", lambda run: ("GET", own_stream(run) + "?more=1")),
    ),
)

#: Made last: they look at every answer of the run.
ANSWER_CHECKS: Final = (
    Check(
        "answers-signed",
        "4. HTTP profile",
        "every request of this run",
        "every answer is signed",
        _signed(Fault.UNSIGNED, "are not signed"),
    ),
    Check(
        "answers-bound",
        "4. HTTP profile",
        "every request of this run",
        "every answer covers, with ;req, what its request has to cover, and its signature",
        _signed(Fault.UNBOUND, "are not bound to their request"),
    ),
    Check(
        "answers-verify",
        "4. HTTP profile",
        "every request of this run",
        "every answer verifies under an http key of the node, with status, type and digest covered",
        _signed(Fault.INVALID, "do not verify"),
    ),
    Check(
        "answers-stay",
        "4. HTTP profile",
        "one request twice, newly signed",
        "the first answer is none to the second",
        _moved,
    ),
)
