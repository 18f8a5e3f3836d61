"""`hotline directory`: the ceremonies of the membership directory: proposals, signatures, publication.

`new-key`, `init`, `propose`, `sign` and `show` need no settings, no database and no network: they run on machines that
are never connected, and files are carried between them.
"""

import base64
import json
import os
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from tuf.api.metadata import Root, Snapshot, Targets, Timestamp

from node.clock import rfc3339
from node.coordinator.ceremony import Proposal, changed_keys
from node.coordinator.changes import changes, check_changes
from node.coordinator.publication import Published, Valid, publish, renewed
from node.coordinator.publisher import opened as opened_publisher
from node.errors import OperatorError
from node.platform.cli.command import Context, check_folder
from node.platform.cli.files import read_bounded, write_whole
from node.platform.cli.table import show_table
from node.platform.database import DATABASE_ERRORS
from node.platform.keyfiles import read_key, write_secret
from node.platform.membership import read_folder, write_folder
from node.platform.repository import (
    ROOT,
    TARGETS,
    OnlineKeys,
    RoleKeys,
    fingerprint,
    make_root,
    make_targets,
    opened,
    roles_of,
    tuf_key,
)
from node.platform.trust import ROOT_BYTES_MAX, root_file
from protocol.codes import NodeState
from protocol.directory import VERSION, Directory, DirectoryInvalid, parse_directory
from protocol.keys import SEED_BYTES, Algorithm, KeyUse, PublicKey, SigningKey

_MEMBER_BYTES_MAX: Final = 262_144
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
    _add_publish(actions)


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
_PUBLISH: Final = (
    "Publish a proposal that is signed enough: check it, sign snapshot and timestamp, and put all of it in place at "
    "once: into the coordinator's database, or with --to into a folder. Without a proposal the timestamp is renewed."
)


_EXPORT: Final = (
    "Copy what is published from the coordinator's database into a folder, for those who propose the next change."
)


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


def _add_publish(actions: Any) -> None:
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


def _new_key(arguments: Namespace, context: Context) -> int:
    path = Path(arguments.file).expanduser().absolute()
    check_folder(path)
    public_path, public = make_signer(path, context.clock.now())
    print(f"{tuf_key(public).keyid[:16]}  {public_path}")
    return 0


def make_signer(path: Path, now: datetime) -> tuple[Path, PublicKey]:
    """Make a key that signs for the directory; returns the file of its public part. Raises OperatorError."""
    public_path = path.with_name(path.name + _PUBLIC_ENDING)
    if public_path.exists():
        raise OperatorError(f"{public_path} exists already and is left as it is.")
    key = SigningKey(Algorithm.ED25519, os.urandom(SEED_BYTES))
    body = {
        "use": KeyUse.AUTHORITY.value,
        "algorithm": key.algorithm.value,
        "seed": base64.b64encode(key.seed).decode("ascii"),
        "created": rfc3339(now),
    }
    write_secret(path, json.dumps(body).encode() + b"\n")
    public = read_key(path).key.public()
    write_whole(public_path, f"ed25519 {base64.b64encode(public.raw).decode('ascii')}\n".encode())
    return public_path, public


def _init(arguments: Namespace, context: Context) -> int:
    folder = Path(arguments.folder).absolute()
    if folder.exists() and any(folder.iterdir()):
        raise OperatorError(f"The folder {folder} is not empty.")
    roles = {
        ROOT: RoleKeys(_publics(arguments.root_key), arguments.root_threshold),
        TARGETS: RoleKeys(_publics(arguments.directory_key), arguments.directory_threshold),
        Snapshot.type: RoleKeys([_public(arguments.snapshot_key)], 1),
        Timestamp.type: RoleKeys([_public(arguments.timestamp_key)], 1),
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
    return Proposal(base=_published(Path(published)).base())


def _published(folder: Path) -> Published:
    first = read_bounded(folder / root_file(1), ROOT_BYTES_MAX, f"The first root of {folder}")
    trusted = read_folder(folder, fingerprint(first))
    found = None if trusted is None else Published.of(trusted.files())
    if found is None:
        raise OperatorError(f"The folder {folder} holds no published directory.")
    return found


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
        keys = changed_keys(roles[role].keys, _publics(add), _publics(remove))
        roles[role] = RoleKeys(keys, getattr(arguments, f"{name}_threshold") or roles[role].threshold)
    for role in (Snapshot.type, Timestamp.type):
        path = getattr(arguments, f"{role}_key")
        if path is not None:
            roles[role] = RoleKeys([_public(path)], 1)
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
    proposal, done = Proposal.read(folder).signed_by(_secret(arguments.key))
    if not done:
        raise OperatorError("This key signs nothing of the proposal.")
    _describe(proposal)
    proposal.write(folder)
    print(f"Signed: {' and '.join(done)}.")
    return 0


def _show(arguments: Namespace, _context: Context) -> int:
    folder = Path(arguments.folder).absolute()
    if (folder / root_file(1)).exists():
        found = _published(folder)
        show_directory(found.directory)
        print(f"Root version {found.root.version}; fingerprint of the first: {found.fingerprint}")
        print(f"Fresh until {rfc3339(found.use.fresh_until)}.")
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
    missing = proposal.missing()
    print("\n".join(f"Not yet: {line}." for line in missing) if missing else "It is signed enough to be published.")


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


def _publish(arguments: Namespace, context: Context) -> int:
    now = context.clock.now()
    if arguments.to is None:
        say_published(context.run(_publish_to_database(context, arguments.folder)))
        return 0
    if arguments.snapshot_key is None or arguments.timestamp_key is None:
        raise OperatorError("With --to the keys are needed that sign online: --snapshot-key and --timestamp-key.")
    online = OnlineKeys(_secret(arguments.snapshot_key), _secret(arguments.timestamp_key))
    valid = Valid(timestamp=timedelta(hours=arguments.timestamp_hours))
    to = Path(arguments.to).absolute()
    before = _published(to) if (to / root_file(1)).exists() else None
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


def _secret(path: str) -> SigningKey:
    stored = read_key(Path(path))
    if stored.use is not KeyUse.AUTHORITY:
        raise OperatorError(f"The key is one for {stored.use}; `hotline directory new-key` makes one that signs here.")
    return stored.key


def _publics(paths: Sequence[str]) -> list[PublicKey]:
    return [_public(path) for path in paths]


def _public(path: str) -> PublicKey:
    words = read_bounded(Path(path), _PUBLIC_BYTES_MAX, f"The public key {path}").split()
    try:
        if len(words) == 2 and words[0] == b"ed25519":  # noqa: PLR2004 - the algorithm and the key
            return PublicKey(Algorithm.ED25519, base64.b64decode(words[1], validate=True))
    except ValueError:
        pass
    raise OperatorError(f"{path} is not a public key as `hotline directory new-key` writes it.")


def _until(context: Context, days: int) -> Any:
    if days < 1:
        raise OperatorError("Metadata counts for a day at least.")
    return context.clock.now().replace(microsecond=0) + timedelta(days=days)
