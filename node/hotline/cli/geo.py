"""`hotline geo`: shows the geolocation files in use and fetches newer ones. Locates nothing itself."""

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Final

from geo.evidence import DatabaseKind
from geo.update import DbIpLite, MaxMind, UpdateResult, fetch_http, update
from node.errors import OperatorError
from node.hotline.cli.status import read_databases, show_databases
from node.platform.cli.command import Context
from node.platform.keyfiles import read_secret
from node.settings import Settings

EXIT_NOT_UPDATED: Final = 1
#: The names that MaxMind's own update program reads.
_ACCOUNT_VARIABLE: Final = "GEOIPUPDATE_ACCOUNT_ID"
_KEY_VARIABLE: Final = "GEOIPUPDATE_LICENSE_KEY"
_SETTINGS: Final = {DatabaseKind.COUNTRY: "geo_country_databases", DatabaseKind.ASN: "geo_asn_databases"}


def add_arguments(parser: ArgumentParser) -> None:
    """Describe the command and its parts."""
    parser.description = "Show the geolocation files in use, or fetch newer ones."
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    status = actions.add_parser(
        "status", help="show the files and their age", description="Show the files in use, their age, what is wrong."
    )
    status.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    status.set_defaults(run=_status)
    fetch = actions.add_parser(
        "update",
        help="fetch newer files",
        description=(
            "Fetch the newest country and network files, try each, and put it in the old one's place; a running node "
            "takes it up by itself. A file that is no good changes nothing. DB-IP Lite needs no account; MaxMind "
            f"GeoLite2 needs one, by the options or by {_ACCOUNT_VARIABLE} and {_KEY_VARIABLE}. Exit status 0 when "
            "every file is as new as its source has it, 1 when one could not be had."
        ),
    )
    fetch.add_argument("--source", choices=("dbip", "maxmind"), default="dbip", help="whose files (default: dbip)")
    fetch.add_argument("--account", metavar="ID", help="MaxMind: the account's number")
    fetch.add_argument(
        "--licence-key-file", metavar="FILE", help="MaxMind: file of the licence key, readable by its owner only"
    )
    fetch.add_argument("--into", metavar="FOLDER", help="where the files go (default: geo in the data folder)")
    fetch.set_defaults(run=_update)


def _status(arguments: Namespace, context: Context) -> int:
    warnings: list[str] = []
    databases = context.run(read_databases(context.settings(), context, warnings))
    if arguments.json:
        print(json.dumps({"databases": databases, "warnings": warnings}))
        return 0
    show_databases(databases)
    for warning in warnings:
        print(f"WARNING: {warning}.")
    return 0


def _update(arguments: Namespace, context: Context) -> int:
    settings = context.settings()
    folder = settings.data_dir / "geo" if arguments.into is None else Path(arguments.into).expanduser().absolute()
    source = _maxmind(arguments, context) if arguments.source == "maxmind" else DbIpLite()
    try:
        result = context.run(update(source, folder, fetch=fetch_http, now=context.clock.now()))
    except OSError as error:
        raise OperatorError(f"The folder {folder} cannot be made ({error.strerror}).") from None
    for file in result.files:
        print(f"{file.sentence}.")
    _say_settings(result, settings)
    if arguments.source == "dbip":
        print("IP Geolocation by DB-IP, CC BY 4.0: pages that show its results have to link to db-ip.com.")
    return 0 if result.ok else EXIT_NOT_UPDATED


def _maxmind(arguments: Namespace, context: Context) -> MaxMind:
    account = arguments.account or context.environ.get(_ACCOUNT_VARIABLE, "")
    if arguments.licence_key_file is None:
        key = context.environ.get(_KEY_VARIABLE, "")
    else:
        key = read_secret(Path(arguments.licence_key_file)).decode("ascii", "replace").strip()
    if not account or not key:
        raise OperatorError(
            f"MaxMind needs an account and a licence key: give --account and --licence-key-file, or set "
            f"{_ACCOUNT_VARIABLE} and {_KEY_VARIABLE}."
        )
    try:
        return MaxMind(account, key)
    except ValueError as error:
        raise OperatorError(f"MaxMind: {error}.") from None


def _say_settings(result: UpdateResult, settings: Settings) -> None:
    """Name the settings that do not use a fetched file yet: until then the built-in one is asked."""
    used = {*settings.geo_country_databases, *settings.geo_asn_databases}
    for file in result.files:
        if file.build_date is not None and file.path not in used:
            print(f"To use it, add to the settings: {_SETTINGS[file.kind]} = {json.dumps([str(file.path)])}")
