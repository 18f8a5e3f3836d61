"""What a peer may send in a time: budgets of new records and bytes that fill again steadily. Pure; stores nothing.

A budget is kept as the moment at which it is full again (the generic cell rate algorithm): one time, whatever the
limits are set to later.
"""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `burst` at once, and `per_s` a second over a long time."""

    per_s: float
    burst: int

    def left(self, full_at: datetime | None, now: datetime) -> int:
        """Return how much may still be taken at `now` of a budget that is full at `full_at` (None: it is)."""
        if full_at is None or full_at <= now:
            return self.burst
        return max(0, math.floor(self.burst - (full_at - now).total_seconds() * self.per_s))

    def after(self, full_at: datetime | None, taken: int, now: datetime) -> datetime:
        """Return when the budget is full again once `taken` was taken at `now`."""
        begin = now if full_at is None else max(full_at, now)
        return begin + timedelta(seconds=taken / self.per_s)

    def wait_s(self, full_at: datetime | None, wanted: int, now: datetime) -> int:
        """Return the whole seconds, at least 1, from `now` until `wanted` (at most: the burst) may be taken."""
        lacking = min(wanted, self.burst) - self.left(full_at, now)
        return max(1, math.ceil(lacking / self.per_s))


@dataclass(frozen=True, slots=True)
class Budget:
    """When a peer's budget of records, and that of bytes, is full again; None: it is."""

    records_full_at: datetime | None = None
    bytes_full_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class BudgetLimits:
    """What each peer may send of new records, in number and in bytes; repeats and retries never count."""

    records: Rate
    bytes: Rate

    def room(self, budget: Budget, records: int, size: int, now: datetime) -> "Room":
        """Return what is left for a batch of `records` records of `size` bytes, told in records of that size."""
        by_number = self.records.left(budget.records_full_at, now)
        by_bytes = self.bytes.left(budget.bytes_full_at, now) * records // max(1, size)
        wait_s = max(
            self.records.wait_s(budget.records_full_at, records, now),
            self.bytes.wait_s(budget.bytes_full_at, size, now),
        )
        return Room(min(by_number, by_bytes), wait_s)

    def after(self, budget: Budget, records: int, size: int, now: datetime) -> Budget:
        """Return the budget once the batch is taken."""
        return Budget(
            self.records.after(budget.records_full_at, records, now), self.bytes.after(budget.bytes_full_at, size, now)
        )


@dataclass(frozen=True, slots=True)
class Room:
    """How many records can be taken now, and how many seconds it takes until the whole batch can."""

    records: int
    wait_s: int
