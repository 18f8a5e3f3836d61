"""Edges and paths of streams are those of their whole trees, and cost no more when the streams are long."""

import importlib
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from hashlib import sha256
from uuid import UUID

import pytest
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Connection

from node.hotline.store import inbound, judged, outbound, restored
from node.hotline.store.evidence import Place
from node.hotline.store.proofs import Proofs
from node.hotline.store.trees import INBOX, OUTBOX, PART, Tree
from node.hotline.store.vault import Vault
from node.platform.database import Database, Transaction
from node.platform.fieldcrypto import DigestKey, FieldCipher
from protocol.checkpoint import Checkpoint, StreamId
from protocol.merkle import Edge, inclusion_proof
from protocol.tlogproof import parse_tlog_proof

_NOW = datetime(2026, 11, 27, tzinfo=UTC)
_VAULT = Vault(FieldCipher({1: bytes(32)}, 1), DigestKey(bytes(32)))
#: Three levels of parts, none of them complete at the end.
_LONG = PART * PART + 3 * PART + 5
_LEAVES = [sha256(b"%d" % at).digest() for at in range(_LONG)]
_EDGES_OF = (0, 1, 2, PART - 1, PART, PART + 1, 3 * PART, PART * PART - 1, PART * PART, PART * PART + 1, _LONG)


@pytest.fixture
def empty(new_database: Callable[[], str]) -> str:
    """A database with nothing in it."""
    return new_database()


@asynccontextmanager
async def _opened(url: str) -> AsyncIterator[Database]:
    db = Database(url)
    try:
        yield db
    finally:
        await db.close()


async def _write(tx: Transaction, records: int) -> int:
    """Append as dispatch does; return the stream."""
    head = (await outbound.lock_streams(tx, ["nl.example"]))["nl.example"]
    rows = [_row(idx) for idx in range(head.next_index, head.next_index + records)]
    await outbound.append(tx, head, rows, _NOW)
    return head.id


def _row(idx: int) -> outbound.OutboxRow:
    return outbound.OutboxRow(idx, UUID(int=idx), None, "report", _LEAVES[idx], b"")


async def _take(tx: Transaction, records: int) -> int:
    """Store a batch as the inbox does; return the stream."""
    await inbound.create_stream(tx, "fr.example", 1)
    head = await inbound.lock_stream(tx, "fr.example", 1)
    assert head is not None
    first = head.edge.size
    leaves = _LEAVES[first : first + records]
    rows = [(idx, leaf, b"") for idx, leaf in enumerate(leaves, start=first)]
    await inbound.store_batch(tx, head, head.edge.extend(leaves), rows, b"", _NOW)
    return head.id


async def _is_whole(tree: Tree, sizes: list[int], rng: random.Random) -> None:
    """Compare with what the protocol's own functions make of all the leaves."""
    for size in sizes:
        assert await tree.edge(size) == Edge.EMPTY.extend(_LEAVES[:size])
        for index in {0, size - 1, rng.randrange(size)} if size else ():
            assert await tree.path(index, size) == inclusion_proof(index, _LEAVES[:size]), (index, size)


async def test_edges_and_paths_are_those_of_the_whole_tree_however_it_grew(empty: str) -> None:
    rng = random.Random(7)  # noqa: S311 - the same sizes every time
    async with _opened(empty) as db:
        for table, grow in ((OUTBOX, _write), (INBOX, _take)):
            written = 0
            while written < _LONG:
                records = min(_LONG - written, rng.choice((1, 100, PART, 1_000, 20_000)))
                async with db.transaction("test.grow") as tx:
                    stream = await grow(tx, records)
                written += records
            async with db.transaction("test.read") as tx:
                kept = await tx.value("SELECT count(*) FROM subtrees WHERE log = $1 AND stream = $2", table, stream)
                assert kept == _LONG // PART + _LONG // PART // PART
                sizes = [*_EDGES_OF, *(rng.randrange(_LONG) for _ in range(15))]
                await _is_whole(Tree(tx, table, stream), sizes, rng)


class _Counted:
    """A transaction that counts the rows it is given."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self.rows = 0

    async def fetch(self, query: str, *args: object) -> object:
        rows = await self._tx.fetch(query, *args)
        self.rows += len(rows)
        return rows


async def test_an_edge_and_a_path_read_at_most_two_parts_of_each_level(empty: str) -> None:
    async with _opened(empty) as db, db.transaction("test.read") as tx:
        stream = await _write(tx, _LONG)
        for size in _EDGES_OF[1:]:
            counted = _Counted(tx)
            tree = Tree(counted, OUTBOX, stream)  # type: ignore[arg-type]
            await tree.edge(size)
            assert counted.rows <= 3 * (PART - 1)
            counted.rows = 0
            await tree.path(size // 2, size)
            assert counted.rows <= 3 * 2 * PART


async def _records_read(tx: Transaction, table: str) -> int:
    """How many rows of a table were read, in whatever way; of transactions before this one, too."""
    query = "SELECT seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_xact_user_tables WHERE relname = $1"
    return int(await tx.value(query, table))


async def test_who_asks_for_the_end_of_a_long_stream_makes_nobody_read_all_of_it(empty: str) -> None:
    async with _opened(empty) as db:
        async with db.transaction("test.grow") as tx:
            stream = await _write(tx, _LONG)
            await tx.execute("ANALYZE")
        for size in (_LONG - 1, _LONG // 2):
            async with db.transaction("test.read") as tx:
                before = await _records_read(tx, "outbox")
                cursor = await outbound.cursor_of(tx, "nl.example", 1)
                assert cursor is not None
                assert await outbound.edge_at(tx, cursor, size) == Edge.EMPTY.extend(_LEAVES[:size])
                assert await _records_read(tx, "outbox") - before < 2 * PART
        async with db.transaction("test.read") as tx:
            before = await _records_read(tx, "outbox")
            await judged.send_again(tx, stream)
            assert await _records_read(tx, "outbox") - before < 2 * PART


@pytest.mark.parametrize("table", [OUTBOX, INBOX])
async def test_the_proof_of_one_record_reads_a_small_part_of_its_stream(empty: str, table: str) -> None:
    index, edge = 5_000, Edge.EMPTY.extend(_LEAVES)
    said = Checkpoint(StreamId("fr.example", "nl.example", 1).origin(), edge.size, edge.root())
    receipt = f"{said.text()}\n\u2014 x eHh4eHg=\n".encode()
    async with _opened(empty) as db:
        async with db.transaction("test.grow") as tx:
            stream = await (_write if table == OUTBOX else _take)(tx, _LONG)
            if table == OUTBOX:
                await outbound.store_receipt(tx, stream, _LONG, receipt, edge, _NOW)
            else:
                await inbound.give_anew(tx, stream, _LONG, receipt, _NOW)
            await tx.execute("ANALYZE")
        async with db.transaction("test.read") as tx:
            before = await _records_read(tx, table)
            place = Place(table, stream, index, _VAULT.seal_record(table, stream, index, b"x"))
            proof = await Proofs(tx, _VAULT).proof(place)
            assert proof is not None
            assert parse_tlog_proof(proof).hashes == inclusion_proof(index, _LEAVES)
            assert await _records_read(tx, table) - before < 3 * PART


async def test_what_was_never_written_has_no_edge_and_no_path(empty: str) -> None:
    async with _opened(empty) as db, db.transaction("test.read") as tx:
        stream = await _write(tx, 300)
        tree = Tree(tx, OUTBOX, stream)
        for size in (301, 2 * PART, PART * PART):
            with pytest.raises(LookupError):
                await tree.edge(size)
            with pytest.raises(LookupError):
                await tree.path(0, size)
        for index in (-1, 300):
            with pytest.raises(LookupError):
                await tree.path(index, 300)
        with pytest.raises(LookupError):
            await outbound.edge_near(tx, stream, Edge.EMPTY.extend(_LEAVES[:299]), 301)


async def test_what_is_taken_out_of_a_stream_leaves_no_roots_behind(empty: str) -> None:
    rng = random.Random(7)  # noqa: S311 - the same sizes every time
    async with _opened(empty) as db:
        for size in (PART * PART + 1, PART * PART - 1, 2 * PART, PART - 1, 0):
            async with db.transaction("test.grow") as tx:
                written = await tx.value("SELECT max(next_index) FROM outbound_streams") or 0
                stream = await _write(tx, _LONG - written)
                await restored.cut_tail(tx, stream, size)
                kept = await tx.value("SELECT count(*) FROM subtrees")
                assert kept == size // PART + size // PART // PART
                await _is_whole(Tree(tx, OUTBOX, stream), [size], rng)
        async with db.transaction("test.grow") as tx:
            await restored.append_at(tx, stream, [_row(idx) for idx in range(3 * PART)], _NOW)
            assert await tx.value("SELECT count(*) FROM subtrees") == 3
            await _is_whole(Tree(tx, OUTBOX, stream), [3 * PART, PART + 7], rng)


async def test_a_tree_whose_roots_are_not_kept_is_the_same(empty: str) -> None:
    rng = random.Random(7)  # noqa: S311 - the same sizes every time
    async with _opened(empty) as db, db.transaction("test.read") as tx:
        stream = await _write(tx, 20 * PART + 1)
        await tx.execute("DELETE FROM subtrees WHERE number % 2 = 0")
        await _is_whole(Tree(tx, OUTBOX, stream), [20 * PART + 1, 7 * PART, 300], rng)


async def test_a_kept_root_that_is_another_is_found(empty: str) -> None:
    async with _opened(empty) as db, db.transaction("test.read") as tx:
        tree = Tree(tx, OUTBOX, await _write(tx, _LONG))
        assert await tree.spoiled(_LONG) == []
        assert await tree.spoiled(PART * PART - 1) == [
            (PART * (PART - 1), PART * PART),
            *((first, first + PART) for first in range(PART * PART, _LONG - PART, PART)),
            (0, PART * PART),
        ]
        await tx.execute("UPDATE subtrees SET root = sha256('x') WHERE level = 1 AND number IN (1, 257)")
        assert await tree.spoiled(_LONG) == [
            (PART, 2 * PART),
            (PART * PART + PART, PART * PART + 2 * PART),
            (0, PART * PART),
        ]


async def test_an_upgrade_keeps_the_roots_of_what_was_written_before(empty: str) -> None:
    async with _opened(empty) as db:
        async with db.transaction("test.grow") as tx:
            await _write(tx, _LONG)
            await _take(tx, 5 * PART)
            expected = await _kept(tx)
            await tx.execute("DROP TABLE subtrees")
        async with db.engine.begin() as connection:
            await connection.run_sync(_upgrade)
        async with db.transaction("test.read") as tx:
            assert await _kept(tx) == expected


def _upgrade(connection: Connection) -> None:
    """Do what this migration does, and none behind it."""
    with Operations.context(MigrationContext.configure(connection)):
        importlib.import_module("migrations.hotline.0018_subtrees").upgrade()


async def _kept(tx: Transaction) -> list[dict[str, object]]:
    return [dict(row) for row in await tx.fetch("SELECT * FROM subtrees ORDER BY log, stream, level, number")]
