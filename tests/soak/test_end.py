"""A soak that is told to end leaves nothing behind: no process, no database server, no folder."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

_ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(600)
def test_sigterm_ends_everything_that_was_started(short_tmp: Path) -> None:
    words = [sys.executable, "-u", "-m", "tests.soak", "--nodes", "2", "--servers", "1", "--seed", "1"]
    environment = {**os.environ, "TMPDIR": str(short_tmp)}
    with subprocess.Popen(words, cwd=_ROOT, env=environment, stdout=subprocess.PIPE, text=True) as soak:
        assert soak.stdout is not None
        for line in soak.stdout:
            if line.startswith("everybody serves"):
                break
        started = [*psutil.Process(soak.pid).children(recursive=True), *_servers(short_tmp)]
        assert len(started) >= 6, started
        soak.send_signal(signal.SIGTERM)
        said = soak.stdout.read()
    assert soak.returncode == 130, said
    assert psutil.wait_procs(started, timeout=120)[1] == []
    assert list(short_tmp.iterdir()) == []


def _servers(folder: Path) -> list[psutil.Process]:
    return [one for one in psutil.process_iter() if any(str(folder) in word for word in _words(one))]


def _words(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []
