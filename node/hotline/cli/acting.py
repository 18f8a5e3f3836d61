"""`hotline act`: records what this hotline did about one item, as the words on the line say it. Judges nothing."""

from argparse import ArgumentParser, Namespace
from typing import Final
from uuid import UUID

import msgspec

from node.errors import OperatorError
from node.hotline.cli.opening import opened_store
from node.hotline.domain.acts import ActionAsked, check_action
from node.hotline.domain.lifecycle import RecordRefused, State
from node.hotline.domain.schema import IntakeRefused, decode_action
from node.hotline.flows.act import UnknownItem
from node.platform.cli.command import Context, parse_id
from protocol.codes import Action, ActionReason

_FIELDS: Final = ("action", "reason", "at", "by")


def add_arguments(parser: ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Record what was done about an item that is assigned to this hotline; whoever sent it is told. Removed, "
        "unavailable and not-illegal are final and close the item. Each action counts once."
    )
    parser.add_argument("item", metavar="ITEM", help="the item's id")
    parser.add_argument("action", choices=[each.value for each in Action], help="what was done, or found")
    parser.add_argument(
        "--reason", choices=[each.value for each in ActionReason], help="with unavailable and not-illegal only"
    )
    parser.add_argument("--at", metavar="TIME", help="when it was done, such as 2026-11-22T16:00:00Z (default: now)")
    parser.add_argument("--by", metavar="NAME", help="who did it")
    parser.set_defaults(run=run)


def run(arguments: Namespace, context: Context) -> int:
    """Record the action and print the item's state; raises OperatorError when it is refused."""
    item_id = parse_id(arguments.item, "an item")
    said = {name: getattr(arguments, name) for name in _FIELDS if getattr(arguments, name) is not None}
    try:
        # As the API takes it, so that both hold an action to the same rules.
        asked = check_action(decode_action(msgspec.json.encode(said)), context.clock.now())
    except IntakeRefused as refused:
        first = refused.errors[0]
        raise OperatorError(f"Option --{first.field}: {first.detail}.") from None
    state = context.run(_act(context, item_id, asked))
    print(f"Item {item_id} is {state} now.")
    return 0


async def _act(context: Context, item_id: UUID, asked: ActionAsked) -> State:
    async with opened_store(context) as store:
        try:
            return await store.actor().act(item_id, asked)
        except UnknownItem:
            raise OperatorError(f"There is no item {item_id}.") from None
        except RecordRefused as refused:
            raise OperatorError(f"The action is refused: {refused.sentence}.") from None
