"""What `hotline serve` does in both roles around what the role serves."""

from collections.abc import Coroutine
from typing import Any, Protocol

from node.clock import Clock
from node.platform.cli.command import Context
from node.platform.telemetry import Logger, make_logger, route_library_logs
from node.settings import Settings


class Serve(Protocol):
    """A role's serving, until SIGTERM or SIGINT; raises OperatorError when the start makes no sense."""

    def __call__(self, settings: Settings, *, clock: Clock, log: Logger) -> Coroutine[Any, Any, None]:
        """Serve."""


def run_serving(serve: Serve, context: Context) -> int:
    """Serve until told to end, and log to standard error; raises OperatorError."""
    settings = context.settings()
    log = make_logger(settings.log_level, settings.log_format)
    route_library_logs(log)
    context.run(serve(settings, clock=context.clock, log=log))
    return 0
