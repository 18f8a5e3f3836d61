"""`hotline directory`: the ceremonies of the membership directory: proposals and signatures.

`new-key`, `init`, `propose`, `sign` and `show` need no settings, no database and no network: they run on machines that
are never connected, and files are carried between them.
"""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from tuf.api.metadata import Root, Snapshot, Targets, Timestamp

from node.clock import rfc3339
from node.coordinator.ceremony import Proposal, changed_keys
from node.coordinator.changes import changes, check_changes
from node.coordinator.cli.publishing import add_publishing, published_in
from node.coordinator.cli.signers import make_signer, public_key, public_keys, secret_key
from node.coordinator.room import check_room, room_warnings
from node.errors import OperatorError
from node.platform.cli.command import Context, check_folder
from node.platform.cli.files import read_bounded
from node.platform.cli.table import show_table
from node.platform.repository import (
    ROOT,
    TARGETS,
    RoleKeys,
    fingerprint,
    make_root,
    make_targets,
    opened,
    roles_of,
    tuf_key,
)
from node.platform.trust import root_file
from protocol.codes import NodeState
from protocol.directory import VERSION, Directory, DirectoryInvalid, parse_directory

_MEMBER_BYTES_MAX: Final = 524_288
_PUBLIC_BYTES_MAX: Final = 4096
_PUBLIC_ENDING: Final = ".pub"
#: How long root and directory count, unless it is said.
_DAYS: Final = 365


def add_arguments(parser: ArgumentParser) -> None:
    """Describe the command and its parts."""
    parser.description = (
        "Make, sign and publish the membership directory: which nodes there are, with their keys. It is TUF metadata: "
        "people sign root and directory, on machines that are never online, as many of them as the root says."
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")
    _add_key(actions)
    _add_init(actions)
    _add_propose(actions)
    sign = actions.add_parser("sign", help="sign a proposal", description=_SIGN)
    sign.add_argument("folder", metavar="FOLDER", help="the proposal")
    sign.add_argument("--key", metavar="FILE", required=True, help="the signer's key")
    sign.set_defaults(run=_sign)
    show = actions.add_parser("show", help="show a proposal or a published directory", description=_SHOW)
    show.add_argument("folder", metavar="FOLDER", help="the proposal, or a folder of published metadata")
    show.set_defaults(run=_show)
    add_publishing(actions)


_NEW: Final = (
    "Make a key that signs for the directory. FILE holds the secret and is readable by its owner only; FILE.pub is "
    "what the others need. Each signer makes one, on a machine of their own."
)
_INIT: Final = (
    "Begin a directory: propose its first root, which says whose signatures count. It prints the root's fingerprint, "
    "which every node pins."
)
_PROPOSE: Final = (
    "Propose a change: of the members, with their descriptors; of who signs, with keys and thresholds; or both. What "
    "is not named stays as it is published. With a proposal in FOLDER that is not published yet, it is added to."
)
_SIGN: Final = (
    "Add this key's signature to whatever of the proposal it may sign, and show what that is. The folder may be copied "
    "between machines, or each signer signs a copy: `publish` puts them together."
)
_SHOW: Final = "Show what a proposal changes and which signatures it lacks, or what a published directory says."


def _add_key(actions: Any) -> None:
    new = actions.add_parser("new-key", help="make a signer's key", description=_NEW)
    new.add_argument("file", metavar="FILE", help="where the key is written, readable by its owner only")
    new.set_defaults(run=_new_key)


def _add_init(actions: Any) -> None:
    init = actions.add_parser("init", help="propose the first root", description=_INIT)
    init.add_argument("folder", metavar="FOLDER", help="where the proposal is written")
    for role, who in ((ROOT, "changes who signs"), (TARGETS, "signs the directory")):
        name = "directory" if role == TARGETS else role
        init.add_argument(
            f"--{name}-key",
            metavar="PUB",
            required=True,
            nargs="+",
            action="extend",
            help=f"public key of somebody who {who}; several, or repeated",
        )
        init.add_argument(f"--{name}-threshold", metavar="N", type=int, default=1, help="signatures needed (default 1)")
    for name in ("snapshot", "timestamp"):
        init.add_argument(
            f"--{name}-key", metavar="PUB", required=True, help=f"public key that signs the {name} online"
        )
    init.add_argument("--root-days", metavar="DAYS", type=int, default=365, help="how long the root counts (365)")
    init.set_defaults(run=_init)


def _add_propose(actions: Any) -> None:
    propose = actions.add_parser("propose", help="propose a change", description=_PROPOSE)
    propose.add_argument("folder", metavar="FOLDER", help="where the proposal is written")
    propose.add_argument(
        "--published", metavar="FOLDER", help="what is published, as `hotline directory export` or a node keeps it"
    )
    propose.add_argument(
        "--member", metavar="FILE", nargs="+", action="extend", default=[], help="descriptor of a node, new or changed"
    )
    propose.add_argument(
        "--state",
        metavar="ID=STATE",
        nargs="+",
        action="extend",
        default=[],
        help=f"state of a node: {', '.join(NodeState)}",
    )
    propose.add_argument(
        "--mandated", metavar="ID", nargs="*", help="nodes that take what is hosted where there is no hotline"
    )
    propose.add_argument(
        "--desk",
        metavar="FILE",
        help="descriptor of the desk that settles disputes, the coordinator's; `none` for none",
    )
    propose.add_argument("--urgent", action="store_true", help="let new keys count without 48 h of notice")
    propose.add_argument(
        "--days", type=int, help="how long the directory counts (365); alone it renews what is published"
    )
    for name in ("root", "directory"):
        propose.add_argument(
            f"--add-{name}-key", metavar="PUB", nargs="+", action="extend", default=[], help="new signer"
        )
        propose.add_argument(
            f"--remove-{name}-key", metavar="PUB", nargs="+", action="extend", default=[], help="signer who leaves"
        )
        propose.add_argument(f"--{name}-threshold", metavar="N", type=int, help="signatures needed")
    for name in ("snapshot", "timestamp"):
        propose.add_argument(f"--{name}-key", metavar="PUB", help=f"the new {name} key, in place of the old one")
    propose.add_argument("--root-days", metavar="DAYS", type=int, help="make a new root that counts so long")
    propose.set_defaults(run=_propose)


def _new_key(arguments: Namespace, context: Context) -> int:
    path = Path(arguments.file).expanduser().absolute()
    check_folder(path)
    public_path, public = make_signer(path, context.clock.now())
    print(f"{tuf_key(public).keyid[:16]}  {public_path}")
    return 0


def _init(arguments: Namespace, context: Context) -> int:
    folder = Path(arguments.folder).absolute()
    if folder.exists() and any(folder.iterdir()):
        raise OperatorError(f"The folder {folder} is not empty.")
    roles = {
        ROOT: RoleKeys(public_keys(arguments.root_key), arguments.root_threshold),
        TARGETS: RoleKeys(public_keys(arguments.directory_key), arguments.directory_threshold),
        Snapshot.type: RoleKeys([public_key(arguments.snapshot_key)], 1),
        Timestamp.type: RoleKeys([public_key(arguments.timestamp_key)], 1),
    }
    root = make_root(1, roles, _until(context, arguments.root_days))
    Proposal(root=root).write(folder)
    print(f"The first root is proposed in {folder}.")
    print(f"Its fingerprint, which nodes pin: {fingerprint(root)}")
    return 0


def _propose(arguments: Namespace, context: Context) -> int:
    folder = Path(arguments.folder).absolute()
    proposal = _begun(folder, arguments.published)
    proposal = _with_root(proposal, arguments, context)
    proposal = _with_directory(proposal, arguments, context)
    if proposal.root is None and proposal.targets is None:
        raise OperatorError("Nothing is proposed: name members, states, keys or thresholds, or --days to renew.")
    proposal.check_form()
    proposal.write(folder)
    _describe(proposal)
    return 0


def _begun(folder: Path, published: str | None) -> Proposal:
    """Return the proposal that is begun in the folder, or an empty one on what is published."""
    if folder.exists() and any(folder.iterdir()):
        return Proposal.read(folder)
    if published is None:
        raise OperatorError("There is no proposal in the folder; --published FOLDER says what the new one follows.")
    return Proposal(base=published_in(Path(published)).base())


def _with_root(proposal: Proposal, arguments: Namespace, context: Context) -> Proposal:
    """Return the proposal with a new root, if the arguments change who signs."""
    asked = (
        *(arguments.add_root_key, arguments.remove_root_key, arguments.root_threshold),
        *(arguments.add_directory_key, arguments.remove_directory_key, arguments.directory_threshold),
        *(arguments.snapshot_key, arguments.timestamp_key, arguments.root_days),
    )
    if not any(asked):
        return proposal
    if proposal.base is None:
        raise OperatorError("The first root is proposed by `hotline directory init`; begin again to change it.")
    before: Root = opened(proposal.base.root, Root).signed
    roles = roles_of(before)
    for role, name in ((ROOT, "root"), (TARGETS, "directory")):
        add, remove = getattr(arguments, f"add_{name}_key"), getattr(arguments, f"remove_{name}_key")
        keys = changed_keys(roles[role].keys, public_keys(add), public_keys(remove))
        roles[role] = RoleKeys(keys, getattr(arguments, f"{name}_threshold") or roles[role].threshold)
    for role in (Snapshot.type, Timestamp.type):
        path = getattr(arguments, f"{role}_key")
        if path is not None:
            roles[role] = RoleKeys([public_key(path)], 1)
    root = make_root(before.version + 1, roles, _until(context, arguments.root_days or _DAYS))
    return Proposal(proposal.base, root, proposal.targets, proposal.document)


def _with_directory(proposal: Proposal, arguments: Namespace, context: Context) -> Proposal:
    """Return the proposal with a new directory, if the arguments change one; a proposed one is changed further."""
    changed = any((arguments.member, arguments.state, arguments.mandated is not None, arguments.desk))
    if not changed and arguments.days is None:
        return proposal
    now = context.clock.now()
    known = None if proposal.base is None else proposal.base.directory()
    begun = proposal.document or (None if proposal.base is None else proposal.base.document)
    if not changed and begun is None:
        raise OperatorError("There is no directory yet that --days could renew: name members.")
    document: dict[str, Any] = {"v": VERSION, "nodes": [], "routing": {"mandated": [], "desk": None}}
    if begun is not None:
        document = msgspec.json.decode(begun, type=dict[str, Any])
    nodes = {node["id"]: node for node in document["nodes"]}
    for path in arguments.member:
        member = _member(path)
        standing = nodes.get(member.get("id", path), {}).get("state")
        # No node takes back its own suspension with a new descriptor.
        nodes[member.get("id", path)] = {**member, "state": standing} if standing else member
    for pair in arguments.state:
        node_id, _, state = pair.partition("=")
        if node_id not in nodes:
            raise OperatorError(f"There is no node {node_id} in the directory.")
        nodes[node_id]["state"] = state
    document |= {
        "version": 1 if known is None else known.version + 1,
        "issued_at": rfc3339(now),
        "nodes": list(nodes.values()),
    }
    if arguments.mandated is not None:
        document["routing"]["mandated"] = arguments.mandated
    if arguments.desk is not None:
        document["routing"]["desk"] = None if arguments.desk == "none" else _member(arguments.desk)
    raw = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    check_room(raw)
    try:
        directory = parse_directory(raw)
    except DirectoryInvalid as error:
        raise OperatorError(f"The directory would be invalid: {_place(error, list(nodes))}.") from None
    check_changes(known, directory, now, urgent=arguments.urgent)
    targets = make_targets(raw, _until(context, _DAYS if arguments.days is None else arguments.days))
    return Proposal(proposal.base, proposal.root, targets, raw)


def _member(path: str) -> dict[str, Any]:
    raw = read_bounded(Path(path), _MEMBER_BYTES_MAX, f"The descriptor {path}")
    try:
        return msgspec.json.decode(raw, type=dict[str, Any])
    except msgspec.MsgspecError:
        raise OperatorError(f"{path} is not a descriptor: it has to hold one JSON object.") from None


def _place(error: DirectoryInvalid, nodes: Sequence[str]) -> str:
    """Name the node at fault instead of its number in the document."""
    number, separator, member = error.field.removeprefix("nodes[").partition("]")
    if error.field.startswith("nodes[") and separator and number.isdigit():
        return f"{nodes[int(number)]}, {member.removeprefix('.')}: {error.reason}"
    return str(error)


def _sign(arguments: Namespace, _context: Context) -> int:
    folder = Path(arguments.folder).absolute()
    proposal, done = Proposal.read(folder).signed_by(secret_key(arguments.key))
    if not done:
        raise OperatorError("This key signs nothing of the proposal.")
    _describe(proposal)
    proposal.write(folder)
    print(f"Signed: {' and '.join(done)}.")
    return 0


def _show(arguments: Namespace, _context: Context) -> int:
    folder = Path(arguments.folder).absolute()
    if (folder / root_file(1)).exists():
        found = published_in(folder)
        show_directory(found.directory)
        print(f"Root version {found.root.version}; fingerprint of the first: {found.fingerprint}")
        print(f"Fresh until {rfc3339(found.use.fresh_until)}.")
        _warn(found.document(), found.directory)
        return 0
    proposal = Proposal.read(folder)
    directory = proposal.directory()
    if directory is not None:
        show_directory(directory)
    _describe(proposal)
    return 0


def _describe(proposal: Proposal) -> None:
    """Say what a proposal does and what it lacks, for whoever signs it."""
    if proposal.root is not None:
        root = proposal.new_root()
        print(f"Root version {root.version}, until {rfc3339(root.expires)}, fingerprint {fingerprint(proposal.root)}:")
        for role in (ROOT, TARGETS, Snapshot.type, Timestamp.type):
            keys = ", ".join(sorted(keyid[:16] for keyid in root.roles[role].keyids))
            print(f"  {'directory' if role == TARGETS else role}: {root.roles[role].threshold} of {keys}")
    directory = proposal.directory()
    if directory is not None and proposal.targets is not None:
        until = rfc3339(opened(proposal.targets, Targets).signed.expires)
        print(f"Directory version {directory.version}, until {until}:")
        known = None if proposal.base is None else proposal.base.directory()
        for line in changes(known, directory) or ["Nothing but its version and its time changes."]:
            print(f"  {line}")
        _warn(proposal.document or b"", directory)
    missing = proposal.missing()
    print("\n".join(f"Not yet: {line}." for line in missing) if missing else "It is signed enough to be published.")


def _warn(document: bytes, directory: Directory) -> None:
    for line in room_warnings(document, directory):
        print(f"WARNING: {line}.")
    fetching = sorted(directory.fetching())
    if len(fetching) > 1:
        print(f"WARNING: {', '.join(fetching)} only fetch, and no two of them can exchange anything.")


def show_directory(directory: Directory) -> None:
    """Print a directory as a table."""
    print(f"Version {directory.version}, issued {rfc3339(directory.issued_at)}.\n")
    rows = [
        (
            node.id,
            node.name,
            ", ".join(node.countries),
            urlsplit(node.base_url).netloc,
            node.state.value,
            node.weight,
            len(node.keys),
        )
        for node in directory.nodes.values()
    ]
    show_table("Members", ("node", "name", "countries", "host", "state", "weight #", "keys #"), rows)
    print(f"Mandated where there is no hotline: {', '.join(directory.mandated) or 'none'}.")
    print(f"Desk for disputes: {'none' if directory.desk is None else directory.desk.id}.")


def _until(context: Context, days: int) -> Any:
    if days < 1:
        raise OperatorError("Metadata counts for a day at least.")
    return context.clock.now().replace(microsecond=0) + timedelta(days=days)
