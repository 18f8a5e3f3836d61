"""`hotline move`: asks for another location of one item, or gives it. Looks nothing up and moves nothing itself."""

from argparse import ArgumentParser, Namespace
from uuid import UUID

from node.errors import OperatorError
from node.hotline.cli.opening import opened_store
from node.hotline.domain.lifecycle import State, TransitionRefused
from node.hotline.flows.transfer.relocate import LocationRefused, UnknownItem
from node.platform.cli.command import Context, parse_id


def add_arguments(parser: ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Look at an item's location anew, or set it. The running node does it: an item that is hosted in another "
        "country goes to that country's hotline in one transfer, and stays here until its receipt has come."
    )
    parser.add_argument("item", metavar="ITEM", help="the item's id")
    parser.add_argument("--country", metavar="XX", help="the hosting country, by an analyst's word")
    parser.add_argument("--ip", metavar="ADDRESS", help="the address it is hosted at; its country is looked up")
    parser.set_defaults(run=run)


def run(arguments: Namespace, context: Context) -> int:
    """Store the wish and print the item's state; raises OperatorError when it is refused."""
    item_id = parse_id(arguments.item, "an item")
    state = context.run(_ask(context, item_id, arguments.country, arguments.ip))
    print(f"Item {item_id} is {state}; its location is looked at next.")
    return 0


async def _ask(context: Context, item_id: UUID, country: str | None, ip: str | None) -> State:
    async with opened_store(context) as store:
        try:
            return await store.asker().ask(item_id, country, ip)
        except UnknownItem:
            raise OperatorError(f"There is no item {item_id}.") from None
        except LocationRefused as refused:
            raise OperatorError(f"Option --{refused.field}: this {refused.sentence}.") from None
        except TransitionRefused as refused:
            raise OperatorError(f"The item cannot be moved: {refused}.") from None
