"""`hotline join`: fetches the membership directory for the first time, pinned by its root's fingerprint, and shows it.

Believes nothing that the fingerprint does not lead to; writes two settings and the verified metadata, or nothing.
"""

from argparse import ArgumentParser, Namespace
from datetime import datetime
from pathlib import Path

from node.clock import rfc3339
from node.errors import OperatorError
from node.platform.cli.command import Context
from node.platform.httpclient import make_session
from node.platform.keyfiles import load_keys
from node.platform.membership import Membership, Seen
from node.platform.sources import make_source
from node.platform.tls import open_peer_tls
from node.platform.trust import InUse
from node.setting_files import add_settings
from node.setting_rules import check_fingerprint, check_sources
from node.settings import Settings
from protocol.codes import NodeState
from protocol.keys import KeyUse


def add_arguments(parser: ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Join a network: fetch its membership directory from ADDRESS, verify it from the root of this fingerprint on, "
        "show what it says, keep it, and write address and fingerprint into the settings file. The fingerprint comes "
        "on another way than the address: by telephone, on paper, from several people. A node that has joined goes on "
        "by itself; `hotline join` once more changes nothing, or adds a source."
    )
    parser.add_argument(
        "address", metavar="ADDRESS", help="https://host of the coordinator or a node, or a folder with the metadata"
    )
    parser.add_argument(
        "--root-fingerprint", metavar="HEX", required=True, help="SHA-256 of the root, as `hotline directory show` says"
    )
    parser.set_defaults(run=run)


class _Nothing:
    """No ledger: the database is the running node's, which checks for itself."""

    async def check(self, seen: Seen) -> None:
        """Compare with nothing."""

    async def record(self, seen: Seen) -> None:
        """Remember nothing."""


def run(arguments: Namespace, context: Context) -> int:
    """Join; raises OperatorError when nothing could be verified, and then nothing is written."""
    settings = context.settings()
    pin = check_fingerprint("directory_root", arguments.root_fingerprint.lower())
    if settings.directory_root not in {"", pin}:
        raise OperatorError(
            "This node is in a network already, by another fingerprint. A node leaves it by hand: remove "
            f"directory_root and directory_sources from the settings, and the folder {settings.directory_dir}."
        )
    address = arguments.address
    if "://" not in address:
        address = str(Path(address).expanduser().absolute())
    (source,) = check_sources("directory_sources", (address,))
    use = context.run(_fetch(settings, context, source, pin))
    _show(settings, use, context.clock.now())
    sources = (*settings.directory_sources, *([] if source in settings.directory_sources else [source]))
    path = context.settings_path()
    if settings.directory_root == pin and source in settings.directory_sources:
        print("The settings have fingerprint and source already.")
    elif path.exists():
        add_settings(path, {"directory_root": pin, "directory_sources": list(sources)})
        print(f"Fingerprint and source are in {path}.")
    else:
        print(f"Next: set HOTLINE_DIRECTORY_ROOT={pin} and HOTLINE_DIRECTORY_SOURCES={','.join(sources)}")
    return 0


async def _fetch(settings: Settings, context: Context, source: str, pin: str) -> InUse:
    async with make_session(timeout_s=settings.peer_timeout_s, tls=open_peer_tls(settings).calls) as session:
        membership = Membership(
            folder=settings.directory_dir,
            fingerprint=pin,
            sources=[make_source(source, session)],
            ledger=_Nothing(),
            clock=context.clock,
        )
        await membership.start()
        await membership.refresh()
        if membership.problem is not None:
            raise OperatorError(membership.problem)
        return membership.in_use()


def _show(settings: Settings, use: InUse, now: datetime) -> None:
    directory = use.directory
    members = [node.id for node in directory.nodes.values() if node.state is NodeState.ACTIVE]
    print(f"The directory verifies: version {directory.version}, root version {use.root_version}.")
    print(f"Fresh until {rfc3339(use.fresh_until)}; {len(directory.nodes)} nodes, {len(members)} of them active.")
    entry = directory.nodes.get(settings.node_id)
    if entry is None:
        print(f"{settings.node_id} is not listed yet: give {settings.data_dir / 'descriptor.json'} to its signers.")
        return
    print(f"{entry.id} is listed: state {entry.state}, countries {', '.join(entry.countries) or 'none'}.")
    if entry.base_url != settings.base_url:
        print("WARNING: the directory lists another address for it than the setting base_url.")
    held = {each.key.public() for each in load_keys(settings.keys_dir)}
    for use_of in (KeyUse.HTTP, KeyUse.STREAM, KeyUse.RECEIPT):
        if not set(directory.verification_keys(entry.id, use_of, now)) & held:
            print(f"WARNING: the directory lists other {use_of} keys for it than those in {settings.keys_dir}.")
