"""The order in which stored records are applied, with real rows and several workers."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime

import pytest_asyncio

from node.hotline.store import inbound
from node.platform.database import Database

NOW = datetime(2026, 11, 22, 16, tzinfo=UTC)
TURN = 250


@pytest_asyncio.fixture
async def db(new_database: Callable[[], str]) -> AsyncIterator[Database]:
    made = Database(await asyncio.to_thread(new_database))
    yield made
    await made.close()


async def hold(db: Database, peer: str, size: int, *, epoch: int = 1) -> None:
    """Have a stream of `peer` that is held up to `size`; the records themselves do not matter to the order."""
    async with db.transaction("test.hold") as tx:
        await inbound.create_stream(tx, peer, epoch)
        await tx.execute("UPDATE inbound_streams SET size = $2 WHERE peer = $1 AND epoch = $3", peer, size, epoch)
        await tx.execute(
            "INSERT INTO inbound_batches (stream, size, first, edge_before, receipt, received_at) "
            "SELECT id, size, 0, ''::bytea, ''::bytea, $3 FROM inbound_streams WHERE peer = $1 AND epoch = $2 "
            "ON CONFLICT DO NOTHING",
            peer,
            epoch,
            NOW,
        )


async def serve(db: Database, *, share: int = 1) -> str | None:
    async with db.transaction("test.serve") as tx:
        head = await inbound.lock_unapplied(tx)
        if head is None:
            return None
        size = await inbound.held_size(tx, head.peer, head.epoch)
        await inbound.finish_apply(tx, head, min(size, head.applied + TURN), share=share)
    return head.peer


async def test_a_huge_backlog_of_one_peer_holds_up_nobody(db: Database) -> None:
    await hold(db, "a-hog", 1_000_000)
    assert [await serve(db) for _ in range(20)] == ["a-hog"] * 20
    await hold(db, "b", 400)
    await hold(db, "c", 100)
    assert sorted([str(await serve(db)) for _ in range(3)]) == ["a-hog", "b", "c"]
    # What is left of b comes before the hog's next turn but one.
    assert "b" in [await serve(db) for _ in range(2)]
    # The newcomer that was idle since starts at once, and saved nothing up.
    await hold(db, "c", 1_000_000)
    order = [str(await serve(db)) for _ in range(10)]
    assert order[0] == "c"
    assert order.count("c") == order.count("a-hog") == 5


async def test_shares_of_the_directory_weigh(db: Database) -> None:
    await hold(db, "a", 1_000_000)
    await hold(db, "b", 1_000_000)
    served: list[str] = []
    for _ in range(40):
        async with db.transaction("test.serve") as tx:
            head = await inbound.lock_unapplied(tx)
            assert head is not None
            share = 3 if head.peer == "b" else 1
            await inbound.finish_apply(tx, head, head.applied + TURN, share=share)
        served.append(head.peer)
    assert served.count("b") == 30


async def test_a_peer_gains_nothing_by_another_epoch(db: Database) -> None:
    await hold(db, "b", 1_000_000)
    for epoch in range(1, 6):
        await hold(db, "a-restless", TURN, epoch=epoch)
    order = [str(await serve(db)) for _ in range(10)]
    assert order == ["b", "a-restless"] * 5


async def test_several_workers_serve_different_peers_and_the_order_is_kept(db: Database) -> None:
    for peer in ("a", "b", "c"):
        await hold(db, peer, 1_000_000)
    async with db.transaction("test.first") as first:
        one = await inbound.lock_unapplied(first)
        assert one is not None
        # Another process takes whom it finds free, and never waits.
        others = [await serve(db) for _ in range(4)]
        assert one.peer not in others
        await inbound.finish_apply(first, one, one.applied + TURN)
    later = [await serve(db) for _ in range(30)]
    assert all(8 <= later.count(peer) <= 12 for peer in ("a", "b", "c"))
