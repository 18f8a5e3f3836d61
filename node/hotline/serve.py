"""Serves a node: assembles it, opens its two doors, runs its loops, and ends cleanly when told to."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib.metadata import version

from aiohttp import web

from node.clock import Clock
from node.hotline.api.acts import ActsApi
from node.hotline.api.admission import Admission
from node.hotline.api.catchup import CatchupApi, Waiting
from node.hotline.api.groupcommit import GroupCommit
from node.hotline.api.health import HealthApi
from node.hotline.api.items import ItemsApi
from node.hotline.api.moves import MovesApi
from node.hotline.api.peer import PeerApi
from node.hotline.api.recovery import RecoveryApi
from node.hotline.api.reports import ReportsApi
from node.hotline.assembly import Node, assemble
from node.hotline.jobs import Jobs
from node.hotline.recovery import OpenDoor, Visits, without_limits
from node.hotline.rounds import Rounds
from node.hotline.store import contacts
from node.hotline.store.apikeys import ApiKeys
from node.platform.apikeys import ApiKeyCheck, Role
from node.platform.collector import settle
from node.platform.database import Database
from node.platform.dbopening import MakeDatabase
from node.platform.listener import ConnectionLimits
from node.platform.mirror import MirrorApi
from node.platform.nonces import remember_nonce
from node.platform.openapi import ApiInfo
from node.platform.peerdoor import PeerDoor, at_once
from node.platform.routes import Route
from node.platform.telemetry import Logger
from node.platform.web import Limits, Listener, listen, make_app, with_documentation
from node.settings import Settings
from protocol.batch import RETURNED_BYTES_MAX
from protocol.errors import ProtocolError
from protocol.profile import Verified

_EVERYBODY = frozenset(Role)


def api_routes(node: Node, group_commit: GroupCommit, begun: Callable[[], bool] = lambda: True) -> tuple[Route, ...]:
    """Return everything the API door serves, its documentation included; `begun` tells whether the start is over."""
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
        *MovesApi(node.db, node.store.asker()).routes(),
        *ActsApi(node.store.actor(), node.store.amender(), node.clock.now).routes(),
        *HealthApi(node, begun).routes(),
    ]
    info = ApiInfo(
        title=f"Hotline node {node.settings.node_id}",
        version=version("hotline-exchange"),
        description="Reports in, items and their proofs out. The peer protocol is specified in docs/protocol.md.",
    )
    return with_documentation(routes, info, prefix="/api", roles=_EVERYBODY)


def admission(node: Node) -> Admission:
    """Return what lets members' requests in."""
    settings = node.settings
    return Admission.of(
        node.directory,
        requests_per_s=settings.peer_requests_per_s,
        answers_bytes_per_s=settings.peer_answers_bytes_per_s,
        answers_bytes_burst=settings.peer_answers_bytes_burst,
        bodies_bytes_max=settings.bodies_bytes_max,
        batches_at_once=settings.batches_at_once_max,
    )


def peer_door(node: Node, admitted: Admission) -> PeerDoor:
    """Return what verifies the requests of members and signs the answers."""

    async def heard(peer: str, verified: Verified) -> None:
        now = node.clock.now()
        async with node.db.transaction("peer.heard") as tx:
            if not await remember_nonce(tx, verified.keyid, verified.nonce, now):
                raise ProtocolError("replay", "this request was answered before", field="nonce")
            await contacts.heard_from(tx, peer, now)

    return PeerDoor(
        base_url=node.settings.base_url,
        http_key=lambda: node.keys.http,
        membership=node.membership,
        clock=node.clock,
        metrics=node.metrics,
        log=node.log,
        window_s=node.settings.clock_window_s,
        heard=heard,
        admit=admitted.request,
        room=admitted.body,
        turn=admitted.question,
        doubt=node.membership.doubt,
    )


def peer_api(node: Node, door: PeerDoor, admitted: Admission) -> PeerApi:
    """Return the doors of delivery."""
    settings = node.settings
    return PeerApi(
        node_id=settings.node_id,
        door=door,
        db=node.db,
        receiver=node.receiver,
        admission=admitted,
        directory=node.directory,
        clock=node.clock,
        signals=node.signals,
        give_way=node.give_way,
        metrics=node.metrics,
        log=node.log,
        body_bytes_max=settings.body_bytes_max,
        batch_records_max=settings.batch_records_max,
        batch_bytes_max=settings.batch_bytes_max,
    )


def catchup_api(node: Node, door: PeerDoor, admitted: Admission, waiting: Waiting) -> CatchupApi:
    """Return the doors by which a peer finds out what it misses, and gets it."""
    return CatchupApi(
        node_id=node.settings.node_id,
        door=door,
        greeter=node.greeter,
        offerer=node.offerer,
        settler=node.settler,
        give_back=node.give_back,
        directory=node.directory,
        clock=node.clock,
        signals=node.signals,
        waiting=waiting,
        admission=admitted,
    )


def peer_routes(node: Node, door: PeerDoor, admitted: Admission, waiting: Waiting | None = None) -> tuple[Route, ...]:
    """Return everything the peer door serves; `waiting` counts who waits there for a record."""
    return (
        *peer_api(node, door, admitted).routes(),
        *catchup_api(node, door, admitted, waiting or Waiting()).routes(),
        *MirrorApi(node.membership.file).routes(),
    )


def connection_limits(settings: Settings) -> ConnectionLimits:
    """Return what each door bears of connections."""
    return ConnectionLimits(
        connections_max=settings.connections_max,
        per_address_max=settings.connections_per_address_max,
        head_timeout_s=settings.head_timeout_s,
        write_timeout_s=settings.write_timeout_s,
    )


@asynccontextmanager
async def running(
    settings: Settings,
    *,
    clock: Clock,
    log: Logger,
    make: MakeDatabase = Database,
    ended: asyncio.Event | None = None,
) -> AsyncIterator[tuple[Node, Listener, Listener]]:
    """Yield a running node with its peer door and its API door; everything in flight is finished at the end.

    A start that is not over when `ended` is set is broken off: then the node is yielded with its doors alone.
    """
    async with assemble(settings, clock=clock, log=log, make=make) as node:
        group_commit = GroupCommit(node.store.intake(), reports_max=settings.group_commit_reports_max)
        admitted = admission(node)
        door = peer_door(node, admitted)
        waiting = Waiting()
        rounds = Rounds(node)
        peer_app = make_app(
            peer_routes(node, door, admitted, waiting),
            log=log,
            metrics=node.metrics,
            limits=Limits(
                body_bytes_max=settings.body_bytes_max,
                body_timeout_s=settings.body_timeout_s,
                bodies_bytes_max=settings.bodies_bytes_max,
            ),
            finish=door.finish,
        )
        api_app = make_app(
            api_routes(node, group_commit, lambda: rounds.begun),
            log=log,
            metrics=node.metrics,
            limits=Limits(
                body_bytes_max=settings.api_body_bytes_max,
                body_timeout_s=settings.body_timeout_s,
                bodies_bytes_max=settings.bodies_bytes_max,
            ),
            keys=ApiKeyCheck(ApiKeys(node.db), clock),
        )
        jobs = Jobs(node, rounds)
        bounds = connection_limits(settings)
        peer_listener = await listen(
            peer_app, settings.listen_peer, shutdown_s=settings.shutdown_s, tls=node.tls.door, connections=bounds
        )
        try:
            api_listener = await listen(
                api_app, settings.listen_api, shutdown_s=settings.shutdown_s, connections=bounds
            )
            try:
                # Our door is open: who hears that we are back may call at once.
                if await _done(rounds.begin(), ended):
                    jobs.start()
                    log.info("node serves", action="serve.start", node=settings.node_id, listen=settings.listen_peer)
                yield node, peer_listener, api_listener
            finally:
                await api_listener.close()
        finally:
            waiting.end()
            node.signals.wake("outbox")
            await peer_listener.close()
            door.sparing.end()
            await group_commit.finish()
            await jobs.stop()
            log.info("node ended", action="serve.end", node=settings.node_id)


async def _done(work: Awaitable[None], ended: asyncio.Event | None) -> bool:
    """Do the work, or break it off when `ended` is set; tells whether it was done."""
    doing = asyncio.ensure_future(work)
    told = asyncio.ensure_future((ended or asyncio.Event()).wait())
    try:
        await asyncio.wait((doing, told), return_when=asyncio.FIRST_COMPLETED)
    finally:
        told.cancel()
        doing.cancel()
        await asyncio.wait((doing, told))
    if doing.cancelled():
        return False
    doing.result()
    return True


def recovery_app(node: Node, visits: Visits) -> tuple[web.Application, PeerDoor]:
    """Return what answers peers that cannot be called while the node recovers, and the door that lets them in."""
    settings, admitted = node.settings, admission(node)
    # What was lost comes as fast as it can.
    door = replace(peer_door(node, admitted), turn=at_once)
    peers = replace(peer_api(node, door, admitted), receiver=without_limits(node.receiver))
    app = make_app(
        tuple(RecoveryApi(settings.node_id, door, peers, visits).routes()),
        log=node.log,
        metrics=node.metrics,
        limits=Limits(
            body_bytes_max=max(settings.body_bytes_max, RETURNED_BYTES_MAX),
            body_timeout_s=settings.body_timeout_s,
            bodies_bytes_max=settings.bodies_bytes_max,
        ),
        finish=door.finish,
    )
    return app, door


def recovery_door(node: Node) -> OpenDoor:
    """Return what opens the peer door for peers that cannot be called, while the node recovers."""

    @asynccontextmanager
    async def opened(visits: Visits) -> AsyncIterator[None]:
        settings = node.settings
        app, door = recovery_app(node, visits)
        listener = await listen(
            app,
            settings.listen_peer,
            shutdown_s=settings.shutdown_s,
            tls=node.tls.door,
            connections=connection_limits(settings),
        )
        try:
            yield
        finally:
            await listener.close()
            door.sparing.end()

    return opened


async def serve(settings: Settings, *, clock: Clock, log: Logger, make: MakeDatabase = Database) -> None:
    """Serve until SIGTERM or SIGINT; raises OperatorError when the start makes no sense."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, ended.set)
    async with running(settings, clock=clock, log=log, make=make, ended=ended):
        settle()
        await ended.wait()
