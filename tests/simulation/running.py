"""Runs histories by seed and says what one found: its seed, its events, the shortest way to see it again."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from time import perf_counter

from tests.simulation.plan import Plan, draw
from tests.simulation.world import Outcome, run

#: Lines of the trace shown with a finding.
_LINES = 60
_ROUNDS_MAX = 3


def keeping(plan: Plan, kept: Sequence[int]) -> Plan:
    """Return the plan with only these of its events, counted from 0."""
    return replace(plan, events=tuple(plan.events[number] for number in kept))


def first_finding(seeds: Iterable[int]) -> tuple[Outcome | None, int, float]:
    """Run histories until one finds something; returns it, how many ran, and the seconds they took."""
    started, count = perf_counter(), 0
    for seed in seeds:
        count += 1
        outcome = run(draw(seed))
        if outcome.found is not None:
            return outcome, count, perf_counter() - started
    return None, count, perf_counter() - started


def shortened(plan: Plan, invariant: str, *, runner: Callable[[Plan], Outcome] = run) -> tuple[int, ...]:
    """Return which events are enough to see the invariant broken: each one left out on its own would hide it."""
    kept = list(range(len(plan.events)))
    for _ in range(_ROUNDS_MAX):
        before = len(kept)
        for number in list(kept):
            fewer = [one for one in kept if one != number]
            found = runner(keeping(plan, fewer)).found
            if found is not None and found.invariant == invariant:
                kept = fewer
        if len(kept) == before:
            break
    return tuple(kept)


def report(outcome: Outcome, kept: Sequence[int] | None = None) -> str:
    """Return what a person needs to see a finding again."""
    plan = outcome.plan
    lines = [f"Seed {plan.seed} breaks {outcome.found}", ""]
    if kept is not None:
        plan = keeping(draw(plan.seed), kept)
        lines.append("These events are enough:")
    lines += [f"  {event}" for event in plan.events]
    lines += ["", "The end of its trace:", *outcome.trace[-_LINES:], ""]
    chosen = "" if kept is None else f" KEEP={','.join(map(str, kept))}"
    lines.append(f"See it again: make simulate SEED={plan.seed}{chosen}")
    return "\n".join(lines)


def explained(outcome: Outcome) -> str:
    """Return the report on a finding, with the shortened history."""
    if outcome.found is None:
        return "nothing was found"
    kept = shortened(outcome.plan, outcome.found.invariant)
    return report(run(keeping(outcome.plan, kept)), kept)
