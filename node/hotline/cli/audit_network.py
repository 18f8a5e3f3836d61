"""`hotline audit-network`: whether every record is accounted for on both sides. Names ids, never content."""

import json
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

from node.clock import Clock
from node.errors import OperatorError
from node.hotline.assembly import Store, open_peers, open_store
from node.hotline.cli.opening import failed
from node.hotline.domain.ledger import Verify
from node.hotline.flows.audit import BOTH, PEER, Account, Cursor, View, ask, audit_own, compare, cursors, questions
from node.platform.cli.command import Context
from node.platform.cli.table import show_table
from node.platform.database import DATABASE_ERRORS
from node.platform.membership import read_directory
from node.platform.trust import Freshness, InUse
from node.settings import Settings, load_settings
from protocol.checkpoint import Checkpoint
from protocol.codes import Delivery
from protocol.directory import Directory
from protocol.evidence import EvidenceInvalid, verify_receipt

EXIT_DIFFERENCES: Final = 1
RECEIPTS_MAX: Final = 20
_UNLISTED: Final = "unlisted"
#: A peer that fetches cannot be called, ever; that is no reason to call an audit incomplete.
_FETCHES: Final = "it fetches, and cannot be called"
#: Nothing is sent to any node then, not even a question.
_EXPIRED: Final = "the directory here has expired"


def add_arguments(parser: ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Check that every record is accounted for: indices, leaf hashes, roots, receipts, cursors, and what each "
        "record became. With the node's own settings its tables are checked, and each peer is asked what it holds. "
        "With --nodes the tables of several nodes on this machine are checked and compared, record by record. Works "
        "while nodes run and changes nothing. Exit status 1 when something differs; each difference is named."
    )
    parser.add_argument("--nodes", nargs="+", metavar="FILE", help="settings files of nodes on this machine")
    parser.add_argument(
        "--strict", action="store_true", help="what is under way, or could not be asked, counts as a difference too"
    )
    parser.add_argument(
        "--receipts-max",
        type=int,
        default=RECEIPTS_MAX,
        metavar="N",
        help=f"receipts of each epoch that a peer is asked for (default: {RECEIPTS_MAX})",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table, for scripts")
    parser.set_defaults(run=run)


def run(arguments: Namespace, context: Context) -> int:
    """Compare and show; raises OperatorError when a node's store cannot be opened."""
    try:
        if arguments.nodes is None:
            accounts, silent = context.run(_audit_one(context, max(1, arguments.receipts_max)))
        else:
            accounts, silent = context.run(audit_nodes(_settings(arguments.nodes), context.clock)), {}
    except DATABASE_ERRORS as error:
        raise failed(error) from None
    under_way = sum(one.under_way for one in accounts)
    differences = sum(one.found.count for one in accounts)
    if arguments.json:
        print(json.dumps(_said(accounts, silent)))
    else:
        _show(accounts, silent)
    unasked = [why for why in silent.values() if why != _FETCHES]
    return EXIT_DIFFERENCES if differences or (arguments.strict and (under_way or unasked)) else 0


def _settings(files: Sequence[str]) -> list[Settings]:
    """Return the settings of each node; the environment speaks of one node only, so it is not asked."""
    found = [load_settings(Path(file), {}) for file in files]
    if len({one.node_id for one in found}) != len(found):
        raise OperatorError("Option --nodes: two of the settings files are of one node.")
    return found


async def _audit_one(context: Context, receipts_max: int) -> tuple[list[Account], dict[str, str]]:
    """Check the own tables, then ask every peer that we write to; returns also why a peer could not be asked."""
    settings = context.settings()
    silent: dict[str, str] = {}
    async with open_store(settings, clock=context.clock) as store:
        use = _directory(settings)
        directory = use.directory
        async with store.db.snapshot("audit.read") as tx:
            view = View(settings.node_id, tx, store.vault, _verifier(directory))
            accounts = await audit_own(view)
            asked = await questions(view, receipts_max)
    async with open_peers(settings, context.clock, lambda: directory) as peers:
        for question in asked:
            if question.peer in silent:
                continue
            if use.freshness(context.clock.now()) is Freshness.EXPIRED:
                silent[question.peer] = _EXPIRED
                continue
            peer = directory.nodes.get(question.peer)
            if peer is None or peer.delivery is Delivery.PULL:
                silent[question.peer] = _UNLISTED if peer is None else _FETCHES
                continue
            account, problem = await ask(question, peer, peers)
            if problem is not None:
                silent[question.peer] = problem
            if account is not None:
                accounts.append(account)
    return accounts, silent


async def audit_nodes(nodes: Sequence[Settings], clock: Clock) -> list[Account]:
    """Check the tables of each node and compare both sides of every stream between two of them; OperatorError."""
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(open_store(one, clock=clock)) for one in nodes]
        before = await _cursors(stores)
        views = [
            View(
                store.settings.node_id,
                await stack.enter_async_context(store.db.snapshot("audit.read")),
                store.vault,
                _verifier(_directory(store.settings).directory),
            )
            for store in stores
        ]
        after = await _cursors(stores)
        accounts = [account for view in views for account in await audit_own(view)]
        for sender in views:
            for receiver in views:
                if sender is not receiver:
                    accounts += await compare(sender, receiver, before, after)
    # What waits for a peer that is not among these nodes cannot be over by anything that is looked at here.
    own = {store.settings.node_id for store in stores}
    return [account for account in accounts if account.kind == BOTH or account.found.count or _between(account, own)]


def _between(account: Account, nodes: set[str]) -> bool:
    """Whether both ends of the account's stream are among these nodes, or it is of no stream."""
    parts = account.found.stream.split("/")
    return len(parts) == 1 or set(parts[2:4]) <= nodes


async def _cursors(stores: Sequence[Store]) -> dict[str, Cursor]:
    found: dict[str, Cursor] = {}
    for store in stores:
        async with store.db.snapshot("audit.cursors") as tx:
            found |= await cursors(tx, store.settings.node_id)
    return found


def _directory(settings: Settings) -> InUse:
    if not settings.directory_root:
        raise OperatorError("Setting directory_root is not set: no receipt could be verified.")
    return read_directory(settings.directory_dir, settings.directory_root)


def _verifier(directory: Directory) -> Verify:
    def verify(note: bytes, covered: Checkpoint) -> str | None:
        try:
            verify_receipt(note, covered, directory)
        except EvidenceInvalid as invalid:
            return invalid.reason
        return None

    return verify


def _said(accounts: Sequence[Account], silent: dict[str, str]) -> dict[str, Any]:
    return {
        "streams": [
            {
                "node": one.node,
                "looked_at": one.kind,
                "stream": one.found.stream,
                "written": one.written,
                "receipted": one.receipted,
                "held": one.held,
                "applied": one.applied,
                "records": one.found.records,
                "receipts": one.found.receipts,
                "under_way": one.under_way,
                "differences": one.found.count,
            }
            for one in accounts
        ],
        "differences": [
            {"node": one.node, "stream": each.stream, "where": each.where, "what": each.what}
            for one in accounts
            for each in one.found.named
        ],
        "not_asked": silent,
    }


def _show(accounts: Sequence[Account], silent: dict[str, str]) -> None:
    columns = ("stream", "looked at", "written #", "receipted #", "held #", "applied #", "records #", "receipts #")
    rows = [
        (
            one.found.stream.removeprefix("hx/1/"),
            one.kind if one.kind in {BOTH, PEER} else f"{one.node}: {one.kind}",
            one.written,
            one.receipted,
            one.held,
            one.applied,
            one.found.records,
            one.found.receipts,
            one.under_way,
            one.found.count,
        )
        for one in accounts
    ]
    show_table("Streams", (*columns, "under way #", "differences #"), rows)
    for one in accounts:
        for each in one.found.named:
            print(f"DIFFERENCE at {one.node}: {each.words()}.")
        if one.found.count > len(one.found.named):
            print(f"… and {one.found.count - len(one.found.named):,} more of {one.found.stream}.")
    for peer, code in silent.items():
        print(f"NOT ASKED: {peer} ({code}).")
    records = sum(one.found.records for one in accounts)
    receipts = sum(one.found.receipts for one in accounts)
    differences = sum(one.found.count for one in accounts)
    under_way = sum(one.under_way for one in accounts)
    looked_at = f"{records:,} records and {receipts:,} receipts looked at"
    print(f"{looked_at}; {under_way:,} under way; {differences:,} differences.")
