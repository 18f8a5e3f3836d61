"""`hotline init`: sets up a new node: settings, signing keys, master key, database. Never overwrites anything.

The files come before the field keys: whatever stops it afterwards, `hotline migrate` finishes what is left to do.
"""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from node.errors import OperatorError, SettingError
from node.hotline.assembly import ROLE
from node.hotline.cli.opening import opened_database
from node.hotline.store.tables import metadata
from node.hotline.store.vault import create_keys
from node.platform import migrate
from node.platform.cli.command import Context, check_folder
from node.platform.cli.given import MASTER_VARIABLE, add_common_arguments, flag, given
from node.platform.database import Database
from node.platform.fieldcrypto import MasterKey
from node.platform.keyfiles import create_master_key, create_node_keys, descriptor, descriptor_path, write_secret
from node.setting_files import write_settings
from node.setting_rules import RULES
from node.settings import COORDINATOR, ROLES, Settings, settings_from
from protocol.codes import Delivery, NodeState
from protocol.directory import DirectoryInvalid, NodeEntry
from protocol.versions import speaks

_NOT_STATED: Final = "not stated"


def add_arguments(parser: ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Set up a new node: write the settings file, make the signing keys and the master key, prepare the database "
        "and write the descriptor that the directory's authority needs. On a terminal it asks for what is not given. "
        "A setting may also come from a HOTLINE_… environment variable and is then written down too. Nothing that "
        "exists is overwritten."
    )
    add_common_arguments(parser)
    parser.add_argument(
        "--role", choices=ROLES, help="what the process is in the network: a hotline (default) or the coordinator"
    )
    parser.add_argument(
        "--directory-source",
        action="append",
        metavar="SOURCE",
        help="address or folder that the membership directory comes from; may be repeated",
    )
    parser.add_argument(
        "--country", action="append", metavar="CC", help="country the hotline is competent for; may be repeated"
    )
    parser.add_argument(
        "--dns-server",
        action="append",
        metavar="IP:PORT",
        help="resolver to ask; may be repeated (default: the system's)",
    )
    parser.add_argument("--name", help="name of the organisation, for the directory (default: the node's name)")
    parser.add_argument("--contact", help="how its operators are reached, for the directory")
    parser.add_argument(
        "--pull",
        action="store_true",
        help="this node cannot be called from outside and fetches what is said to it (the descriptor says so)",
    )
    parser.add_argument(
        "--weight",
        type=int,
        default=1,
        help="share where a country has several hotlines, for the directory (default 1)",
    )
    parser.set_defaults(run=run)


def run(arguments: Namespace, context: Context) -> int:
    """Set up the node; raises OperatorError, which tells what is there already when it stops on the way."""
    values = given(arguments, context.environ)
    if sys.stdin.isatty():
        _ask(values, arguments)
    for name in ("node_id", "countries", "base_url"):
        if name not in values:
            option = "--country" if name == "countries" else flag(name)
            raise OperatorError(f"Setting {name} is needed: give {option}, or call `hotline init` on a terminal.")
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
    delivery: Delivery


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
    """Return what checks a setting's value."""
    rule = RULES[name]
    return lambda value: rule(name, value)


def _answer(question: str, check: Callable[[str], object]) -> object:
    """Ask the person at the terminal until the answer is one."""
    while True:
        try:
            return check(input(f"{question}: ").strip())
        except SettingError as error:
            print(error.sentence, file=sys.stderr)


def _plan(values: Mapping[str, object], arguments: Namespace, context: Context) -> _Plan:
    """Check everything that can be checked before the first byte is written."""
    path = context.settings_path()
    master = {"master_key": context.environ[MASTER_VARIABLE]} if context.environ.get(MASTER_VARIABLE) else {}
    settings = settings_from({**values, **master}, path.parent)
    plan = _Plan(
        path=path,
        values=values,
        settings=settings,
        makes_master=not master,
        descriptor=descriptor_path(settings),
        name=arguments.name or settings.node_id,
        contact=arguments.contact or _NOT_STATED,
        weight=arguments.weight,
        delivery=Delivery.PULL if arguments.pull else Delivery.PUSH,
    )
    try:
        # A member without keys is none yet: in maintenance it needs none.
        NodeEntry(
            settings.node_id,
            settings.countries,
            plan.name,
            settings.base_url,
            speaks().spoken,
            {},
            NodeState.MAINTENANCE,
            plan.weight,
            (),
            plan.contact,
        )
    except DirectoryInvalid as error:
        raise OperatorError(f"The directory would not take this node: {error}.") from None
    if settings.role == COORDINATOR:
        raise OperatorError("Setting role: a coordinator is set up with `hotline init --role coordinator`.")
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
        entry = descriptor(
            settings, keys, name=plan.name, contact=plan.contact, weight=plan.weight, delivery=plan.delivery
        )
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
        steps.append("Put name and contact of the hotline into the descriptor: hotline descriptor --name … --contact …")
    steps.append("Give the descriptor to those who sign the directory, on a way that they trust. It holds no secret.")
    if not settings.directory_root or not settings.directory_sources:
        steps.append("Get the fingerprint of the directory's root on a way that you trust, and join:")
        steps.append("hotline join ADDRESS --root-fingerprint HEX")
    steps.append("Start the node: hotline serve")
    print(f"The node {settings.node_id} is set up.\n")
    print("".join(f"  {line}\n" for line in made))
    print("Next:")
    print("\n".join(f"  {number}. {step}" for number, step in enumerate(steps, start=1)))
