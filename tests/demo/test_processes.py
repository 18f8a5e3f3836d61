"""The demo's processes: what is said when one fails, and that all of them end."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from node.demo.processes import Interrupted, Process, Processes, ProcessFailed, StopRequest, end_database

PROGRAM = """
import signal, sys
what = sys.argv[1]
if what == "print":
    print("done")
elif what == "fail":
    sys.exit("the reason")
elif what == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if what in ("wait", "stubborn"):
    open(sys.argv[2], "w").close()
    try:
        signal.pause()
    except KeyboardInterrupt:
        sys.exit(130)
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "demo_child.py").write_text(PROGRAM)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "demo_child"


@pytest.fixture
def stop() -> Iterator[StopRequest]:
    with StopRequest() as request:
        yield request


@pytest.fixture
def processes(tmp_path: Path, stop: StopRequest) -> Iterator[Processes]:
    made = Processes(tmp_path, stop)
    yield made
    made.end()


def waiting(processes: Processes, module: str, ready: Path, what: str = "wait", *, service: bool = True) -> Process:
    process = processes.start(what, module, what, str(ready), service=service)
    processes.wait_until(ready.exists, "the child", within_s=20)
    process.ready = True
    return process


def test_a_command_returns_what_it_prints(processes: Processes, module: str) -> None:
    assert processes.finish(processes.start("a command", module, "print"), within_s=20) == "done\n"


def test_a_command_that_fails_is_named_with_its_last_lines(processes: Processes, module: str) -> None:
    with pytest.raises(ProcessFailed, match=r"a command ended with status 1:\n +the reason"):
        processes.finish(processes.start("a command", module, "fail"), within_s=20)


def test_an_exit_status_that_is_foreseen_is_no_failure(processes: Processes, module: str) -> None:
    assert processes.finish(processes.start("a command", module, "fail"), within_s=20, statuses=(0, 1)) == ""


def test_a_command_that_takes_too_long_is_named(processes: Processes, module: str) -> None:
    with pytest.raises(ProcessFailed, match="for a command to end"):
        processes.finish(processes.start("a command", module, "wait", os.devnull), within_s=0)


def test_a_service_that_ends_by_itself_is_noticed(processes: Processes, module: str) -> None:
    service = processes.start("a service", module, "fail", service=True)
    service.running.wait(20)
    with pytest.raises(ProcessFailed, match=r"a service ended by itself, with status 1:\n +the reason"):
        processes.check()


def test_everything_ends(processes: Processes, module: str, tmp_path: Path) -> None:
    first = waiting(processes, module, tmp_path / "1")
    second = waiting(processes, module, tmp_path / "2", service=False)
    problems = processes.end()
    assert first.running.returncode == -signal.SIGTERM
    # An interpreter that meets SIGINT outside its own code ends by the signal itself.
    assert second.running.returncode in {130, -signal.SIGINT}
    assert [line.split(":")[0] for line in problems] == [f"wait ended with status {-signal.SIGTERM}"]


def test_one_that_does_not_end_is_killed_and_named(
    processes: Processes, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.demo.processes.END_S", 0.2)
    stubborn = waiting(processes, module, tmp_path / "1", "stubborn")
    assert processes.end() == ["stubborn did not end within 0 s and was killed."]
    assert stubborn.running.returncode == -signal.SIGKILL


def test_one_that_is_only_starting_may_be_ended_by_the_signal(processes: Processes, module: str) -> None:
    processes.start("wait", module, "wait", os.devnull, service=True)
    assert processes.end() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_noted_and_interrupts_at_the_next_look(
    processes: Processes, stop: StopRequest, number: signal.Signals
) -> None:
    processes.check()
    os.kill(os.getpid(), number)
    with pytest.raises(Interrupted):
        processes.wait_until(lambda: False, "nothing", within_s=20)
    assert stop.made


def test_the_signals_are_as_before_afterwards() -> None:
    before = signal.getsignal(signal.SIGINT)
    with StopRequest():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_a_person_s_own_settings_do_not_reach_the_nodes(
    processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "show_environment.py").write_text("import os; print(sorted(os.environ))")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("HOTLINE_DATABASE_URL", "postgresql://nowhere.invalid/")
    said = processes.finish(processes.start("a command", "show_environment"), within_s=20)
    assert "HOTLINE_DATABASE_URL" not in said
    assert "PYTHONPATH" in said


def test_no_database_is_ended_where_none_runs(tmp_path: Path) -> None:
    assert not end_database(tmp_path)
    (tmp_path / "postmaster.pid").write_text(f"{os.getpid()}\n")
    # The number belongs to something else by now.
    assert not end_database(tmp_path)
    (tmp_path / "postmaster.pid").write_text("not a number")
    assert not end_database(tmp_path)
