"""`hotline withdraw`: takes this hotline's own report of one item back. Judges nothing."""

from argparse import ArgumentParser, Namespace
from typing import get_args
from uuid import UUID

from node.errors import OperatorError
from node.hotline.cli.opening import opened_store
from node.hotline.domain.lifecycle import RecordRefused, State
from node.hotline.domain.schema import GivenReason
from node.hotline.flows.amend import UnknownItem
from node.platform.cli.command import Context, parse_id
from protocol.codes import WithdrawalReason


def add_arguments(parser: ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Take this hotline's own report of one item back; every hotline that holds the item is told. Doing it again "
        "changes nothing. An item that is done stays done."
    )
    parser.add_argument("item", metavar="ITEM", help="the item's id")
    parser.add_argument("--reason", required=True, choices=get_args(GivenReason), help="why it is taken back")
    parser.set_defaults(run=run)


def run(arguments: Namespace, context: Context) -> int:
    """Take the report back and print the item's state; raises OperatorError when it is refused."""
    item_id = parse_id(arguments.item, "an item")
    state = context.run(_withdraw(context, item_id, WithdrawalReason(arguments.reason)))
    print(f"Item {item_id} is {state} now.")
    return 0


async def _withdraw(context: Context, item_id: UUID, reason: WithdrawalReason) -> State:
    async with opened_store(context) as store:
        try:
            return await store.amender().withdraw(item_id, reason)
        except UnknownItem:
            raise OperatorError(f"There is no item {item_id}.") from None
        except RecordRefused as refused:
            raise OperatorError(f"The withdrawal is refused: {refused.sentence}.") from None
