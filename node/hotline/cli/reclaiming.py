"""`hotline reclaim`: lets items of ours go another way that a hotline has which is gone. Asks that hotline nothing."""

from argparse import ArgumentParser, Namespace
from uuid import UUID

from node.errors import OperatorError
from node.hotline.cli.opening import opened_store
from node.hotline.domain.absence import absence
from node.platform.cli.command import Context, parse_id
from node.platform.membership import read_directory
from node.platform.trust import Freshness
from protocol.codes import NodeState


def add_arguments(parser: ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Let the items go to another hotline that this one reported and that NODE has, which was suspended or has "
        "left: each report is taken back and its URL reported anew, as another item of the same case. Should the "
        "hotline come back, it reads that it has nothing. Run again, it goes on where it broke off."
    )
    parser.add_argument("node", metavar="NODE", help="the hotline that is gone")
    parser.add_argument(
        "--item", metavar="ITEM", nargs="+", action="extend", help="these items alone; several, or repeated"
    )
    parser.add_argument("--suspended", action="store_true", help="also from one that is suspended and may come back")
    parser.set_defaults(run=run)


def run(arguments: Namespace, context: Context) -> int:
    """Print each item and the one that took its place; 1 when the hotline has none of those that were asked for."""
    asked = None if arguments.item is None else {parse_id(one, "an item") for one in arguments.item}
    _check_gone(context, arguments.node, suspended=arguments.suspended)
    done = context.run(_reclaim(context, arguments.node, asked))
    for old, new in done.items():
        print(f"{old} is {new} now.")
    print(f"{len(done)} items were taken back from {arguments.node}.")
    for missing in sorted((asked or set()) - set(done)):
        print(f"Item {missing} is none of ours that it has.")
    return 0 if done and (asked is None or asked <= set(done)) else 1


def _check_gone(context: Context, node: str, *, suspended: bool) -> None:
    """Refuse, with OperatorError, a hotline that takes part, or of which nobody knows."""
    settings = context.settings()
    if not settings.directory_root:
        raise OperatorError("Without a directory nobody knows who is a member: `hotline join` comes first")
    use = read_directory(settings.directory_dir, settings.directory_root)
    if use.freshness(context.clock.now()) is Freshness.EXPIRED:
        raise OperatorError("The membership directory has expired: who is a member is not known")
    why = absence(use.directory, node)
    if why is None:
        raise OperatorError(f"{node} is a member that takes part; `hotline withdraw` takes single reports back")
    if why == NodeState.SUSPENDED and not suspended:
        raise OperatorError(f"{node} is suspended and may come back; --suspended takes the items back all the same")


async def _reclaim(context: Context, node: str, asked: set[UUID] | None) -> dict[UUID, UUID]:
    """Return, by the item that was taken back, the one that counts for its URL now."""
    done: dict[UUID, UUID] = {}
    async with opened_store(context) as store:
        amender = store.amender()
        for item_id in await amender.astray(node, asked):
            new = await amender.reclaim(item_id, node)
            if new is not None:
                done[item_id] = new
    return done
