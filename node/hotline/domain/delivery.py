"""What to do after each answer to a batch: a decision as a value. Pure; waits for nothing and sends nothing."""

from collections.abc import Callable
from dataclasses import dataclass

#: Never smaller than this, so that a peer with little credit still makes progress.
BATCH_RECORDS_MIN = 1
_HALVE_AFTER = frozenset({"too-large", "over-quota"})
#: Problems that no retry of ours mends; asked again only at the cap, with an alarm.
_ALARMS = frozenset({"equivocation", "root-mismatch", "bad-signature", "unknown-key", "key-revoked", "wrong-audience"})


@dataclass(frozen=True, slots=True)
class Problem:
    """A peer's refusal, or our own view of why there was no answer (`unreachable`, `bad-answer`)."""

    code: str
    retry_after_s: float | None = None
    expected: int | None = None
    credit: int | None = None


@dataclass(frozen=True, slots=True)
class BatchAnswer:
    """What came back for a batch: a receipt (raw note, not verified yet) or a problem."""

    receipt: bytes | None
    problem: Problem | None = None
    clock_skew_s: int | None = None


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
    batch_records: int,
    next_index: int,
    base_s: float,
    cap_s: float,
    draw: Callable[[], float],
) -> Decision:
    """Return what to do after `problem` (PROTOCOL section 6).

    `batch_records` is the size of the batch refused and `next_index` the end of our stream.
    """
    jittered = backoff_s(failures, base_s=base_s, cap_s=cap_s, draw=draw)
    if problem.code == "stream-gap" and problem.expected is not None:
        if problem.expected <= next_index and failures == 0:
            return Rewind(problem.expected)
        # Either the peer holds more than we ever wrote, or the rewind did not help: somebody was restored.
        return BackOff(jittered, alarm=problem.expected > next_index)
    if problem.code in _HALVE_AFTER and problem.retry_after_s is None and batch_records > BATCH_RECORDS_MIN:
        half = batch_records // 2
        wanted = half if problem.credit is None else min(half, problem.credit)
        if wanted >= BATCH_RECORDS_MIN:
            return Shrink(wanted)
    if problem.code in _ALARMS:
        return BackOff(cap_s * (0.5 + draw() / 2), alarm=True)
    if problem.retry_after_s is not None:
        return BackOff(min(problem.retry_after_s, cap_s), alarm=False)
    return BackOff(jittered, alarm=problem.code == "clock-skew")
