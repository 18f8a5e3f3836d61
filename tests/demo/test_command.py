"""`hotline demo`, whole: every item accounted for, one record proven, everything ended; and interrupted on the way."""

import argparse
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from node.demo.command import run
from node.errors import OperatorError
from tests.patience import stretched

#: Generous: a machine with a slow disk takes a minute for four databases alone.
LIMIT_S = 180


@contextmanager
def demo(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """The demo as a process; whatever happens, it is asked to end and given the time to end its own."""
    command = (sys.executable, "-m", "node", "demo", "--dir", str(folder), "--reports", "300", *arguments)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as running:
        try:
            yield running
        finally:
            if running.poll() is None:
                running.send_signal(signal.SIGINT)
                running.communicate()


def left_running(folder: Path) -> list[list[str]]:
    """Return the processes that still have to do with the demo in `folder`."""
    commands = [process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"])]
    return [command for command in commands if any(str(folder) in part for part in command)]


@pytest.mark.timeout(stretched(LIMIT_S) + 60)
def test_the_whole_demo_accounts_for_every_item_and_ends_everything(short_tmp: Path) -> None:
    folder = short_tmp / "demo"
    with demo(folder, "--once") as running:
        said, _ = running.communicate(timeout=stretched(LIMIT_S))
    assert running.returncode == 0, said
    for line in (
        "3 hotlines running; they have the directory from the coordinator",
        "Received: items, one for each URL of a report",
        "Duplicates of an item already known",
        "Located by country",
        "Waiting for qualification",
        "Not illegal: closed",
        "Kept at home",
        "Behind a relay",
        "Not located",
        "Delivered with receipt",
        "to nl.hotline.example",
        "to de.hotline.example",
        "Undeliverable",
        "Every item is accounted for",
        "fr.hotline.example signed it (ed25519 and ml-dsa-44)",
        "nl.hotline.example signed (ed25519 and ml-dsa-44), at ",
    ):
        assert line in said
    for country in ("fr", "nl", "de"):
        assert f"{country}.hotline.example   health" in said
    assert said.count("/api/docs") == said.count("/metrics") == said.count("/healthz") == 3
    # Of all addresses only our own on the loopback are shown, and none of the reported hosts.
    assert said.count("://") == said.count("http://127.0.0.1:")
    assert left_running(folder) == []
    assert sorted(path.name for path in (folder / "logs").iterdir())


@pytest.mark.timeout(stretched(LIMIT_S) + 60)
def test_interrupted_while_databases_are_made_it_leaves_nothing_running(short_tmp: Path) -> None:
    folder = short_tmp / "demo"
    with demo(folder) as running:
        while not (folder / "fr" / "data" / "db").exists():
            assert running.poll() is None
            with suppress(subprocess.TimeoutExpired):
                running.wait(0.05)
        running.send_signal(signal.SIGINT)
        said, _ = running.communicate(timeout=stretched(LIMIT_S))
    assert running.returncode == 130, said
    assert left_running(folder) == []


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "somebody's").write_text("file")
    with pytest.raises(OperatorError, match="is not empty"):
        run(argparse.Namespace(once=True, reports=300, dir=str(tmp_path)))
