"""`hotline correct`: says what this hotline's own report should have said. Judges nothing, and shows no URL."""

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Final
from uuid import UUID

import msgspec

from node.errors import OperatorError
from node.hotline.cli.opening import opened_store
from node.hotline.domain.acts import check_correction
from node.hotline.domain.lifecycle import RecordRefused, State
from node.hotline.domain.schema import IntakeRefused, decode_correction
from node.hotline.flows.amend import UnknownItem
from node.platform.cli.command import Context, parse_id
from node.platform.cli.files import read_bounded
from protocol.bodies import URL_BYTES_MAX
from protocol.codes import Commerciality, PaymentMethod, SiteType
from protocol.steps import Corrected

_FIELDS: Final = ("site_type", "commerciality", "payment_methods", "reference")


def add_arguments(parser: ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Correct this hotline's own report; what is not named stays. All but the hashes hold for the whole report. "
        "Every hotline that has an item of it is told."
    )
    parser.add_argument("item", metavar="ITEM", help="an item of the report, by its id")
    parser.add_argument("--site-type", choices=[each.value for each in SiteType], help="what kind of site it is on")
    parser.add_argument(
        "--commerciality", choices=[each.value for each in Commerciality], help="whether it takes money"
    )
    parser.add_argument(
        "--payment-method",
        dest="payment_methods",
        action="append",
        choices=[each.value for each in PaymentMethod],
        help="how it is paid; may be given several times, and takes the place of all that was said",
    )
    parser.add_argument(
        "--hash", dest="hashes", action="append", metavar="ALGORITHM:HEX", help="a hash of the item's file; as above"
    )
    parser.add_argument("--reference", metavar="TEXT", help="the reference that other hotlines are to see")
    # A URL on the command line would stand in the list of processes.
    parser.add_argument("--referrer-file", metavar="FILE", help="a file that holds the referrer")
    parser.set_defaults(run=run)


def run(arguments: Namespace, context: Context) -> int:
    """Write the correction and print the item's state; raises OperatorError when it is refused."""
    item_id = parse_id(arguments.item, "an item")
    said = {name: getattr(arguments, name) for name in _FIELDS if getattr(arguments, name) is not None}
    if arguments.hashes is not None:
        parts = [text.partition(":") for text in arguments.hashes]
        said["hashes"] = [{"algorithm": algorithm, "value": value} for algorithm, _, value in parts]
    if arguments.referrer_file is not None:
        raw = read_bounded(Path(arguments.referrer_file), URL_BYTES_MAX, "The referrer's file")
        said["referrer"] = raw.decode("utf-8", "replace").strip()
    try:
        # As the API takes it, so that both hold a correction to the same rules.
        members = check_correction(decode_correction(msgspec.json.encode(said)))
    except IntakeRefused as refused:
        first = refused.errors[0]
        raise OperatorError(f"{first.field or 'The correction'}: {first.detail}.") from None
    state = context.run(_correct(context, item_id, members))
    print(f"The report of item {item_id} is corrected; the item is {state}.")
    return 0


async def _correct(context: Context, item_id: UUID, members: Corrected) -> State:
    async with opened_store(context) as store:
        try:
            return await store.amender().correct(item_id, members)
        except UnknownItem:
            raise OperatorError(f"There is no item {item_id}.") from None
        except RecordRefused as refused:
            raise OperatorError(f"The correction is refused: {refused.sentence}.") from None
