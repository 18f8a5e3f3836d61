"""Reads what stands until a person sees to it: for the warnings of `hotline status` and `/healthz`, and for gauges.

Counts, ids and codes, never content. Decides nothing.
"""

from dataclasses import dataclass
from datetime import datetime

from node.clock import rfc3339
from node.hotline.domain.absence import absence, in_words
from node.hotline.domain.custody import LATE
from node.hotline.store import desk, heads
from node.hotline.store.astray import OutOfReach, out_of_reach
from node.hotline.store.desk import refusal_sentence
from node.hotline.store.heads import StoredDifference, difference_sentences
from node.platform.database import Row, Transaction
from node.platform.telemetry import Metrics
from protocol.codes import NodeState
from protocol.directory import Directory


@dataclass(frozen=True, slots=True)
class HeldUp:
    """How many reports and transfers wait for a hotline that is suspended, or are late; `since` is the oldest's time.

    What could go another way was taken back: the items of these wait, too.
    """

    node: str
    code: str
    records: int
    since: datetime

    @property
    def sentence(self) -> str:
        """Say it for a person, without a full stop."""
        why = "" if self.code == LATE else f", which {in_words(self.code)}"
        return f"{self.records} records wait for {self.node}{why}, the oldest since {rfc3339(self.since)}"


@dataclass(frozen=True, slots=True)
class Standing:
    """What stands at one moment.

    `equivocations` are how many proofs (`proofs`) there are that a `peer` told two stories, and how many more were seen
    and not kept (`left_out`), `relay_failures` how many `records` a `node` never receipted, by `code`: those went
    another way, and are no warning. `out_of_reach` is empty where no directory says who is a member, and so is
    `held_up`. `unreachable` are how many `records` wait for a `peer` that only fetches, as we do.
    """

    differences: list[StoredDifference]
    desk_refusals: list[Row]
    equivocations: list[Row]
    relay_failures: list[Row]
    out_of_reach: tuple[OutOfReach, ...]
    unreachable: list[Row]
    held_up: tuple[HeldUp, ...]

    def sentences(self) -> list[str]:
        """Return what needs a person, without full stops."""
        return [
            *(_two_stories(row) for row in self.equivocations),
            *(one.sentence for one in self.out_of_reach),
            *(one.sentence for one in self.held_up),
            *(
                f"{row['records']} records for {row['peer']} cannot be delivered: neither can be called"
                for row in self.unreachable
            ),
            *difference_sentences(self.differences),
            *(refusal_sentence(row) for row in self.desk_refusals),
        ]

    def set_gauges(self, metrics: Metrics) -> None:
        """Put the counts in the place of those of before."""
        metrics.equivocations.clear()
        for row in self.equivocations:
            metrics.equivocations.labels(peer=row["peer"]).set(row["proofs"])
        metrics.stream_differences.clear()
        for one in self.differences:
            metrics.stream_differences.labels(peer=one.peer, kind=one.kind.value).inc()
        metrics.desk_refusals.clear()
        for row in self.desk_refusals:
            metrics.desk_refusals.labels(kind=row["kind"], code=row["code"]).set(row["cases"])
        metrics.items_out_of_reach.clear()
        for held in self.out_of_reach:
            metrics.items_out_of_reach.labels(peer=held.node, code=held.code).set(held.items)
        metrics.relay_failures.clear()
        for row in self.relay_failures:
            metrics.relay_failures.labels(peer=row["node"], code=row["code"]).set(row["records"])


async def read_standing(
    tx: Transaction, own: str, directory: Directory | None, late_before: datetime | None = None
) -> Standing:
    """Return what stands now at the node `own`, by the directory in use; what was written `late_before` is late."""
    return Standing(
        differences=await heads.differences(tx),
        desk_refusals=await desk.refusals(tx),
        equivocations=await tx.fetch(_EQUIVOCATIONS),
        relay_failures=await tx.fetch(_RELAY_FAILURES),
        out_of_reach=() if directory is None else await out_of_reach(tx, own, directory),
        unreachable=[] if directory is None else await _unreachable(tx, own, directory),
        held_up=() if directory is None else await _held_up(tx, directory, late_before),
    )


def _two_stories(row: Row) -> str:
    more = f", and {row['left_out']} more were seen" if row["left_out"] else ""
    return f"{row['peer']} told two stories: {row['proofs']} proofs of it are stored{more}"


async def _held_up(tx: Transaction, directory: Directory, late_before: datetime | None) -> tuple[HeldUp, ...]:
    def code(row: Row) -> str | None:
        late = late_before is not None and row["since"] < late_before
        return absence(directory, row["peer"]) or (LATE if late else None)

    shown = {NodeState.SUSPENDED.value, LATE}
    if not (peers := [row["peer"] for row in await tx.fetch(_OLDEST) if code(row) in shown]):
        return ()
    rows = [(row, code(row)) for row in await tx.fetch(_GIVING, peers)]
    return tuple(HeldUp(row["peer"], why, row["records"], row["since"]) for row, why in rows if why in shown)


_OLDEST = (
    "SELECT s.peer, min(o.created_at) AS since FROM outbound_streams s JOIN delivery_cursors c ON c.stream = s.id "
    "JOIN outbox o ON o.stream = s.id AND o.idx = c.acked_size WHERE s.next_index > c.acked_size "
    "GROUP BY s.peer ORDER BY s.peer"
)
_GIVING = (
    "SELECT s.peer, count(*) AS records, min(o.created_at) AS since FROM outbound_streams s "
    "JOIN delivery_cursors c ON c.stream = s.id JOIN outbox o ON o.stream = s.id AND o.idx >= c.acked_size "
    "JOIN items i ON i.id = o.item_id WHERE s.peer = ANY($1) AND o.type IN ('report', 'transfer') "
    "AND i.assigned_node = s.peer AND i.state IN ('sent', 'leaving') GROUP BY s.peer ORDER BY s.peer"
)


async def _unreachable(tx: Transaction, own: str, directory: Directory) -> list[Row]:
    fetching = directory.fetching()
    return await tx.fetch(_UNREACHABLE, sorted(fetching - {own})) if own in fetching else []


_EQUIVOCATIONS = (
    "SELECT e.peer, count(*) AS proofs, max(p.equivocations_left_out) AS left_out FROM equivocations e "
    "LEFT JOIN peers p ON p.node_id = e.peer GROUP BY 1 ORDER BY 1"
)
_UNREACHABLE = (
    "SELECT s.peer, sum(s.next_index - c.acked_size)::bigint AS records FROM outbound_streams s "
    "JOIN delivery_cursors c ON c.stream = s.id WHERE s.peer = ANY($1) AND s.next_index > c.acked_size "
    "GROUP BY 1 ORDER BY 1"
)
_RELAY_FAILURES = (
    "SELECT node, code, count(*) AS records, max(attempts) AS attempts FROM relay_failures GROUP BY 1, 2 ORDER BY 1, 2"
)
