"""`hotline status` of the coordinator: what is published, how fresh it is, and what waits at the desk. No content."""

import json
from argparse import Namespace
from typing import Any

from node.clock import rfc3339
from node.coordinator.cases import DISPUTE, EQUIVOCATION
from node.coordinator.desk import Desk
from node.coordinator.members import PublishedMembers
from node.coordinator.publisher import opened
from node.coordinator.room import room_warnings
from node.coordinator.serve import desk_problem, open_keys, publication_warnings
from node.errors import OperatorError
from node.platform.cli.command import Context
from node.platform.database import DATABASE_ERRORS


def show_status(arguments: Namespace, context: Context) -> None:
    """Print it, as one JSON object with --json; raises OperatorError."""
    try:
        status = context.run(_read(context))
    except DATABASE_ERRORS as error:
        raise OperatorError(f"The database failed during the command ({type(error).__name__}).") from None
    if arguments.json:
        print(json.dumps(status))
        return
    print(f"Coordinator {status['node']} at {status['time']}\n")
    directory = status["directory"]
    if directory is not None:
        print(
            f"Directory: version {directory['version']}, {directory['nodes']} nodes, issued {directory['issued_at']}; "
            f"{directory['state']}, fresh until {directory['fresh_until']}; root version {directory['root_version']}."
        )
    desk = status["desk"]
    print(f"Desk: {desk['disputes']} disputes and {desk['contradictions']} contradictions wait for a person.")
    for warning in status["warnings"]:
        print(f"WARNING: {warning}.")


async def _read(context: Context) -> dict[str, Any]:
    settings, now = context.settings(), context.clock.now()
    async with opened(settings, context.clock) as publisher:
        members = PublishedMembers(publisher, context.clock)
        waiting = await Desk(settings.node_id, publisher.db, context.clock.now, members.current).open_cases()
        published, directory = publisher.published, None
        warnings = publication_warnings(publisher, now, settings.timestamp_every_s)
        if published is not None:
            use = published.use
            warnings += room_warnings(published.document(), published.directory)
            directory = {
                "version": published.directory.version,
                "issued_at": rfc3339(published.directory.issued_at),
                "nodes": len(published.directory.nodes),
                "bytes": len(published.document()),
                "desk": None if published.directory.desk is None else published.directory.desk.id,
                "state": use.freshness(now).value,
                "fresh_until": rfc3339(use.fresh_until),
                "root_version": use.root_version,
            }
        try:
            problem = desk_problem(published, open_keys(settings, publisher, context.clock), settings.node_id)
        except OperatorError as error:
            problem = error.sentence.rstrip(".")
        if problem is not None:
            warnings.append(problem)
    return {
        "node": settings.node_id,
        "time": rfc3339(now),
        "directory": directory,
        "desk": {"disputes": waiting.get(DISPUTE, 0), "contradictions": waiting.get(EQUIVOCATION, 0)},
        "warnings": warnings,
    }
