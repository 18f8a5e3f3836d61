"""What a record or a request costs does not grow with what lies in the database already."""

from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from uuid import UUID

import pytest
import pytest_asyncio

from node.hotline.domain.comparison import Kind
from node.hotline.domain.delivery import Problem
from node.hotline.domain.lifecycle import State
from node.hotline.domain.steps import KnownItem
from node.hotline.flows.greet import Greeter
from node.hotline.store import custody, heads, outbound
from node.hotline.store.amendments import Amendments
from node.hotline.store.vault import Vault
from node.platform.database import Database, Transaction
from node.platform.fieldcrypto import DigestKey, FieldCipher
from protocol.directory import NodeEntry
from protocol.hello import EPOCHS_MAX, Heads, Held, Written

_NOW = datetime(2026, 11, 27, tzinfo=UTC)
_ITEMS = 20_000
_VAULT = Vault(FieldCipher({1: bytes(32)}, 1), DigestKey(bytes(32)))


@pytest.fixture
def empty(new_database: Callable[[], str]) -> str:
    """A database with nothing in it."""
    return new_database()


@pytest_asyncio.fixture
async def db(empty: str) -> AsyncIterator[Database]:
    """That database, open."""
    made = Database(empty)
    yield made
    await made.close()


async def _read_through(tx: Transaction) -> dict[str, int]:
    """How many rows were read by going through whole tables, by table; by transactions before this one, too."""
    rows = await tx.fetch("SELECT relname, seq_tup_read FROM pg_stat_xact_user_tables WHERE seq_tup_read > 0")
    return {row["relname"]: row["seq_tup_read"] for row in rows}


async def _hand_on_items(tx: Transaction) -> None:
    """Write as many items as a node gives away in years, all of them in one stream and receipted."""
    case = UUID(int=1)
    await tx.execute(
        "INSERT INTO cases (id, submitter, channel, received_at, payment_methods, created_at) "
        "VALUES ($1, 'fr.example', 'api', $2, '{}', $2)",
        case,
        _NOW,
    )
    await tx.execute(
        "INSERT INTO items (id, case_id, kind, url_enc, url_digest, state, created_at, updated_at) "
        "SELECT gen_random_uuid(), $1, 'url', ''::bytea, sha256(g::text::bytea), 'transferred', $3, $3 "
        "FROM generate_series(1, $2) g",
        case,
        _ITEMS,
        _NOW,
    )
    await tx.execute(
        "INSERT INTO outbox (stream, idx, record_id, item_id, type, leaf_hash, record_enc, created_at) "
        "SELECT 1, row_number() OVER () - 1, gen_random_uuid(), id, 'transfer', url_digest, ''::bytea, $1 FROM items",
        _NOW,
    )
    await tx.execute(
        "INSERT INTO custody (item_id, holder, trail, given_at, out_stream, out_idx, receipted, updated_at) "
        "SELECT item_id, 'nl.example', '[{\"node\": \"fr.example\"}]', $1, stream, idx, true, $1 FROM outbox",
        _NOW,
    )
    await tx.execute("INSERT INTO url_identities (url_digest, item_id, times_seen) SELECT url_digest, id, 1 FROM items")
    await tx.execute("ANALYZE")


async def test_an_outcome_that_refuses_transfers_looks_at_these_items_alone(db: Database) -> None:
    async with db.transaction("test.fill") as tx:
        await _hand_on_items(tx)
    async with db.transaction("test.refuse") as tx:
        before = await _read_through(tx)
        back = await custody.handed_on(tx, 1, [3, 5])
        await outbound.refuse(tx, 1, [(3, "not-competent", "no"), (5, "not-competent", "no")], _NOW)
        assert await _read_through(tx) == before
        returned = await tx.fetch("SELECT id FROM items WHERE state <> 'transferred' AND assigned_node = 'fr.example'")
        assert {row["item_id"] for row in back} == {row["id"] for row in returned}
        assert await tx.value("SELECT count(*) FROM custody WHERE out_stream IS NULL AND holder = 'fr.example'") == 2


async def test_a_withdrawn_item_gives_its_url_to_a_duplicate_without_a_look_at_others(db: Database) -> None:
    async with db.transaction("test.fill") as tx:
        await _hand_on_items(tx)
        first: UUID = await tx.value("SELECT item_id FROM outbox WHERE idx = 7")
        heir: UUID = await tx.value("SELECT item_id FROM outbox WHERE idx = 8")
        await tx.execute(
            "UPDATE items SET state = 'duplicate', duplicate_of = $1, "
            "url_digest = (SELECT url_digest FROM items WHERE id = $1) WHERE id = $2",
            first,
            heir,
        )
    async with db.transaction("test.succeed") as tx:
        before = await _read_through(tx)
        await Amendments(tx, _VAULT).succeed([first], _NOW)
        assert await _read_through(tx) == before
        found = await tx.value(
            "SELECT u.item_id FROM url_identities u JOIN items i ON i.url_digest = u.url_digest WHERE i.id = $1", first
        )
        assert found == heir


async def test_an_item_that_is_reported_anew_takes_its_url_without_a_look_at_others(db: Database) -> None:
    async with db.transaction("test.fill") as tx:
        await _hand_on_items(tx)
        old: UUID = await tx.value("SELECT item_id FROM outbox WHERE idx = 7")
        sealed = _VAULT.seal("items", "url_enc", old, "https://host.example/")
        await tx.execute("UPDATE items SET url_enc = $2 WHERE id = $1", old, sealed)
    new = UUID(int=2)
    async with db.transaction("test.anew") as tx:
        item = KnownItem(
            here="fr.example",
            id=old,
            case_id=UUID(int=1),
            state=State.WITHDRAWN,
            reason=None,
            assigned_node=None,
            reporter=None,
            came_from=None,
            report_hash=None,
            own=None,
            peers=None,
            actions=(),
        )
        before = (await _read_through(tx)).get("url_identities")
        assert await Amendments(tx, _VAULT).report_anew(item, new, _NOW) == new
        assert (await _read_through(tx)).get("url_identities") == before
        assert await tx.value("SELECT count(*) FROM url_identities WHERE item_id = $1", new) == 1


class _NoCalls:
    """Whoever is greeted calls nobody."""

    async def hello(self, peer: NodeEntry, heads: Heads) -> Heads | Problem:
        raise NotImplementedError

    async def newest_receipt(self, peer: NodeEntry, epoch: int) -> bytes | Problem | None:
        raise NotImplementedError


async def test_a_hello_that_names_a_hundred_epochs_that_nobody_wrote_costs_a_few_statements(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    statements: list[str] = []

    def count(name: str) -> None:
        run = getattr(Transaction, name)

        async def counted(tx: Transaction, query: str, *args: object) -> object:
            statements.append(query)
            return await run(tx, query, *args)

        monkeypatch.setattr(Transaction, name, counted)

    for name in ("fetch", "row", "value", "execute"):
        count(name)
    epochs = range(1, EPOCHS_MAX + 1)
    theirs = Heads(
        tuple(Written(epoch, 300_000, 299_999, bytes(32)) for epoch in epochs),
        tuple(Held(epoch, 300_000, bytes(32)) for epoch in epochs),
    )
    with ThreadPoolExecutor(1) as pool:
        greeter = Greeter("nl.example", db, _NoCalls(), pool, lambda: _NOW)
        for _ in range(2):
            statements.clear()
            assert await greeter.welcome("fr.example", theirs) == Heads((), ())
            assert len(statements) < 10
    async with db.transaction("test.read") as tx:
        found = await heads.differences(tx, "fr.example")
    assert {one.kind for one in found} == {Kind.SET_BACK, Kind.LOST}
    assert len(found) == 2 * EPOCHS_MAX
