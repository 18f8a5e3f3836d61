"""What waits to be judged, or is judged again: however much a peer sent, and whoever gives it a receipt that counts."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest

from node.hotline.domain.acceptance import NEVER_SENT
from node.hotline.flows.apply.applier import Applier
from node.hotline.store import inbound, waiting
from node.hotline.store.vault import Vault
from node.platform.database import Row, Transaction
from node.platform.ids import new_id
from protocol.bodies import OutcomeBody
from protocol.directory import Directory
from protocol.record import Handling, encode_outcome
from tests.catchup.copies import standing_still
from tests.hotline.network import eventually, station
from tests.world import World


async def test_refused_records_are_read_a_page_at_a_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that said any number of times what is refused does not fill the memory of a recovery."""
    await world.create_field_keys()
    fr_node, nl_node = world.nodes
    monkeypatch.setattr(waiting, "PAGE_MAX", 2)
    read: list[int] = []

    async def fetch(self: Transaction, query: str, *args: object) -> list[Row]:
        rows: list[Row] = await self.driver.fetch(query, *args)
        read.append(len(rows))
        return rows

    async with standing_still(fr_node) as still:
        now, vault = still.clock.now(), still.store.vault
        async with still.db.transaction("test.refused") as tx:
            stream = await _stream(tx, nl_node.id)
            for idx in range(5):
                await _says(tx, vault, stream, idx, nl_node.id, fr_node.id, now)
            refusals = [(idx, "schema-invalid", None, NEVER_SENT if idx else "another") for idx in range(5)]
            await inbound.note_refusals(tx, stream, refusals, now)
        monkeypatch.setattr(Transaction, "fetch", fetch)
        async with still.db.transaction("test.again") as tx:
            async for page in waiting.refused_with(tx, vault, nl_node.id, NEVER_SENT):
                await waiting.judge_again(tx, page)
        assert max(read) == 2
        async with still.db.transaction("test.read") as tx:
            assert await waiting.indices(tx, stream, 0, 5) == {1, 2, 3, 4}
            assert await tx.value("SELECT count(*) FROM inbox_refusals") == 1


async def test_a_stream_without_a_receipt_that_counts_keeps_no_other_waiting(world: World) -> None:
    """Its sender never gives one again: what others said is judged all the same."""
    await world.create_field_keys()
    fr_node, nl_node = world.nodes
    async with standing_still(fr_node) as still:
        now = still.clock.now()
        async with still.db.transaction("test.waiting") as tx:
            first, second = await _stream(tx, "aa.hotline.example"), await _stream(tx, nl_node.id)
            for stream in (first, second):
                await waiting.put(tx, stream, [(3, new_id(now)), (5, new_id(now))])
            await _receipts(tx, first, [(6, True)])
            await _receipts(tx, second, [(4, False), (6, True)])
        async with still.db.transaction("test.due") as tx:
            head = await waiting.lock_due(tx, now)
            assert head is not None
            assert (head.stream, head.applied, head.end) == (second, 3, 4)
            await waiting.over(tx, second, [3])
            assert await waiting.lock_due(tx, now) is None


async def test_what_waits_no_longer_is_judged_while_more_comes_in_for_ever(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer that always has another record to be applied does not keep it waiting."""
    await world.create_field_keys()
    fr_node, nl_node = world.nodes

    async def always(_self: Applier, _directory: Directory, _until: inbound.Until | None = None) -> int:
        await asyncio.sleep(0.01)
        return 1

    monkeypatch.setattr(Applier, "run_once", always)
    async with station(fr_node) as fr:
        async with fr.node.db.transaction("test.waiting") as tx:
            stream, now = await _stream(tx, nl_node.id), fr.clock.now()
            await _says(tx, fr.node.store.vault, stream, 0, nl_node.id, fr_node.id, now)
            await _receipts(tx, stream, [(1, False)])
            await waiting.put(tx, stream, [(0, new_id(now))])

        async def judged() -> bool:
            return bool(await fr.value("SELECT count(*) FROM inbox_refusals") == 1)

        await eventually(judged)
        assert await fr.value("SELECT count(*) FROM inbox_waiting") == 0


async def _says(tx: Transaction, vault: Vault, stream: int, idx: int, iss: str, aud: str, now: datetime) -> None:
    """Let a record of a peer be held that is an outcome of what was never sent."""
    raw = encode_outcome(
        OutcomeBody(stream=f"hx/1/{aud}/{iss}/1", accepted=((idx, idx),), kept=(), refused=()),
        record_id=str(new_id(now)),
        iss=iss,
        aud=aud,
        iat=now,
        handling=Handling("takedown", now + timedelta(days=1)),
    )
    sealed = vault.seal_record("inbox", stream, idx, raw)
    await tx.copy("inbox", ("stream", "idx", "leaf_hash", "record_enc"), [(stream, idx, bytes(32), sealed)])


async def _stream(tx: Transaction, peer: str) -> int:
    await inbound.create_stream(tx, peer, 1)
    found: int = await tx.value("SELECT id FROM inbound_streams WHERE peer = $1", peer)
    return found


async def _receipts(tx: Transaction, stream: int, given: Sequence[tuple[int, bool]]) -> None:
    for size, worthless in given:
        await tx.execute(
            "INSERT INTO inbound_batches (stream, size, first, edge_before, receipt, received_at, worthless) "
            "VALUES ($1, $2, 0, ''::bytea, ''::bytea, now(), $3)",
            stream,
            size,
            worthless,
        )
