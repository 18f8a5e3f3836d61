"""`hotline init`: sets up a new node: settings, signing keys, master key, database. Never overwrites anything.

The files come before the field keys: whatever stops it afterwards, `hotline migrate` finishes what is left to do.
"""

import sys
import tomllib
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from node.errors import OperatorError, SettingError
from node.hotline.assembly import ROLE
from node.hotline.cli.command import Context, check_folder
from node.hotline.cli.opening import opened_database
from node.hotline.store.tables import metadata
from node.hotline.store.vault import create_keys
from node.platform import migrate
from node.platform.database import Database
from node.platform.fieldcrypto import MasterKey
from node.platform.keyfiles import create_master_key, create_node_keys, descriptor, write_secret
from node.setting_rules import RULES
from node.settings import FILE_VARIABLE, Settings, documented, settings_from, write_settings
from protocol.codes import NodeState
from protocol.directory import DirectoryInvalid, NodeEntry

DESCRIPTOR_FILE: Final = "descriptor.json"
_VARIABLE_PREFIX: Final = "HOTLINE_"
_MASTER_VARIABLE: Final = "HOTLINE_MASTER_KEY"
_NOT_STATED: Final = "not stated"
_KINDS: Final = {row.name: row.kind for row in documented()}
#: Options that are settings: what is given goes into the settings file as it is.
_OPTIONS: Final[Mapping[str, str]] = {
    "node_id": "name of the node in the network, such as fr.hotline.example",
    "base_url": "public address of the peer protocol: https, a host and perhaps a port",
    "listen_peer": "address:port that serves the peer protocol (default 127.0.0.1:8701)",
    "listen_api": "address:port that serves the API, health and metrics (default 127.0.0.1:8702)",
    "directory_authority": "verifier key of the membership directory, as its authority publishes it",
}
_PATHS: Final[Mapping[str, str]] = {
    "data_dir": "folder of everything the node keeps in files (default: data, beside the settings file)",
    "directory_file": "file of the signed membership directory (default: directory.note in the data folder)",
}


def add_arguments(parser: ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Set up a new node: write the settings file, make the signing keys and the master key, prepare the database "
        "and write the descriptor that the directory's authority needs. On a terminal it asks for what is not given. "
        "A setting may also come from a HOTLINE_… environment variable and is then written down too. Nothing that "
        "exists is overwritten."
    )
    for name, text in _OPTIONS.items():
        parser.add_argument(_flag(name), metavar="NAME" if name == "node_id" else "TEXT", help=text)
    for name, text in _PATHS.items():
        parser.add_argument(_flag(name), metavar="PATH", help=text)
    parser.add_argument(
        "--country", action="append", metavar="CC", help="country the hotline is competent for; may be repeated"
    )
    database = parser.add_mutually_exclusive_group()
    database.add_argument(
        "--database-url",
        metavar="TEXT",
        help="address of an empty PostgreSQL database; better in HOTLINE_DATABASE_URL if it holds a password",
    )
    database.add_argument("--embedded", action="store_true", help="run a private PostgreSQL in the data folder instead")
    parser.add_argument(
        "--dns-server",
        action="append",
        metavar="IP:PORT",
        help="resolver to ask; may be repeated (default: the system's)",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="any other setting (docs/operations.md)"
    )
    parser.add_argument("--name", help="name of the organisation, for the directory (default: the node's name)")
    parser.add_argument("--contact", help="how its operators are reached, for the directory")
    parser.add_argument(
        "--weight",
        type=int,
        default=1,
        help="share where a country has several hotlines, for the directory (default 1)",
    )
    parser.set_defaults(run=run)


def run(arguments: Namespace, context: Context) -> int:
    """Set up the node; raises OperatorError, which tells what is there already when it stops on the way."""
    values = _given(arguments, context.environ)
    if sys.stdin.isatty():
        _ask(values, arguments)
    for name in ("node_id", "countries", "base_url"):
        if name not in values:
            flag = "--country" if name == "countries" else _flag(name)
            raise OperatorError(f"Setting {name} is needed: give {flag}, or call `hotline init` on a terminal.")
    if "database_url" not in values and "embedded_database" not in values:
        raise OperatorError("The node needs a database: give --database-url, or --embedded for a private PostgreSQL.")
    plan = _plan(values, arguments, context)
    context.run(_set_up(plan, context))
    _say_next(plan)
    return 0


@dataclass(frozen=True, slots=True)
class _Plan:
    """Everything that is about to be written, checked."""

    path: Path
    values: Mapping[str, object]
    settings: Settings
    makes_master: bool
    descriptor: Path
    name: str
    contact: str
    weight: int


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _given(arguments: Namespace, environ: Mapping[str, str]) -> dict[str, object]:
    """Return the settings that the environment gives, those of --set over them, and the other options over both."""
    values = _of_environment(environ)
    for pair in arguments.set:
        name, separator, text = pair.partition("=")
        if not separator:
            raise OperatorError("Option --set takes NAME=VALUE, such as --set log_level=debug.")
        values[name] = _value(name, text)
    given = {name: getattr(arguments, name) for name in (*_OPTIONS, *_PATHS, "database_url")}
    # A path as a shell's user means it: from here, not from the folder of the settings file.
    values |= {
        name: str(Path(text).expanduser().absolute()) if name in _PATHS else text
        for name, text in given.items()
        if text is not None
    }
    if arguments.country:
        values["countries"] = arguments.country
    if arguments.dns_server:
        values["dns_servers"] = arguments.dns_server
    if arguments.embedded:
        values["embedded_database"] = True
        values.pop("database_url", None)
    return values


def _of_environment(environ: Mapping[str, str]) -> dict[str, object]:
    names = {
        variable: variable.removeprefix(_VARIABLE_PREFIX).lower()
        for variable in environ
        if variable.startswith(_VARIABLE_PREFIX) and variable not in {FILE_VARIABLE, _MASTER_VARIABLE}
    }
    return {name: _value(name, environ[variable]) for variable, name in names.items()}


def _value(name: str, text: str) -> object:
    """Return the value of a setting in its type; what is of another type stays text and is refused with the rest."""
    kind = _KINDS.get(name)
    if kind is None:
        raise SettingError(name, "there is no such setting")
    if kind.startswith("list"):
        return [part.strip() for part in text.split(",") if part.strip()]
    if kind in {"true or false", "whole number", "number"}:
        try:
            return tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            return text
    return text


def _ask(values: dict[str, object], arguments: Namespace) -> None:
    """Ask the person at the terminal for what was not given."""
    if "node_id" not in values:
        values["node_id"] = _answer("Name of this node, such as fr.hotline.example", _checked("node_id"))
    if "countries" not in values:
        check = _checked("countries")
        values["countries"] = _answer(
            "Countries of this hotline, two capital letters each, commas between them",
            lambda text: check(tuple(part.strip() for part in text.split(",") if part.strip())),
        )
    if "base_url" not in values:
        values["base_url"] = _answer("Public address of the peer protocol, https and a host", _checked("base_url"))
    if arguments.name is None:
        arguments.name = input("Name of the organisation, for the directory: ").strip() or None
    if arguments.contact is None:
        arguments.contact = input("How its operators are reached, for the directory: ").strip() or None
    if "database_url" not in values and "embedded_database" not in values:
        answer = _answer("Address of an empty PostgreSQL database; nothing for a private one", _checked("database_url"))
        values |= {"database_url": answer} if answer else {"embedded_database": True}


def _checked(name: str) -> Callable[[object], object]:
    rule = RULES[name]
    return lambda value: rule(name, value)


def _answer(question: str, check: Callable[[str], object]) -> object:
    while True:
        try:
            return check(input(f"{question}: ").strip())
        except SettingError as error:
            print(error.sentence, file=sys.stderr)


def _plan(values: Mapping[str, object], arguments: Namespace, context: Context) -> _Plan:
    """Check everything that can be checked before the first byte is written."""
    path = context.settings_path()
    master = {"master_key": context.environ[_MASTER_VARIABLE]} if context.environ.get(_MASTER_VARIABLE) else {}
    settings = settings_from({**values, **master}, path.parent)
    plan = _Plan(
        path=path,
        values=values,
        settings=settings,
        makes_master=not master,
        descriptor=settings.data_dir / DESCRIPTOR_FILE,
        name=arguments.name or settings.node_id,
        contact=arguments.contact or _NOT_STATED,
        weight=arguments.weight,
    )
    try:
        # A member without keys is none yet: in maintenance it needs none.
        NodeEntry(
            settings.node_id,
            settings.countries,
            plan.name,
            settings.base_url,
            ("1.0",),
            {},
            NodeState.MAINTENANCE,
            plan.weight,
            (),
            plan.contact,
        )
    except DirectoryInvalid as error:
        raise OperatorError(f"The directory would not take this node: {error}.") from None
    present = _present(plan)
    if present:
        listed = ", ".join(map(str, present))
        raise OperatorError(f"Nothing was changed, since a node is here already or was begun: there is {listed}.")
    check_folder(path)
    return plan


def _present(plan: _Plan) -> list[Path]:
    """Return what `init` makes and is there."""
    settings = plan.settings
    files = [plan.path, plan.descriptor]
    if plan.makes_master:
        files.append(settings.master_key_file)
    return [path for path in files if path.exists() or path.is_symlink()] + sorted(settings.keys_dir.glob("*.key"))


async def _set_up(plan: _Plan, context: Context) -> None:
    try:
        async with opened_database(plan.settings) as db:
            await _check_unused(db)
            _write_files(plan, context)
            await migrate.upgrade(db.engine, ROLE, metadata)
            async with db.transaction("init.keys") as tx:
                await create_keys(tx, MasterKey.load(plan.settings), context.clock.now())
    except OperatorError as error:
        present = _present(plan)
        if not present:
            raise
        listed = ", ".join(map(str, present))
        if plan.path in present:
            rest = "put right what failed and let `hotline migrate` do the rest"
        else:
            rest = "put right what failed, remove these and begin again"
        raise OperatorError(f"{error.sentence.rstrip('.')}; there is {listed} now: {rest}.") from None


async def _check_unused(db: Database) -> None:
    async with db.transaction("init.look") as tx:
        if await tx.value("SELECT to_regclass('field_keys')") and await tx.value("SELECT count(*) FROM field_keys"):
            raise OperatorError("The database belongs to a node already; give an empty one.")


def _write_files(plan: _Plan, context: Context) -> None:
    """Write every file, the settings last: with them the node is complete but for its database."""
    now = context.clock.now()
    settings = plan.settings
    try:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if plan.makes_master:
            create_master_key(settings.master_key_file)
        keys = create_node_keys(settings.keys_dir, now)
        entry = descriptor(settings, keys, name=plan.name, contact=plan.contact, weight=plan.weight)
        write_secret(plan.descriptor, entry)
        write_settings(plan.path, plan.values)
    except OSError as error:
        # Here, and not where errors of this kind are the database's.
        raise OperatorError(f"The files cannot be written ({error.strerror}).") from None


def _say_next(plan: _Plan) -> None:
    settings = plan.settings
    made = [f"settings    {plan.path}", f"keys        {settings.keys_dir}"]
    if plan.makes_master:
        made.append(f"master key  {settings.master_key_file}")
    made.append(f"descriptor  {plan.descriptor}")
    steps = []
    if plan.makes_master:
        steps.append("Keep a copy of the master key and of the keys in a safe place: without them the data is lost.")
    if plan.contact == _NOT_STATED:
        steps.append("Put name and contact of the hotline into the descriptor; both are for people.")
    steps.append("Give the descriptor to the directory's authority, on a way that it trusts. It holds no secret.")
    steps.append(f"Put the signed directory that it gives you at {settings.directory_file}.")
    if not settings.directory_authority:
        steps.append("Set directory_authority in the settings file to its verifier key.")
    steps.append("Start the node: hotline serve")
    print(f"The node {settings.node_id} is set up.\n")
    print("".join(f"  {line}\n" for line in made))
    print("Next:")
    print("\n".join(f"  {number}. {step}" for number, step in enumerate(steps, start=1)))
