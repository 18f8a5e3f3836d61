"""Checks of the checking order, steps 1 to 8: batches that break one rule each, and the order of the steps."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

from node.conformance.checks import OK, Check, NotRun, Run, expect_problem, fail, said
from node.conformance.speaker import Batch, with_body, without
from protocol.batch import BATCH_RECORDS_MAX
from protocol.checkpoint import StreamId
from protocol.keys import KeyUse
from protocol.merkle import leaf_hash
from protocol.note import Note, NoteSignature, parse_note

_SECTION: Final = "6. Checking order, step"
_OTHER_NODE: Final = "other.hotline.example"
_OTHER_ROOT: Final = leaf_hash(b"another tree")
#: A node that takes larger bodies than this is believed; nobody's line is filled to hold it to its word.
_BODY_BYTES_MAX: Final = 16_777_216

Make = Callable[[Run], Batch]
Signatures = tuple[NoteSignature, ...]


def _refused(code: str, make: Make, **members: object) -> Callable[[Run], Awaitable[None]]:
    """A batch is answered with the problem."""

    async def run_check(run: Run) -> None:
        expect_problem(await run.put(make(run)), code, **members)

    return run_check


def _in_path(code: str, path: Callable[[Run], str]) -> Callable[[Run], Awaitable[None]]:
    """A good batch that is put at another path is answered with the problem."""

    async def run_check(run: Run) -> None:
        expect_problem(await run.put(run.speaker.batch(1), path=path(run)), code)

    return run_check


def _framed(spoil: Callable[[bytes], bytes], records: int = 2) -> Make:
    """A batch whose body is spoiled before it is signed."""

    def make(run: Run) -> Batch:
        batch = run.speaker.batch(records)
        return replace(batch, framed=spoil(batch.body))

    return make


def _text(change: Callable[[list[str]], list[str]]) -> Make:
    """A batch whose checkpoint has other lines; its signature lines stay, for step 8 is far away."""

    def make(run: Run) -> Batch:
        batch = run.speaker.batch(1)
        text, _, signatures = batch.note.decode().partition("\n\n")
        note = "\n".join(change(text.split("\n"))) + "\n\n" + signatures
        return replace(batch, note=note.encode())

    return make


def _lines(batch: Batch, choose: Callable[[Signatures], Signatures]) -> Batch:
    """Change the signature lines of a batch's note."""
    note = parse_note(batch.note)
    return replace(batch, note=Note(note.text, choose(note.signatures)).to_bytes())


def _flipped(one: NoteSignature) -> NoteSignature:
    return replace(one, signature=one.signature[:-1] + bytes([one.signature[-1] ^ 1]))


def _stream(run: Run, *, iss: str | None = None, aud: str | None = None) -> str:
    return StreamId(iss or run.speaker.id, aud or run.exchange.node_id, run.speaker.epoch).origin()


def _with_held(run: Run) -> Sequence[bytes]:
    """Return the last record that the node holds of us."""
    if not run.speaker.taken:
        raise NotRun("the node has taken nothing of us")
    return run.speaker.taken[-1:]


def _copied_wrongly(run: Run) -> Batch:
    """The signed root is the one held; only the record in the body is another."""
    _with_held(run)
    batch = run.speaker.cut(len(run.speaker.taken) - 1, len(run.speaker.taken))
    return replace(batch, records=(run.speaker.reports(1)[0],))


def _accusation(run: Run) -> Batch:
    """Another record at a held index, and a root it leads to, but not every key has signed that."""
    _with_held(run)
    batch = run.speaker.batch(1, first=len(run.speaker.taken) - 1)
    return _lines(batch, lambda lines: lines[:1])


async def _size(run: Run) -> None:
    limit = run.limits.get("body_bytes_max", 0)
    if not 0 < limit <= _BODY_BYTES_MAX:
        raise NotRun("the node names no limit for a body, or one above 16 MiB")
    request = run.speaker.signed("PUT", run.speaker.inbox_path(len(run.speaker.taken)), bytes(limit + 1))
    expect_problem(await run.exchange.send(request), "too-large")


async def _records(run: Run) -> None:
    limit = run.limits.get("batch_records_max", 0)
    if limit < 1:
        raise NotRun("the node names no limit for the records of a batch")
    batch = run.speaker.batch(1)
    framed = batch.note + b"\n" + b"{}\n" * (min(limit, BATCH_RECORDS_MAX) + 1)
    expect_problem(await run.put(replace(batch, framed=framed)), "too-large")


async def _bytes(run: Run) -> None:
    limit = run.limits.get("batch_bytes_max", 0)
    if limit < 1:
        raise NotRun("the node names no limit for the bytes of a batch")
    size = 50_000
    batch = run.speaker.batch(1)
    body = batch.note + b"\n" + (b"x" * size + b"\n") * (limit // size + 1)
    expect_problem(await run.put(replace(batch, framed=body)), "too-large")


async def _gap(run: Run) -> None:
    expect_problem(await run.put(run.speaker.ahead(3)), "stream-gap", expected=len(run.speaker.taken))


async def _nothing_stored(run: Run) -> None:
    held = await run.held()
    if held != len(run.speaker.taken):
        fail(f"the node holds {held} of our records and gave receipts for {len(run.speaker.taken)}")


async def _goes_on(run: Run) -> None:
    batch = run.speaker.batch(2)
    answer = await run.put(batch)
    if answer.status != OK:
        fail(f"after what was refused, a good batch is answered {said(answer)}, not 200")
    run.took(batch, answer)


def _two_faults(run: Run) -> Batch:
    """A gap, another root and a signature missing."""
    history = [*run.speaker.taken, *run.speaker.reports(1)]
    return _lines(run.speaker.batch(1, history=history, root=_OTHER_ROOT), lambda lines: lines[:1])


async def _digest_first(run: Run) -> None:
    expect_problem(await run.put(run.speaker.batch(1), after=with_body(b"x")), "digest-mismatch")


async def _size_first(run: Run) -> None:
    limit = run.limits.get("body_bytes_max", 0)
    if not 0 < limit <= _BODY_BYTES_MAX:
        raise NotRun("the node names no limit for a body, or one above 16 MiB")
    path = run.speaker.inbox_path(len(run.speaker.taken))
    unsigned = run.speaker.signed("PUT", path, bytes(limit + 1), after=without("signature", "signature-input"))
    expect_problem(await run.exchange.send(unsigned), "too-large")


_STEPS: Final[tuple[tuple[str, int, str, str, Callable[[Run], Awaitable[None]]], ...]] = (
    ("large-body", 1, "a request of one byte more than body_bytes_max", "413 too-large", _size),
    (
        "last-line-cut",
        4,
        "a batch whose last line is not ended",
        "400 malformed",
        _refused("malformed", _framed(lambda body: body[:-1])),
    ),
    (
        "empty-record",
        4,
        "a batch with an empty line behind",
        "400 malformed",
        _refused("malformed", _framed(lambda body: body + b"\n")),
    ),
    (
        "no-record",
        4,
        "a batch without a record",
        "400 malformed",
        _refused("malformed", _framed(lambda body: body[: body.index(b"\n\n", body.index(b"\n\n") + 2) + 2])),
    ),
    (
        "no-note",
        4,
        "records without a signed note",
        "400 malformed",
        _refused("malformed", _framed(lambda body: body[body.index(b"{") :])),
    ),
    ("many-records", 4, "one record more than batch_records_max", "413 too-large", _records),
    ("many-bytes", 4, "more than batch_bytes_max", "413 too-large", _bytes),
    (
        "size-no-number",
        5,
        "a checkpoint whose size is no number",
        "400 malformed",
        _refused("malformed", _text(lambda text: [text[0], "x", text[2]])),
    ),
    (
        "size-with-a-zero-before",
        5,
        "a checkpoint whose size begins with 0",
        "400 malformed",
        _refused("malformed", _text(lambda text: [text[0], f"0{text[1]}", text[2]])),
    ),
    (
        "short-root",
        5,
        "a checkpoint with a root of one byte",
        "400 malformed",
        _refused("malformed", _text(lambda text: [text[0], text[1], "AA=="])),
    ),
    (
        "extension-line",
        5,
        "a checkpoint of four lines",
        "400 malformed",
        _refused("malformed", _text(lambda text: [*text, "more"])),
    ),
    (
        "other-origin",
        5,
        "a checkpoint of hx/2",
        "400 malformed",
        _refused("malformed", _text(lambda text: [text[0].replace("hx/1", "hx/2", 1), *text[1:]])),
    ),
    (
        "size-not-first-plus-records",
        5,
        "a checkpoint one record ahead of its batch",
        "400 malformed",
        _refused("malformed", lambda run: run.speaker.batch(1, size=len(run.speaker.taken) + 2)),
    ),
    (
        "to-another-node",
        5,
        "a stream to another node",
        "421 wrong-audience",
        _refused("wrong-audience", lambda run: run.speaker.batch(1, origin=_stream(run, aud=_OTHER_NODE))),
    ),
    (
        "of-another-node",
        5,
        "another node's stream",
        "421 wrong-audience",
        _refused("wrong-audience", lambda run: run.speaker.batch(1, origin=_stream(run, iss=_OTHER_NODE))),
    ),
    (
        "path-of-another-node",
        5,
        "our stream at the path of another",
        "421 wrong-audience",
        _in_path("wrong-audience", lambda run: run.speaker.inbox_path(len(run.speaker.taken), iss=_OTHER_NODE)),
    ),
    (
        "path-of-another-epoch",
        5,
        "our stream at the path of another epoch",
        "400 malformed",
        _in_path("malformed", lambda run: run.speaker.inbox_path(len(run.speaker.taken), epoch=run.speaker.epoch + 1)),
    ),
    (
        "epoch-zero",
        5,
        "an epoch of 0",
        "400 malformed",
        _in_path("malformed", lambda run: run.speaker.inbox_path(len(run.speaker.taken), epoch=0)),
    ),
    (
        "index-beyond-all",
        5,
        "an index of 2^70",
        "400 malformed",
        _in_path("malformed", lambda run: run.speaker.inbox_path(2**70)),
    ),
    ("gap", 6, "a batch that leaves three records out", "409 stream-gap with expected", _gap),
    (
        "other-root",
        7,
        "records that do not lead to the signed root",
        "422 root-mismatch",
        _refused("root-mismatch", lambda run: run.speaker.batch(2, root=_OTHER_ROOT)),
    ),
    (
        "copied-wrongly",
        6,
        "another record at a held index, under the root that is held",
        "422 root-mismatch",
        _refused("root-mismatch", _copied_wrongly),
    ),
    (
        "false-accusation",
        8,
        "another record at a held index, not signed by every key",
        "401 bad-signature",
        _refused("bad-signature", _accusation),
    ),
    (
        "one-key-missing",
        8,
        "a checkpoint without its last signature line",
        "401 bad-signature",
        _refused("bad-signature", lambda run: _lines(run.speaker.batch(1), lambda lines: lines[:-1])),
    ),
    (
        "one-signature-wrong",
        8,
        "a checkpoint with one signature that does not verify",
        "401 bad-signature",
        _refused("bad-signature", lambda run: _lines(run.speaker.batch(1), lambda two: (_flipped(two[0]), *two[1:]))),
    ),
    (
        "keys-of-another-use",
        8,
        "a checkpoint signed with our receipt keys",
        "401 bad-signature",
        _refused("bad-signature", lambda run: run.speaker.batch(1, keys=run.speaker.keys.signing(KeyUse.RECEIPT))),
    ),
    ("order-size-before-signature", 1, "a body too large, not signed", "413 too-large", _size_first),
    (
        "order-digest-before-framing",
        3,
        "a body that is neither signed nor a batch",
        "400 digest-mismatch",
        _digest_first,
    ),
    (
        "order-framing-before-origin",
        4,
        "a stream to another node, its last line cut",
        "400 malformed",
        _refused(
            "malformed",
            lambda run: replace(
                batch := run.speaker.batch(1, origin=_stream(run, aud=_OTHER_NODE)), framed=batch.body[:-1]
            ),
        ),
    ),
    (
        "order-origin-before-gap",
        5,
        "a stream to another node, with a gap",
        "421 wrong-audience",
        _refused(
            "wrong-audience",
            lambda run: run.speaker.batch(
                1, origin=_stream(run, aud=_OTHER_NODE), history=[*run.speaker.taken, *run.speaker.reports(1)]
            ),
        ),
    ),
    (
        "order-gap-before-root",
        6,
        "a gap, another root, a signature missing",
        "409 stream-gap",
        _refused("stream-gap", _two_faults),
    ),
    (
        "order-root-before-signature",
        7,
        "another root, a signature missing",
        "422 root-mismatch",
        _refused("root-mismatch", lambda run: _lines(run.speaker.batch(1, root=_OTHER_ROOT), lambda lines: lines[:-1])),
    ),
)

BATCH_CHECKS: Final = (
    *(Check(name, f"{_SECTION} {step}", sends, expects, run) for name, step, sends, expects, run in _STEPS),
    Check(
        "nothing-stored",
        "6. Checking order",
        "a question for what is held, after all that was refused",
        "what receipts were given for, and no more",
        _nothing_stored,
    ),
    Check("goes-on", "6. Checking order", "a good batch, after all that was refused", "200", _goes_on),
)
