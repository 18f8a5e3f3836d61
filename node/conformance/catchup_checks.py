"""Checks of what a node that comes back uses: `hello`, the outbox, and the receipts brought for what was fetched."""

import json
from collections.abc import Awaitable, Callable
from typing import Final

from node.conformance.checks import OK, Check, NotRun, Run, expect_problem, fail, said
from node.conformance.outcomes import Fetched
from node.conformance.speaker import Change, with_headers
from protocol.batch import MEDIA_TYPE, decode_batch
from protocol.checkpoint import Checkpoint, StreamId
from protocol.errors import ProtocolError
from protocol.hello import Heads, Held, Written, encode_heads, parse_heads
from protocol.keys import SignatureInvalid
from protocol.merkle import EMPTY_ROOT, Edge, leaf_hash
from protocol.note import Note, parse_note
from protocol.profile import Request

_OTHER_NODE: Final = "other.hotline.example"
_NOT_FOUND: Final = 404
_HELLO: Final = "/peer/v1/hello"
_JSON: Final[Change] = with_headers(content_type="application/json")
_TEXT: Final[Change] = with_headers(content_type="text/plain")


def _optional(check: Callable[[Run], Awaitable[None]], path: Callable[[Run], str]) -> Callable[[Run], Awaitable[None]]:
    """Make a check only where the node has the endpoint, which it may leave out."""

    async def run_check(run: Run) -> None:
        probe = await run.get(path(run))
        if probe.status == _NOT_FOUND and probe.members().get("code") == "not-found":
            raise NotRun("the node leaves this endpoint out, as it may")
        await check(run)

    return run_check


def _outbox(run: Run, first: int = 0, *, aud: str | None = None, epoch: int = 1) -> str:
    return f"/peer/v1/outbox/{aud or run.speaker.id}/{epoch}?from={first}"


def _fetched(run: Run) -> Fetched:
    return Fetched(run.speaker, run.exchange, 0)


async def _held(run: Run) -> Fetched:
    """Return what can be fetched; NotRun when that is no batch, which another check is about."""
    fetched = _fetched(run)
    try:
        await fetched.fetch()
    except (ProtocolError, SignatureInvalid):
        raise NotRun("what is fetched is no batch, which another check is about") from None
    return fetched


async def _hello(run: Run) -> None:
    size, fetched = len(run.speaker.taken), await _held(run)
    root = run.root_at(size) if size else EMPTY_ROOT
    held = Edge.EMPTY.extend(map(leaf_hash, fetched.records))
    heads = Heads(
        (Written(run.speaker.epoch, size, size, root),) if size else (),
        (Held(fetched.epoch, held.size, held.root()),) if held.size else (),
    )
    answer = await run.exchange.send(run.speaker.signed("POST", _HELLO, encode_heads(heads), before=_JSON))
    if answer.status != OK:
        fail(f"answered {said(answer)}, not 200")
    try:
        theirs = parse_heads(answer.body, caller=run.exchange.node_id, callee=run.speaker.id)
    except ProtocolError as error:
        fail(f"its heads are none ({error.code})")
    mine = [one for one in theirs.held if one.epoch == run.speaker.epoch]
    if size and [(one.size, one.root) for one in mine] != [(size, root)]:
        fail("it does not say that it holds of our stream what it gave receipts for")


async def _no_hello(run: Run) -> None:
    request = run.speaker.signed("POST", _HELLO, b"no JSON", before=_JSON)
    expect_problem(await run.exchange.send(request), "malformed")


async def _incomplete_hello(run: Run) -> None:
    request = run.speaker.signed("POST", _HELLO, json.dumps({"v": 1}).encode(), before=_JSON)
    expect_problem(await run.exchange.send(request), "schema-invalid")


async def _batch(run: Run) -> None:
    fetched = _fetched(run)
    try:
        answer = await fetched.fetch()
    except (ProtocolError, SignatureInvalid) as error:
        fail(f"what is fetched is no batch of the node's stream, from its beginning to a signed checkpoint ({error})")
    if answer.status == _NOT_FOUND:
        raise NotRun("the node has nothing to say to us")
    if answer.status != OK:
        fail(f"answered {said(answer)}, not 200")
    if not answer.headers.get("content-type", "").startswith(MEDIA_TYPE):
        fail(f"the batch is not of type {MEDIA_TYPE}")


async def _behind(run: Run) -> None:
    answer = await run.get(_outbox(run, 2**40))
    members = answer.members()
    if answer.status != _NOT_FOUND or not all(type(members.get(name)) is int for name in ("written", "epoch")):
        fail(f'answered {said(answer)}, not 404 with {{"written": …, "epoch": …}}')


async def _anothers_outbox(run: Run) -> None:
    expect_problem(await run.get(_outbox(run, aud=_OTHER_NODE)), "wrong-audience")


async def _epoch_zero(run: Run) -> None:
    expect_problem(await run.get(_outbox(run, epoch=0)), "malformed")


async def _bring(run: Run, size: int, note: bytes, code: str | None, *, iss: str | None = None) -> None:
    epoch = StreamId.parse(Checkpoint.parse(parse_note(note).text).origin).epoch
    path = f"/peer/v1/receipts/{iss or run.exchange.node_id}/{epoch}/{size}"
    answer = await run.exchange.send(run.speaker.signed("PUT", path, note, before=_TEXT))
    if code is not None:
        expect_problem(answer, code)
        return
    if answer.status != OK:
        fail(f"answered {said(answer)}, not 200")
    receipted = answer.members().get("receipted")
    if type(receipted) is not int or receipted < size:
        fail("it does not say that so much is receipted now")


async def _receipt(run: Run) -> tuple[int, bytes]:
    fetched = await _held(run)
    if not fetched.records:
        raise NotRun("the node has nothing to say to us")
    return fetched.receipt()


async def _brought(run: Run) -> None:
    size, note = await _receipt(run)
    await _bring(run, size, note, None)
    await _bring(run, size, note, None)


async def _half_signed(run: Run) -> None:
    size, raw = await _receipt(run)
    note = parse_note(raw)
    await _bring(run, size, Note(note.text, note.signatures[:-1]).to_bytes(), "bad-signature")


async def _another_size(run: Run) -> None:
    size, note = await _receipt(run)
    await _bring(run, size + 1, note, "malformed")


async def _not_theirs(run: Run) -> None:
    size, note = await _receipt(run)
    await _bring(run, size, note, "wrong-audience", iss=_OTHER_NODE)


async def _own_records(run: Run) -> None:
    if not run.speaker.taken:
        raise NotRun("the node has taken nothing of us")
    path = f"/peer/v1/inbox/{run.speaker.id}/{run.speaker.epoch}?from=0"
    answer = await run.get(path)
    if answer.status == _NOT_FOUND and answer.members().get("code") == "not-found":
        raise NotRun("the node leaves this endpoint out, as it may")
    if answer.status != OK:
        fail(f"answered {said(answer)}, not 200")
    raw, records = decode_batch(answer.body, bytes_max=len(answer.body))
    if records != run.speaker.taken[: len(records)]:
        fail("these are not the records that we sent, byte for byte")
    covered = Checkpoint.parse(parse_note(raw).text)
    if (covered.size, covered.root) != (len(records), run.root_at(len(records))):
        fail("the receipt does not cover exactly the records that come with it")


async def _mirrored(run: Run) -> None:
    """The mirror is for everybody: whoever asks may have keys that the node does not know yet."""
    path = "/peer/v1/directory/timestamp.json"
    answer = await run.exchange.send(Request("GET", run.speaker.target_url + path, {}, b""))
    if answer.status == _NOT_FOUND:
        raise NotRun("the node has no mirror of the directory, as it may")
    if answer.status != OK or not isinstance(answer.members().get("signed"), dict):
        fail(f"answered {said(answer)}, not 200 with metadata")


_FETCH: Final = "5. GET /peer/v1/outbox/{aud}/{epoch}"
_BRING: Final = "5. PUT /peer/v1/receipts/{iss}/{epoch}/{size}"
_BACK: Final = "5. GET /peer/v1/inbox/{iss}/{epoch}"
_GREET: Final = "5. POST /peer/v1/hello"

_ALL: Final = (
    ("hello", _GREET, "what we hold and have written", "200 with what the node holds and has written", _hello),
    ("hello-no-json", _GREET, "a hello that is no JSON", "400 malformed", _no_hello),
    ("hello-incomplete", _GREET, "a hello without its lists", "422 schema-invalid", _incomplete_hello),
    ("outbox", _FETCH, "a question for the node's stream to us", "a batch, signed by every stream key", _batch),
    ("outbox-behind", _FETCH, "a question behind its end", "404 with written and epoch", _behind),
    ("another-outbox", _FETCH, "a question for another's records", "421 wrong-audience", _anothers_outbox),
    ("outbox-epoch-range", _FETCH, "a question for epoch 0", "400 malformed", _epoch_zero),
    ("own-records", _BACK, "a question for our own records", "a batch of them under its receipt", _own_records),
    ("bring-half-receipt", _BRING, "a receipt by one of our keys", "401 bad-signature", _half_signed),
    ("bring-another-size", _BRING, "a receipt at the path of another size", "400 malformed", _another_size),
    ("bring-elsewhere", _BRING, "a receipt for another node", "421 wrong-audience", _not_theirs),
    ("bring-receipt", _BRING, "our receipt for what was fetched, twice", "200 with receipted", _brought),
)

CATCHUP_CHECKS: Final = (
    *(Check(name, section, sends, expects, _optional(check, _outbox)) for name, section, sends, expects, check in _ALL),
    Check(
        "directory-mirror",
        "5. GET /peer/v1/directory/{file}",
        "a question for the directory's timestamp, unsigned",
        "200 with the metadata",
        _mirrored,
    ),
)
