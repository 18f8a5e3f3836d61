"""`hotline conformance`: checks any node from outside against docs/protocol.md, and says what fails."""

import json
import ssl
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any, Final

from node.conformance.checks import Result, Verdict
from node.conformance.member import DESCRIPTOR, Member, create_member
from node.conformance.running import Options, open_run, results
from node.conformance.table import CHECKS, CHECKS_OF_DESK
from node.errors import OperatorError
from node.platform.cli.command import Context
from node.platform.membership import read_directory
from node.setting_rules import split_address
from protocol.directory import DeskEntry, Directory, NodeEntry

EXIT_FAILED: Final = 1
_TIMEOUT_S: Final = 30.0


def add_arguments(parser: ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Check a node of HX/1, or the network's desk, from outside, as a member of its directory: "
        "each check is one rule of docs/protocol.md. "
        "Exit status 0 when none failed, 1 when one did."
    )
    parser.add_argument("address", metavar="ADDRESS", nargs="?", help="base address of the node, as https://host")
    parser.add_argument("--member", metavar="DIR", help="folder of the test member, made with --new-member")
    parser.add_argument("--directory", metavar="FOLDER", help="the membership directory's metadata")
    parser.add_argument("--root-fingerprint", metavar="HEX", help="fingerprint of the directory's root")
    parser.add_argument("--node", metavar="ID", help="the node at ADDRESS, where the directory lists another address")
    parser.add_argument("--listen", metavar="HOST:PORT", help="where the test member takes what the node says to it")
    parser.add_argument("--ca", metavar="FILE", help="certificates to trust instead of the system's")
    parser.add_argument("--timeout-s", type=float, default=_TIMEOUT_S, metavar="S", help="for one answer (default 30)")
    parser.add_argument(
        "--destructive", action="store_true", help="make the checks too whose traces people see: contradictions, items"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--list", action="store_true", help="print the checks and make none")
    parser.add_argument("--new-member", metavar="DIR", help="make a test member's keys and descriptor, check nothing")
    parser.add_argument("--id", metavar="ID", help="node id of the new test member")
    parser.add_argument("--base-url", metavar="URL", help="where the new test member will listen; else it fetches")
    parser.add_argument("--contact", metavar="TEXT", default="conformance", help="who is asked about the new member")
    parser.set_defaults(run=run)


def run(arguments: Namespace, context: Context) -> int:
    """Check the node, or make a test member; raises OperatorError when it cannot begin."""
    if arguments.new_member is not None:
        return _new_member(arguments, context)
    if arguments.list:
        for checks in (CHECKS, CHECKS_OF_DESK):
            for number, check in enumerate(checks, start=1):
                print(f"{number:3}  {check.name:30} {check.section}: {check.sends}; {check.expects}")
        return 0
    for name in ("address", "member", "directory", "root_fingerprint"):
        if getattr(arguments, name) is None:
            option = "--" + name.replace("_", "-")
            raise OperatorError(f"{'ADDRESS' if name == 'address' else option} is missing.")
    directory = read_directory(Path(arguments.directory), arguments.root_fingerprint).directory
    member = Member.load(Path(arguments.member))
    return context.run(_check(arguments, context, directory, member))


async def _check(arguments: Namespace, context: Context, directory: Directory, member: Member) -> int:
    address = arguments.address.rstrip("/")
    options = Options(
        address,
        _node(directory, address, arguments.node),
        _listen(arguments.listen, member),
        arguments.timeout_s,
        None if arguments.ca is None else _trusting(Path(arguments.ca)),
    )
    found: list[Result] = []
    async with open_run(options, member, directory, context.clock) as opened:
        checks = CHECKS if isinstance(options.node, NodeEntry) else CHECKS_OF_DESK
        async for result in results(opened, checks, destructive=arguments.destructive):
            found.append(result)
            if not arguments.json:
                print("\n".join(_lines(result)), flush=True)
    counts = {verdict: sum(one.verdict is verdict for one in found) for verdict in Verdict}
    if arguments.json:
        print(json.dumps(_document(options, directory, found), indent=2))
    else:
        print(f"{options.node.id}: " + ", ".join(f"{count} {verdict.value}" for verdict, count in counts.items()) + ".")
    return EXIT_FAILED if counts[Verdict.FAILED] else 0


def _node(directory: Directory, address: str, node_id: str | None) -> NodeEntry | DeskEntry:
    """Return the node, or the network's desk, that is to be checked."""
    if node_id is not None:
        entry = directory.entry(node_id)
        if entry is None:
            raise OperatorError("The directory does not list the node of --node.")
        return entry
    listed: list[NodeEntry | DeskEntry] = [*directory.nodes.values()]
    listed += [] if directory.desk is None else [directory.desk]
    found = [one for one in listed if one.base_url == address]
    if len(found) != 1:
        raise OperatorError(f"The directory lists {len(found)} nodes at ADDRESS; --node says which is meant.")
    return found[0]


def _listen(text: str | None, member: Member) -> tuple[str, int] | None:
    if text is None:
        return None
    if member.pull:
        raise OperatorError("The test member fetches and has no address: --listen needs one made with --base-url.")
    try:
        return split_address(text)
    except ValueError:
        raise OperatorError("Option --listen is not host:port.") from None


def _trusting(path: Path) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=path)
    except OSError:
        raise OperatorError(f"{path} holds no certificates.") from None


def _lines(result: Result) -> list[str]:
    check = result.check
    lines = [f"{result.number:3}  {result.verdict.value:7}  {check.name}  [{check.section}]"]
    if result.verdict is Verdict.FAILED:
        lines.append(f"     sent: {check.sends}; awaited: {check.expects}")
    if result.sentence:
        lines.append(f"     {result.sentence}")
    return lines


def _document(options: Options, directory: Directory, found: list[Result]) -> dict[str, Any]:
    return {
        "node": options.node.id,
        "directory_version": directory.version,
        "failed": sum(one.verdict is Verdict.FAILED for one in found),
        "checks": [
            {
                "number": one.number,
                "name": one.check.name,
                "section": one.check.section,
                "sends": one.check.sends,
                "expects": one.check.expects,
                "result": one.verdict.value,
                "sentence": one.sentence,
            }
            for one in found
        ],
    }


def _new_member(arguments: Namespace, context: Context) -> int:
    if arguments.id is None:
        raise OperatorError("--id is missing: the node id of the new test member.")
    folder = Path(arguments.new_member).expanduser().absolute()
    create_member(
        folder,
        node_id=arguments.id,
        base_url=arguments.base_url,
        contact=arguments.contact,
        now=context.clock.now(),
    )
    print(f"The keys of {arguments.id} are in {folder}.")
    print(f"Give {folder / DESCRIPTOR} to those who sign the directory: it holds public keys only.")
    return 0
