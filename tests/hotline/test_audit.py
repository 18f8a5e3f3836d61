"""`hotline audit-network` over real databases: whole when all is well, and every spoiled row is found and named."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import sqlalchemy as sa

from node.__main__ import main
from node.platform.database import Database
from node.platform.embedded import EmbeddedPostgres
from node.setting_files import write_settings
from tests.conftest import _clone
from tests.hotline.network import ILLEGAL, eventually, station
from tests.hotline.test_exchange import told
from tests.world import ADDRESS, TestNode, World, file_values

_SENT = 30
_BACK = 7


def written(folder: Path, node: TestNode, **changes: object) -> Path:
    """Write the settings of a node as a file and return its path."""
    path = folder / f"{node.id}-{uuid4().hex[:8]}.toml"
    write_settings(path, {**file_values(node.settings), **changes})
    return path


@pytest.fixture(scope="module")
def over(tmp_path_factory: pytest.TempPathFactory, postgres: EmbeddedPostgres) -> World:
    """France and the Netherlands after an exchange that is over; neither runs any more."""

    def new_database() -> str:
        name = f"t_{uuid4().hex[:12]}"
        asyncio.run(_clone(postgres.url(), name))
        return postgres.url(name)

    made = World(tmp_path_factory.mktemp("over"), new_database)
    for country in ("FR", "NL"):
        made.add(country, batch_records_max=10)
    made.sign_directory()
    asyncio.run(_exchange(made))
    return made


async def _exchange(world: World) -> None:
    await world.create_field_keys()
    async with station(world.nodes[0]) as fr, station(world.nodes[1]) as nl:
        for n in range(_SENT):
            await fr.report(f"http://{ADDRESS['NL']}/secret/{n}", qualification=ILLEGAL)
        for n in range(_BACK):
            await nl.report(f"http://{ADDRESS['FR']}/secret/{n}", qualification=ILLEGAL)
        await told(fr, _SENT)
        # The stream back holds outcomes too, of which nothing is told.
        await eventually(lambda: _all_receipted(nl.value))
        await eventually(lambda: _all_receipted(fr.value))


async def _all_receipted(value: Callable[[str], Any]) -> bool:
    return bool(
        await value(
            "SELECT (SELECT bool_and(acked_size = next_index AND outcome_size > 0) FROM outbound_streams s "
            "JOIN delivery_cursors c ON c.stream = s.id) AND (SELECT bool_and(applied = size) FROM inbound_streams s "
            "JOIN apply_cursors c ON c.stream = s.id)"
        )
    )


@pytest.fixture
def copies(over: World, postgres: EmbeddedPostgres, tmp_path: Path) -> tuple[list[Path], list[str]]:
    """Settings files of both nodes with databases of this test's own, and the addresses of those."""
    files, urls = [], []
    for node in over.nodes:
        name = f"t_{uuid4().hex[:12]}"
        asyncio.run(_copy(postgres, str(sa.make_url(node.settings.database_url).database), name))
        urls.append(postgres.url(name))
        files.append(written(tmp_path, node, database_url=urls[-1]))
    return files, urls


async def _copy(postgres: EmbeddedPostgres, template: str, name: str) -> None:
    db = Database(postgres.url())
    async with db.engine.connect() as connection:
        autocommit = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await autocommit.execute(sa.text(f"CREATE DATABASE {name} TEMPLATE {template}"))
    await db.close()


def change(url: str, statement: str) -> None:
    async def work() -> None:
        db = Database(url)
        async with db.transaction("test.spoil") as tx:
            assert await tx.execute(statement) > 0
        await db.close()

    asyncio.run(work())


def test_an_exchange_that_is_over_has_no_difference(
    copies: tuple[list[Path], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(path) for path in copies[0]]
    assert main(["audit-network", "--strict", "--nodes", *files]) == 0
    shown = capsys.readouterr().out
    assert "0 under way; 0 differences." in shown
    assert main(["audit-network", "--json", "--nodes", *files]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["differences"] == []
    both = {one["stream"]: one for one in said["streams"] if one["looked_at"] == "both sides"}
    out = both["hx/1/fr.hotline.example/nl.hotline.example/1"]
    assert out["written"] == out["receipted"] == out["held"] == out["applied"] == out["records"] > _SENT
    assert out["receipts"] >= _SENT // 10
    assert len(both) == 2


_FR, _NL = 0, 1
_SPOILS = {
    "a record is gone at the sender": (_FR, "DELETE FROM outbox WHERE idx = 4"),
    "a record is gone at the receiver": (_NL, "DELETE FROM inbox WHERE idx = 4"),
    "a leaf is another": (_NL, "UPDATE inbox SET leaf_hash = sha256('x') WHERE idx = 4"),
    "sealed bytes are altered": (
        _FR,
        "UPDATE outbox SET record_enc = set_byte(record_enc, 40, get_byte(record_enc, 40) # 1) WHERE idx = 4",
    ),
    "two records changed places": (
        _NL,
        (
            "UPDATE inbox i SET leaf_hash = o.leaf_hash, record_enc = o.record_enc FROM inbox o "
            "WHERE i.idx IN (4, 5) AND o.idx = 9 - i.idx AND o.stream = i.stream"
        ),
    ),
    "a receipt is gone": (_FR, "DELETE FROM receipts WHERE size = (SELECT min(size) FROM receipts)"),
    "the newest receipt is gone": (_FR, "DELETE FROM receipts WHERE size = (SELECT max(size) FROM receipts)"),
    "a receipt has other bytes": (
        _FR,
        "UPDATE receipts SET note = set_byte(note, length(note) - 20, get_byte(note, length(note) - 20) # 1)",
    ),
    "a root is kept of records that are not there": (
        _NL,
        (
            "INSERT INTO subtrees (log, stream, level, number, root) SELECT 'inbox', id, 1, 0, sha256('x') "
            "FROM inbound_streams"
        ),
    ),
    "a batch is gone": (_NL, "DELETE FROM inbound_batches WHERE first = 0"),
    "a receipt given has other bytes": (
        _NL,
        (
            "UPDATE inbound_batches SET receipt = set_byte(receipt, length(receipt) - 20, "
            "get_byte(receipt, length(receipt) - 20) # 1) WHERE first = 0"
        ),
    ),
    "the receipted size is another": (_FR, "UPDATE delivery_cursors SET acked_size = acked_size - 1"),
    "the sender's edge is another": (_FR, "UPDATE delivery_cursors SET acked_edge = sha256('x')"),
    "the receiver's edge is another": (_NL, "UPDATE inbound_streams SET edge = sha256('x')"),
    "the stream is longer than its records": (_FR, "UPDATE outbound_streams SET next_index = next_index + 1"),
    "the stream is shorter than its records": (_NL, "UPDATE inbound_streams SET size = size - 1"),
    "the apply cursor is behind": (_NL, "UPDATE apply_cursors SET applied = applied - 3"),
    "the cursor of outcomes is behind": (_FR, "UPDATE delivery_cursors SET outcome_size = outcome_size - 2"),
    "an item is gone at the receiver": (
        _NL,
        "DELETE FROM items WHERE received_idx = 4",
    ),
    "an item is gone at the sender": (
        _FR,
        "DELETE FROM items WHERE id = (SELECT item_id FROM outbox WHERE idx = 4)",
    ),
    "an item is doubled": (
        _NL,
        "UPDATE items SET received_idx = 4 WHERE received_idx = 5",
    ),
    "an item is refused as well": (
        _NL,
        (
            "INSERT INTO inbox_refusals (stream, idx, code, detail, refused_at) "
            "SELECT id, 4, 'not-competent', 'x', now() FROM inbound_streams"
        ),
    ),
    "a refusal that nobody told": (
        _FR,
        (
            "INSERT INTO outbox_refusals (stream, idx, code, detail, refused_at) "
            "SELECT id, 4, 'not-competent', 'x', now() FROM outbound_streams"
        ),
    ),
    "an item is marked as sent that was not": (
        _FR,
        "UPDATE items SET state = 'sent' WHERE received_stream IS NOT NULL",
    ),
    "another item stands beside a record": (
        _FR,
        "UPDATE outbox SET item_id = (SELECT item_id FROM outbox WHERE idx = 5) WHERE idx = 4",
    ),
}


@pytest.mark.parametrize("what", _SPOILS)
def test_a_spoiled_row_is_found(
    what: str, copies: tuple[list[Path], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    files, urls = copies
    at, statement = _SPOILS[what]
    change(urls[at], statement)
    assert main(["audit-network", "--strict", "--nodes", *(str(path) for path in files)]) == 1
    shown = capsys.readouterr().out
    assert "DIFFERENCE at " in shown
    assert "secret" not in shown


def test_what_is_under_way_is_no_difference_unless_asked_for(
    copies: tuple[list[Path], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    """A receiver that has not applied its newest record yet, nor told of it."""
    files, urls = [str(path) for path in copies[0]], copies[1]
    change(
        urls[_FR],
        "INSERT INTO outbound_streams (peer, epoch, next_index) VALUES ('be.hotline.example', 1, 0)",
    )
    change(
        urls[_FR],
        "INSERT INTO delivery_cursors (stream, acked_size, acked_edge, outcome_size) "
        "SELECT id, 0, '', 0 FROM outbound_streams WHERE peer = 'be.hotline.example'",
    )
    assert main(["audit-network", "--strict", "--nodes", *files]) == 0
    change(urls[_NL], "DELETE FROM inbound_batches WHERE size = (SELECT max(size) FROM inbound_batches)")
    assert main(["audit-network", "--nodes", *files]) == 1
    assert "its batches end at" in capsys.readouterr().out


def test_one_node_twice_is_refused(copies: tuple[list[Path], list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    file = str(copies[0][0])
    assert main(["audit-network", "--nodes", file, file]) == 2
    assert "two of the settings files are of one node" in capsys.readouterr().err


async def test_a_node_asks_its_peers_what_they_hold(
    over: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fr, nl = over.nodes
    file = str(written(tmp_path, fr))

    async def audit(*more: str) -> tuple[int, str]:
        capsys.readouterr()
        status = await asyncio.to_thread(main, ["--settings", file, "audit-network", *more])
        return status, capsys.readouterr().out

    async with station(nl):
        status, shown = await audit("--strict", "--receipts-max", "2")
        assert (status, "the peer's word" in shown) == (0, True)
        assert "0 differences." in shown
        # The peer's copy of a receipt, and how far it says it is.
        other = Database(nl.settings.database_url)
        async with other.transaction("test.spoil") as tx:
            await tx.execute("UPDATE inbound_batches SET receipt = receipt || '\\x41'::bytea WHERE first = 0")
        status, shown = await audit()
        assert (status, "the peer's receipt is not the one that we stored" in shown) == (1, True)
        async with other.transaction("test.spoil") as tx:
            await tx.execute(
                "UPDATE inbound_batches SET receipt = substr(receipt, 1, length(receipt) - 1) WHERE first = 0"
            )
        await other.close()
        assert (await audit())[0] == 0
    status, shown = await audit()
    assert (status, "NOT ASKED: nl.hotline.example (unreachable-connect)." in shown) == (0, True)
    assert (await audit("--strict"))[0] == 1
