"""Transactions of the simulated database wait for each other, and see of each other what they do in PostgreSQL."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from uuid import UUID

import asyncpg
import pytest

from node.hotline.store import inbound, outbound
from node.platform.database import Database, Transaction
from node.platform.nonces import remember_nonce
from tests.simulation.twins import NOW, PEERS, both


async def _pair(db: Database, stack: AsyncExitStack) -> tuple[Transaction, Transaction]:
    one = await stack.enter_async_context(db.transaction("test.one"))
    return one, await stack.enter_async_context(db.transaction("test.other"))


@pytest.mark.parametrize("which", [0, 1], ids=["postgresql", "simulated"])
async def test_two_transactions_wait_for_each_other_alike(new_database: Callable[[], str], which: int) -> None:
    url = await asyncio.to_thread(new_database)
    async with both(url) as databases:
        db = databases[which]
        async with db.transaction("test.make") as tx:
            await outbound.lock_streams(tx, PEERS[:1])
        # A row that is locked is waited for, and read anew.
        async with AsyncExitStack() as stack:
            first = await stack.enter_async_context(db.transaction("test.first"))
            head = (await outbound.lock_streams(first, PEERS[:1]))[PEERS[0]]
            waiting = asyncio.create_task(_next_index(db))
            await outbound.append(first, head, [outbound.OutboxRow(0, UUID(int=1), None, "report", b"l", b"s")], NOW)
            assert not waiting.done()
        assert await waiting == 1


async def _next_index(db: Database) -> int:
    async with db.transaction("test.second") as tx:
        return (await outbound.lock_streams(tx, PEERS[:1]))[PEERS[0]].next_index


@pytest.mark.parametrize("which", [0, 1], ids=["postgresql", "simulated"])
async def test_what_is_locked_is_skipped_where_it_is_said(new_database: Callable[[], str], which: int) -> None:
    url = await asyncio.to_thread(new_database)
    async with both(url) as databases:
        db = databases[which]
        async with db.transaction("test.make") as tx:
            for peer in PEERS:
                await inbound.create_stream(tx, peer, 1)
            await tx.execute("UPDATE inbound_streams SET size = 3")
        async with AsyncExitStack() as stack:
            one, other = await _pair(db, stack)
            rows = [
                await tx.row(
                    "SELECT c.stream FROM apply_cursors c JOIN inbound_streams s ON s.id = c.stream "
                    "WHERE s.size > c.applied ORDER BY c.stream LIMIT 1 FOR UPDATE OF c SKIP LOCKED"
                )
                for tx in (one, other)
            ]
        assert [row["stream"] for row in rows if row is not None] == [1, 2]


@pytest.mark.parametrize("which", [0, 1], ids=["postgresql", "simulated"])
async def test_a_question_asked_again_is_answered_by_the_rows_of_now(
    new_database: Callable[[], str], which: int
) -> None:
    url = await asyncio.to_thread(new_database)
    async with both(url) as databases, AsyncExitStack() as stack:
        db = databases[which]
        reader = await stack.enter_async_context(db.transaction("test.reader"))
        answers = [await _sizes(reader, PEERS), await _sizes(reader, PEERS)]
        async with db.transaction("test.writer") as writer:
            await inbound.create_stream(writer, PEERS[0], 1)
            # Its own rows, and nobody else's before it commits.
            answers += [await _sizes(writer, PEERS), await _sizes(reader, PEERS)]
        answers += [await _sizes(reader, PEERS), await _sizes(reader, PEERS[1:]), await _sizes(reader, PEERS)]
        async with db.transaction("test.writer") as writer:
            await writer.execute("UPDATE inbound_streams SET size = 7")
            answers.append(await _sizes(writer, PEERS))
        answers.append(await _sizes(reader, PEERS))
        assert answers == [[], [], [0], [], [0], [], [0], [7], [7]]


async def _sizes(tx: Transaction, peers: tuple[str, ...]) -> list[int]:
    rows = await tx.fetch("SELECT size FROM inbound_streams WHERE peer = ANY($1) ORDER BY peer", list(peers))
    return [row["size"] for row in rows]


@pytest.mark.parametrize("which", [0, 1], ids=["postgresql", "simulated"])
async def test_what_was_found_before_is_free_only_while_nobody_has_it(
    new_database: Callable[[], str], which: int
) -> None:
    url = await asyncio.to_thread(new_database)
    async with both(url) as databases:
        db = databases[which]
        async with db.transaction("test.make") as tx:
            await inbound.create_stream(tx, PEERS[0], 1)
        found = []
        for _ in range(2):
            async with AsyncExitStack() as stack:
                found += [await _free(tx) for tx in await _pair(db, stack)]
        async with AsyncExitStack() as stack:
            tx = await stack.enter_async_context(db.transaction("test.first"))
            await _free(tx)
            waiting = asyncio.create_task(_locked_size(db))
            await tx.execute("UPDATE inbound_streams SET size = 9")
            assert not waiting.done()
        assert (found, await waiting) == ([1, 0, 1, 0], 9)


async def _free(tx: Transaction) -> int:
    return len(await tx.fetch("SELECT id FROM inbound_streams WHERE size >= 0 FOR UPDATE SKIP LOCKED"))


async def _locked_size(db: Database) -> object:
    async with db.transaction("test.second") as tx:
        return await tx.value("SELECT size FROM inbound_streams WHERE peer = $1 FOR UPDATE", PEERS[0])


@pytest.mark.parametrize("which", [0, 1], ids=["postgresql", "simulated"])
async def test_a_statement_that_fails_leaves_what_was_done_before_it(
    new_database: Callable[[], str], which: int
) -> None:
    url = await asyncio.to_thread(new_database)
    async with both(url) as databases:
        db = databases[which]
        async with AsyncExitStack() as stack:
            tx = await stack.enter_async_context(db.transaction("test.first"))
            assert await remember_nonce(tx, "key", "kept", NOW)
            async with AsyncExitStack() as inner:
                other = await inner.enter_async_context(db.transaction("test.other"))
                assert await remember_nonce(other, "key", "mine", NOW)
                # It writes a row, and then waits for another's.
                insert = "INSERT INTO nonces (keyid, nonce, seen_at) SELECT 'key', n, $1 FROM unnest($2::text[]) AS n"
                waiting = asyncio.create_task(other.execute(f"{insert} ON CONFLICT DO NOTHING", NOW, ["new", "kept"]))
                await tx.value("SELECT 1")
                await tx.execute("UPDATE nonces SET seen_at = seen_at")
                await stack.aclose()
                assert await waiting == 1
        async with db.transaction("test.read") as tx:
            rows = await tx.fetch("SELECT nonce FROM nonces ORDER BY nonce")
        assert [row["nonce"] for row in rows] == ["kept", "mine", "new"]


@pytest.mark.parametrize("which", [0, 1], ids=["postgresql", "simulated"])
async def test_a_key_being_written_by_another_is_waited_for(new_database: Callable[[], str], which: int) -> None:
    url = await asyncio.to_thread(new_database)
    async with both(url) as databases:
        db = databases[which]
        async with AsyncExitStack() as stack:
            tx = await stack.enter_async_context(db.transaction("test.first"))
            assert await remember_nonce(tx, "key", "kept", NOW)
            waiting = asyncio.create_task(_remember(db, "kept"))
            await tx.value("SELECT 1")
            assert not waiting.done()
        assert await waiting is False
        with pytest.raises(asyncpg.NotNullViolationError):  # noqa: PT012 - the transaction is what raises
            async with db.transaction("test.first") as tx:
                assert await remember_nonce(tx, "key", "given up", NOW)
                waiting = asyncio.create_task(_remember(db, "given up"))
                await tx.execute("INSERT INTO nonces (keyid, nonce) VALUES ('key', 'other')")
        assert await waiting is True


async def _remember(db: Database, nonce: str) -> bool:
    async with db.transaction("test.second") as tx:
        return await remember_nonce(tx, "key", nonce, NOW)
