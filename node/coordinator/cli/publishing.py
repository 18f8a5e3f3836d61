"""`hotline directory publish` and `export`: puts a signed proposal in place, and copies out what is published."""

from argparse import Namespace
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

from node.clock import rfc3339
from node.coordinator.ceremony import Proposal
from node.coordinator.cli.signers import secret_key
from node.coordinator.publication import Published, Valid, publish, renewed
from node.coordinator.publisher import opened as opened_publisher
from node.errors import OperatorError
from node.platform.cli.command import Context
from node.platform.cli.files import read_bounded
from node.platform.database import DATABASE_ERRORS
from node.platform.membership import read_folder, write_folder
from node.platform.repository import OnlineKeys, fingerprint
from node.platform.trust import ROOT_BYTES_MAX, root_file

_PUBLISH: Final = (
    "Publish a proposal that is signed enough: check it, sign snapshot and timestamp, and put all of it in place at "
    "once: into the coordinator's database, or with --to into a folder. Without a proposal the timestamp is renewed."
)
_EXPORT: Final = (
    "Copy what is published from the coordinator's database into a folder, for those who propose the next change."
)


def add_publishing(actions: Any) -> None:
    """Describe `publish` and `export`."""
    put = actions.add_parser("publish", help="publish a proposal", description=_PUBLISH)
    put.add_argument("folder", metavar="FOLDER", nargs="*", help="the proposal, and signed copies of it")
    put.add_argument("--to", metavar="FOLDER", help="folder that nodes take the directory from; else the database")
    for name in ("snapshot", "timestamp"):
        put.add_argument(f"--{name}-key", metavar="FILE", help=f"with --to: the {name} key")
    put.add_argument(
        "--timestamp-hours", metavar="HOURS", type=int, default=72, help="with --to: how long the timestamp counts"
    )
    put.set_defaults(run=_publish)
    out = actions.add_parser("export", help="copy what is published into a folder", description=_EXPORT)
    out.add_argument("folder", metavar="FOLDER", help="where it is written")
    out.set_defaults(run=_export)


def _publish(arguments: Namespace, context: Context) -> int:
    now = context.clock.now()
    if arguments.to is None:
        say_published(context.run(_publish_to_database(context, arguments.folder)))
        return 0
    if arguments.snapshot_key is None or arguments.timestamp_key is None:
        raise OperatorError("With --to the keys are needed that sign online: --snapshot-key and --timestamp-key.")
    online = OnlineKeys(secret_key(arguments.snapshot_key), secret_key(arguments.timestamp_key))
    valid = Valid(timestamp=timedelta(hours=arguments.timestamp_hours))
    to = Path(arguments.to).absolute()
    before = published_in(to) if (to / root_file(1)).exists() else None
    made = published_by(before, arguments.folder, online, now, valid)
    write_folder(to, made.trusted)
    say_published(made)
    return 0


async def _publish_to_database(context: Context, folders: Sequence[str]) -> Published:
    proposal = _joined(folders) if folders else None
    try:
        async with opened_publisher(context.settings(), context.clock) as publisher:
            if proposal is not None:
                return await publisher.publish(proposal)
            await publisher.renew()
            if publisher.published is None:
                raise OperatorError("Nothing is published yet: name the folder of a proposal.")
            return publisher.published
    except DATABASE_ERRORS as error:
        raise OperatorError(f"The database failed during the command ({type(error).__name__}).") from None


def _export(arguments: Namespace, context: Context) -> int:
    async def read() -> Published | None:
        async with opened_publisher(context.settings(), context.clock) as publisher:
            return publisher.published

    found = context.run(read())
    if found is None:
        raise OperatorError("Nothing is published yet.")
    write_folder(Path(arguments.folder).absolute(), found.trusted)
    say_published(found)
    return 0


def published_in(folder: Path) -> Published:
    """Return what a folder of published metadata holds. Raises OperatorError."""
    first = read_bounded(folder / root_file(1), ROOT_BYTES_MAX, f"The first root of {folder}")
    trusted = read_folder(folder, fingerprint(first))
    found = None if trusted is None else Published.of(trusted.files())
    if found is None:
        raise OperatorError(f"The folder {folder} holds no published directory.")
    return found


def _joined(folders: Sequence[str]) -> Proposal:
    """Return the proposal that all folders are copies of, with the signatures of all."""
    proposal = Proposal.read(Path(folders[0]))
    for copy in folders[1:]:
        proposal = proposal.joined(Proposal.read(Path(copy)))
    return proposal


def published_by(
    before: Published | None, folders: Sequence[str], online: OnlineKeys, now: Any, valid: Valid
) -> Published:
    """Return what is published by the proposal in `folders`, copies of one; without any the timestamp is renewed."""
    if folders:
        return publish(before, _joined(folders), online, now, valid)
    if before is None:
        raise OperatorError("Nothing is published yet: name the folder of a proposal.")
    return renewed(before, online, now, valid)


def say_published(made: Published) -> None:
    """Tell what is published now."""
    print(f"Version {made.directory.version} is published, fresh until {rfc3339(made.use.fresh_until)}.")
    print(f"Fingerprint that nodes pin: {made.fingerprint}")
