"""Mistakes that systems like this one have had, planted to show that the simulator finds them.

Each is one small patch, in place only while its block runs. What finds it, and the shortest history, is in BUGS.md.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any, Final
from unittest.mock import patch

import asyncpg

from node.hotline import assembly
from node.hotline.domain import acceptance, lifecycle
from node.hotline.domain import steps as items
from node.hotline.domain.acceptance import Judged, Refused
from node.hotline.domain.assessment import Assessment
from node.hotline.domain.delivery import Problem
from node.hotline.domain.lifecycle import Said, State
from node.hotline.domain.steps import SAID, Done, KnownItem
from node.hotline.flows import receive
from node.hotline.flows.apply import applier, transfers
from node.hotline.flows.reclaim import Reclaimer
from node.hotline.flows.restart import Restarter
from node.hotline.flows.transfer import disputes
from node.hotline.flows.transfer.disputes import Disputer
from node.hotline.framing import Framer
from node.hotline.pulling import Pulls
from node.hotline.store import contacts, custody, desk, heads, outbound, pulls, restored, steps
from node.hotline.store.desk import Dispute
from node.hotline.store.steps import Listener
from node.platform.database import Transaction
from protocol.desk import Ruling, read_ruling
from protocol.directory import Directory, NodeEntry
from protocol.errors import ProtocolError
from tests.simulation.bug import Bug
from tests.simulation.database import Driver, MemoryDatabase
from tests.simulation.directory_bugs import DIRECTORY_BUGS
from tests.simulation.services import RUNNING

_LATE_S: Final = 0.03


@contextmanager
def _receipt_before_commit() -> Iterator[None]:
    real = MemoryDatabase.transaction

    @asynccontextmanager
    async def hasty(self: MemoryDatabase, name: str) -> AsyncIterator[Transaction]:
        if name != "receive.store":
            async with real(self, name) as tx:
                yield tx
            return
        session = self._disk.tables.begin()
        sql: Any = None
        try:
            yield Transaction(sql, Driver(session, self._fate))
        except BaseException:
            session.end()
            raise

        def commit() -> None:
            if session in self._disk.tables.open:
                session.commit()

        asyncio.get_running_loop().call_later(_LATE_S, commit)

    with patch.object(MemoryDatabase, "transaction", hasty):
        yield


@contextmanager
def _cursor_by_time() -> Iterator[None]:
    async def read(
        tx: Transaction, stream: int, first: int, records_max: int, bytes_max: int
    ) -> list[outbound.StoredRecord]:
        del bytes_max
        since = await tx.value("SELECT max(created_at) FROM outbox WHERE stream = $1 AND idx < $2", stream, first)
        rows = await tx.fetch(
            "SELECT idx, leaf_hash, record_enc FROM outbox WHERE stream = $1 "
            "AND ($2::timestamptz IS NULL OR created_at > $2) ORDER BY created_at, idx LIMIT $3",
            stream,
            since,
            records_max,
        )
        return [outbound.StoredRecord(row["idx"], row["leaf_hash"], row["record_enc"]) for row in rows]

    with patch.object(outbound, "read", read):
        yield


@contextmanager
def _index_from_serial() -> Iterator[None]:
    """A sequence gives the indices, which no transaction holds: given in one order, committed in another."""
    real = outbound.lock_streams

    async def lock_streams(tx: Transaction, peers: Sequence[str]) -> dict[str, outbound.StreamHead]:
        known = await tx.fetch(
            "SELECT id, peer, epoch, next_index FROM outbound_streams WHERE peer = ANY($1) ORDER BY peer, epoch",
            list(peers),
        )
        heads = {
            row["peer"]: outbound.StreamHead(row["id"], row["peer"], row["epoch"], row["next_index"]) for row in known
        }
        return heads if set(peers) <= heads.keys() else await real(tx, peers)

    async def append(
        tx: Transaction, head: outbound.StreamHead, rows: Sequence[outbound.OutboxRow], now: datetime
    ) -> None:
        tables = tx.driver._session.tables.data["outbound_streams"]
        known = [(row_id, row) for row_id, row in tables.rows.items() if row["id"] == head.id]
        for row_id, row in known:
            tables.change(row_id, {**row, "next_index": max(row["next_index"], head.next_index + len(rows))})
        if not known:
            await tx.execute("UPDATE outbound_streams SET next_index = $2 WHERE id = $1", head.id, len(rows))
        await tx.copy(
            "outbox",
            ("stream", "idx", "record_id", "item_id", "type", "leaf_hash", "record_enc", "created_at"),
            [(head.id, row.idx, row.record_id, row.item_id, row.type, row.leaf_hash, row.sealed, now) for row in rows],
        )

    with patch.object(outbound, "lock_streams", lock_streams), patch.object(outbound, "append", append):
        yield


async def _refuse_repeat(*_args: object, **_more: object) -> receive.Receipt:
    raise ProtocolError("id-conflict", "these records were received before")


@contextmanager
def _back_off_never_cleared() -> Iterator[None]:
    async def heard_from(tx: Transaction, peer: str, now: datetime) -> None:
        await tx.execute(
            "INSERT INTO peers (node_id, last_heard_at, failures) VALUES ($1, $2, 0) "
            "ON CONFLICT (node_id) DO UPDATE SET last_heard_at = $2",
            peer,
            now,
        )

    with patch.object(contacts, "heard_from", heard_from):
        yield


@contextmanager
def _retry_counted_as_new() -> Iterator[None]:
    real = receive._compare_overlap
    repeats: dict[tuple[int, int], int] = {}

    async def compare(tx: Transaction, stream: int, batch: receive._Batch, overlap: int) -> None:
        row = await tx.row(
            "SELECT s.size, c.applied FROM inbound_streams s JOIN apply_cursors c ON c.stream = s.id WHERE s.id = $1",
            stream,
        )
        run = RUNNING.get()
        if row is not None and run is not None:
            mine = (id(run.station), stream)
            # The mistake: what arrives is counted, and a repeat arrives too.
            repeats[mine] = repeats.get(mine, 0) + max(0, row["size"] - batch.offer.first_index)
            credit = run.station.settings.unapplied_records_max - (row["size"] - row["applied"]) - repeats[mine]
            if len(batch.leaves) > credit:
                raise ProtocolError("over-quota", "no room", extra={"credit": max(0, credit)})
        await real(tx, stream, batch, overlap)

    with patch.object(receive, "_compare_overlap", compare):
        yield


@contextmanager
def _refusal_blocks() -> Iterator[None]:
    real = acceptance.judge

    def judge(*args: Any, **more: Any) -> Judged | Refused:
        verdict = real(*args, **more)
        if isinstance(verdict, Refused):
            raise asyncpg.InterfaceError("a bad record is not stored")
        return verdict

    with patch.object(applier, "judge", judge):
        yield


async def _take_nothing(*_args: object) -> None:
    """A transfer is accepted and its item is not written."""


@contextmanager
def _let_go_when_written() -> Iterator[None]:
    """Whoever writes a transfer counts its item as given away at once."""
    real = custody.rehost

    async def rehost(tx: Transaction, one: custody.Rehosted, now: datetime) -> None:
        gone = one.state == State.LEAVING
        await real(tx, replace(one, state=State.TRANSFERRED) if gone else one, now)

    with patch.object(custody, "rehost", rehost):
        yield


async def _bring_once(self: Pulls, peer: NodeEntry, owed: list[tuple[int, int, int, bytes]]) -> Problem | None:
    """Each receipt is noted as brought before it is."""
    for stream, epoch, size, note in owed:
        async with self._node.db.transaction("pull.brought") as tx:
            await pulls.brought(tx, stream, size, note)
        problem = await self._node.catchup.put_receipt(peer, epoch, size, note)
        if problem is not None:
            return problem
    return None


def _framer_of_the_start(*args: Any) -> Framer:
    """Keep the keys of the moment."""
    node_id, db, vault, keys, *rest = args
    return Framer(node_id, db, vault, tuple(keys), *rest)


def _act_again(self: KnownItem, done: Done) -> KnownItem:
    """Record an action without a look at those that are recorded."""
    said = SAID[done.action]
    facts = replace(self.facts(), actions=frozenset())
    state = lifecycle.after_record(self.state, said, self.speaker(said, done.node), facts)
    return replace(self, state=state, actions=(*self.actions, done))


@contextmanager
def _baseline_overruled() -> Iterator[None]:
    with (
        patch.object(lifecycle, "_check_finding", lambda *_args: None),
        patch.object(items, "reassess", lambda _held, new: new),
    ):
        yield


@contextmanager
def _withdrawal_reopens() -> Iterator[None]:
    real = KnownItem._after

    def after(self: KnownItem, said: Said, node: str, assessment: Assessment | None = None) -> State:
        if (self.state, said) == (State.WITHDRAWN, Said.ASSESSED_ILLEGAL) and node == self.custodian:
            return State.KEPT if node == self.here else State.SENT
        return real(self, said, node, assessment)

    with patch.object(KnownItem, "_after", after):
        yield


def _tell_who_gave_it(item: KnownItem) -> list[Listener]:
    if item.report_hash is None or item.came_from is None:
        return []
    return [Listener(item.came_from, item.id, item.case_id, item.report_hash)]


async def _nothing_stale(*_args: object) -> list[custody.Stale]:
    """Whoever is suspended may be back some day."""
    return []


async def _no_epoch(*_args: object) -> list[tuple[str, int]]:
    """The streams go on where they were taken back to."""
    return []


async def _not_told(*_args: object) -> None:
    """What was answered before is not remembered."""


async def _never_gone(*_args: object) -> bool:
    """Every record written after the restore is news."""
    return False


@contextmanager
def _left_out_all_the_same() -> Iterator[None]:
    """Whoever was not asked is exchanged with as ever."""

    async def leave_out(*_args: object) -> None:
        pass

    with patch.object(heads, "leave_out", leave_out):
        yield


def _any_ruling(raw: bytes, _directory: Directory) -> Ruling:
    """Whoever signed it."""
    return read_ruling(raw)


async def _not_over(*_args: object) -> None:
    """Who heard that an item is at the desk is told nothing more."""


@contextmanager
def _ruling_noted_first() -> Iterator[None]:
    """A ruling is noted as followed before it is: a crash between the two forgets it."""
    real = desk.followed

    async def follow(self: Disputer, one: Dispute, ruling: Ruling, note: bytes, directory: Directory) -> None:
        now = self.clock_now()
        async with self.db.transaction("dispute.noted") as tx:
            first = await real(tx, one.id, note, now)

        async def noted(*_args: object) -> bool:
            return first

        with patch.object(desk, "followed", noted):
            await follow_now(self, one, ruling, note, directory)

    follow_now = Disputer._follow
    with patch.object(Disputer, "_follow", follow):
        yield


BUGS: Final = (
    Bug(
        "receipt-before-commit",
        "The receipt leaves before the transaction that stores the records.",
        _receipt_before_commit,
    ),
    Bug("cursor-by-time", "The sender goes on from the time of the last record instead of its index.", _cursor_by_time),
    Bug(
        "index-from-serial", "Indices come from a sequence instead of the locked row of the stream.", _index_from_serial
    ),
    Bug(
        "repeat-is-an-error",
        "A batch that is held already is answered with an error instead of its receipt.",
        lambda: patch.object(receive.Receiver, "_repeat", _refuse_repeat),
    ),
    Bug("back-off-never-cleared", "A call of a peer does not end our back-off towards it.", _back_off_never_cleared),
    Bug("retry-counted-as-new", "Repeated records count against the room for new ones.", _retry_counted_as_new),
    Bug(
        "refusal-blocks", "A record that is refused is tried again for ever, and those behind it wait.", _refusal_blocks
    ),
    Bug(
        "custody-dropped",
        "A transfer is accepted and its item is not written.",
        lambda: patch.object(transfers.TransferApplier, "_new", _take_nothing),
    ),
    Bug(
        "let-go-when-written",
        "A giver lets an item go when it writes the transfer, not when it has stored its receipt.",
        _let_go_when_written,
    ),
    Bug(
        "brought-once",
        "A node that fetches notes a receipt as brought before its peer has taken it.",
        lambda: patch.object(Pulls, "_bring", _bring_once),
    ),
    Bug(
        "key-of-the-start",
        "What others fetch is signed with the key that the node had when it started.",
        lambda: patch.object(assembly, "Framer", _framer_of_the_start),
    ),
    Bug(
        "act-applied-twice",
        "An action is recorded again, as often as it is said.",
        lambda: patch.object(KnownItem, "acted", _act_again),
    ),
    Bug("baseline-overruled", "A later qualification takes the place of a baseline one.", _baseline_overruled),
    Bug(
        "withdrawal-reopens",
        "A qualification opens an item again whose report was taken back.",
        _withdrawal_reopens,
    ),
    Bug(
        "reporter-not-told",
        "What becomes of an item is told to who handed it on, and not to who reported it.",
        lambda: patch.object(steps, "listeners", _tell_who_gave_it),
    ),
    Bug(
        "suspended-waited-for",
        "What waits for a node that was suspended is not taken back.",
        lambda: patch.object(custody, "stale", _nothing_stale),
    ),
    Bug(
        "no-new-epoch",
        "A node that was restored goes on in the epoch that it took back.",
        lambda: patch.object(Restarter, "restart", _no_epoch),
        needs="restore",
    ),
    Bug(
        "answered-again",
        "A node that was restored forgets what it had answered, and says it again.",
        lambda: patch.object(Reclaimer, "_told", _not_told),
        needs="restore",
    ),
    Bug(
        "sent-again",
        "An item that had left before the restore, and was sent again before the recovery, goes twice.",
        lambda: patch.object(restored, "had_gone", _never_gone),
        needs="restore",
    ),
    Bug(
        "left-out-all-the-same",
        "A recovery does not note whom it did not ask, and the node exchanges records with them at once.",
        _left_out_all_the_same,
        needs="restore",
    ),
    Bug(
        "anybody-rules",
        "A ruling is followed without a look at who signed it.",
        lambda: patch.object(disputes, "open_ruling", _any_ruling),
        needs="desk-forges",
    ),
    Bug(
        "dispute-never-over",
        "Who heard that an item is at the desk does not hear that the desk has ruled.",
        lambda: patch.object(Disputer, "_tell", _not_over),
        needs="ping-pong",
    ),
    Bug(
        "ruling-noted-first",
        "A ruling is noted as followed, and then followed in another transaction.",
        _ruling_noted_first,
        needs="ping-pong",
    ),
    *DIRECTORY_BUGS,
)


def planted(name: str) -> AbstractContextManager[object]:
    """Return the block in which this mistake is in the code."""
    return next(bug.planted() for bug in BUGS if bug.name == name)
