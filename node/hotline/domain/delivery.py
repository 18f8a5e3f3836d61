"""What to do after each answer to a batch: a decision as a value. Pure; waits for nothing and sends nothing."""

from collections.abc import Callable
from dataclasses import dataclass

from protocol.problems import REGISTRY

#: Never smaller than this, so that a peer with little credit still makes progress.
BATCH_RECORDS_MIN = 1
#: In the first batch to a peer that failed last.
PROBE_RECORDS = 16
#: How our own codes for "no answer of the peer arrived" begin.
UNREACHABLE = "unreachable-"
_MAY_SHRINK = frozenset({"too-large", "over-quota", "maintenance"})
#: Problems with our keys: around a change of keys the two sides may have two directories, or two clocks.
KEY_PROBLEMS = frozenset({"bad-signature", "unknown-key", "key-revoked"})
#: So often in a row they may pass by themselves: some two minutes, in which a newer directory reaches everybody.
KEY_PROBLEMS_QUIET = 7
#: Problems that no retry of ours mends; asked again only at the cap, with an alarm.
_ALARMS = KEY_PROBLEMS | {"equivocation", "root-mismatch", "wrong-audience", "malformed"}
#: Problems that may pass by themselves, but that a person should know of: a clock, a receipt that proves nothing, and
#: a record that not even alone is small enough.
_TELLS = frozenset({"clock-skew", "bad-receipt", "too-large"})
#: The code of what is no problem on the wire: the desk has no such dispute.
DISPUTE_UNKNOWN = "dispute-unknown"


@dataclass(frozen=True, slots=True)
class Problem:
    """A peer's refusal, or our own view of why there was no answer (`unreachable`, `bad-answer`)."""

    code: str
    retry_after_s: float | None = None
    expected: int | None = None
    credit: int | None = None
    clock_skew_s: int | None = None


def refused_for_good(problem: Problem) -> bool:
    """Say whether what is handed in whole is refused in a way that does not pass by itself.

    `wrong-audience` passes with the next directory: another desk is asked then. `too-large` it stays.
    """
    known = REGISTRY.get(problem.code)
    if known is None or problem.code == "wrong-audience":
        return False
    return not known.retryable or problem.code == "too-large"


@dataclass(frozen=True, slots=True)
class BatchAnswer:
    """What came back for a batch: a receipt (raw note, not verified yet) or a problem.

    `credit`: how many new records the peer can take after this batch, where it said so.
    """

    receipt: bytes | None
    problem: Problem | None = None
    clock_skew_s: int | None = None
    credit: int | None = None


@dataclass(frozen=True, slots=True)
class ReceiptAnswer:
    """What a peer says when it is asked for a receipt: the note, none where it holds nothing, or a problem."""

    note: bytes | None
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class Rewind:
    """Send again from `index`: the peer holds the stream only so far."""

    index: int


@dataclass(frozen=True, slots=True)
class Shrink:
    """Send again at once with at most `records` in a batch."""

    records: int


@dataclass(frozen=True, slots=True)
class BackOff:
    """Leave the peer alone for `seconds`; `alarm` asks for a person."""

    seconds: float
    alarm: bool


Decision = Rewind | Shrink | BackOff


def next_batch_records(wanted: int, *, credit: int | None, in_flight: int) -> int:
    """Return how many records the next batch may hold, 0 to wait for the answers of what is under way.

    `credit` is what the peer last said it can take, `in_flight` the records sent since. With nothing under way the
    answer is never 0: a peer whose credit is used up says in its refusal when to come again.
    """
    if credit is None:
        return wanted
    left = min(wanted, credit - in_flight)
    return max(left, 0 if in_flight else BATCH_RECORDS_MIN)


def backoff_s(failures: int, *, base_s: float, cap_s: float, draw: Callable[[], float]) -> float:
    """Return a full-jitter delay: uniform in [0, min(cap, base * 2^failures)] (PROTOCOL section 6).

    `draw` returns a number in [0, 1); `failures` counts from 0.
    """
    # 2^40 is beyond any cap, and keeps the power small for a peer that has been away for months.
    return draw() * min(cap_s, base_s * float(2 ** min(failures, 40)))


def decide(
    problem: Problem,
    *,
    failures: int,
    first_index: int,
    batch_records: int,
    rewound: bool,
    key_problems: int,
    base_s: float,
    cap_s: float,
    draw: Callable[[], float],
) -> Decision:
    """Return what to do after `problem` (PROTOCOL section 6).

    `first_index` and `batch_records` say which batch was refused; `rewound` that a rewind was tried since the peer was
    last left alone: one is enough, and a peer that always asks for an earlier index must not keep us busy.
    `key_problems` counts the KEY_PROBLEMS met in a row just before.
    """
    jittered = backoff_s(failures, base_s=base_s, cap_s=cap_s, draw=draw)
    if problem.code == "stream-gap" and problem.expected is not None:
        if problem.expected < first_index and not rewound:
            return Rewind(problem.expected)
        # A peer that holds the batch's first index has no gap before it: to believe it would skip records.
        return BackOff(jittered, alarm=problem.expected >= first_index)
    if (wanted := _smaller(problem, batch_records)) >= BATCH_RECORDS_MIN:
        return Shrink(wanted)
    quiet = problem.code in KEY_PROBLEMS and key_problems < KEY_PROBLEMS_QUIET
    if problem.code in _ALARMS and not quiet:
        return BackOff(cap_s * (0.5 + draw() / 2), alarm=True)
    wait_s = jittered if problem.retry_after_s is None else min(problem.retry_after_s, cap_s)
    if quiet:
        wait_s = backoff_s(key_problems, base_s=base_s, cap_s=cap_s, draw=draw)
    return BackOff(wait_s, alarm=problem.code in _TELLS)


def _smaller(problem: Problem, batch_records: int) -> int:
    """Return the records of the batch to try next; 0 when nothing smaller can be cut, or the peer asks for time."""
    half = batch_records // 2
    if problem.code not in _MAY_SHRINK:
        return 0
    if problem.credit is not None:
        return min(half, problem.credit)
    return 0 if problem.code == "maintenance" or problem.retry_after_s is not None else half
