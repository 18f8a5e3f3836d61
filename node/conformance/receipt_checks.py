"""Checks of receipts, repeats, the endpoints that show what is held, and what a second story is answered with."""

import asyncio
from typing import Final

from node.conformance.checks import OK, Check, NotRun, Run, expect_problem, fail, own_stream, said
from node.conformance.exchange import Answer
from protocol.checkpoint import Checkpoint
from protocol.errors import ProtocolError
from protocol.note import parse_note

_OTHER_NODE: Final = "other.hotline.example"
_FEW: Final = 3
_TRIES: Final = 3


async def _receipt(run: Run) -> None:
    batch = run.speaker.batch(_FEW)
    answer = await run.put(batch)
    if answer.status == OK:
        run.took(batch, answer)
    run.check_receipt(answer, batch)


async def _single(run: Run) -> None:
    """A record that is no record at all: the receipt says that it is stored, and nothing else."""
    batch = run.speaker.batch([b"this is no record"])
    answer = await run.put(batch)
    if answer.status == OK:
        run.took(batch, answer)
    run.check_receipt(answer, batch)


async def _credit(run: Run) -> None:
    answer = await run.deliver(1)
    if not answer.headers.get("hx-credit", "").isdigit():
        fail("the answer to a batch that was stored has no HX-Credit with a number of records")


def _same(run: Run, answer: Answer, index: int, what: str) -> None:
    if answer.status != OK:
        fail(f"{what} is answered {said(answer)}, not 200")
    if answer.body != run.receipt_of(index):
        fail(f"{what} is answered with another receipt than the one first given for its first record")


async def _repeat(run: Run) -> None:
    first = len(run.speaker.taken)
    await run.deliver(_FEW)
    for _ in range(2):
        _same(run, await run.put(run.speaker.cut(first, first + _FEW)), first, "the batch sent again")


async def _smaller_cut(run: Run) -> None:
    first = len(run.speaker.taken)
    await run.deliver(_FEW)
    _same(run, await run.put(run.speaker.cut(first + 1, first + 2)), first + 1, "a part of the batch")


async def _larger_cut(run: Run) -> None:
    first = len(run.speaker.taken)
    await run.deliver(2)
    await run.deliver(2)
    _same(run, await run.put(run.speaker.cut(first + 1, first + 4)), first + 1, "a cut across two batches")


async def _new_behind(run: Run) -> None:
    first = len(run.speaker.taken)
    await run.deliver(2)
    records = [*run.speaker.taken[first:], *run.speaker.reports(2)]
    answer = await run.put(run.speaker.batch(records, first=first))
    _same(run, answer, first, "a repeat with new records behind it")
    if (held := await run.held()) != first + 2:
        fail(f"the new records behind a repeat were stored: {held} are held, not {first + 2}")


async def _at_once(run: Run) -> None:
    """The same batch twice at the same moment."""
    first = len(run.speaker.taken)
    batch = run.speaker.batch(2)
    one, other = await asyncio.gather(run.put(batch), run.put(batch))
    for answer in (one, other):
        if answer.status != OK:
            fail(f"one of two equal batches sent at once is answered {said(answer)}, not 200")
    run.took(batch, one)
    if one.body != other.body:
        fail("two equal batches sent at once got two receipts")
    _same(run, await run.put(run.speaker.cut(first, first + 2)), first, "the batch sent again")


async def _swapped(run: Run) -> None:
    """Two batches whose order the network changes: the second arrives first and waits.

    How long it waits is the node's to choose, so a first batch that is late in earnest is tried anew.
    """
    for _ in range(_TRIES):
        first, second = await _in_wrong_order(run)
        if (first.status, second.status) == (OK, OK):
            return
    fail(f"two batches in the wrong order are answered {said(first)} and {said(second)}, not 200 both")


async def _in_wrong_order(run: Run) -> tuple[Answer, Answer]:
    """Send two batches, the second first; return the answers. What was refused is sent again, so that none is left."""
    early = run.speaker.batch(2)
    late = run.speaker.batch(2, history=[*run.speaker.taken, *early.records])
    run.log.keep([*run.speaker.taken, *early.records, *late.records])
    ahead = run.speaker.signed("PUT", run.speaker.inbox_path(late.first), late.body)
    waiting = asyncio.create_task(run.exchange.send(ahead))
    await asyncio.sleep(0.05)
    first = await run.exchange.send(run.speaker.signed("PUT", run.speaker.inbox_path(early.first), early.body))
    second = await waiting
    if first.status == OK:
        run.took(early, first)
        taken = second if second.status == OK else await run.put(late)
        if taken.status == OK:
            run.took(late, taken)
    return first, second


async def _newest(run: Run) -> None:
    await run.deliver(1)
    answer = await run.get(own_stream(run))
    if answer.status != OK:
        fail(f"answered {said(answer)}, not 200")
    if answer.body != run.receipts[-1][1]:
        fail("it is not the receipt of the newest batch")
    try:
        covered = Checkpoint.parse(parse_note(answer.body).text)
    except ProtocolError:
        fail("the body is no signed checkpoint")
    if (covered.size, covered.root) != (len(run.speaker.taken), run.root_at(len(run.speaker.taken))):
        fail("size and root are not those of what was receipted")


async def _by_index(run: Run) -> None:
    await run.deliver(2)
    for index in range(len(run.speaker.taken) - 4 if len(run.speaker.taken) > 4 else 0, len(run.speaker.taken)):  # noqa: PLR2004
        path = f"/peer/v1/receipts/{run.speaker.id}/{run.speaker.epoch}/{index}"
        try:
            awaited = run.receipt_of(index)
        except NotRun:
            continue
        answer = await run.get(path)
        if answer.status != OK:
            fail(f"the receipt of a record that was receipted is answered {said(answer)}, not 200")
        if answer.body != awaited:
            fail("it is not, byte for byte, the receipt first given for the record")


async def _beyond(run: Run) -> None:
    answer = await run.get(f"/peer/v1/receipts/{run.speaker.id}/{run.speaker.epoch}/{len(run.speaker.taken) + 5}")
    if answer.status != 404 or answer.members() != {"held": None}:  # noqa: PLR2004 -- HTTP
        fail(f'answered {said(answer)}, not 404 with {{"held": null}}')


async def _index_range(run: Run) -> None:
    expect_problem(await run.get(f"/peer/v1/receipts/{run.speaker.id}/0/0"), "malformed")


async def _others_receipt(run: Run) -> None:
    expect_problem(await run.get(f"/peer/v1/receipts/{_OTHER_NODE}/1/0"), "wrong-audience")


async def _others_stream(run: Run) -> None:
    expect_problem(await run.get(f"/peer/v1/streams/{_OTHER_NODE}"), "wrong-audience")


async def _second_story(run: Run) -> None:
    if not run.speaker.taken:
        raise NotRun("the node has taken nothing of us")
    last = len(run.speaker.taken)
    answer = await run.put(run.speaker.batch(1, first=last - 1))
    expect_problem(answer, "equivocation", size=int)


async def _second_root(run: Run) -> None:
    """The record is the one held, the root is another, truly signed: two histories before it."""
    last = len(run.speaker.taken)
    if last < 2:  # noqa: PLR2004 -- a record, and one before it
        raise NotRun("the node has taken too little of us")
    other = [*run.speaker.taken[: last - 2], *run.speaker.reports(1)]
    answer = await run.put(run.speaker.batch(run.speaker.taken[-1:], history=other))
    expect_problem(answer, "equivocation", size=int)


async def _story_goes_on(run: Run) -> None:
    if (held := await run.held()) != len(run.speaker.taken):
        fail(f"something of a second story was stored: {held} records are held, not {len(run.speaker.taken)}")


_RECEIPT: Final = "6. Receipt"
_REPEATS: Final = "6. Repeats"
_RECEIPTS: Final = "5. GET /peer/v1/receipts/{iss}/{epoch}/{index}"
_STREAMS: Final = "5. GET /peer/v1/streams/{iss}"

RECEIPT_CHECKS: Final = (
    Check(
        "receipt",
        _RECEIPT,
        "a batch of three records",
        "200, the batch's own checkpoint, signed by every receipt key at one time, our lines kept",
        _receipt,
    ),
    Check("receipt-of-anything", _RECEIPT, "a record that is no JSON", "200 and its receipt", _single),
    Check("credit", "5. PUT /peer/v1/inbox/{iss}/{epoch}/{first}", "a batch", "HX-Credit", _credit),
    Check("repeat", _REPEATS, "a batch three times", "the same receipt, byte for byte", _repeat),
    Check("repeat-smaller", _REPEATS, "a part of a batch again", "the batch's receipt, byte for byte", _smaller_cut),
    Check("repeat-larger", _REPEATS, "parts of two batches again", "the first one's receipt", _larger_cut),
    Check(
        "repeat-with-new",
        _REPEATS,
        "a batch again, with new records behind",
        "the receipt first given, and nothing new stored",
        _new_behind,
    ),
    Check("repeat-at-once", _REPEATS, "one batch twice at a time", "the same receipt twice", _at_once),
    Check("swapped", "6. Checking order", "two batches in the wrong order", "200 for both", _swapped),
    Check("newest", _STREAMS, "a question for our stream", "the receipt of the newest batch", _newest),
    Check("another-stream", _STREAMS, "a question for another's stream", "421 wrong-audience", _others_stream),
    Check("receipt-by-index", _RECEIPTS, "questions for records", "the receipts first given, byte for byte", _by_index),
    Check("receipt-beyond", _RECEIPTS, "a question for a record not sent", '404 {"held": null}', _beyond),
    Check("receipt-index-range", _RECEIPTS, "a question for epoch 0", "400 malformed", _index_range),
    Check("another-receipt", _RECEIPTS, "a question for another's receipt", "421 wrong-audience", _others_receipt),
)

_TRACE: Final = "a contradiction of the test member, which the node's operators and the coordinator are told of"
EQUIVOCATION_CHECKS: Final = (
    Check(
        "second-story",
        "6. Equivocation",
        "another record at a held index, truly signed",
        "409 equivocation with size",
        _second_story,
        _TRACE,
    ),
    Check(
        "second-root",
        "6. Equivocation",
        "a held record under another root, truly signed",
        "409 equivocation with size",
        _second_root,
        _TRACE,
    ),
    Check(
        "second-story-not-stored",
        "6. Equivocation",
        "a question for what is held, afterwards",
        "what receipts were given for, and no more",
        _story_goes_on,
        _TRACE,
    ),
)
