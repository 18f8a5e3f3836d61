"""Serves a node: assembles it, opens its two doors, runs its loops, and ends cleanly when told to."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from node.clock import Clock
from node.hotline.api.groupcommit import GroupCommit
from node.hotline.api.health import HealthApi
from node.hotline.api.items import ItemsApi
from node.hotline.api.peer import PeerApi
from node.hotline.api.reports import ReportsApi
from node.hotline.assembly import MakeDatabase, Node, assemble
from node.hotline.jobs import Jobs
from node.hotline.store.apikeys import ApiKeys
from node.platform.apikeys import ApiKeyCheck, Role
from node.platform.collector import settle
from node.platform.database import Database
from node.platform.openapi import ApiInfo
from node.platform.routes import Route
from node.platform.telemetry import Logger
from node.platform.web import Limits, Listener, listen, make_app, with_documentation
from node.settings import Settings

_EVERYBODY = frozenset(Role)


def api_routes(node: Node, group_commit: GroupCommit) -> tuple[Route, ...]:
    """Return everything the API door serves, its documentation included."""
    routes = [
        *ReportsApi(
            group_commit,
            node.give_way,
            node.clock.now,
            node.metrics,
            node.settings.api_body_bytes_max,
            node.settings.api_reports_max,
        ).routes(),
        *ItemsApi(node.db, node.store.vault, node.store.assessor(), node.store.prover(), node.clock.now).routes(),
        *HealthApi(node).routes(),
    ]
    info = ApiInfo(
        title=f"Hotline node {node.settings.node_id}",
        version=version("hotline-exchange"),
        description="Reports in, items and their proofs out. The peer protocol is specified in docs/protocol.md.",
    )
    return with_documentation(routes, info, prefix="/api", roles=_EVERYBODY)


def peer_api(node: Node) -> PeerApi:
    """Return the peer protocol's doors."""
    settings = node.settings
    return PeerApi(
        node_id=settings.node_id,
        base_url=settings.base_url,
        db=node.db,
        receiver=node.receiver,
        http_key=node.keys.http,
        directory=node.directory,
        clock=node.clock,
        signals=node.signals,
        give_way=node.give_way,
        metrics=node.metrics,
        log=node.log,
        body_bytes_max=settings.body_bytes_max,
        batch_records_max=settings.batch_records_max,
        batch_bytes_max=settings.batch_bytes_max,
        window_s=settings.clock_window_s,
    )


@asynccontextmanager
async def running(
    settings: Settings, *, clock: Clock, log: Logger, make: MakeDatabase = Database
) -> AsyncIterator[tuple[Node, Listener, Listener]]:
    """Yield a running node with its peer door and its API door; everything in flight is finished at the end."""
    async with assemble(settings, clock=clock, log=log, make=make) as node:
        group_commit = GroupCommit(node.store.intake(), reports_max=settings.group_commit_reports_max)
        peers = peer_api(node)
        peer_app = make_app(
            peers.routes(),
            log=log,
            metrics=node.metrics,
            limits=Limits(body_bytes_max=settings.body_bytes_max),
            finish=peers.finish,
        )
        api_app = make_app(
            api_routes(node, group_commit),
            log=log,
            metrics=node.metrics,
            limits=Limits(body_bytes_max=settings.api_body_bytes_max),
            keys=ApiKeyCheck(ApiKeys(node.db), clock),
        )
        jobs = Jobs(node)
        peer_door = await listen(peer_app, settings.listen_peer, shutdown_s=settings.shutdown_s)
        try:
            api_door = await listen(api_app, settings.listen_api, shutdown_s=settings.shutdown_s)
            try:
                jobs.start()
                log.info("node serves", action="serve.start", node=settings.node_id, listen=settings.listen_peer)
                yield node, peer_door, api_door
            finally:
                await api_door.close()
        finally:
            await peer_door.close()
            await group_commit.finish()
            await jobs.stop()
            log.info("node ended", action="serve.end", node=settings.node_id)


async def serve(settings: Settings, *, clock: Clock, log: Logger, make: MakeDatabase = Database) -> None:
    """Serve until SIGTERM or SIGINT; raises OperatorError when the start makes no sense."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, ended.set)
    async with running(settings, clock=clock, log=log, make=make):
        settle()
        await ended.wait()
