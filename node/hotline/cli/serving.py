"""`hotline serve`: runs the node. Everything it does is in `node.hotline.serve`."""

from argparse import ArgumentParser, Namespace

from node.hotline.serve import serve
from node.platform.cli.command import Context
from node.platform.cli.serving import run_serving


def add_arguments(parser: ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Run the node: take reports in, locate, deliver to peers and receive from them, until SIGTERM or Ctrl-C; what "
        "is in flight is finished first. Several may run on one database and share the work. Logs go to standard error."
    )
    parser.set_defaults(run=run)


def run(_arguments: Namespace, context: Context) -> int:
    """Serve until told to end; raises OperatorError when the start makes no sense."""
    return run_serving(serve, context)
