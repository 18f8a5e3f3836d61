"""`hotline status`: how the node is: queues, items, peers, files. Counts, ids and codes; never content."""

import json
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from node.clock import rfc3339
from node.errors import OperatorError
from node.hotline.assembly import open_locator
from node.hotline.cli.opening import opened_store
from node.hotline.store.standing import read_standing
from node.hotline.store.status import read_status
from node.platform.cli.command import Context
from node.platform.cli.table import duration, show_table
from node.platform.membership import FRESHNESS_WARNINGS, expiry_warnings, own_warnings, read_directory
from node.platform.trust import Freshness, InUse
from node.settings import Settings

_QUEUES: Final[Mapping[str, str]] = {
    "locate": "to be located",
    "qualify": "located, waiting for qualification",
    "origin_lookup": "behind a proxy, origin to be asked for",
    "dispatch": "cleared to leave, to be routed",
    "deliver": "records without a receipt yet",
    "given_up": "records for hotlines that have left",
    "apply": "records received, not read yet",
    "unrecovered": "of items that may be lost: wait for peers left out",
    "assigned": "received, waiting for our qualification",
    "move": "to be located anew",
    "leaving": "handed on, no receipt yet: still ours",
    "disputed": "at the network's desk",
    "refused": "refused by their hotline: wait for a person",
    "orphaned": "ours for a country without a hotline",
}
_DETAILS_MAX: Final = 6


def add_arguments(parser: ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Show what waits, where items stand, when each peer was last in contact, how old the geolocation files and "
        "the directory are, and what needs a person. Works whether `hotline serve` runs or not."
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables, for scripts")
    parser.set_defaults(run=run)


def run(arguments: Namespace, context: Context) -> int:
    """Show the state of the node; raises OperatorError when its store cannot be opened."""
    status = context.run(_read(context))
    if arguments.json:
        print(json.dumps(status))
    else:
        _show(status)
    return 0


async def _read(context: Context) -> dict[str, Any]:
    now = context.clock.now()
    warnings: list[str] = []
    async with opened_store(context) as store:
        settings = store.settings
        use = _in_use(settings, warnings)
        async with store.db.transaction("status.read") as tx:
            known = None if use is None else use.directory
            stored = await read_status(tx, now, settings.node_id, known)
            standing = await read_standing(tx, settings.node_id, known, now - timedelta(days=settings.deliver_by_days))
    directory = None if use is None else _directory(use, settings, now, warnings)
    databases = await read_databases(settings, context, warnings)
    warnings += standing.sentences()
    for peer in stored["peers"]:
        if peer["clock_skew_s"]:
            ahead = duration(peer["clock_skew_s"])
            warnings.append(f"The clock of {peer['peer']} is {ahead} ahead of ours; one of the two is wrong")
    return {
        "node": settings.node_id,
        "time": rfc3339(now),
        **stored,
        "directory": directory,
        "databases": databases,
        "warnings": warnings,
    }


def _in_use(settings: Settings, warnings: list[str]) -> InUse | None:
    """Return the directory as it is trusted; None, and a warning, without one."""
    if not settings.directory_root:
        warnings.append("Setting directory_root is not set: no directory can be trusted; `hotline join` sets it")
        return None
    try:
        return read_directory(settings.directory_dir, settings.directory_root)
    except OperatorError as error:
        warnings.append(error.sentence.rstrip("."))
        return None


def _directory(use: InUse, settings: Settings, now: datetime, warnings: list[str]) -> dict[str, Any]:
    """Return version, age and freshness of the directory, and add what is wrong with it to `warnings`."""
    directory, freshness = use.directory, use.freshness(now)
    warnings += own_warnings(directory, settings.node_id, settings.base_url)
    warnings += expiry_warnings(use, now)
    if freshness is not Freshness.FRESH:
        warnings.append(FRESHNESS_WARNINGS[freshness])
    return {
        "version": directory.version,
        "issued_at": rfc3339(directory.issued_at),
        "age_s": round((now - directory.issued_at).total_seconds()),
        "nodes": len(directory.nodes),
        "state": freshness.value,
        "fresh_until": rfc3339(use.fresh_until),
        "root_version": use.root_version,
    }


async def read_databases(settings: Settings, context: Context, warnings: list[str]) -> list[dict[str, Any]]:
    """Return the geolocation files in use, and add what is wrong with them to `warnings`."""
    now = context.clock.now()
    try:
        locator = open_locator(settings, context.clock)
    except OperatorError as error:
        warnings.append(error.sentence.rstrip("."))
        return []
    try:
        warnings += locator.warnings(now)
        return [
            {
                "file": str(info.path),
                "kind": info.kind.value,
                "type": info.type,
                "built": rfc3339(info.build_date),
                "age_days": info.age_days,
            }
            for info in locator.databases(now)
        ]
    finally:
        await locator.close()


def show_databases(databases: Iterable[Mapping[str, Any]]) -> None:
    """Print the geolocation files as a table."""
    rows = [
        [each["file"], each["kind"], each["type"], each["built"][:10], f"{each['age_days']} d"] for each in databases
    ]
    show_table("Geolocation files", ("file", "kind", "type", "built", "age"), rows)


def _show(status: Mapping[str, Any]) -> None:
    print(f"Node {status['node']} at {status['time']}\n")
    queues = status["queues"]
    known = [(name, _QUEUES.get(name, ""), queues[name]) for name in (*_QUEUES, *sorted(set(queues) - set(_QUEUES)))]
    show_table("Queues", ("queue", "what waits", "items #"), known)
    if status["items"]:
        show_table("Items", ("state", "items #", "reasons", "hosting countries"), _items(status["items"]))
    _show_streams(status)
    columns = ("peer", "last heard", "last reached", "failures #", "next try in", "last problem", "clock ahead by")
    peers = [
        (
            peer["peer"],
            _ago(peer["last_heard_s"]),
            _ago(peer["last_reached_s"]),
            peer["failures"],
            duration(peer["retry_in_s"]),
            peer["last_problem"],
            duration(peer["clock_skew_s"]),
        )
        for peer in status["peers"]
    ]
    if peers:
        show_table("Peers", columns, peers)
    _show_moves(status)
    show_databases(status["databases"])
    directory = status["directory"]
    if directory is not None:
        print(
            f"Directory: version {directory['version']}, {directory['nodes']} nodes, "
            f"issued {duration(directory['age_s'])} ago ({directory['issued_at']}); "
            f"{directory['state']}, fresh until {directory['fresh_until']}."
        )
    for warning in status["warnings"]:
        print(f"WARNING: {warning}.")


def _show_moves(status: Mapping[str, Any]) -> None:
    """Print what did not get through, and what is at the desk, where there is any."""
    failures = [(row["node"], row["code"], row["records"], row["attempts"]) for row in status["relay_failures"]]
    if failures:
        show_table("Never receipted, gone another way", ("node", "why", "records #", "attempts #"), failures)
    held = [(row["node"], row["code"], row["items"]) for row in status["out_of_reach"]]
    if held:
        show_table("Items with hotlines that are gone", ("node", "why", "items #"), held)
    disputes = [(row["code"], row["open"], row["not_handed_in"]) for row in status["disputes"]]
    if disputes:
        show_table("At the network's desk", ("why", "open #", "not handed in yet #"), disputes)


def _ago(seconds: int | None) -> str:
    return "never" if seconds is None else f"{duration(seconds)} ago"


def _items(counts: Iterable[Mapping[str, Any]]) -> list[tuple[str, int, str, str]]:
    """Return one row a state: how many, and the most frequent reasons and countries."""
    totals: Counter[str] = Counter()
    reasons: dict[str, Counter[str]] = {}
    countries: dict[str, Counter[str]] = {}
    for row in counts:
        totals[row["state"]] += row["items"]
        reasons.setdefault(row["state"], Counter())[row["reason"] or ""] += row["items"]
        countries.setdefault(row["state"], Counter())[row["hosting_country"] or ""] += row["items"]
    return [(state, total, _top(reasons[state]), _top(countries[state])) for state, total in sorted(totals.items())]


def _top(counted: Counter[str]) -> str:
    named = [(name, count) for name, count in counted.most_common() if name]
    more = [f"{len(named) - _DETAILS_MAX} more"] if len(named) > _DETAILS_MAX else []
    return ", ".join([f"{name} {count:,}" for name, count in named[:_DETAILS_MAX]] + more)


def _show_streams(status: Mapping[str, Any]) -> None:
    sent = [
        (row["peer"], row["epoch"], row["written"], row["receipted"], row["refused"]) for row in status["streams_out"]
    ]
    if sent:
        show_table("Streams to peers", ("peer", "epoch #", "written #", "receipted #", "refused #"), sent)
    held = [(row["peer"], row["epoch"], row["held"], row["applied"], row["refused"]) for row in status["streams_in"]]
    if held:
        show_table("Streams from peers", ("peer", "epoch #", "held #", "applied #", "refused #"), held)
