"""Compares what two nodes hold of the stream from one to the other: nothing lost, doubled, altered or unproven."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from node.platform.database import Row
from protocol.bodies import OutcomeBody
from protocol.checkpoint import Checkpoint, StreamId
from protocol.cosignature import verify_checkpoint, verify_cosignature
from protocol.directory import Directory
from protocol.keys import KeyUse
from protocol.merkle import Edge, leaf_hash
from protocol.note import parse_note
from protocol.record import Record, parse_record
from tests.faults.station import Station

_EPOCH = 1


@dataclass(frozen=True, slots=True)
class Log:
    """One side's copy of a stream."""

    size: int
    done: int
    edge: Edge
    leaves: tuple[bytes, ...]
    records: tuple[bytes, ...]
    receipts: dict[int, bytes]


async def sent(station: Station, peer: str) -> Log:
    """Return the sender's copy; `done` is how far it is receipted."""
    vault = await station.vault()
    async with station.db.transaction("test.sent") as tx:
        head = await tx.row(
            "SELECT s.id, s.next_index, c.acked_size, c.acked_edge FROM outbound_streams s "
            "JOIN delivery_cursors c ON c.stream = s.id WHERE s.peer = $1",
            peer,
        )
        assert head is not None, f"{station.id} has no stream to {peer}"
        rows = await tx.fetch(
            "SELECT idx, leaf_hash, record_enc FROM outbox WHERE stream = $1 ORDER BY idx", head["id"]
        )
        notes = await tx.fetch("SELECT size, note FROM receipts WHERE stream = $1", head["id"])
    _contiguous(rows, head["next_index"])
    return Log(
        head["next_index"],
        head["acked_size"],
        Edge.from_bytes(head["acked_size"], head["acked_edge"]),
        tuple(row["leaf_hash"] for row in rows),
        tuple(vault.open_record("outbox", head["id"], row["idx"], row["record_enc"]) for row in rows),
        {row["size"]: row["note"] for row in notes},
    )


async def held(station: Station, peer: str) -> Log:
    """Return the receiver's copy; `done` is how far it is applied."""
    vault = await station.vault()
    async with station.db.transaction("test.held") as tx:
        head = await tx.row(
            "SELECT s.id, s.size, s.edge, c.applied FROM inbound_streams s "
            "JOIN apply_cursors c ON c.stream = s.id WHERE s.peer = $1",
            peer,
        )
        assert head is not None, f"{station.id} holds no stream of {peer}"
        rows = await tx.fetch("SELECT idx, leaf_hash, record_enc FROM inbox WHERE stream = $1 ORDER BY idx", head["id"])
        batches = await tx.fetch(
            "SELECT first, size, edge_before, receipt FROM inbound_batches WHERE stream = $1 ORDER BY size", head["id"]
        )
    _contiguous(rows, head["size"])
    leaves = tuple(row["leaf_hash"] for row in rows)
    at = 0
    for batch in batches:
        assert batch["first"] == at, "batches follow one another"
        assert batch["edge_before"] == Edge.EMPTY.extend(leaves[:at]).to_bytes()
        at = batch["size"]
    assert at == head["size"]
    return Log(
        head["size"],
        head["applied"],
        Edge.from_bytes(head["size"], head["edge"]),
        leaves,
        tuple(vault.open_record("inbox", head["id"], row["idx"], row["record_enc"]) for row in rows),
        {batch["size"]: batch["receipt"] for batch in batches},
    )


def _contiguous(rows: Sequence[Row], size: int) -> None:
    assert [row["idx"] for row in rows] == list(range(size)), "a stream has no gap"


async def check_stream(sender: Station, receiver: Station, directory: Directory) -> list[Record]:
    """Check that both hold the same stream, receipted and applied to its end; return its records."""
    ours, theirs = await sent(sender, receiver.id), await held(receiver, sender.id)
    assert ours.size == ours.done == theirs.size == theirs.done
    assert ours.records == theirs.records
    assert ours.leaves == theirs.leaves == tuple(leaf_hash(record) for record in ours.records)
    assert ours.edge == theirs.edge == Edge.EMPTY.extend(ours.leaves)
    # What the sender keeps is what the receiver gave, byte for byte, up to the end of the stream.
    assert ours.receipts == theirs.receipts, (sorted(ours.receipts), sorted(theirs.receipts))
    assert max(ours.receipts) == ours.size
    for size, note in theirs.receipts.items():
        _check_receipt(note, StreamId(sender.id, receiver.id, _EPOCH), ours.leaves[:size], directory)
    return [parse_record(record) for record in ours.records]


def _check_receipt(raw: bytes, stream: StreamId, leaves: Sequence[bytes], directory: Directory) -> None:
    """The receipt is both sides' signature on the root that the leaves have."""
    note = parse_note(raw)
    checkpoint = Checkpoint.parse(note.text)
    assert checkpoint == Checkpoint(stream.origin(), len(leaves), Edge.EMPTY.extend(leaves).root())
    now = datetime.now(UTC)
    verify_checkpoint(note, checkpoint, directory.verification_keys(stream.iss, KeyUse.STREAM, now))
    receipt_keys = directory.verification_keys(stream.aud, KeyUse.RECEIPT, now)
    assert verify_cosignature(note, checkpoint, stream.receipt_name(), receipt_keys) > 0


def check_outcomes(records: Sequence[Record], size: int) -> None:
    """Check that the outcomes accept every record of a stream of `size` once and refuse none."""
    accepted: list[int] = []
    for record in records:
        assert isinstance(record.body, OutcomeBody)
        assert not record.body.refused
        assert not record.body.kept
        for first, last in record.body.accepted:
            accepted += range(first, last + 1)
    assert sorted(accepted) == list(range(size))
