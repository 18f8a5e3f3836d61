"""The command line `hotline`: finds the command, hands it its arguments, turns what it raises into an exit status.

Never does a command's work, and never shows a traceback: its lines could quote what was reported.
"""

import argparse
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple

from node.clock import SystemClock
from node.errors import OperatorError
from node.hotline.cli.command import Context, Parser
from node.platform.telemetry import make_logger, place_of, route_library_logs
from node.settings import DEFAULT_FILE, FILE_VARIABLE

EXIT_OPERATOR: Final = 2
EXIT_INTERRUPTED: Final = 130
_EXIT_BROKEN: Final = 1


class _Entry(NamedTuple):
    """Where a command is: a module with `add_arguments(parser)`, imported when the command is called."""

    module: str
    summary: str


COMMANDS: Final[Mapping[str, _Entry]] = {
    "init": _Entry("node.hotline.cli.init", "set up a new node: settings, keys, database"),
    "serve": _Entry("node.hotline.cli.serving", "run the node until Ctrl-C or SIGTERM"),
    "migrate": _Entry("node.hotline.cli.migrating", "bring the database to the schema of this version"),
    "status": _Entry("node.hotline.cli.status", "show queues, peers, files and what needs a person"),
    "import": _Entry("node.hotline.cli.import_file", "read reports from a CSV or NDJSON file"),
    "assess": _Entry("node.hotline.cli.assessing", "set the qualification of one item"),
    "prove": _Entry("node.hotline.cli.proving", "write the proof of one item's record"),
    "verify": _Entry("node.hotline.cli.verifying", "check such a proof offline and say what it proves"),
    "keys": _Entry("node.hotline.cli.keys", "show keys, manage API keys, rotate the master key"),
    "geo": _Entry("node.hotline.cli.geo", "show or update the geolocation files"),
    "demo": _Entry("node.demo.command", "show a network of three hotlines on this machine"),
    "directory": _Entry("node.hotline.cli.directory", "write or show the membership directory (for its authority)"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status.

    0: done. 1: done, and the answer is no (rows were rejected, a proof is invalid). 2: the call, a setting or a
    service is wrong, said in one sentence on standard error. 130: interrupted. Without `argv` it is the process's own
    program: it takes sys.argv and decides what is said about unforeseen errors.
    """
    if argv is None:
        sys.excepthook = _say_place_only
        route_library_logs(make_logger("warning", "text"))
        argv = sys.argv[1:]
    try:
        status = _run(argv, os.environ)
        sys.stdout.flush()
    except OperatorError as error:
        print(f"hotline: {error.sentence.rstrip('.')}.", file=sys.stderr)
        return EXIT_OPERATOR
    except KeyboardInterrupt:
        print("hotline: interrupted.", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Who reads our output (`head`, a pager) has seen enough. What is left in the buffer must go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _EXIT_BROKEN
    return status


def _run(argv: Sequence[str], environ: Mapping[str, str]) -> int:
    # `--settings` counts wherever it stands; every other option belongs to the command.
    anywhere = Parser(prog="hotline", add_help=False)
    _add_settings(anywhere)
    found, rest = anywhere.parse_known_args(argv)
    chosen = _top().parse_args(rest)
    entry = COMMANDS[chosen.command]
    parser = Parser(prog=f"hotline {chosen.command}", description=f"hotline {chosen.command}: {entry.summary}.")
    importlib.import_module(entry.module).add_arguments(parser)
    arguments = parser.parse_args(chosen.arguments)
    context = Context(environ, None if found.settings is None else Path(found.settings), SystemClock())
    status: int = arguments.run(arguments, context)
    return status


def _top() -> Parser:
    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {name:{width}}  {entry.summary}" for name, entry in COMMANDS.items())
    parser = Parser(
        prog="hotline",
        usage="hotline [--settings FILE] COMMAND …",
        description="The national hotline's node of the exchange network.",
        epilog=f"commands:\n{listed}\n\n`hotline COMMAND --help` explains one, docs/operations.md the settings.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_settings(parser)
    parser.add_argument("--version", action="version", version=f"hotline {version('hotline-exchange')}")
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help=argparse.SUPPRESS)
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--settings", metavar="FILE", help=f"the settings file; without it {FILE_VARIABLE}, else ./{DEFAULT_FILE}"
    )


def _say_place_only(kind: type[BaseException], _error: BaseException, trace: TracebackType | None) -> None:
    """Say the type and the place of an unforeseen error: its text and its lines could hold a reported URL."""
    print(f"hotline: unforeseen error {kind.__name__} at {place_of(trace)}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
