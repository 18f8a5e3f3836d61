"""The demo's processes: starts them, watches them, ends them all. Ends nothing that it did not start.

Every process gets a session of its own, so that Ctrl-C reaches the demo alone, which then ends the others in order.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import IO, Final, Self

from node.errors import OperatorError

POLL_S: Final = 0.05
END_S: Final = 25.0
_KILLED_S: Final = 5.0
_LOG_LINES: Final = 12
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
#: A person's own settings would go before those of the demo's nodes.
_SETTINGS_PREFIX: Final = "HOTLINE_"


class Interrupted(Exception):  # noqa: N818 - names the fact
    """Somebody asked the demo to end."""


class ProcessFailed(OperatorError):  # noqa: N818 - names the fact
    """A process of the demo ended when it should not have, or not as it should have; the text shows its last lines."""


class StopRequest:
    """Notes that Ctrl-C was pressed, or SIGTERM or SIGHUP came; while it is entered nothing is interrupted by them."""

    def __init__(self) -> None:
        """Nothing is asked for yet."""
        self.made = False
        self._before: dict[signal.Signals, Callable[[int, FrameType | None], object] | int | None] = {}

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise Interrupted when it was asked for."""
        if self.made:
            raise Interrupted

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.made = True


@dataclass(slots=True)
class Process:
    """One process; a `service` runs until it is told to end, and is `ready` once it does its work.

    What it says on standard error is in `log`. `reported`: somebody has been told already that it failed.
    """

    name: str
    running: subprocess.Popen[bytes]
    log: Path
    output: IO[bytes]
    service: bool
    ready: bool = False
    reported: bool = False

    def last_lines(self) -> str:
        """Return the end of its log."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:]
        return "\n".join(f"    {line}" for line in lines) or "    (its log is empty)"


class Processes:
    """All of them."""

    def __init__(self, logs: Path, stop: StopRequest) -> None:
        """Keep their logs in the folder `logs`, which exists."""
        self._logs = logs
        self._stop = stop
        self._started: list[Process] = []

    def start(self, name: str, module: str, *arguments: str, service: bool = False) -> Process:
        """Start `python -P -m module arguments`. `name` is what it is called in sentences and names its log."""
        self._stop.check()
        log = self._logs / f"{name.replace(' ', '-')}.log"
        output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the process is collected
        with log.open("ab") as errors:
            running = subprocess.Popen(  # noqa: S603 - our own program, no shell
                # -P: nothing from the folder that the demo happens to be called in is imported.
                (sys.executable, "-P", "-m", module, *arguments),
                # A service notices by its standard input that the demo is gone, however it went, if it looks.
                stdin=subprocess.PIPE if service else subprocess.DEVNULL,
                stdout=errors if service else output,
                stderr=errors,
                start_new_session=True,
                env={name: value for name, value in os.environ.items() if not name.startswith(_SETTINGS_PREFIX)},
            )
        process = Process(name, running, log, output, service)
        self._started.append(process)
        return process

    def finish(self, process: Process, *, within_s: float, statuses: Sequence[int] = (0,)) -> str:
        """Wait for a command and return what it printed; raises ProcessFailed and Interrupted."""
        self.wait_until(lambda: process.running.poll() is not None, f"{process.name} to end", within_s=within_s)
        status = process.running.returncode
        if status not in statuses:
            raise ProcessFailed(f"{process.name} ended with status {status}:\n{process.last_lines()}")
        process.output.seek(0)
        return process.output.read().decode("utf-8", "replace")

    def wait_until(self, condition: Callable[[], bool], what: str, *, within_s: float) -> None:
        """Look again and again until `condition` holds; raises ProcessFailed when it takes too long, Interrupted."""
        deadline = time.monotonic() + within_s
        while not condition():
            self.check()
            if time.monotonic() > deadline:
                raise ProcessFailed(f"Waited {within_s:.0f} s for {what}.")
            time.sleep(POLL_S)

    def check(self) -> None:
        """Raise Interrupted when the demo is asked to end, ProcessFailed when a service has ended by itself."""
        self._stop.check()
        for process in self._started:
            if process.service and process.running.poll() is not None:
                status = process.running.returncode
                process.reported = True
                raise ProcessFailed(f"{process.name} ended by itself, with status {status}:\n{process.last_lines()}")

    def end(self) -> list[str]:
        """End everything, the newest first: commands and services at once, but what was started first alone and last.

        Returns a sentence for each that did not end as it should.
        """
        problems = []
        # The first is the name server: the nodes may still ask it while they finish what they have in hand.
        for part in (self._started[1:], self._started[:1]):
            problems += _end(part)
        for process in self._started:
            process.output.close()
        self._started.clear()
        return problems


def _end(processes: Sequence[Process]) -> list[str]:
    problems = []
    for process in processes:
        if process.running.poll() is not None:
            continue
        # A command answers to SIGINT by closing what it opened, its database among it; SIGTERM would just kill it.
        process.running.send_signal(signal.SIGTERM if process.service else signal.SIGINT)
    deadline = time.monotonic() + END_S
    for process in processes:
        try:
            status = process.running.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(process.running.pid, signal.SIGKILL)
            process.running.wait(_KILLED_S)
            problems.append(f"{process.name} did not end within {END_S:.0f} s and was killed.")
        else:
            if process.service and status not in _clean(process):
                problems.append(f"{process.name} ended with status {status}:\n{process.last_lines()}")
        if process.running.stdin is not None:
            process.running.stdin.close()
    return problems


def _clean(process: Process) -> set[int]:
    """Return the exit statuses that are nothing to speak of."""
    if process.reported:
        return {process.running.returncode}
    # One that is still starting has opened nothing and does not know the signal yet.
    return {0} if process.ready else {0, -signal.SIGTERM}


def end_database(folder: Path) -> bool:
    """End the private PostgreSQL that keeps its files in `folder`, if a killed process left it; return whether one ran.

    The one that uses it normally ends it. SIGINT is its fast shutdown, SIGQUIT its immediate one.
    """
    pid_file = folder / "postmaster.pid"
    found = False
    for number in (signal.SIGINT, signal.SIGQUIT):
        pid = _postmaster(pid_file)
        if pid is None:
            return found
        found = True
        os.kill(pid, number)
        deadline = time.monotonic() + END_S
        while _postmaster(pid_file) is not None and time.monotonic() < deadline:
            time.sleep(POLL_S)
    return found


def _postmaster(pid_file: Path) -> int | None:
    """Return the number of the server that wrote the file, if it runs."""
    try:
        pid = int(pid_file.read_text(encoding="utf-8").split("\n", 1)[0])
        # proc_pid_stat(5): the number, the program in parentheses, the state.
        program, _, rest = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").partition("(")[2].rpartition(")")
    except (OSError, ValueError):
        return None
    return pid if program == "postgres" and rest.split()[0] not in {"Z", "X", "x"} else None
