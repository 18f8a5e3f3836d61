"""`hotline recover`: puts a node right after its database was restored from a backup. Everything is in `recovery`."""

from argparse import ArgumentParser, Namespace

from node.errors import OperatorError
from node.hotline.assembly import assemble
from node.hotline.flows.replay import DISPUTE_LOST, REFUSED, UNKNOWN
from node.hotline.recovery import WAIT_S, Recovered, recover
from node.hotline.serve import recovery_door
from node.platform.cli.command import Context
from node.platform.cli.table import show_table
from node.platform.database import SERVING_LOCK
from node.platform.telemetry import make_logger

_LEFT = {
    UNKNOWN: "their items are not here. Run this again when the peers that were left out can be asked",
    REFUSED: "their items stand otherwise by now. Look at what was written since the restore",
    DISPUTE_LOST: "their disputes were lost. Ask for the location of these items again (hotline move)",
}


def add_arguments(parser: ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "After the database was restored from a backup, and before the node serves again: takes back from the peers "
        "what this node had told them and what it had received since, and begins a new epoch of every stream. Run "
        "again, it goes on where it broke off."
    )
    parser.add_argument(
        "--without",
        action="append",
        default=[],
        metavar="NODE",
        help="leave out a peer that cannot be asked (may be repeated); nothing is sent to it until this is run again",
    )
    parser.add_argument(
        "--believe",
        action="append",
        default=[],
        metavar="NODE",
        help="take back from this peer also what only a stolen key of ours has signed (may be repeated)",
    )
    parser.add_argument(
        "--wait",
        type=float,
        default=WAIT_S,
        metavar="SECONDS",
        help="how long nothing may come from peers that only fetch, for which the peer door is opened (120)",
    )
    parser.set_defaults(run=run)


def run(arguments: Namespace, context: Context) -> int:
    """Recover; raises OperatorError when a peer cannot be asked or its copy is not proven."""
    done = context.run(_run(context, frozenset(arguments.without), frozenset(arguments.believe), arguments.wait))
    names = sorted({*done.own, *done.received, *(peer for peer, _ in done.epochs)})
    epochs = dict(done.epochs)
    show_table(
        "Recovered",
        ("peer", "own records taken back #", "records received again #", "epoch begun"),
        [(name, done.own.get(name, 0), done.received.get(name, 0), epochs.get(name, "")) for name in names],
    )
    for code, count in sorted(done.left.items()):
        print(f"{count} own records were not done again: {_LEFT[code]}")
    print("The node may serve again: hotline serve")
    return 0


async def _run(context: Context, without: frozenset[str], believed: frozenset[str], wait_s: float) -> Recovered:
    settings = context.settings()
    log = make_logger(settings.log_level, settings.log_format)
    async with assemble(settings, clock=context.clock, log=log) as node:
        for option, named in (("--without", without), ("--believe", believed)):
            if named - node.directory().nodes.keys():
                raise OperatorError(f"Option {option} names a node that the directory does not list.")
        async with node.db.session_lock(SERVING_LOCK) as held:
            if held is None:
                raise OperatorError("The node serves, or is being recovered by another process: end that first.")
            return await recover(node, without, recovery_door(node), wait_s=wait_s, believed=believed)
