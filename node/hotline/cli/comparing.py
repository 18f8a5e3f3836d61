"""`hotline compare`: asks every peer how far it has the streams between the two, and shows what differs."""

from argparse import ArgumentParser, Namespace

from node.hotline.assembly import assemble
from node.hotline.rounds import Rounds
from node.hotline.store import heads
from node.hotline.store.heads import StoredDifference
from node.platform.cli.command import Context
from node.platform.cli.table import show_table
from node.platform.telemetry import make_logger


def add_arguments(parser: ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Ask every peer what it holds of the streams between the two and which receipts it keeps, mend what can be "
        "mended, and show what differs. A node that serves does it by itself once a day."
    )
    parser.set_defaults(run=run)


def run(_arguments: Namespace, context: Context) -> int:
    """Compare; returns 1 when something differs or a peer did not answer."""
    silent, found = context.run(_compare(context))
    show_differences(found)
    for peer, code in silent.items():
        print(f"{peer} did not answer ({code}).")
    if not found and not silent:
        print("Every peer has the streams as this node has them.")
    return 1 if found or silent else 0


async def _compare(context: Context) -> tuple[dict[str, str], list[StoredDifference]]:
    settings = context.settings()
    log = make_logger(settings.log_level, settings.log_format)
    async with assemble(settings, clock=context.clock, log=log) as node:
        node.membership.refuse_if_expired()
        rounds = Rounds(node)
        silent = {}
        for peer in rounds.callable_peers():
            problem = await rounds.compare(peer)
            if problem is not None:
                silent[peer.id] = problem.code
        async with node.db.transaction("hello.read") as tx:
            return silent, await heads.differences(tx)


def show_differences(found: list[StoredDifference]) -> None:
    """Print the differences as a table, where there are any."""
    if not found:
        return
    show_table(
        "Differences",
        ("peer", "stream", "epoch #", "what", "ours #", "theirs #"),
        [
            (one.peer, "ours" if one.direction == "out" else "theirs", one.epoch, one.kind.value, one.ours, one.theirs)
            for one in found
        ],
    )
