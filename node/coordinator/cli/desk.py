"""`hotline desk`: the network's desk, at the coordinator: lists and shows what was handed in, signs rulings."""

from argparse import ArgumentParser, Namespace
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final
from uuid import UUID

from node.clock import Clock, rfc3339
from node.coordinator.cases import DISPUTE
from node.coordinator.cli.setup import make_desk
from node.coordinator.desk import Desk, RulingRefused, UnknownCase
from node.coordinator.members import PublishedMembers
from node.coordinator.publisher import opened
from node.coordinator.serve import open_keys
from node.errors import OperatorError
from node.platform.cli.command import Context, parse_id
from node.platform.cli.table import show_table
from node.platform.database import DATABASE_ERRORS, Database, Row
from node.platform.dbopening import MakeDatabase
from node.platform.keyring import KeyRing
from node.settings import Settings
from protocol.checkpoint import Checkpoint
from protocol.desk import Ruling, Statement, read_equivocation, read_ruling, read_statement
from protocol.keys import KeyUse
from protocol.note import parse_note
from protocol.timestamps import format_time

_CASES_MAX: Final = 500
_LIST: Final = "List the disputes and contradictions that members handed in; those decided too with --all."
_SHOW: Final = "Show one dispute or contradiction with all that was handed in: ids, nodes, countries, hashes; no URL."
_DECIDE: Final = (
    "Decide a dispute: whose the item is, and where it counts as hosted. The ruling is signed and kept for ever, and "
    "the hotlines follow it. A node that has nothing to do with the dispute is refused."
)
_NEW: Final = (
    "Make the desk's keys and its descriptor at a coordinator that was set up before it had a desk. `hotline init` "
    "makes them at a new one, `hotline keys rotate-signing` changes them."
)
_CLOSE: Final = "Close a contradiction once somebody has seen to it: suspended the member, or found its explanation."


def add_arguments(parser: ArgumentParser) -> None:
    """Describe the command."""
    parser.description = "The network's desk: what members could not settle by themselves. Nothing here holds a URL."
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    listing = actions.add_parser("list", help="list what was handed in", description=_LIST)
    listing.add_argument("--all", action="store_true", help="what is decided too")
    listing.set_defaults(run=_list)
    show = actions.add_parser("show", help="show one case", description=_SHOW)
    show.add_argument("case", metavar="CASE", help="its id, as `hotline desk list` shows it")
    show.set_defaults(run=_show)
    decide = actions.add_parser("decide", help="decide a dispute, for ever", description=_DECIDE)
    decide.add_argument("case", metavar="CASE", help="the dispute's id, as `hotline desk list` shows it")
    decide.add_argument("--custodian", required=True, metavar="NODE", help="the hotline whose the item is")
    decide.add_argument("--country", required=True, metavar="XX", help="where it counts as hosted")
    decide.set_defaults(run=_decide)
    close = actions.add_parser("close", help="close a contradiction", description=_CLOSE)
    close.add_argument("case", metavar="CASE", help="its id, as `hotline desk list` shows it")
    close.set_defaults(run=_close)
    new = actions.add_parser("new-keys", help="make the desk's keys where there are none", description=_NEW)
    new.set_defaults(run=_new_keys)


@asynccontextmanager
async def _opened(
    settings: Settings, clock: Clock, make: MakeDatabase = Database
) -> AsyncIterator[tuple[Desk, Callable[[], KeyRing]]]:
    """Yield the desk, and what opens its keys; raises OperatorError."""
    try:
        async with opened(settings, clock, make=make) as publisher:
            directory = PublishedMembers(publisher, clock).current
            desk = Desk(settings.node_id, publisher.db, clock.now, directory)
            yield desk, lambda: open_keys(settings, publisher, clock)
    except DATABASE_ERRORS as error:
        raise OperatorError(f"The database failed during the command ({type(error).__name__}).") from None


def _list(arguments: Namespace, context: Context) -> int:
    async def read() -> list[Row]:
        async with _opened(context.settings(), context.clock) as (desk, _):
            return await desk.cases(undecided=not arguments.all, limit=_CASES_MAX)

    rows = context.run(read())
    show_table(
        "Disputes",
        ("case", "item", "holder", "other", "why", "ruling"),
        [_dispute(row) for row in rows if row["kind"] == DISPUTE],
    )
    show_table(
        "Contradictions",
        ("case", "from", "stream", "sizes", "seen", "closed"),
        [_contradiction(row) for row in rows if row["kind"] != DISPUTE],
    )
    return 0


def _dispute(row: Row) -> tuple[str, ...]:
    said = read_statement(row["body"])
    return str(row["id"]), said.item, said.holder, said.other, said.code, _ruled(row)


def _ruled(row: Row) -> str:
    if row["ruling"] is None:
        return ""
    ruling = read_ruling(row["ruling"])
    return f"{ruling.custodian} ({ruling.country}), {rfc3339(ruling.at)}"


def _contradiction(row: Row) -> tuple[str, ...]:
    said = read_equivocation(row["body"])
    held, offered = [Checkpoint.parse(parse_note(note.encode()).text) for note in (said.held, said.offered)]
    closed = "" if row["decided_at"] is None else rfc3339(row["decided_at"])
    sizes = f"{held.size} and {offered.size}"
    return str(row["id"]), row["from_node"], held.origin, sizes, rfc3339(said.seen_at), closed


def _show(arguments: Namespace, context: Context) -> int:
    case_id = parse_id(arguments.case, "a case")

    async def read() -> Row:
        async with _opened(context.settings(), context.clock) as (desk, _):
            try:
                return await desk.case(case_id)
            except UnknownCase:
                raise OperatorError(f"There is no case {case_id}.") from None

    row = context.run(read())
    print(f"Handed in by {row['from_node']} at {rfc3339(row['received_at'])}.\n")
    if row["kind"] == DISPUTE:
        _show_dispute(read_statement(row["body"]))
        print(f"Ruling: {_ruled(row) or 'none yet'}.")
        return 0
    said = read_equivocation(row["body"])
    for name, note in (("Held", said.held), ("Offered", said.offered)):
        checkpoint = Checkpoint.parse(parse_note(note.encode()).text)
        print(f"{name}: {checkpoint.origin}, size {checkpoint.size}, root {checkpoint.root.hex()}.")
    print(f"Seen at {rfc3339(said.seen_at)}; {'open' if row['decided_at'] is None else 'closed'}.")
    return 0


def _show_dispute(said: Statement) -> None:
    print(f"Item {said.item} of case {said.case}, opened at {format_time(said.at)}.")
    print(f"{said.holder} has it and says that it belongs to {said.other} ({said.code}).")
    print(f"It came to the holder with record {said.received}.\n")
    rows = [(one.node, one.country or "?", one.evidence, format_time(one.at)) for one in said.trail]
    show_table("Way", ("node", "country", "hash of the evidence", "at"), rows)
    show_table("Geolocation files", ("type", "built"), [(one.type, one.built) for one in said.databases])


def _decide(arguments: Namespace, context: Context) -> int:
    case_id = parse_id(arguments.case, "a dispute")
    context.run(decide(context.settings(), context.clock, case_id, arguments.custodian, arguments.country))
    print(f"Dispute {case_id} is decided; the hotlines fetch the ruling.")
    return 0


async def decide(
    settings: Settings, clock: Clock, case_id: UUID, custodian: str, country: str, make: MakeDatabase = Database
) -> Ruling:
    """Sign the ruling and keep it; raises OperatorError when it is refused."""
    async with _opened(settings, clock, make) as (desk, keys):
        ring = keys()
        try:
            return await desk.decide(case_id, custodian, country, lambda at: ring.signing(KeyUse.DESK, at))
        except UnknownCase:
            raise OperatorError(f"There is no dispute {case_id}.") from None
        except RulingRefused as refused:
            raise OperatorError(f"The ruling is refused: {refused}.") from None


def _close(arguments: Namespace, context: Context) -> int:
    case_id = parse_id(arguments.case, "a contradiction")

    async def close() -> None:
        async with _opened(context.settings(), context.clock) as (desk, _):
            try:
                await desk.close(case_id)
            except UnknownCase:
                raise OperatorError(f"There is no contradiction {case_id}.") from None

    context.run(close())
    print(f"Contradiction {case_id} is closed.")
    return 0


def _new_keys(_arguments: Namespace, context: Context) -> int:
    settings = context.settings()
    path = make_desk(settings, context.clock.now())
    print(f"The desk's keys are in {settings.keys_dir}; keep a copy of them in a safe place.")
    print(f"Next: give {path} to those who sign the directory; they propose it with --desk.")
    print("Then start the coordinator again.")
    return 0
