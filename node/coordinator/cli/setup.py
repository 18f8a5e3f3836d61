"""Sets up a coordinator (`hotline init --role coordinator`): settings, keys, database. Never overwrites anything.

The settings are written last but for the database: whatever stops it there, `hotline migrate` does the rest.
"""

from argparse import Namespace
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from node.coordinator.cli.signers import make_signer
from node.coordinator.publisher import ROLE
from node.coordinator.tables import metadata
from node.errors import OperatorError
from node.platform import migrate
from node.platform.cli.command import Context, check_folder
from node.platform.cli.given import flag, given
from node.platform.database import DATABASE_ERRORS
from node.platform.dbopening import open_database
from node.platform.keyfiles import DESK_KEYS, NodeKeys, create_node_keys, descriptor_path, desk_descriptor, write_secret
from node.setting_files import write_settings
from node.settings import Settings, settings_from

_ONLINE: Final = ("snapshot", "timestamp")
#: Options of `hotline init` that say something of a hotline alone; others are settings, whose role is checked.
_HOTLINES: Final = ("name", "contact", "pull")


@dataclass(frozen=True, slots=True)
class _Plan:
    """What is about to be written, checked."""

    path: Path
    values: dict[str, Any]
    settings: Settings

    @property
    def descriptor(self) -> Path:
        return descriptor_path(self.settings)

    def present(self) -> list[Path]:
        """Return what is made and is there already."""
        keys = [self.settings.directory_keys_dir / f"{name}.key" for name in _ONLINE]
        files = [path for path in (self.path, self.descriptor, *keys) if path.exists() or path.is_symlink()]
        return files + sorted(self.settings.keys_dir.glob("*.key"))


def set_up(arguments: Namespace, context: Context) -> None:
    """Set the coordinator up and say what comes next; raises OperatorError."""
    for name in _HOTLINES:
        if getattr(arguments, name):
            raise OperatorError(f"Option {flag(name)} is for a hotline; a coordinator has none.")
    values = {**given(arguments, context.environ), "role": ROLE}
    for name in ("node_id", "base_url"):
        if name not in values:
            raise OperatorError(f"Setting {name} is needed: give {flag(name)}.")
    if "database_url" not in values and "embedded_database" not in values:
        raise OperatorError(
            "The coordinator needs a database: give --database-url, or --embedded for a private PostgreSQL."
        )
    path = context.settings_path()
    plan = _Plan(path, values, settings_from(values, path.parent))
    if present := plan.present():
        listed = ", ".join(map(str, present))
        raise OperatorError(f"Nothing was changed, since a node is here already or was begun: there is {listed}.")
    check_folder(path)
    context.run(_make(plan, context))
    _say_next(plan)


async def _make(plan: _Plan, context: Context) -> None:
    try:
        async with open_database(plan.settings) as db:
            async with db.transaction("init.look") as tx:
                if await tx.value("SELECT coalesce(to_regclass('field_keys'), to_regclass('metadata_files'))"):
                    raise OperatorError("The database belongs to a node already; give an empty one.")
            _write_files(plan, context)
            await migrate.upgrade(db.engine, ROLE, metadata)
    except DATABASE_ERRORS as error:
        raise OperatorError(
            f"The database failed during the command ({type(error).__name__}); once the settings file is there, "
            "`hotline migrate` does the rest."
        ) from None


def _write_files(plan: _Plan, context: Context) -> None:
    now, settings = context.clock.now(), plan.settings
    try:
        settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        settings.directory_keys_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in _ONLINE:
            make_signer(settings.directory_keys_dir / f"{name}.key", now)
        keys = create_node_keys(settings.keys_dir, now, DESK_KEYS)
        write_secret(plan.descriptor, desk_descriptor(settings, keys))
        write_settings(plan.path, plan.values)
    except OSError as error:
        raise OperatorError(f"The files cannot be written ({error.strerror}).") from None


def make_desk(settings: Settings, now: datetime) -> Path:
    """Make the desk's keys and descriptor at a coordinator that has none, and return the descriptor's path.

    Keys that are there already, all of them, are described as they are: an attempt that was cut off goes on. Raises
    OperatorError for some of them, or a descriptor.
    """
    if settings.role != ROLE:
        raise OperatorError("This is for the coordinator: the settings are of another role.")
    path, folder = descriptor_path(settings), settings.keys_dir
    if path.exists() or path.is_symlink():
        raise OperatorError(f"The desk is here already: there is {path}; `hotline keys rotate-signing` changes keys.")
    try:
        held = any(folder.glob("*.key"))
        keys = NodeKeys.load(folder, DESK_KEYS) if held else create_node_keys(folder, now, DESK_KEYS)
        write_secret(path, desk_descriptor(settings, keys))
    except OSError as error:
        raise OperatorError(f"The files cannot be written ({error.strerror}).") from None
    return path


def _say_next(plan: _Plan) -> None:
    settings = plan.settings
    print(f"The coordinator {settings.node_id} is set up.\n")
    print(f"  settings     {plan.path}")
    print(f"  desk keys    {settings.keys_dir}")
    print(f"  online keys  {settings.directory_keys_dir}")
    print(f"  descriptor   {plan.descriptor}\n")
    print("Next:")
    keys = [settings.directory_keys_dir / f"{name}.key.pub" for name in _ONLINE]
    steps = (
        "Keep a copy of the keys in a safe place.",
        "Begin the directory where its signers are; it needs the public keys of this machine:",
        f"hotline directory init … --snapshot-key {keys[0]} --timestamp-key {keys[1]}",
        f"Propose the desk with it: hotline directory propose … --desk {plan.descriptor}",
        "Publish what is signed: hotline directory publish …",
        "Start the coordinator: hotline serve",
    )
    print("\n".join(f"  {number}. {step}" for number, step in enumerate(steps, start=1)))
