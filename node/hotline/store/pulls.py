"""How far we fetched a peer's stream, and which of our receipts for it the peer still lacks. Decides nothing."""

from dataclasses import dataclass

from node.hotline.store import inbound
from node.platform.database import Transaction

#: The first epoch of every stream.
_FIRST_EPOCH = 1
#: Receipts brought to a peer in one turn.
_OWED_MAX = 16


@dataclass(frozen=True, slots=True)
class PullHead:
    """Where to fetch from: an epoch and its size, or how far of it our receipts count."""

    epoch: int
    size: int


async def head(tx: Transaction, peer: str) -> PullHead:
    """Return where to go on fetching from `peer`: behind the last receipt that counts of the first epoch that needs it.

    What is held already and has none comes again, to be receipted again.
    """
    row = await tx.row(
        "SELECT h.epoch, h.covered FROM (SELECT s.epoch, s.size, coalesce((SELECT max(b.size) FROM inbound_batches b "
        "WHERE b.stream = s.id AND NOT b.worthless), 0) AS covered FROM inbound_streams s WHERE s.peer = $1) h "
        "ORDER BY h.covered < h.size DESC, CASE WHEN h.covered < h.size THEN h.epoch ELSE -h.epoch END LIMIT 1",
        peer,
    )
    return PullHead(_FIRST_EPOCH, 0) if row is None else PullHead(row["epoch"], row["covered"])


async def begin(tx: Transaction, peer: str, epoch: int) -> None:
    """Remember which of our receipts a peer has, before the first record of an epoch is fetched.

    Those for what was held before went back as answers to what the peer sent.
    """
    await inbound.create_stream(tx, peer, epoch)
    await tx.execute(
        "INSERT INTO pull_cursors (stream, receipted) SELECT s.id, coalesce((SELECT max(b.size) FROM inbound_batches b "
        "WHERE b.stream = s.id AND NOT b.worthless), 0) FROM inbound_streams s "
        "WHERE s.peer = $1 AND s.epoch = $2 ON CONFLICT DO NOTHING",
        peer,
        epoch,
    )


async def owed(tx: Transaction, peer: str) -> list[tuple[int, int, int, bytes]]:
    """Return (stream, epoch, size, receipt) of what was fetched and the peer lacks, oldest first."""
    rows = await tx.fetch(
        "SELECT s.id, s.epoch, b.size, b.receipt FROM pull_cursors p JOIN inbound_streams s ON s.id = p.stream "
        "JOIN inbound_batches b ON b.stream = s.id AND b.size > p.receipted AND NOT b.worthless "
        "WHERE s.peer = $1 ORDER BY s.epoch, b.size LIMIT $2",
        peer,
        _OWED_MAX,
    )
    return [(row["id"], row["epoch"], row["size"], row["receipt"]) for row in rows]


async def brought(tx: Transaction, stream: int, size: int, note: bytes) -> None:
    """Note that the peer has our receipts of a stream up to `size`, of which `note` is the last.

    Not where it lost its worth while it was on its way: the one that is given anew is brought, too. Its row is locked,
    as by whoever marks it, so that one of the two sees what the other did.
    """
    stands = await tx.value(
        "SELECT size FROM inbound_batches WHERE stream = $1 AND size = $2 AND receipt = $3 AND NOT worthless "
        "FOR UPDATE",
        stream,
        size,
        note,
    )
    if stands is not None:
        await tx.execute("UPDATE pull_cursors SET receipted = $2 WHERE stream = $1 AND receipted < $2", stream, size)


async def bring_again(tx: Transaction, peer: str, epoch: int, size: int) -> None:
    """Let the receipts behind `size` of a stream that we fetch be brought once more; the peer has lost them."""
    await tx.execute(
        "UPDATE pull_cursors SET receipted = $3 WHERE receipted > $3 AND stream IN "
        "(SELECT id FROM inbound_streams WHERE peer = $1 AND epoch = $2)",
        peer,
        epoch,
        size,
    )
