"""`hotline keys`: lists keys, makes and revokes API keys, rotates the master key. Shows no secret but a new one."""

import asyncio
import sys
from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path
from typing import Final

from node.clock import rfc3339
from node.errors import OperatorError
from node.hotline.cli.opening import opened_store
from node.hotline.cli.rotating import add_rotation
from node.hotline.store.apikeys import ApiKeys
from node.hotline.store.vault import rotate_master
from node.platform.apikeys import ApiKeyRow, NewApiKey, Role, new_api_key
from node.platform.cli.command import Context, check_folder
from node.platform.cli.table import show_table
from node.platform.database import DATABASE_ERRORS
from node.platform.fieldcrypto import MasterKey
from node.platform.keyfiles import create_master_key, load_keys, own_slots
from node.settings import COORDINATOR

_NAME_CHARS_MAX: Final = 64
_ROLES: Final = {
    Role.INTAKE: "hand reports in",
    Role.ANALYST: "see items, set qualifications, get proofs",
    Role.READER: "see items",
    Role.MONITOR: "see metrics and status",
    Role.ADMIN: "everything",
}


def add_arguments(parser: ArgumentParser) -> None:
    """Describe the command and its parts."""
    parser.description = "Show the node's keys, make and revoke the keys of the API, rotate the master key."
    actions = parser.add_subparsers(required=True, metavar="ACTION")

    show = actions.add_parser("show", help="list the signing keys and name the master key", description=_SHOW)
    show.set_defaults(run=_show)

    api = actions.add_parser("api", help="the keys that machines call the API with", description="Keys of the API.")
    api_actions = api.add_subparsers(required=True, metavar="ACTION")
    new = api_actions.add_parser("new", help="make a key and print it, once", description=_NEW)
    new.add_argument("--name", required=True, help="who will use it")
    new.add_argument(
        "--role",
        required=True,
        action="append",
        choices=[role.value for role in Role],
        help="; ".join(f"{role}: {text}" for role, text in _ROLES.items()) + "; may be repeated",
    )
    new.set_defaults(run=_api_new)
    listing = api_actions.add_parser("list", help="list the keys", description="List the keys, revoked ones too.")
    listing.set_defaults(run=_api_list)
    revoke = api_actions.add_parser("revoke", help="revoke a key", description=_REVOKE)
    revoke.add_argument("id", metavar="ID", help="the key's id, as `hotline keys api list` shows it")
    revoke.set_defaults(run=_api_revoke)

    add_rotation(actions)
    rotate = actions.add_parser(
        "rotate-master", help="put a new master key in the old one's place", description=_ROTATE
    )
    rotate.add_argument("--new-file", metavar="FILE", required=True, help="where the new master key is written")
    rotate.set_defaults(run=_rotate)


_SHOW: Final = (
    "List the signing keys: what each is for, its thumbprint (RFC 7638), when it was made; and the master key's id. "
    "Nothing secret is shown."
)
_NEW: Final = "Make a key for the API and print it. It is shown this once; only its hash is stored."
_REVOKE: Final = "Revoke a key. Running nodes refuse it within ten seconds."
_ROTATE: Final = (
    "Make a new master key and wrap the field keys under it instead of the old one, all in one transaction. The data "
    "itself is not written again. The old key's file stays where it is; afterwards it opens nothing but old backups."
)


def _show(_arguments: Namespace, context: Context) -> int:
    settings = context.settings()
    keys = load_keys(settings.keys_dir, own_slots(settings))
    # The coordinator seals nothing.
    master = None if settings.role == COORDINATOR else MasterKey.load(settings)
    rows = [
        (each.use.value, each.key.algorithm.value, each.key.public().thumbprint(), rfc3339(each.created))
        for each in keys
    ]
    show_table(f"Signing keys in {settings.keys_dir}", ("use", "algorithm", "thumbprint", "made"), rows)
    if master is None:
        return 0
    source = "the environment" if settings.master_key else str(settings.master_key_file)
    print(f"Master key {master.id}, from {source}.")
    return 0


def _api_new(arguments: Namespace, context: Context) -> int:
    name = arguments.name
    if not 1 <= len(name) <= _NAME_CHARS_MAX or not name.isprintable():
        raise OperatorError(f"Option --name: a name has 1 to {_NAME_CHARS_MAX} printable characters.")
    roles = frozenset(Role(role) for role in arguments.role)
    key = context.run(_add_api_key(context, name, roles))
    # The key alone on standard output, so that a script can take it from there.
    print(f"API key {key.key_id} for {name}. It is shown this once:", file=sys.stderr)
    print(key.text)
    return 0


async def _add_api_key(context: Context, name: str, roles: frozenset[Role]) -> NewApiKey:
    key = new_api_key()
    async with opened_store(context) as store:
        await ApiKeys(store.db).add(key, name, roles, context.clock.now())
    return key


def _api_list(_arguments: Namespace, context: Context) -> int:
    now = context.clock.now()
    rows = [
        (row.key_id, row.name, ", ".join(sorted(row.roles)), "in use" if row.counts_at(now) else "ended")
        for row in context.run(_api_keys(context))
    ]
    show_table("API keys", ("id", "name", "roles", "state"), rows)
    return 0


async def _api_keys(context: Context) -> list[ApiKeyRow]:
    async with opened_store(context) as store:
        return await ApiKeys(store.db).every()


def _api_revoke(arguments: Namespace, context: Context) -> int:
    if not context.run(_revoke(context, arguments.id)):
        raise OperatorError("There is no API key of this id that still counts; `hotline keys api list` shows them.")
    print("The key is revoked. Running nodes refuse it within ten seconds.")
    return 0


async def _revoke(context: Context, key_id: str) -> bool:
    async with opened_store(context) as store:
        return await ApiKeys(store.db).revoke(key_id, context.clock.now())


def _rotate(arguments: Namespace, context: Context) -> int:
    path = Path(arguments.new_file).expanduser().absolute()
    check_folder(path)
    count, by_environment = context.run(_rotate_master(context, path))
    print(f"{count} field keys are wrapped under the new master key in {path} now.")
    if by_environment:
        print("Next: set HOTLINE_MASTER_KEY to the content of this file, wherever it is set now.")
    else:
        print(f'Next: set master_key_file = "{path}" in {context.settings_path()}.')
    print("Nodes that run go on; each needs the new key at its next start.")
    print("Keep the old key for as long as there are backups of the database from before.")
    return 0


async def _rotate_master(context: Context, path: Path) -> tuple[int, bool]:
    """Return how many keys were wrapped anew, and whether the master key comes from the environment.

    If we crash before the commit the old key counts, and after it the new one; both are in their files by then.
    """
    async with opened_store(context) as store:
        settings = store.settings
        old = MasterKey.load(settings)
        _create(path)
        try:
            new = MasterKey.load(replace(settings, master_key="", master_key_file=path))
            async with store.db.transaction("keys.rotate-master") as tx:
                count = await rotate_master(tx, old, new)
        except OperatorError:
            # Nothing was committed, so nothing is wrapped under the new key.
            await asyncio.to_thread(path.unlink)
            raise
        except DATABASE_ERRORS as error:
            raise OperatorError(
                f"The database failed during the rotation ({type(error).__name__}): keep the old key and the new one "
                f"in {path}, since either may be the one that counts; `hotline status` works with that one only."
            ) from None
    return count, bool(settings.master_key)


def _create(path: Path) -> None:
    try:
        create_master_key(path)
    except OSError as error:
        # Here, and not where errors of this kind are the database's.
        raise OperatorError(f"{path} cannot be written ({error.strerror}).") from None
