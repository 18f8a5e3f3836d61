"""`hotline directory`: the work of the directory's authority: its key, the signed file. Sends nothing."""

import base64
import json
import os
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from node.clock import rfc3339
from node.errors import OperatorError
from node.hotline.cli.command import Context, check_authority, check_folder
from node.hotline.cli.files import read_bounded, write_whole
from node.hotline.cli.table import duration, show_table
from node.platform.keyfiles import read_key, write_secret
from node.platform.membership import read_directory
from protocol.directory import (
    DIRECTORY_BYTES_MAX,
    VERSION,
    Directory,
    DirectoryInvalid,
    authority_vkey,
    parse_directory,
    sign_directory,
)
from protocol.errors import ProtocolError
from protocol.keys import SEED_BYTES, Algorithm, KeyUse, SigningKey
from protocol.note import parse_note

_MEMBER_BYTES_MAX: Final = 262_144


def add_arguments(parser: ArgumentParser) -> None:
    """Describe the command and its parts."""
    parser.description = (
        "Write or show the membership directory: which nodes there are, with their keys, signed by the authority that "
        "every node pins."
    )
    actions = parser.add_subparsers(required=True, metavar="ACTION")

    new = actions.add_parser("new-authority", help="make the authority's key", description=_NEW)
    new.add_argument("file", metavar="FILE", help="where the key is written, readable by its owner only")
    new.set_defaults(run=_new_authority)

    write = actions.add_parser("write", help="write and sign the directory", description=_WRITE)
    write.add_argument("--authority-key", metavar="FILE", required=True, help="the authority's key")
    write.add_argument(
        "--member",
        metavar="FILE",
        required=True,
        nargs="+",
        action="extend",
        help="the descriptor of a node, as `hotline init` wrote it; several, or repeated",
    )
    write.add_argument(
        "--mandated",
        metavar="ID",
        nargs="+",
        action="extend",
        default=[],
        help="node that takes what is hosted where there is no hotline; several, or repeated",
    )
    write.add_argument("--desk", metavar="ID", help="node whose desk settles disputes")
    write.add_argument(
        "--version", type=int, required=True, metavar="N", help="version of the directory: higher than the one before"
    )
    write.add_argument("--out", metavar="FILE", required=True, help="where it is written; an older version is replaced")
    write.set_defaults(run=_write)

    show = actions.add_parser("show", help="show what a directory says", description=_SHOW)
    show.add_argument("file", metavar="FILE", help="the directory")
    show.add_argument("--authority", metavar="VKEY", help="verifier key that it must be signed by")
    show.set_defaults(run=_show)


_NEW: Final = (
    "Make the key of the directory's authority and print its verifier key, which every node puts into the setting "
    "directory_authority. Whoever holds the key decides who is a member: keep it on a machine of its own."
)
_WRITE: Final = (
    "Put the members' descriptors into one directory, check it, sign it and write it whole. Nodes refuse a version "
    "that is not higher than the one they have. To suspend a node, change the state in its descriptor."
)
_SHOW: Final = "Show version, members and routing of a directory. Without --authority its signature is not checked."


def _new_authority(arguments: Namespace, context: Context) -> int:
    path = Path(arguments.file).expanduser().absolute()
    check_folder(path)
    key = SigningKey(Algorithm.ED25519, os.urandom(SEED_BYTES))
    body = {
        "use": KeyUse.AUTHORITY.value,
        "algorithm": key.algorithm.value,
        "seed": base64.b64encode(key.seed).decode("ascii"),
        "created": rfc3339(context.clock.now()),
    }
    write_secret(path, json.dumps(body).encode() + b"\n")
    print(authority_vkey(read_key(path).key.public()))
    return 0


def _write(arguments: Namespace, context: Context) -> int:
    key = read_key(Path(arguments.authority_key))
    if key.use is not KeyUse.AUTHORITY:
        raise OperatorError(f"The key is one for {key.use}; `hotline directory new-authority` makes an authority's.")
    out = Path(arguments.out).expanduser().absolute()
    check_folder(out)
    vkey = authority_vkey(key.key.public())
    if out.exists():
        before, _ = read_directory(out, vkey)
        if arguments.version <= before.version:
            raise OperatorError(f"{out} has version {before.version} already: give a higher --version.")
    document = {
        "v": VERSION,
        "version": arguments.version,
        "issued_at": rfc3339(context.clock.now()),
        "nodes": [_member(path) for path in arguments.member],
        "routing": {"mandated": arguments.mandated, "desk": arguments.desk},
    }
    try:
        signed = sign_directory(json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode(), key.key)
    except DirectoryInvalid as error:
        raise OperatorError(f"The directory would be invalid: {_place(error, arguments.member)}.") from None
    write_whole(out, signed)
    print(f"Version {arguments.version} with {len(arguments.member)} nodes is in {out}.")
    print(f"Nodes check it with: {vkey}")
    return 0


def _member(path: str) -> dict[str, Any]:
    raw = read_bounded(Path(path), _MEMBER_BYTES_MAX, f"The descriptor {path}")
    try:
        return msgspec.json.decode(raw, type=dict[str, Any])
    except msgspec.MsgspecError:
        raise OperatorError(f"{path} is not a descriptor: it has to hold one JSON object.") from None


def _place(error: DirectoryInvalid, members: Sequence[str]) -> str:
    """Name the descriptor at fault instead of its number in the document."""
    number, separator, member = error.field.removeprefix("nodes[").partition("]")
    if error.field.startswith("nodes[") and separator and number.isdigit():
        return f"{members[int(number)]}, {member.removeprefix('.')}: {error.reason}"
    return str(error)


def _show(arguments: Namespace, context: Context) -> int:
    path = Path(arguments.file)
    if arguments.authority is None:
        directory = _unverified(path)
        signature = "NOT CHECKED (--authority VKEY checks it)"
    else:
        check_authority(arguments.authority)
        directory, _ = read_directory(path, arguments.authority)
        signature = "valid"
    age = duration((context.clock.now() - directory.issued_at).total_seconds())
    print(f"Version {directory.version}, issued {rfc3339(directory.issued_at)} ({age} ago). Signature: {signature}.\n")
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
    columns = ("node", "name", "countries", "host", "state", "weight #", "keys #")
    show_table("Members", columns, rows)
    print(f"Mandated where there is no hotline: {', '.join(directory.mandated) or 'none'}.")
    print(f"Desk for disputes: {directory.desk or 'none'}.")
    return 0


def _unverified(path: Path) -> Directory:
    raw = read_bounded(path, DIRECTORY_BYTES_MAX, "The directory file")
    try:
        note = parse_note(raw, bytes_max=DIRECTORY_BYTES_MAX)
        return parse_directory(note.text.removesuffix("\n").encode())
    except (ProtocolError, DirectoryInvalid) as error:
        raise OperatorError(f"The file is not a directory: {error}.") from None
