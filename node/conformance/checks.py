"""What a check is, what it may ask of a run, and how it says that a node fails; the checks themselves are elsewhere."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NoReturn

from node.conformance.exchange import Answer, Exchange, NoAnswer
from node.conformance.member import Log, Member
from node.conformance.outcomes import Outcomes
from node.conformance.speaker import Batch, Speaker
from protocol.checkpoint import Checkpoint
from protocol.cosignature import verify_checkpoint, verify_cosignature
from protocol.errors import ProtocolError
from protocol.keys import Algorithm, KeyUse, SignatureInvalid, SigningKey
from protocol.merkle import Edge, leaf_hash
from protocol.note import parse_note
from protocol.problems import MEDIA_TYPE, REGISTRY, TYPE_PREFIX

OK: Final = 200
#: A note says when it was made; a receipt that is further from our clock was not made now.
_RECEIPT_WINDOW_S: Final = 300


class Failed(Exception):  # noqa: N818 -- names the fact
    """The node does not do what the specification wants; the text says how, in one sentence."""


class NotRun(Exception):  # noqa: N818 -- names the fact
    """The check cannot be made here; the text says why, in one sentence."""


class Verdict(StrEnum):
    """What came of a check."""

    OK = "ok"
    FAILED = "FAILED"
    NOT_RUN = "not run"


@dataclass(slots=True)
class Run:
    """One run against one node: who speaks, how it is sent, and what is known of the node by now."""

    member: Member
    speaker: Speaker
    exchange: Exchange
    log: Log
    outcomes: Outcomes | None
    limits: dict[str, int] = field(default_factory=dict)
    receipts: list[tuple[int, bytes]] = field(default_factory=list)

    async def get(self, path: str, **how: Any) -> Answer:
        """Ask for `path`, signed as `how` says."""
        return await self.exchange.send(self.speaker.signed("GET", path, **how))

    async def put(self, batch: Batch, *, path: str | None = None, chunked: bool = False, **how: Any) -> Answer:
        """Send a batch, which the node may take: it stands in our log before it leaves."""
        taken = self.speaker.taken
        if batch.first <= len(taken):
            goes_on = [*taken[: batch.first], *batch.records]
            self.log.keep(goes_on if len(goes_on) > len(taken) else taken)
        request = self.speaker.signed("PUT", path or self.speaker.inbox_path(batch.first), batch.body, **how)
        return await self.exchange.send(request, chunked=chunked)

    async def deliver(self, records: Sequence[bytes] | int) -> Answer:
        """Send the next records; raises NotRun when the node does not take them, which other checks are about."""
        batch = self.speaker.batch(records)
        answer = await self.put(batch)
        if answer.status != OK:
            code = answer.members().get("code")
            raise NotRun(f"a good batch was answered {answer.status} {code or ''}".rstrip())
        self.took(batch, answer)
        return answer

    def took(self, batch: Batch, answer: Answer) -> None:
        """Note that the node has taken a batch that continues our log."""
        self.speaker.taken = [*self.speaker.taken[: batch.first], *batch.records]
        self.receipts.append((len(self.speaker.taken), answer.body))

    async def held(self) -> int:
        """Return how many of our records the node says it holds; raises NotRun when it does not say it."""
        answer = await self.get(f"/peer/v1/streams/{self.speaker.id}")
        if answer.status == OK:
            return Checkpoint.parse(parse_note(answer.body).text).size
        if answer.members() == {"held": None}:
            return 0
        raise NotRun("the node does not say what it holds of our stream")

    def receipt_of(self, index: int) -> bytes:
        """Return the receipt that was first given for the record at `index`."""
        for end, receipt in self.receipts:
            if index < end:
                return receipt
        raise NotRun("no receipt was had for this record")

    def check_receipt(self, answer: Answer, batch: Batch) -> None:
        """Fail unless the answer is the receipt of exactly this batch."""
        if answer.status != OK:
            fail(f"the batch was answered {said(answer)}, not 200")
        if not answer.headers.get("content-type", "").startswith("text/plain"):
            fail("the receipt is not of type text/plain")
        try:
            note = parse_note(answer.body)
            covered = Checkpoint.parse(note.text)
        except ProtocolError as error:
            fail(f"the body is no signed checkpoint ({error.detail})")
        if covered != batch.checkpoint:
            fail("the receipt is for another checkpoint than the batch's: its origin, size or root differs")
        entry, now = self.exchange.directory, self.speaker.now()
        keys = entry.verification_keys(self.exchange.node_id, KeyUse.RECEIPT, now)
        name = f"{self.exchange.node_id}/receipt"
        try:
            at = verify_cosignature(note, covered, name, keys)
        except SignatureInvalid:
            fail(f"the receipt is not signed, at one time, by each of the node's {len(keys)} receipt keys as {name}")
        if abs(at - now.timestamp()) > _RECEIPT_WINDOW_S:
            fail("the receipt's time is not now")
        try:
            verify_checkpoint(note, covered, [one.public() for one in self.speaker.keys.signing(KeyUse.STREAM)])
        except SignatureInvalid:
            fail("the sender's own signature lines are not kept in the receipt")

    def root_at(self, size: int) -> bytes:
        """Return the root of our own log at `size`."""
        return Edge.EMPTY.extend(leaf_hash(one) for one in self.speaker.taken[:size]).root()


@dataclass(frozen=True, slots=True)
class Check:
    """One rule of docs/protocol.md, held from outside: what is sent, what is awaited, and how that is tried.

    `trace` is what it leaves at the node that a person sees; such checks are made only when asked for.
    """

    name: str
    section: str
    sends: str
    expects: str
    run: Callable[[Run], Awaitable[None]]
    trace: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one check, and one sentence where it is not `ok`."""

    number: int
    check: Check
    verdict: Verdict
    sentence: str = ""


async def make(number: int, check: Check, run: Run, *, destructive: bool) -> Result:
    """Make one check; what a node does never ends the run."""
    if check.trace and not destructive:
        return Result(number, check, Verdict.NOT_RUN, f"it leaves {check.trace}; --destructive makes it")
    try:
        await check.run(run)
    except Failed as failed:
        return Result(number, check, Verdict.FAILED, str(failed))
    except NoAnswer as nothing:
        return Result(number, check, Verdict.FAILED, str(nothing))
    except (ProtocolError, SignatureInvalid) as error:
        # Where a check reads an answer by the way; what is wrong with it has no check of its own.
        return Result(number, check, Verdict.FAILED, f"what came back breaks the protocol ({error})")
    except NotRun as reason:
        return Result(number, check, Verdict.NOT_RUN, str(reason))
    return Result(number, check, Verdict.OK)


def own_stream(run: Run) -> str:
    """Return the path of our own stream, which any member may ask for."""
    return f"/peer/v1/streams/{run.speaker.id}"


def stranger_key() -> SigningKey:
    """Return a key that no directory lists; it is no secret, for it counts nowhere."""
    return SigningKey(Algorithm.ED25519, b"no directory lists this key.    ")


def fail(sentence: str) -> NoReturn:
    """Say that the node does not do what it must."""
    raise Failed(sentence)


def said(answer: Answer) -> str:
    """Return status and code of an answer as a sentence has them; nothing else of a node's text is repeated."""
    code = answer.members().get("code")
    known = code if isinstance(code, str) and code.replace("-", "").isalnum() and code.isascii() else None
    return f"{answer.status} {known}" if known else str(answer.status)


def expect_problem(answer: Answer, code: str, **members: object) -> dict[str, Any]:
    """Fail unless the answer is exactly this problem of the registry, with these further members; returns them all.

    A member given as a type need only be of that type.
    """
    wanted = REGISTRY[code]
    if answer.status != wanted.status or answer.members().get("code") != code:
        fail(f"answered {said(answer)}, not {wanted.status} {code}")
    if not answer.headers.get("content-type", "").startswith(MEDIA_TYPE):
        fail(f"the problem is not of type {MEDIA_TYPE}")
    found = answer.members()
    registered = {
        "type": TYPE_PREFIX + code,
        "status": wanted.status,
        "retryable": wanted.retryable,
        "scope": wanted.scope.value,
        "title": str,
        "detail": str,
    }
    for name, value in {**registered, **members}.items():
        have = found.get(name)
        if isinstance(value, type):
            if not isinstance(have, value) or isinstance(have, bool) is not (value is bool):
                fail(f"the problem {code} has no member {name} of the right type")
        elif have != value:
            fail(f"the member {name} of the problem {code} is not {value!r}")
    return found


def expect_outside(answer: Answer, status: int, code: str) -> None:
    """Fail unless the answer is a problem of section 5, "Before everything else"."""
    if answer.status != status or answer.members().get("code") != code:
        fail(f"answered {said(answer)}, not {status} {code}")
    if not answer.headers.get("content-type", "").startswith(MEDIA_TYPE):
        fail(f"the problem is not of type {MEDIA_TYPE}")
