"""The process of one node, or of the coordinator: `hotline serve` itself, on a clock that the soak can set wrong."""

import mmap
import os
import struct
import sys
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import uvloop

from node.clock import SystemClock
from node.coordinator.serve import serve as serve_coordinator
from node.errors import OperatorError
from node.hotline.flows import locate
from node.hotline.flows.transfer import relocate
from node.hotline.serve import serve
from node.platform.telemetry import make_logger, route_library_logs
from node.settings import COORDINATOR, load_settings

_SECONDS: Final = struct.Struct("d")
#: What a process had leased when it died is free for the next one after this time; minutes in operation.
_LEASE_S: Final = 3.0


def set_clock(path: Path, ahead_s: float) -> None:
    """Set the clock of a running member so many seconds ahead; the file is made where there is none."""
    with path.open("r+b" if path.exists() else "wb") as file:
        file.write(_SECONDS.pack(ahead_s))


class SteeredClock(SystemClock):
    """The machine's clock, off by what a file says at this moment."""

    __slots__ = ("_shared",)

    def __init__(self, path: Path) -> None:
        """Map the file, so that to look at it costs nothing."""
        with path.open("rb") as file:
            self._shared = mmap.mmap(file.fileno(), _SECONDS.size, access=mmap.ACCESS_READ)

    def now(self) -> datetime:
        """Return the time of day as the soak wants it."""
        return super().now() + timedelta(seconds=_SECONDS.unpack_from(self._shared)[0])


@dataclass(frozen=True, slots=True)
class Member:
    """What the process needs: its settings, where it logs, and the file of its clock."""

    settings: Path
    log: Path
    clock: Path


def run(member: Member) -> None:
    """Serve until SIGTERM. Exit status 2 when the start makes no sense."""
    with member.log.open("ab") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    for flow in (locate, relocate):
        vars(flow)["LEASE_S"] = _LEASE_S
    settings = load_settings(member.settings, {})
    log = make_logger(settings.log_level, settings.log_format)
    route_library_logs(log)
    try:
        role = serve_coordinator if settings.role == COORDINATOR else serve
        uvloop.run(role(settings, clock=SteeredClock(member.clock), log=log))
    except OperatorError as error:
        sys.stderr.write(f"{error.sentence}\n")
        sys.exit(2)
