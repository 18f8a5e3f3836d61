"""How far the streams with a peer have come on our side, and what differs from what the peer says. Decides nothing."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime

from node.hotline.domain.comparison import KNOWS_MORE, Difference, Direction, Kind
from node.hotline.store import inbound, outbound
from node.platform.database import Transaction
from protocol.hello import EPOCHS_MAX, Heads, Held, Written
from protocol.merkle import Edge

#: Mended differences of one peer that are remembered.
_MENDED_MAX = 50


async def read_heads(tx: Transaction, peer: str) -> Heads:
    """Return what we say of both streams with `peer`."""
    written = await tx.fetch(
        "SELECT s.epoch, s.next_index, c.acked_size, c.acked_edge FROM outbound_streams s "
        "JOIN delivery_cursors c ON c.stream = s.id WHERE s.peer = $1 ORDER BY s.epoch DESC LIMIT $2",
        peer,
        EPOCHS_MAX,
    )
    held = await tx.fetch(
        "SELECT epoch, size, edge FROM inbound_streams WHERE peer = $1 ORDER BY epoch DESC LIMIT $2", peer, EPOCHS_MAX
    )
    return Heads(
        tuple(
            Written(
                row["epoch"],
                row["next_index"],
                row["acked_size"],
                Edge.from_bytes(row["acked_size"], row["acked_edge"]).root(),
            )
            for row in reversed(written)
        ),
        tuple(
            Held(row["epoch"], row["size"], Edge.from_bytes(row["size"], row["edge"]).root()) for row in reversed(held)
        ),
    )


async def own_root(tx: Transaction, direction: Direction, peer: str, epoch: int, size: int) -> bytes:
    """Return the root of our copy of a stream when it had `size` leaves; LookupError when it never had."""
    if direction is Direction.OUT:
        found = await outbound.cursor_of(tx, peer, epoch)
        if found is None or size > found.next_index:
            raise LookupError("the stream was not written so far")
        return (await outbound.edge_at(tx, found, size)).root()
    stream = await tx.value("SELECT id FROM inbound_streams WHERE peer = $1 AND epoch = $2", peer, epoch)
    if stream is None:
        raise LookupError("the stream is not held")
    return (await inbound.edge_at(tx, stream, size)).root()


@dataclass(frozen=True, slots=True)
class StoredDifference:
    """A difference as it is kept; `proven` where the peer showed our own signature, or it needs none."""

    peer: str
    direction: Direction
    epoch: int
    kind: Kind
    ours: int
    theirs: int
    proven: bool
    seen_at: datetime


def difference_sentences(found: Sequence[StoredDifference]) -> list[str]:
    """Return differences in words, for a person, without a full stop; what a recovery waits for says what to do."""
    back = {one.peer for one in found if one.direction is Direction.OUT and one.kind in KNOWS_MORE}
    return [_sentence(one, is_back=one.peer in back) for one in found]


def _sentence(one: StoredDifference, *, is_back: bool) -> str:
    if one.kind is Kind.NOT_ASKED and is_back:
        return (
            f"{one.kind.value}: a recovery left out {one.peer}, which can be asked by now and holds what is not known "
            "here: run `hotline recover` again"
        )
    if one.kind is Kind.NOT_ASKED:
        return (
            f"{one.kind.value}: a recovery left out {one.peer}; what it says waits until its hello shows what it holds"
        )
    whose = "our stream to" if one.direction is Direction.OUT else "the stream from"
    return (
        f"{one.kind.value}: of {whose} {one.peer}, epoch {one.epoch}, we say {one.ours} and the peer says {one.theirs}"
    )


async def keep_differences(
    tx: Transaction,
    peer: str,
    found: Sequence[tuple[Difference, bool]],
    looked_for: AbstractSet[Kind],
    now: datetime,
) -> None:
    """Make `found`, each with whether it is proven, the differences with `peer` that stand.

    What was found before, was looked for now and is not among them is mended.
    """
    await tx.execute(
        "UPDATE stream_differences d SET mended_at = $2 WHERE peer = $1 AND mended_at IS NULL AND kind = ANY($6) "
        "AND NOT EXISTS ("
        "SELECT 1 FROM unnest($3::text[], $4::int[], $5::text[]) AS f(direction, epoch, kind) "
        "WHERE f.direction = d.direction AND f.epoch = d.epoch AND f.kind = d.kind)",
        peer,
        now,
        [one.direction.value for one, _ in found],
        [one.epoch for one, _ in found],
        [one.kind.value for one, _ in found],
        [kind.value for kind in looked_for],
    )
    # A peer may invent epochs: what it said once does not stay for ever.
    await tx.execute(
        "DELETE FROM stream_differences WHERE peer = $1 AND mended_at IS NOT NULL AND (direction, epoch, kind) NOT IN ("
        "SELECT direction, epoch, kind FROM stream_differences WHERE peer = $1 AND mended_at IS NOT NULL "
        "ORDER BY mended_at DESC, epoch LIMIT $2)",
        peer,
        _MENDED_MAX,
    )
    if not found:
        return
    await tx.execute(
        "INSERT INTO stream_differences (peer, direction, epoch, kind, ours, theirs, proven, seen_at) "
        "SELECT $1, f.direction, f.epoch, f.kind, f.ours, f.theirs, f.proven, $2::timestamptz "
        "FROM unnest($3::text[], $4::int[], $5::text[], $6::bigint[], $7::bigint[], $8::bool[]) "
        "AS f(direction, epoch, kind, ours, theirs, proven) ON CONFLICT (peer, direction, epoch, kind) DO UPDATE SET "
        "ours = excluded.ours, theirs = excluded.theirs, mended_at = NULL, "
        "proven = excluded.proven OR (stream_differences.proven AND stream_differences.mended_at IS NULL), "
        "seen_at = CASE WHEN stream_differences.mended_at IS NULL "
        "THEN stream_differences.seen_at ELSE excluded.seen_at END",
        peer,
        now,
        [one.direction.value for one, _ in found],
        [one.epoch for one, _ in found],
        [one.kind.value for one, _ in found],
        [one.ours for one, _ in found],
        [one.theirs for one, _ in found],
        [proven for _, proven in found],
    )


async def differences(tx: Transaction, peer: str | None = None) -> list[StoredDifference]:
    """Return the differences that stand, of every peer or of one."""
    rows = await tx.fetch(
        "SELECT peer, direction, epoch, kind, ours, theirs, proven, seen_at FROM stream_differences "
        "WHERE mended_at IS NULL AND ($1::text IS NULL OR peer = $1) ORDER BY peer, direction, epoch, kind",
        peer,
    )
    return [
        StoredDifference(
            row["peer"],
            Direction(row["direction"]),
            row["epoch"],
            Kind(row["kind"]),
            row["ours"],
            row["theirs"],
            row["proven"],
            row["seen_at"],
        )
        for row in rows
    ]


async def leave_out(tx: Transaction, asked: Sequence[str], others: Sequence[str], now: datetime) -> None:
    """Note whom a recovery asks and whom it does not: nothing is exchanged with those until they say what they hold."""
    await tx.execute(
        "UPDATE stream_differences SET mended_at = $3 WHERE kind = $1 AND mended_at IS NULL AND peer = ANY($2)",
        Kind.NOT_ASKED.value,
        list(asked),
        now,
    )
    for peer in others:
        await tx.execute(
            "INSERT INTO stream_differences (peer, direction, epoch, kind, ours, theirs, proven, seen_at) "
            "VALUES ($1, $2, 0, $3, 0, 0, false, $4) "
            "ON CONFLICT (peer, direction, epoch, kind) DO UPDATE SET mended_at = NULL, seen_at = $4",
            peer,
            Direction.OUT.value,
            Kind.NOT_ASKED.value,
            now,
        )


@dataclass(frozen=True, slots=True)
class Stops:
    """Whom nothing is signed for: `set_back` says our stream was set back, by peer and whether that is proven.

    `left_out` are the peers that the last recovery did not ask and that have not shown since what they hold.
    """

    set_back: dict[str, bool]
    left_out: frozenset[str]

    def stands(self, peer: str) -> bool:
        """Tell whether nothing may be signed for a peer."""
        return self.set_back.get(peer, False) or peer in self.left_out


async def stops(tx: Transaction) -> Stops:
    """Return what keeps us from going on with peers."""
    rows = await tx.fetch(
        "SELECT peer, kind, bool_or(proven) AS proven FROM stream_differences WHERE mended_at IS NULL "
        "AND direction = $1 AND (kind = $2 OR kind = $4 OR (kind = $3 AND proven)) GROUP BY peer, kind",
        Direction.OUT.value,
        Kind.SET_BACK.value,
        Kind.OTHER_ROOT.value,
        Kind.NOT_ASKED.value,
    )
    said: dict[str, bool] = {}
    for row in rows:
        if row["kind"] != Kind.NOT_ASKED:
            said[row["peer"]] = row["proven"] or said.get(row["peer"], False)
    return Stops(said, frozenset(row["peer"] for row in rows if row["kind"] == Kind.NOT_ASKED))
