"""Audits streams: one node's own tables, the tables of two nodes against each other, ours against what peers say.

Reads only, each node in one snapshot, and compares; what it finds is named by ids and indices, never by content.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from node.hotline.domain import fates
from node.hotline.domain.delivery import ReceiptAnswer
from node.hotline.domain.fates import Told
from node.hotline.domain.ledger import (
    Findings,
    HeldCopy,
    HeldHead,
    Row,
    SentCopy,
    SentHead,
    Verify,
    check_given,
    check_newest,
    compare_heads,
    compare_receipts,
    compare_rows,
    newest_size,
)
from node.hotline.store import audit as store
from node.hotline.store import waiting
from node.hotline.store.trees import INBOX, OUTBOX, Tree
from node.hotline.store.vault import Vault
from node.platform.database import Transaction
from node.platform.fieldcrypto import FieldSealed
from protocol.checkpoint import StreamId
from protocol.codes import RecordType
from protocol.directory import NodeEntry

#: Records read and opened at a time.
_PIECE: Final = 1000
#: Each recovery begins an epoch; a peer is asked for so many of the newest.
_EPOCHS_MAX: Final = 20
OUT, IN, BOTH, PEER, ITEMS = "sent", "received", "both sides", "the peer's word", "items"


@dataclass(frozen=True, slots=True)
class View:
    """One node's tables as they were at one moment."""

    node_id: str
    tx: Transaction
    vault: Vault
    verify: Verify


@dataclass(frozen=True, slots=True)
class Account:
    """What an audit found of one stream: looked at by `node` (two for both sides), as `kind` says."""

    node: str
    kind: str
    found: Findings
    written: int | None = None
    receipted: int | None = None
    held: int | None = None
    applied: int | None = None
    under_way: int = 0


@dataclass(slots=True)
class _Heard:
    """What outcomes say of streams, by origin: those we wrote, and those our peers wrote."""

    by_us: dict[str, Told] = field(default_factory=dict)
    by_peers: dict[str, Told] = field(default_factory=dict)


class Peers(Protocol):
    """Asks peers what they hold of our streams."""

    async def newest_receipt(self, peer: NodeEntry, epoch: int) -> ReceiptAnswer:
        """Return the newest receipt that the peer gave for an epoch of our stream."""

    async def given_receipt(self, peer: NodeEntry, epoch: int, index: int) -> ReceiptAnswer:
        """Return the receipt that the peer first gave for the record at `index`."""


async def audit_own(view: View) -> list[Account]:
    """Check every stream of a node against its own tables: records, roots, receipts, cursors, fates."""
    heard = _Heard()
    sent = [await _sent(view, stream, heard) for stream in await store.outbound(view.tx)]
    received = [await _received(view, stream, heard) for stream in await store.inbound(view.tx)]
    accounts = [await _told_home(view, stream, account, owed, heard) for stream, account, owed in sent]
    items = Findings(view.node_id)
    for item in await store.unsent_items(view.tx):
        items.add(f"item {item}", "it is marked as sent and no record of it was written")
    return [*accounts, *received, Account(view.node_id, ITEMS, items)]


async def _sent(view: View, stream: store.Outbound, heard: _Heard) -> tuple[store.Outbound, Account, int]:
    """Check one of our streams; also returns how many of its records the peer owes a word about."""
    head = stream.head
    copy = SentCopy(StreamId(view.node_id, stream.peer, stream.epoch), head, view.verify)
    owed = 0
    for first, end in _pieces(head.written):
        stored, written = await store.sent_records(view.tx, stream.id, first, end)
        rows = _opened(view.vault, "outbox", stream.id, stored)
        copy.feed(end, rows, await store.receipts(view.tx, stream.id, first, end))
        fates.add_outcomes(heard.by_us, (row.record for row in rows))
        said = {row.idx: fates.claims(row.record) for row in rows}
        owed += sum(one.type != RecordType.OUTCOME for one in said.values())
        items = await store.items_known(view.tx, [one.item_id for one in written.values() if one.item_id is not None])
        fates.check_written(copy.found, said, written, items)
    copy.finish()
    await _check_tree(copy.found, Tree(view.tx, OUTBOX, stream.id), head.written)
    for idx in await store.stray_records(view.tx, "outbox", stream.id, head.written):
        copy.found.add(f"index {idx}", "a record stands beyond the end of the stream")
    account = Account(
        view.node_id,
        OUT,
        copy.found,
        written=head.written,
        receipted=head.receipted,
        under_way=head.written - head.receipted,
    )
    return stream, account, owed


async def _told_home(view: View, stream: store.Outbound, account: Account, owed: int, heard: _Heard) -> Account:
    """Check that what peers told of our stream is what we noted; what they still owe is under way."""
    told = heard.by_peers.get(account.found.stream, Told())
    fates.check_heard(account.found, told, await store.refused_by_peer(view.tx, stream.id), stream.head.told)
    return Account(
        account.node,
        account.kind,
        account.found,
        written=account.written,
        receipted=account.receipted,
        under_way=account.under_way + max(0, owed - told.count),
    )


async def _received(view: View, stream: store.Inbound, heard: _Heard) -> Account:
    head = stream.head
    copy = HeldCopy(StreamId(stream.peer, view.node_id, stream.epoch), head, view.verify)
    told, waited = heard.by_us.get(copy.found.stream, Told()), 0
    for first, end in _pieces(head.size):
        stored = await store.held_records(view.tx, stream.id, first, end)
        rows = _opened(view.vault, "inbox", stream.id, stored)
        copy.feed(end, rows, await store.batches(view.tx, stream.id, first, end))
        waits = await waiting.indices(view.tx, stream.id, first, end)
        waited += len(waits)
        done = [row for row in rows if row.idx < head.applied and row.idx not in waits]
        applied = {row.idx: fates.claims(row.record) for row in done}
        refused = await store.refused_by_us(view.tx, stream.id, first, end)
        named = {idx: one.item for idx, one in applied.items() if one.item is not None}
        became = await store.became(view.tx, stream.id, range(first, end), named, refused)
        fates.check_received(copy.found, applied, became, told.between(first, end), told.codes)
        fates.add_outcomes(heard.by_peers, (row.record for row in done if row.idx not in refused))
    copy.finish()
    if told.end > head.applied:
        copy.found.add("cursors", f"outcomes of ours speak of records up to {told.end}, and {head.applied} are applied")
    await _check_tree(copy.found, Tree(view.tx, INBOX, stream.id), head.size)
    for idx in await store.stray_records(view.tx, "inbox", stream.id, head.size):
        copy.found.add(f"index {idx}", "a record stands beyond the end of the stream")
    for item in await store.stray_items(view.tx, stream.id):
        copy.found.add(f"item {item}", "it names a record of this stream that is not there, or not its own alone")
    return Account(
        view.node_id, IN, copy.found, held=head.size, applied=head.applied, under_way=head.size - head.applied + waited
    )


async def _check_tree(found: Findings, tree: Tree, size: int) -> None:
    """Check the roots that edges and paths are made from; where records are missing, that is told of already."""
    try:
        spoiled = await tree.spoiled(size)
    except LookupError:
        return
    for first, end in spoiled:
        found.add(f"index {first}", f"the root that is kept of the records up to {end - 1} is another than theirs")


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a sender had receipts and outcomes at one moment, and had written at another."""

    receipted: int = 0
    told: int = 0
    written: int = 0


async def compare(
    sender: View, receiver: View, before: Mapping[str, Cursor], after: Mapping[str, Cursor]
) -> list[Account]:
    """Hold every stream from one node to another against the receiver's copy of it.

    The two snapshots are of different moments: `before` holds the sender's cursors from before the receiver's snapshot
    and `after` those from after it, by origin, so that what passed meanwhile is no difference.
    """
    ours = {stream.epoch: stream for stream in await store.outbound(sender.tx) if stream.peer == receiver.node_id}
    theirs = {stream.epoch: stream for stream in await store.inbound(receiver.tx) if stream.peer == sender.node_id}
    accounts = []
    for epoch in sorted(ours.keys() | theirs.keys()):
        origin = StreamId(sender.node_id, receiver.node_id, epoch).origin()
        early, late = before.get(origin, Cursor()), after.get(origin, Cursor())
        found = Findings(origin)
        mine, other = ours.get(epoch), theirs.get(epoch)
        held = HeldHead(0, b"", 0) if other is None else other.head
        written = 0 if mine is None else mine.head.written
        compare_heads(found, SentHead(max(written, late.written), early.receipted, b"", early.told), held)
        if mine is not None and other is not None:
            for first, end in _pieces(min(written, held.size)):
                await _compare_piece(found, (sender, mine), (receiver, other), first, end, early.receipted)
        accounts.append(
            Account(
                f"{sender.node_id} / {receiver.node_id}",
                BOTH,
                found,
                written=written,
                receipted=early.receipted,
                held=held.size,
                applied=held.applied,
                under_way=max(0, written - held.size),
            )
        )
    return accounts


async def _compare_piece(
    found: Findings,
    sender: tuple[View, store.Outbound],
    receiver: tuple[View, store.Inbound],
    first: int,
    end: int,
    receipted: int,
) -> None:
    (ours, mine), (theirs, other) = sender, receiver
    sent, _ = await store.sent_records(ours.tx, mine.id, first, end)
    held = await store.held_records(theirs.tx, other.id, first, end)
    compare_rows(found, _opened(ours.vault, "outbox", mine.id, sent), _opened(theirs.vault, "inbox", other.id, held))
    batches = await store.batches(theirs.tx, other.id, first, end)
    given = {batch.size: batch.receipt for batch in batches if not batch.worthless}
    got = await store.receipts(ours.tx, mine.id, first, end)
    compare_receipts(found, got, given, receipted)


async def cursors(tx: Transaction, node_id: str) -> dict[str, Cursor]:
    """Return the cursors of a node's streams, by origin."""
    return {
        StreamId(node_id, stream.peer, stream.epoch).origin(): Cursor(
            stream.head.receipted, stream.head.told, stream.head.written
        )
        for stream in await store.outbound(tx)
    }


@dataclass(frozen=True, slots=True)
class Question:
    """One epoch of our stream to a peer, and the receipts that the peer is to be asked for, by size."""

    node_id: str
    peer: str
    epoch: int
    head: SentHead
    stored: Mapping[int, bytes]


async def questions(view: View, receipts_max: int) -> list[Question]:
    """Return what peers are to be asked: each of the newest epochs, at most `receipts_max` receipts spread over it."""
    epochs: dict[str, list[store.Outbound]] = {}
    for stream in await store.outbound(view.tx):
        epochs.setdefault(stream.peer, []).append(stream)
    asked = []
    for stream in [one for streams in epochs.values() for one in streams[-_EPOCHS_MAX:]]:
        sizes = _spread(await store.receipt_sizes(view.tx, stream.id), receipts_max)
        stored = await store.receipts_of(view.tx, stream.id, sizes)
        asked.append(Question(view.node_id, stream.peer, stream.epoch, stream.head, stored))
    return asked


async def ask(question: Question, peer: NodeEntry, peers: Peers) -> tuple[Account | None, str | None]:
    """Hold what the peer says it holds of our stream against what we stored; a code where it could not be asked."""
    head = question.head
    found = Findings(StreamId(question.node_id, peer.id, question.epoch).origin())
    newest = await peers.newest_receipt(peer, question.epoch)
    if newest.problem is not None:
        return None, newest.problem.code
    check_newest(found, head, newest.note, question.stored.get(head.receipted))
    for size, stored in sorted(question.stored.items()):
        given = await peers.given_receipt(peer, question.epoch, size - 1)
        if given.problem is not None:
            return None, given.problem.code
        check_given(found, size, given.note, stored)
    held = (None if newest.note is None else newest_size(newest.note)) or 0
    account = Account(
        question.node_id,
        PEER,
        found,
        written=head.written,
        receipted=head.receipted,
        held=held,
        under_way=max(0, held - head.receipted),
    )
    return account, None


def _spread(sizes: Sequence[int], count: int) -> list[int]:
    """Return at most `count` of the sizes, the first and the last among them, evenly spread."""
    if len(sizes) <= count:
        return list(sizes)
    last = len(sizes) - 1
    return sorted({sizes[round(at * last / max(1, count - 1))] for at in range(count)})


def _pieces(size: int) -> list[tuple[int, int]]:
    return [(first, min(first + _PIECE, size)) for first in range(0, size, _PIECE)]


def _opened(vault: Vault, table: str, stream: int, stored: Sequence[store.Stored]) -> list[Row]:
    rows = []
    for one in stored:
        try:
            record: bytes | None = vault.open_record(table, stream, one.idx, one.sealed)
        except FieldSealed:
            record = None
        rows.append(Row(one.idx, one.leaf, record))
    return rows
