"""Holds each side's copy of a stream against what it must be, and the two copies against each other. Pure.

Copies come in pieces, in order, so that a stream of any length is checked in bounded memory. What is found is named by
index, size or id, and never by content.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from protocol.checkpoint import Checkpoint, StreamId
from protocol.errors import ProtocolError
from protocol.merkle import Edge, leaf_hash
from protocol.note import parse_note

#: Says why a receipt's signatures do not verify, or None when they do; the checkpoint is the one it has to be for.
Verify = Callable[[bytes, Checkpoint], str | None]
#: So many differences of a stream are named, the others counted: a copy that is wrong throughout is named once enough.
NAMED_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as it must be: of which stream, where in it, and what."""

    stream: str
    where: str
    what: str

    def words(self) -> str:
        """Return it as one sentence."""
        return f"{self.stream}, {self.where}: {self.what}"


@dataclass(slots=True)
class Findings:
    """What was found of one stream at one node, or between two."""

    stream: str
    named: list[Difference] = field(default_factory=list)
    count: int = 0
    records: int = 0
    receipts: int = 0

    def add(self, where: str, what: str) -> None:
        """Note a difference."""
        self.count += 1
        if len(self.named) < NAMED_MAX:
            self.named.append(Difference(self.stream, where, what))


@dataclass(frozen=True, slots=True, repr=False)
class Row:
    """A record where it is stored; `record` is None when its seal does not open."""

    idx: int
    leaf: bytes
    record: bytes | None


@dataclass(frozen=True, slots=True)
class SentHead:
    """How far the sender wrote a stream, has receipts for it, and heard what became of its records."""

    written: int
    receipted: int
    edge: bytes
    told: int


@dataclass(frozen=True, slots=True)
class HeldHead:
    """How far the receiver holds a stream, and has applied it."""

    size: int
    edge: bytes
    applied: int


@dataclass(frozen=True, slots=True, repr=False)
class Batch:
    """A stored batch with the receipt that was given for it, which may prove nothing any more (`worthless`)."""

    first: int
    size: int
    edge_before: bytes
    receipt: bytes
    worthless: bool = False


class _Log:
    """Follows one copy from its first leaf on, and knows its edge at every size it is asked for on the way."""

    def __init__(self, found: Findings) -> None:
        self._found = found
        self.size = 0
        #: None once a leaf is missing: no root can be computed any more.
        self.edge: Edge | None = Edge.EMPTY

    def feed(self, rows: Sequence[Row], end: int, sizes: Iterable[int]) -> dict[int, Edge | None]:
        """Take the rows up to `end` (exclusive) and return the edges at `sizes`, each within them or at their ends."""
        edges: dict[int, Edge | None] = {}
        by_idx: dict[int, Row] = {}
        for row in rows:
            if not self.size <= row.idx < end or row.idx in by_idx:
                self._found.add(f"index {row.idx}", "a record stands where there is none, or twice")
            by_idx.setdefault(row.idx, row)
        for size in (*sorted({size for size in sizes if self.size <= size <= end}), end):
            self._go(by_idx, size)
            edges[size] = self.edge
        return edges

    def _go(self, rows: Mapping[int, Row], end: int) -> None:
        leaves: list[bytes] = []
        whole = True
        for idx in range(self.size, end):
            row = rows.get(idx)
            if row is None:
                self._found.add(f"index {idx}", "the record is missing")
                whole = False
                continue
            self._found.records += 1
            if row.record is None:
                self._found.add(f"index {idx}", "the record's seal does not open at this place")
            elif leaf_hash(row.record) != row.leaf:
                self._found.add(f"index {idx}", "the record's bytes do not have the stored leaf hash")
            leaves.append(row.leaf)
        self.size = end
        if not whole:
            self.edge = None
        elif self.edge is not None:
            self.edge = self.edge.extend(leaves)


class SentCopy:
    """The sender's copy of a stream: records, receipts, cursor."""

    def __init__(self, stream: StreamId, head: SentHead, verify: Verify) -> None:
        self.found = Findings(stream.origin())
        self._head = head
        self._verify = verify
        self._log = _Log(self.found)
        self._newest = 0
        self._acked: Edge | None = Edge.EMPTY
        if head.receipted > head.written or head.told > head.written:
            self.found.add("cursors", "more is receipted or told than was written")

    def feed(self, end: int, rows: Sequence[Row], receipts: Mapping[int, bytes]) -> None:
        """Take the next rows, up to `end`, and the receipts whose size lies above the last end and not above this."""
        edges = self._log.feed(rows, end, (*receipts, self._head.receipted))
        for size, note in sorted(receipts.items()):
            check_receipt(self.found, size, note, edges.get(size), self._verify)
            self._newest = size
        if self._head.receipted in edges:
            self._acked = edges[self._head.receipted]

    def finish(self) -> None:
        """Say what can be said at the end only."""
        head = self._head
        if self._newest != head.receipted:
            self.found.add(f"size {head.receipted}", f"the cursor stands here and the newest receipt at {self._newest}")
        if self._acked is not None and self._acked.to_bytes() != head.edge:
            self.found.add(f"size {head.receipted}", "the cursor's edge is not that of the records before it")


class HeldCopy:
    """The receiver's copy of a stream: records, batches with their receipts, edge."""

    def __init__(self, stream: StreamId, head: HeldHead, verify: Verify) -> None:
        self.found = Findings(stream.origin())
        self._head = head
        self._verify = verify
        self._log = _Log(self.found)
        self._batched = 0
        #: The edge where the last batch ended; the next one has to begin there.
        self._edge: Edge | None = Edge.EMPTY
        if not 0 <= head.applied <= head.size:
            self.found.add("cursors", "more is applied than is held")

    def feed(self, end: int, rows: Sequence[Row], batches: Sequence[Batch]) -> None:
        """Take the next rows, up to `end`, and the batches whose size lies above the last end and not above this."""
        edges = self._log.feed(rows, end, (batch.size for batch in batches))
        for batch in sorted(batches, key=lambda one: one.size):
            where = f"size {batch.size}"
            if batch.first != self._batched:
                self.found.add(where, f"the batch begins at {batch.first}, the one before it ends at {self._batched}")
            elif self._edge is not None and self._edge.to_bytes() != batch.edge_before:
                self.found.add(where, "the edge before the batch is not that of the records before it")
            self._batched, self._edge = batch.size, edges.get(batch.size)
            if not batch.worthless:
                check_receipt(self.found, batch.size, batch.receipt, self._edge, self._verify)

    def finish(self) -> None:
        """Say what can be said at the end only."""
        head, edge = self._head, self._log.edge
        if self._batched != head.size:
            self.found.add(f"size {head.size}", f"the stream is held so far and its batches end at {self._batched}")
        if edge is not None and edge.to_bytes() != head.edge:
            self.found.add(f"size {head.size}", "the stored edge is not that of the records")


def check_receipt(found: Findings, size: int, note: bytes, edge: Edge | None, verify: Verify) -> None:
    """Check that a stored receipt is for its stream at `size`, with the root that the records have, and verifies."""
    found.receipts += 1
    where = f"size {size}"
    try:
        covered = Checkpoint.parse(parse_note(note).text)
    except ProtocolError:
        found.add(where, "the receipt is none: it does not parse")
        return
    if (covered.origin, covered.size) != (found.stream, size):
        found.add(where, "the receipt is for another stream or size")
        return
    if edge is None:
        found.add(where, "the root cannot be computed, since records before it are missing")
        return
    if covered.root != edge.root():
        found.add(where, "the receipt is for another root than the records have")
        return
    reason = verify(note, covered)
    if reason is not None:
        found.add(where, f"the receipt does not verify: {reason}")


def compare_heads(found: Findings, sent: SentHead, held: HeldHead) -> None:
    """Hold the two sides' cursors against each other.

    The sender's receipts have to be read before the receiver's stream, and what it wrote after.
    """
    if held.size > sent.written:
        found.add(f"size {sent.written}", f"the sender wrote so far, and the receiver holds {held.size} records")
    if held.size < sent.receipted:
        found.add(f"size {held.size}", f"the receiver holds so far, and the sender has a receipt for {sent.receipted}")
    if held.applied < sent.told:
        found.add(f"size {held.applied}", f"the receiver applied so far, and the sender heard of {sent.told}")


def compare_rows(found: Findings, sent: Sequence[Row], held: Sequence[Row]) -> None:
    """Hold two pieces of the same indices against each other, record by record; what one lacks is named too."""
    ours, theirs = ({row.idx: row for row in rows} for rows in (sent, held))
    for idx in sorted(ours.keys() | theirs.keys()):
        mine, other = ours.get(idx), theirs.get(idx)
        where = f"index {idx}"
        if mine is None or other is None:
            found.add(where, f"the record is missing at the {'sender' if mine is None else 'receiver'}")
            continue
        found.records += 1
        if mine.leaf != other.leaf:
            found.add(where, "the two sides hold different leaf hashes")
        if mine.record != other.record:
            found.add(where, "the two sides hold different records")


def compare_receipts(found: Findings, sent: Mapping[int, bytes], held: Mapping[int, bytes], receipted: int) -> None:
    """Hold the receipts of one piece against each other, by size; `receipted` is how far the sender has them."""
    for size in sorted(sent.keys() | {size for size in held if size <= receipted}):
        where = f"size {size}"
        if size not in held:
            found.add(where, "the sender has a receipt that the receiver has not")
        elif size not in sent:
            found.add(where, "the receiver gave a receipt that the sender has not")
        elif sent[size] != held[size]:
            found.add(where, "the two sides hold different receipts")
        else:
            found.receipts += 1


def check_newest(found: Findings, head: SentHead, note: bytes | None, stored: bytes | None) -> None:
    """Hold the newest receipt that the peer says it gave against ours; `stored` is ours of the same size.

    One that we have not got yet is no difference: its answer is on the way, or was lost and comes with a repeat.
    """
    if note is None:
        if head.receipted:
            found.add("the peer", f"it holds nothing, and we have its receipt for {head.receipted} records")
        return
    size = newest_size(note)
    if size is None or Checkpoint.parse(parse_note(note).text).origin != found.stream:
        found.add("the peer", "what it says of our stream is no receipt of it")
    elif size > head.written:
        found.add("the peer", f"it holds {size} records of which we know {head.written}: our database was set back")
    elif size < head.receipted:
        found.add("the peer", f"it holds {size} records, and we have its receipt for {head.receipted}")
    elif size == head.receipted:
        if note != stored:
            found.add(f"size {size}", "the peer's newest receipt is not the one that we stored")
        else:
            found.receipts += 1


def newest_size(note: bytes) -> int | None:
    """Return the size that a receipt is for, or None when it is none."""
    try:
        covered = Checkpoint.parse(parse_note(note).text)
        StreamId.parse(covered.origin)
    except ProtocolError:
        return None
    return covered.size


def check_given(found: Findings, size: int, note: bytes | None, stored: bytes) -> None:
    """Hold the receipt that the peer says it first gave for the record before `size` against the one we stored."""
    if note is None:
        found.add(f"size {size}", "the peer has no receipt for a record that it receipted")
    elif note != stored:
        found.add(f"size {size}", "the peer's receipt is not the one that we stored")
    else:
        found.receipts += 1
