"""Both sides of a stream and of the stream back, in memory, as an honest network leaves them; and their audit."""

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from uuid import UUID

from node.hotline.domain import fates
from node.hotline.domain.fates import Became, Told, Written
from node.hotline.domain.ledger import (
    Batch,
    Difference,
    Findings,
    HeldCopy,
    HeldHead,
    Row,
    SentCopy,
    SentHead,
    compare_heads,
    compare_receipts,
    compare_rows,
)
from node.platform.ids import new_id
from protocol.bodies import Hosting, OutcomeBody, Refusal, ReportBody
from protocol.checkpoint import Checkpoint, StreamId
from protocol.codes import Channel, Kind
from protocol.cosignature import sign_checkpoint
from protocol.keys import Algorithm, SigningKey
from protocol.merkle import Edge, leaf_hash
from protocol.record import Handling, encode_outcome, encode_report

FR, NL = "fr.hotline.example", "nl.hotline.example"
NOW = datetime(2026, 11, 22, 16, tzinfo=UTC)
_KEY = SigningKey(Algorithm.ED25519, b"\x07" * 32)
_HANDLING = Handling("takedown", NOW + timedelta(days=365))


@dataclass(slots=True)
class Side:
    """What one node stores of one stream; the receiver's side has batches and fates, the sender's receipts."""

    records: dict[int, bytes]
    leaves: dict[int, bytes]
    receipts: dict[int, bytes]
    size: int
    edge: bytes
    #: Of the receiver, how far it applied the stream; of the sender, how far it heard of outcomes.
    cursor: int
    batches: list[Batch] = field(default_factory=list)
    written: dict[int, Written] = field(default_factory=dict)
    refused: dict[int, str] = field(default_factory=dict)
    items: dict[UUID, int | None] = field(default_factory=dict)

    def rows(self, first: int, end: int) -> list[Row]:
        found = [Row(idx, self.leaves[idx], record) for idx, record in self.records.items()]
        return sorted((row for row in found if first <= row.idx < end), key=lambda row: row.idx)


@dataclass(slots=True)
class Stream:
    """Both sides of one stream."""

    id: StreamId
    sent: Side
    held: Side
    receipted: int


@dataclass(slots=True)
class Exchange:
    """A stream of reports and the stream of outcomes back; `given` are the receipts that verify."""

    out: Stream
    back: Stream
    given: set[bytes]

    def audit(self, piece: int) -> list[Difference]:
        """Return every difference, the streams taken `piece` records at a time."""
        found: list[Difference] = []
        told_by_us: dict[str, Told] = {}
        told_to_us: dict[str, Told] = {}
        # The outcomes stand in the stream back: written by the receiver, read by the sender.
        found += self._sent(self.back, piece, told_by_us)
        found += self._held(self.back, piece, {}, told_to_us)
        found += self._held(self.out, piece, told_by_us, {})
        found += self._sent(self.out, piece, {}, told_to_us)
        found += _both(self.out, piece)
        found += _both(self.back, piece)
        return found

    def _verify(self, note: bytes, _covered: Checkpoint) -> str | None:
        return None if note in self.given else "nobody signed it"

    def _sent(
        self, stream: Stream, piece: int, told: dict[str, Told], heard: Mapping[str, Told] | None = None
    ) -> list[Difference]:
        side = stream.sent
        head = SentHead(side.size, stream.receipted, side.edge, side.cursor)
        copy = SentCopy(stream.id, head, self._verify)
        for first, end in _pieces(side.size, piece):
            rows = side.rows(first, end)
            copy.feed(end, rows, {size: note for size, note in side.receipts.items() if first < size <= end})
            fates.add_outcomes(told, (row.record for row in rows))
            said = {row.idx: fates.claims(row.record) for row in rows}
            fates.check_written(copy.found, said, side.written, frozenset(side.items))
        copy.finish()
        if heard is not None:
            fates.check_heard(copy.found, heard.get(stream.id.origin(), Told()), side.refused, side.cursor)
        return copy.found.named

    def _held(
        self, stream: Stream, piece: int, told_by_us: Mapping[str, Told], told_to_us: dict[str, Told]
    ) -> list[Difference]:
        side = stream.held
        copy = HeldCopy(stream.id, HeldHead(side.size, side.edge, side.cursor), self._verify)
        told = told_by_us.get(stream.id.origin(), Told())
        for first, end in _pieces(side.size, piece):
            rows = side.rows(first, end)
            copy.feed(end, rows, [batch for batch in side.batches if first < batch.size <= end])
            claims = {row.idx: fates.claims(row.record) for row in rows if row.idx < side.cursor}
            made: dict[int, list[UUID]] = {}
            for item, idx in side.items.items():
                if idx is not None and first <= idx < end:
                    made.setdefault(idx, []).append(item)
            refused = {idx: code for idx, code in side.refused.items() if first <= idx < end}
            became = {idx: Became(tuple(made.get(idx, ())), refused.get(idx)) for idx in made.keys() | refused.keys()}
            fates.check_received(copy.found, claims, became, told.between(first, end), told.codes)
            fates.add_outcomes(told_to_us, (row.record for row in rows if row.idx < side.cursor))
        copy.finish()
        return copy.found.named


def _both(stream: Stream, piece: int) -> list[Difference]:
    sent, held = stream.sent, stream.held
    found = Findings(stream.id.origin())
    compare_heads(
        found,
        SentHead(sent.size, stream.receipted, sent.edge, sent.cursor),
        HeldHead(held.size, held.edge, held.cursor),
    )
    for first, end in _pieces(min(sent.size, held.size), piece):
        compare_rows(found, sent.rows(first, end), held.rows(first, end))
        given = {batch.size: batch.receipt for batch in held.batches if first < batch.size <= end}
        got = {size: note for size, note in sent.receipts.items() if first < size <= end}
        compare_receipts(found, got, given, stream.receipted)
    return found.named


def _pieces(size: int, piece: int) -> list[tuple[int, int]]:
    return [(first, min(first + piece, size)) for first in range(0, size, piece)]


def exchange(draw: random.Random, reports: int) -> Exchange:
    """Return an exchange that is over: every report delivered, applied, and told of in outcomes that were delivered."""
    out_id, back_id = StreamId(FR, NL, 1), StreamId(NL, FR, 1)
    items = [new_id(NOW) for _ in range(reports)]
    said = [_report(item) for item in items]
    refused = {idx: "not-competent" for idx in range(reports) if draw.random() < 0.2}
    given: set[bytes] = set()
    out = _stream(out_id, [raw for raw, _ in said], _cuts(draw, reports), given)
    out.sent.written = {idx: Written(record_id, items[idx]) for idx, (_, record_id) in enumerate(said)}
    out.sent.items = dict.fromkeys(items)
    out.sent.refused = dict(refused)
    out.held.refused = dict(refused)
    out.held.items = {items[idx]: idx for idx in range(reports) if idx not in refused}
    outcomes = [_outcome(out_id, first, end, refused) for first, end in pairwise([0, *_cuts(draw, reports)])]
    back = _stream(back_id, [raw for raw, _ in outcomes], _cuts(draw, len(outcomes)), given)
    back.sent.written = {idx: Written(record_id, None) for idx, (_, record_id) in enumerate(outcomes)}
    back.sent.cursor = 0
    return Exchange(out, back, given)


def _cuts(draw: random.Random, size: int) -> list[int]:
    """Return the ends of the batches that `size` records came in."""
    return sorted({size, *(draw.randint(1, size) for _ in range(draw.randint(0, 4)))}) if size else []


def _stream(stream: StreamId, records: list[bytes], ends: list[int], given: set[bytes]) -> Stream:
    leaves = [leaf_hash(record) for record in records]
    edge = Edge.EMPTY.extend(leaves)
    receipts: dict[int, bytes] = {}
    batches = []
    for first, end in pairwise([0, *ends]):
        before = Edge.EMPTY.extend(leaves[:first])
        covered = Checkpoint(stream.origin(), end, before.extend(leaves[first:end]).root())
        receipts[end] = sign_checkpoint(covered, [_KEY], now_s=1).to_bytes()
        batches.append(Batch(first, end, before.to_bytes(), receipts[end]))
    given |= set(receipts.values())

    def side() -> Side:
        size = len(records)
        return Side(
            dict(enumerate(records)), dict(enumerate(leaves)), dict(receipts), size, edge.to_bytes(), cursor=size
        )

    held = side()
    held.batches = batches
    return Stream(stream, side(), held, len(records))


def _report(item: UUID) -> tuple[bytes, UUID]:
    record_id = new_id(NOW)
    body = ReportBody(
        url=f"https://{item}.host.example/",
        kind=Kind.PAGE,
        channel=Channel.PUBLIC,
        received_at=NOW,
        hosting=Hosting(country="NL", assigned_country="NL", confidence=90, reasons=(), evidence={}),
    )
    raw = encode_report(
        body,
        record_id=str(record_id),
        case=str(new_id(NOW)),
        item=str(item),
        iss=FR,
        aud=NL,
        iat=NOW,
        handling=_HANDLING,
        deliver_by=None,
    )
    return raw, record_id


def _outcome(about: StreamId, first: int, end: int, refused: Mapping[int, str]) -> tuple[bytes, UUID]:
    record_id = new_id(NOW)
    body = OutcomeBody(
        stream=about.origin(),
        accepted=tuple((idx, idx) for idx in range(first, end) if idx not in refused),
        kept=(),
        refused=tuple(
            Refusal(index=idx, id=None, code=refused[idx], detail="not taken")
            for idx in range(first, end)
            if idx in refused
        ),
    )
    raw = encode_outcome(body, record_id=str(record_id), iss=NL, aud=FR, iat=NOW, handling=_HANDLING)
    return raw, record_id
