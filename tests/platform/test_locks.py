"""Locks by name on one connection: exclusive within a process and between processes, free when the connection dies."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from node.platform.database import Database
from tests.hotline.network import eventually

NAMES = [f"deliver:{at}" for at in range(300)]


async def test_a_lock_is_held_once_in_a_process_and_once_among_processes(new_database: Callable[[], str]) -> None:
    url = await asyncio.to_thread(new_database)
    ours, theirs = Database(url), Database(url)
    try:
        async with ours.session_lock("a") as held:
            assert held is not None
            assert held()
            async with ours.session_lock("a") as again, theirs.session_lock("a") as elsewhere:
                assert again is None
                assert elsewhere is None
            async with theirs.session_lock("b") as other:
                assert other is not None
        async with theirs.session_lock("a") as later:
            assert later is not None
    finally:
        await ours.close()
        await theirs.close()


async def test_hundreds_of_locks_take_one_connection(new_database: Callable[[], str]) -> None:
    url = await asyncio.to_thread(new_database)
    db = Database(url)
    try:
        async with AsyncExitStack() as stack:
            held = await asyncio.gather(*(stack.enter_async_context(db.session_lock(name)) for name in NAMES))
            assert all(one is not None and one() for one in held)
            assert await _value(db, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == len(NAMES)
            # The one that asks, and the one that holds.
            assert await _value(db, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()") == 2
        assert await _value(db, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'") == 0
    finally:
        await db.close()


async def test_when_the_connection_dies_its_holders_see_it_and_the_next_one_gets_a_new_one(
    new_database: Callable[[], str],
) -> None:
    url = await asyncio.to_thread(new_database)
    db = Database(url)
    try:
        async with db.session_lock("a") as held:
            assert held is not None
            await _value(
                db,
                "SELECT count(pg_terminate_backend(pid)) FROM pg_locks "
                "WHERE locktype = 'advisory' AND pid <> pg_backend_pid()",
            )
            await eventually(_lost(held))
            async with db.session_lock("a") as taken_over:
                assert taken_over is not None
                assert taken_over()
                # The end of the first holder's block must not free what is now another's.
        async with db.session_lock("a") as at_last:
            assert at_last is not None
    finally:
        await db.close()


def _lost(held: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def lost() -> bool:
        return not held()

    return lost


async def _value(db: Database, query: str) -> int:
    async with db.transaction("test.read") as tx:
        return int(await tx.value(query))
