"""`hotline descriptor`: shows or changes what this node says of itself for the directory. Makes no keys.

It changes nothing for anybody: what counts is what those who sign the directory publish.
"""

import json
import sys
from argparse import ArgumentParser, Namespace
from datetime import datetime
from typing import Any, Final

import msgspec

from node.clock import rfc3339
from node.errors import OperatorError
from node.platform.cli.command import Context
from node.platform.cli.files import read_bounded, write_whole
from node.platform.keyfiles import descriptor_path
from node.settings import COORDINATOR, Settings
from protocol.codes import Delivery
from protocol.directory import VERSION, DirectoryInvalid, parse_directory

_DESCRIPTOR_BYTES_MAX: Final = 524_288


def add_arguments(parser: ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Print the node's descriptor, which those who sign the directory take in; it holds public keys only. With "
        "options, change it first. Nothing is different for anybody until the directory that says so is published."
    )
    parser.add_argument("--name", help="name of the organisation")
    parser.add_argument("--contact", help="how its operators are reached")
    parser.add_argument("--base-url", metavar="URL", help="address at which peers are to call the node")
    countries = parser.add_mutually_exclusive_group()
    countries.add_argument(
        "--country", action="append", metavar="CC", help="country it is competent for, in place of all; may be repeated"
    )
    countries.add_argument(
        "--no-country", action="store_true", help="it is competent for no country any more, the first step of leaving"
    )
    parser.add_argument("--weight", type=int, help="share where a country has several hotlines")
    parser.add_argument(
        "--delivery",
        choices=[each.value for each in Delivery],
        help="push: peers call it; pull: it cannot be called and fetches what is said to it",
    )
    parser.set_defaults(run=run)


def run(arguments: Namespace, context: Context) -> int:
    """Change the descriptor where the arguments say so, and print it; raises OperatorError."""
    settings = context.settings()
    entry, changed = read_descriptor(settings), _given(arguments)
    if changed and settings.role == COORDINATOR and changed.keys() != {"base_url"}:
        raise OperatorError("Of the desk's descriptor only --base-url can be changed.")
    if changed:
        entry |= changed
        _check(entry, settings, context.clock.now())
        write_descriptor(settings, entry)
        path = descriptor_path(settings)
        # Apart from the descriptor itself, so that a script can take that from standard output.
        print(f"{path} is changed. Next: give it to those who sign the directory.", file=sys.stderr)
    print(_text(entry))
    return 0


def read_descriptor(settings: Settings) -> dict[str, Any]:
    """Return the node's descriptor; raises OperatorError when there is none."""
    path = descriptor_path(settings)
    raw = read_bounded(path, _DESCRIPTOR_BYTES_MAX, f"The descriptor {path}")
    try:
        entry = msgspec.json.decode(raw, type=dict[str, Any])
        if all(isinstance(key, dict) for key in entry["keys"]):
            return entry
    except (msgspec.MsgspecError, KeyError, TypeError):
        pass
    raise OperatorError(f"{path} is not a descriptor.")


def write_descriptor(settings: Settings, entry: dict[str, Any]) -> None:
    """Put this in the descriptor's place; raises OperatorError."""
    write_whole(descriptor_path(settings), _text(entry).encode() + b"\n")


def _given(arguments: Namespace) -> dict[str, Any]:
    """Return the members that the arguments change."""
    countries = [] if arguments.no_country else arguments.country
    said = {
        "name": arguments.name,
        "contact": arguments.contact,
        "base_url": arguments.base_url,
        "countries": countries,
        "weight": arguments.weight,
        "delivery": arguments.delivery,
    }
    return {name: value for name, value in said.items() if value is not None}


def _check(entry: dict[str, Any], settings: Settings, now: datetime) -> None:
    """Refuse, with OperatorError, what no directory would take."""
    desk = settings.role == COORDINATOR
    document = {
        "v": VERSION,
        "version": 1,
        "issued_at": rfc3339(now),
        "nodes": [] if desk else [entry],
        "routing": {"mandated": [], "desk": entry if desk else None},
    }
    try:
        parse_directory(json.dumps(document).encode())
    except DirectoryInvalid as error:
        field = error.field.removeprefix("routing.desk.").removeprefix("nodes[0].")
        raise OperatorError(f"The directory would not take this: {field}: {error.reason}.") from None


def _text(entry: dict[str, Any]) -> str:
    return json.dumps(entry, ensure_ascii=False, indent=2)
