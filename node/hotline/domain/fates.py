"""Whether every record of a stream became exactly one thing at its receiver, and whether both sides say the same. Pure.

A report becomes an item or is refused; what is not read is kept; and each of these is told once in an outcome.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final
from uuid import UUID

import msgspec

from node.hotline.domain.acceptance import NOT_READ
from node.hotline.domain.ledger import Findings
from protocol.bodies import OutcomeBody
from protocol.codes import RecordType
from protocol.errors import ProtocolError
from protocol.record import parse_record


class Verdict(StrEnum):
    """What an outcome says of one record."""

    ACCEPTED = "accepted"
    KEPT = "kept"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Claims:
    """What a record says of itself, where it can be read: nothing of it was checked."""

    type: str | None
    id: UUID | None
    item: UUID | None


class _Wire(msgspec.Struct):
    type: str
    id: UUID
    item: UUID


_UNREAD: Final = Claims(None, None, None)


def claims(record: bytes | None) -> Claims:
    """Return what a record says of itself; nothing when it cannot be read, or its members are of other types."""
    if record is None:
        return _UNREAD
    try:
        said = msgspec.json.decode(record, type=_Wire)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _UNREAD
    return Claims(said.type, said.id, said.item)


@dataclass(slots=True)
class Told:
    """What outcomes say of one stream, in the order in which they say it; ranges, so that it stays small."""

    ranges: list[tuple[int, int, Verdict]] = field(default_factory=list)
    codes: dict[int, str] = field(default_factory=dict)
    end: int = 0
    count: int = 0
    _sorted: bool = True
    _longest: int = 0

    def add(self, body: OutcomeBody) -> None:
        """Take one outcome."""
        said = [(first, last, Verdict.ACCEPTED) for first, last in body.accepted]
        said += [(first, last, Verdict.KEPT) for first, last in body.kept]
        said += [(one.index, one.index, Verdict.REFUSED) for one in body.refused]
        for one in body.refused:
            self.codes.setdefault(one.index, one.code)
        self._longest = max([self._longest, *(last - first for first, last, _ in said)])
        self.ranges += said
        self._sorted = False
        self.count += sum(last - first + 1 for first, last, _ in said)
        self.end = max([self.end, *(last + 1 for _, last, _ in said)])

    def between(self, first: int, end: int) -> dict[int, list[Verdict]]:
        """Return what is said of each index from `first` to `end` (exclusive) that anything is said of."""
        if not self._sorted:
            self.ranges.sort(key=lambda one: one[:2])
            self._sorted = True
        said: dict[int, list[Verdict]] = {}
        for at in range(bisect_left(self.ranges, first - self._longest, key=lambda one: one[0]), len(self.ranges)):
            low, high, verdict = self.ranges[at]
            if low >= end:
                break
            for idx in range(max(low, first), min(high + 1, end)):
                said.setdefault(idx, []).append(verdict)
        return said


def add_outcomes(told: dict[str, Told], records: Iterable[bytes | None]) -> None:
    """Add what the outcomes among `records` say to `told`, by the stream that each speaks of."""
    for record in records:
        if record is None or claims(record).type != RecordType.OUTCOME:
            continue
        try:
            body = parse_record(record).body
        except ProtocolError:
            continue
        if isinstance(body, OutcomeBody):
            told.setdefault(body.stream, Told()).add(body)


@dataclass(frozen=True, slots=True)
class Became:
    """What the receiver's tables say that a record became: items made from it, the code of its refusal.

    `moved` is whether the item it names is there and came again since, with another record.
    """

    items: Sequence[UUID]
    refused: str | None
    moved: bool = False


#: Types of which nothing is told, or two nodes would answer each other for ever.
_NEVER_TOLD: Final = frozenset({RecordType.OUTCOME})
#: Types that bring an item to their receiver.
_GIVING: Final = frozenset({RecordType.REPORT, RecordType.TRANSFER})


def check_received(
    found: Findings,
    records: Mapping[int, Claims],
    became: Mapping[int, Became],
    told: Mapping[int, Sequence[Verdict]],
    codes: Mapping[int, str],
) -> None:
    """Check that each applied record of a piece is accepted, kept or refused once, and was told of as just that.

    `became` and `told` are by index, `codes` the refusals' codes as the outcomes say them.
    """
    for idx in sorted(records):
        what = _received_fault(records[idx], became.get(idx, Became((), None)), told.get(idx, ()), codes.get(idx))
        if what is not None:
            found.add(f"index {idx}", what)
    for idx in sorted(idx for idx in became.keys() - records.keys() if not became[idx].moved):
        found.add(f"index {idx}", "an item or a refusal is of a record that is not applied")


def _received_fault(record: Claims, became: Became, told: Sequence[Verdict], code: str | None) -> str | None:
    """Return what is wrong with the fate of one record, or None; the most telling fault first."""
    item, refused, silent = bool(became.items), became.refused is not None, record.type in _NEVER_TOLD
    said = told[0] if told else None
    faults = (
        (len(became.items) > 1, "more than one item was made from the record"),
        (item and refused, "the record is both accepted and refused"),
        (item and became.items[0] != record.item, "the item made from the record is another one than it names"),
        (silent and told, "an outcome is spoken of in an outcome"),
        (not silent and not told, "nothing was told of the record"),
        (len(told) > 1, "the record is spoken of more than once in outcomes"),
        (refused and not silent and said is not Verdict.REFUSED, "the record is refused and was not told of as that"),
        (not refused and said is Verdict.REFUSED, "the record was told of as refused and no refusal is stored"),
        (refused and not silent and code != became.refused, "the record's refusal was told with another code"),
        (item and said is not Verdict.ACCEPTED, "the record is accepted and was not told of as that"),
        (record.type in _GIVING and said is Verdict.ACCEPTED and not item and not became.moved, "its item is missing"),
    )
    return next((what for holds, what in faults if holds), None)


@dataclass(frozen=True, slots=True)
class Written:
    """What the sender's tables say beside a record of its outbox."""

    record_id: UUID
    item_id: UUID | None


def check_written(
    found: Findings, records: Mapping[int, Claims], written: Mapping[int, Written], items: frozenset[UUID]
) -> None:
    """Check that each record of a piece is the one its row names, and that the item it tells of is there.

    `items` are those of the named ones that the sender has.
    """
    for idx in sorted(records):
        record, row = records[idx], written.get(idx)
        where = f"index {idx}"
        if row is None:
            continue
        if record.id is not None and record.id != row.record_id:
            found.add(where, "the record is another one than its row names")
        if row.item_id is not None and row.item_id not in items:
            found.add(where, f"item {row.item_id} was sent and is missing at the sender")
        if row.item_id is not None and record.item is not None and record.item != row.item_id:
            found.add(where, f"item {row.item_id} is named beside the record, which names another one")
        if record.type == RecordType.REPORT and row.item_id is None:
            found.add(where, "no item is named beside the report")


def check_heard(found: Findings, told: Told, refused: Mapping[int, str], heard: int) -> None:
    """Check that the sender's tables say what the outcomes that it got say; `heard` is its cursor of outcomes."""
    if told.end != heard:
        found.add("cursors", f"outcomes speak of records up to {told.end}, and the cursor stands at {heard}")
    for idx in sorted(refused.keys() | told.codes.keys()):
        if idx not in refused:
            found.add(f"index {idx}", "an outcome refused the record and the sender did not note it")
        elif refused[idx] == NOT_READ and told.between(idx, idx + 1) == {idx: [Verdict.KEPT]}:
            # A report or a transfer that its receiver keeps unread counts as refused.
            continue
        elif refused[idx] != told.codes.get(idx):
            found.add(f"index {idx}", "the sender noted a refusal that no outcome tells of")
