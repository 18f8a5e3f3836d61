"""Runs `hotline` commands for the soak, each in a process of its own, as an operator would."""

import importlib
import os
import sys
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

from node.__main__ import COMMANDS, main
from tests.faults.station import until
from tests.soak.process import start_process

#: Longer than any other session on the machine makes a command take.
LIMIT_S: Final = 600.0
_REFUSED: Final = 2
_USED: Final = ("init", "join", "descriptor", "keys", "recover", "directory", "desk", "audit-network")
# Whoever is forked from the nursery has imported them.
for _name in _USED:
    importlib.import_module(COMMANDS[_name].module)


@dataclass(frozen=True, slots=True)
class Call:
    """The words of a command, and where it writes to."""

    words: tuple[str, ...]
    output: Path


@dataclass(frozen=True, slots=True)
class Done:
    """What a command came to: its exit status, minus the signal that ended it, and what it printed."""

    status: int
    text: str

    @property
    def database_failed(self) -> bool:
        """Whether it ended because the database was away, which whoever called it waits for."""
        return self.status == _REFUSED and "database" in self.text


def call(one: Call) -> None:
    """Run a command to its end."""
    with one.output.open("wb") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    for name in [name for name in os.environ if name.startswith("HOTLINE_")]:
        del os.environ[name]
    sys.exit(main(one.words))


@dataclass(slots=True)
class Commands:
    """Starts commands, and knows those that run."""

    folder: Path
    counted: int = 0
    running: set[BaseProcess] = field(default_factory=set)

    def begin(self, settings: Path | None, *words: str) -> tuple[BaseProcess, Path]:
        """Start a command of a node, or of nobody; returns its process and the file of what it prints."""
        self.counted += 1
        self.folder.mkdir(exist_ok=True)
        output = self.folder / f"{self.counted:04}-{words[0]}"
        where = () if settings is None else ("--settings", str(settings))
        process = start_process(call, Call((*where, *words), output), words[0])
        self.running.add(process)
        return process, output

    async def finish(self, process: BaseProcess, output: Path) -> Done:
        """Wait until a command has ended."""

        async def gone() -> bool:
            return process.exitcode is not None

        await until(gone, f"the command of {output.name} ends", limit_s=LIMIT_S)
        status = process.exitcode
        assert status is not None
        self.running.discard(process)
        process.close()
        return Done(status, _text(output))

    async def attempt(self, settings: Path | None, *words: str) -> Done:
        """Run a command; one that ends in an unforeseen way fails the soak."""
        done = await self.finish(*self.begin(settings, *words))
        assert done.status in {0, _REFUSED}, f"hotline {' '.join(words)} ended with {done.status}\n{done.text}"
        return done

    async def run(self, settings: Path | None, *words: str) -> str:
        """Run a command that has to succeed, and return what it printed."""
        done = await self.attempt(settings, *words)
        assert done.status == 0, f"hotline {' '.join(words)} was refused\n{done.text}"
        return done.text

    def kill(self) -> None:
        """Kill whatever still runs."""
        for process in self.running:
            process.kill()
            process.join(30)


def _text(output: Path) -> str:
    """Return what a command printed; one that was killed may not have come so far."""
    return output.read_text(encoding="utf-8") if output.exists() else ""
