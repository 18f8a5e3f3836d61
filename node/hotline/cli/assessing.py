"""`hotline assess`: sets the qualification of one item, as an analyst's words say it. Judges nothing."""

from argparse import ArgumentParser, Namespace
from typing import Final
from uuid import UUID

import msgspec

from node.errors import OperatorError
from node.hotline.cli.opening import opened_store
from node.hotline.domain.assessment import Assessment, AssessmentRefused
from node.hotline.domain.intake import check_assessment
from node.hotline.domain.lifecycle import RecordRefused, State, TransitionRefused
from node.hotline.domain.schema import IntakeRefused, decode_assessment
from node.hotline.flows.assess import UnknownItem
from node.platform.cli.command import Context, parse_id
from protocol.codes import Age, Classification, Gender

_MARKS: Final = {
    "virtual": "whether the content is computer-made",
    "user_generated": "whether it was made by the minor",
    "child_modelling": "whether it poses as child modelling",
}
_FIELDS: Final = ("classification", "age", "gender", "law", "at", "by")


def add_arguments(parser: ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Set an item's qualification under this country's law. Qualified as illegal, an item that is hosted abroad "
        "leaves for the competent hotline; not illegal closes it. A baseline qualification is final."
    )
    parser.add_argument("item", metavar="ITEM", help="the item's id")
    parser.add_argument(
        "--classification",
        required=True,
        choices=[each.value for each in Classification],
        help="baseline: illegal everywhere; national: illegal under this country's law; not-illegal",
    )
    parser.add_argument("--law", metavar="TEXT", help="the legal basis")
    parser.add_argument("--age", choices=[each.value for each in Age], help="apparent age group of the victims")
    parser.add_argument("--gender", choices=[each.value for each in Gender], help="apparent gender of the victims")
    for name, text in _MARKS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", choices=("yes", "no"), help=text)
    parser.add_argument("--at", metavar="TIME", help="when it was made, such as 2026-11-22T16:00:00Z (default: now)")
    parser.add_argument("--by", metavar="NAME", help="the analyst")
    parser.set_defaults(run=run)


def run(arguments: Namespace, context: Context) -> int:
    """Set the qualification and print the item's new state; raises OperatorError when it is refused."""
    item_id = parse_id(arguments.item, "an item")
    said = {name: getattr(arguments, name) for name in _FIELDS if getattr(arguments, name) is not None}
    said |= {name: getattr(arguments, name) == "yes" for name in _MARKS if getattr(arguments, name) is not None}
    try:
        # As the API takes it, so that both hold a qualification to the same rules.
        assessment = check_assessment(decode_assessment(msgspec.json.encode(said)), context.clock.now())
    except IntakeRefused as refused:
        first = refused.errors[0]
        raise OperatorError(f"Option --{first.field.replace('_', '-')}: {first.detail}.") from None
    state = context.run(_assess(context, item_id, assessment))
    print(f"Item {item_id} is {state} now.")
    return 0


async def _assess(context: Context, item_id: UUID, assessment: Assessment) -> State:
    async with opened_store(context) as store:
        try:
            return await store.assessor().assess(item_id, assessment)
        except UnknownItem:
            raise OperatorError(f"There is no item {item_id}.") from None
        except AssessmentRefused as refused:
            raise OperatorError(f"The qualification is refused: {refused.sentence}.") from None
        except (TransitionRefused, RecordRefused) as refused:
            raise OperatorError(f"The qualification is refused: {refused}.") from None
