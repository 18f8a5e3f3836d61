"""`hotline prove`: writes the proof of one item's record into a file that only its owner may read. Checks no proof."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Final
from uuid import UUID

from node.errors import OperatorError
from node.hotline.cli.opening import opened_store
from node.hotline.flows.prove import NothingToProve
from node.platform.cli.command import Context, check_folder, parse_id
from node.platform.keyfiles import write_secret

_SUFFIX: Final = ".tlog-proof"


def add_arguments(parser: ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Write the proof of an item's record, sent or received: the record's own bytes, its place in the stream "
        "between the two nodes, and the signed receipt. Anybody who has the membership directory can check it with "
        "`hotline verify`, offline. The file holds the record and with it the reported address: treat it as such."
    )
    parser.add_argument("item", metavar="ITEM", help="the item's id")
    parser.add_argument(
        "-o", "--out", metavar="FILE", help=f"where to write it (default: ITEM{_SUFFIX} in this folder)"
    )
    parser.set_defaults(run=run)


def run(arguments: Namespace, context: Context) -> int:
    """Write the proof; raises OperatorError when there is nothing to prove or the file exists."""
    item_id = parse_id(arguments.item, "an item")
    path = Path(arguments.out or f"{item_id}{_SUFFIX}").absolute()
    check_folder(path)
    write_secret(path, context.run(_prove(context, item_id)))
    print(f"The proof of item {item_id} is in {path}.")
    return 0


async def _prove(context: Context, item_id: UUID) -> bytes:
    async with opened_store(context) as store:
        try:
            return await store.prover().prove(item_id)
        except NothingToProve as nothing:
            raise OperatorError(f"Nothing can be proven of item {item_id}: {nothing}.") from None
