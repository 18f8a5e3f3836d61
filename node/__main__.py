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
from node.platform.cli.command import Context, Parser
from node.platform.telemetry import make_logger, place_of, route_library_logs
from node.settings import COORDINATOR, DEFAULT_FILE, FILE_VARIABLE

EXIT_OPERATOR: Final = 2
EXIT_INTERRUPTED: Final = 130
_EXIT_BROKEN: Final = 1


#: Where the coordinator's form of a command is that both roles have.
_COORDINATOR: Final = "node.coordinator.cli.serving"


class _Entry(NamedTuple):
    """Where a command is: a module with `add_arguments(parser)`, imported when the command is called.

    `coordinator` is the function that runs in its place in the role of the coordinator.
    """

    module: str
    summary: str
    coordinator: str = ""


COMMANDS: Final[Mapping[str, _Entry]] = {
    "init": _Entry("node.hotline.cli.init", "set up a new node: settings, keys, database", "run_init"),
    "join": _Entry("node.hotline.cli.joining", "join a network: fetch, verify and pin its directory"),
    "descriptor": _Entry("node.hotline.cli.describing", "show or change what the directory is to say of this node"),
    "serve": _Entry("node.hotline.cli.serving", "run the node until Ctrl-C or SIGTERM", "run_serve"),
    "migrate": _Entry("node.hotline.cli.migrating", "bring the database to the schema of this version", "run_migrate"),
    "status": _Entry("node.hotline.cli.status", "show queues, peers, files and what needs a person", "run_status"),
    "import": _Entry("node.hotline.cli.import_file", "read reports from a CSV or NDJSON file"),
    "assess": _Entry("node.hotline.cli.assessing", "set the qualification of one item"),
    "act": _Entry("node.hotline.cli.acting", "record what was done about one item"),
    "correct": _Entry("node.hotline.cli.correcting", "correct a report of this hotline"),
    "withdraw": _Entry("node.hotline.cli.withdrawing", "take back this hotline's report of one item"),
    "reclaim": _Entry("node.hotline.cli.reclaiming", "let items go another way that a hotline has which is gone"),
    "move": _Entry("node.hotline.cli.moving", "look at an item's location anew, or set it"),
    "desk": _Entry("node.coordinator.cli.desk", "the network's desk, at the coordinator: list disputes, decide them"),
    "prove": _Entry("node.hotline.cli.proving", "write the proof of one item's record"),
    "verify": _Entry("node.hotline.cli.verifying", "check such a proof offline and say what it proves"),
    "audit-network": _Entry("node.hotline.cli.audit_network", "compare streams, checkpoints and receipts with peers"),
    "keys": _Entry("node.hotline.cli.keys", "show keys, manage API keys, rotate the master key"),
    "compare": _Entry("node.hotline.cli.comparing", "compare with every peer how far the streams between are"),
    "recover": _Entry("node.hotline.cli.recovering", "put the node right after its database was restored"),
    "geo": _Entry("node.hotline.cli.geo", "show or update the geolocation files"),
    "conformance": _Entry("node.conformance.command", "check any node from outside against the specification"),
    "demo": _Entry("node.demo.command", "show a network of three hotlines on this machine"),
    "directory": _Entry(
        "node.coordinator.cli.ceremonies", "sign, publish or show the membership directory (for those who sign it)"
    ),
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
    run = arguments.run
    # Who sets a node up has no settings yet, and says the role.
    if entry.coordinator and (_role(arguments) or context.settings().role) == COORDINATOR:
        run = getattr(importlib.import_module(_COORDINATOR), entry.coordinator)
    status: int = run(arguments, context)
    return status


def _role(arguments: argparse.Namespace) -> str | None:
    return (arguments.role or "hotline") if "role" in arguments else None


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
