"""Runs the coordinator: its door with the directory and the desk, health and metrics, and the timestamp on schedule."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Final

import msgspec
from aiohttp import web
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from node.clock import Clock, rfc3339
from node.coordinator.cases import DISPUTE, EQUIVOCATION
from node.coordinator.desk import Desk
from node.coordinator.deskdoor import DeskApi
from node.coordinator.members import PublishedMembers
from node.coordinator.publication import Published
from node.coordinator.publisher import Publisher, opened
from node.errors import OperatorError
from node.platform.database import DATABASE_ERRORS, Database
from node.platform.dbopening import MakeDatabase
from node.platform.keyfiles import DESK_KEYS
from node.platform.keyring import KeyRing
from node.platform.listener import ConnectionLimits
from node.platform.membership import expiry_warnings, set_expiry_gauges
from node.platform.mirror import MirrorApi
from node.platform.nonces import forget_nonces, remember_nonce
from node.platform.peerdoor import PeerDoor
from node.platform.requestrate import RequestRate
from node.platform.routes import Answer, Auth, Call, Route
from node.platform.telemetry import Logger, Metrics
from node.platform.tls import open_peer_tls
from node.platform.trust import Freshness
from node.platform.web import Limits, Listener, listen, make_app
from node.settings import Settings
from protocol.errors import ProtocolError
from protocol.keys import KeyUse
from protocol.profile import Verified

#: How often the database is looked at for what another process published.
_LOOK_S: Final = 5.0
_PRUNE_S: Final = 60
#: How often it is looked at whether the timestamp is to be renewed, at least.
_ROUND_S: Final = 60.0
_BODY_BYTES_MAX: Final = 65_536


class HealthOut(msgspec.Struct, frozen=True):
    """`status` is `ok`, or `degraded` with what needs a person in `warnings`."""

    status: str
    time: str
    warnings: list[str]
    directory_version: int | None


@dataclass(frozen=True, slots=True)
class Health:
    """How the coordinator is."""

    publisher: Publisher
    keys: KeyRing
    clock: Clock
    metrics: Metrics
    every_s: float

    def routes(self) -> list[Route]:
        """Return what the inner door serves."""
        return [
            self._route("/healthz", "Is the process alive", self._health),
            self._route("/readyz", "Does its database answer", self._ready),
            self._route("/metrics", "Metrics in the Prometheus text format", self._metrics, "text/plain"),
        ]

    def _route(self, path: str, summary: str, handler: object, media_type: str = "application/json") -> Route:
        return Route(
            method="GET",
            path=path,
            summary=summary,
            group="Coordinator",
            handler=handler,  # type: ignore[arg-type] # a bound method of this class
            auth=Auth.OPEN,
            responses={
                HTTPStatus.OK: Answer("It is so.", None, media_type=media_type),
                HTTPStatus.SERVICE_UNAVAILABLE: Answer("It is not.", None, media_type=media_type),
            },
        )

    async def _health(self, _call: Call) -> web.StreamResponse:
        now, published = self.clock.now(), self.publisher.published
        warnings = publication_warnings(self.publisher, now, self.every_s)
        if (problem := desk_problem(published, self.keys, self.publisher.node_id)) is not None:
            warnings.append(problem)
        version = None if published is None else published.directory.version
        body = HealthOut("degraded" if warnings else "ok", rfc3339(now), warnings, version)
        return web.Response(body=msgspec.json.encode(body), content_type="application/json")

    async def _ready(self, _call: Call) -> web.StreamResponse:
        try:
            async with self.publisher.db.transaction("ready.contact") as tx:
                await tx.value("SELECT 1")
        except DATABASE_ERRORS:
            return web.json_response({"ready": False}, status=HTTPStatus.SERVICE_UNAVAILABLE)
        return web.json_response({"ready": True})

    async def _metrics(self, _call: Call) -> web.StreamResponse:
        return web.Response(body=self.metrics.render(), headers={"Content-Type": "text/plain; version=0.0.4"})


def publication_warnings(publisher: Publisher, now: datetime, every_s: float) -> list[str]:
    """Return what of the publication needs a person; the timestamp is to be renewed every `every_s`."""
    published = publisher.published
    warnings = []
    if publisher.failing or (published is not None and publisher.age(published, now) > _late(every_s)):
        warnings.append("the timestamp is not renewed: `renew.failed` in the log says why")
    if published is None:
        return ["no directory is published yet", *warnings]
    if published.use.freshness(now) is not Freshness.FRESH:
        warnings.append("the directory is not fresh: its timestamp is not renewed, or one of its parts has expired")
    warnings += expiry_warnings(published.use, now)
    if published.directory.desk is None:
        warnings.append("the directory names no desk: nobody settles disputes")
    return warnings


def _late(every_s: float) -> timedelta:
    """Return the age of a timestamp that several renewals missed; a round finds one too old a minute later."""
    return 3 * timedelta(seconds=every_s + _ROUND_S)


def desk_problem(published: Published | None, keys: KeyRing, node_id: str) -> str | None:
    """Say what keeps members from believing the desk here, if the directory names it at all."""
    desk = None if published is None else published.directory.desk
    return None if desk is None or desk.id != node_id else keys.problem()


@dataclass(frozen=True, slots=True)
class Rounds:
    """What happens on schedule; a round that fails is logged and counted, and the next one comes."""

    publisher: Publisher
    desk: Desk
    settings: Settings
    clock: Clock
    log: Logger
    metrics: Metrics

    async def renew(self) -> None:
        """Sign a new timestamp when it is time."""
        try:
            await self.publisher.renew(older_than_s=self.settings.timestamp_every_s)
            self.publisher.failing = False
        except (OperatorError, *DATABASE_ERRORS) as error:
            self.publisher.failing = True
            self.metrics.loop_errors.labels(loop="renew").inc()
            reason = error.sentence if isinstance(error, OperatorError) else type(error).__name__
            self.log.error(  # noqa: TRY400 - what is wrong is said; a traceback helps nobody
                "the timestamp is not renewed", action="renew.failed", alarm=True, reason=reason
            )

    async def look(self) -> None:
        """See what another process published, and set the gauges."""
        try:
            published = await self.publisher.read()
            waiting = await self.desk.open_cases()
        except (OperatorError, *DATABASE_ERRORS) as error:
            self.metrics.loop_errors.labels(loop="look").inc()
            self.log.warning("what is published cannot be read", action="look.failed", kind=type(error).__name__)
            return
        for kind in (DISPUTE, EQUIVOCATION):
            self.metrics.desk_cases.labels(kind=kind).set(waiting.get(kind, 0))
        if published is not None:
            now = self.clock.now()
            self.metrics.directory_age_seconds.set((now - published.directory.issued_at).total_seconds())
            self.metrics.directory_fresh_seconds.set((published.use.fresh_until - now).total_seconds())
            set_expiry_gauges(self.metrics, published.use, now)
            for state in Freshness:
                self.metrics.directory_state.labels(state=state.value).set(state is published.use.freshness(now))

    async def prune(self) -> None:
        """Forget nonces that no request may bear any more."""
        before = self.clock.now() - timedelta(seconds=self.settings.nonce_retention_s)
        try:
            async with self.publisher.db.transaction("prune.nonces") as tx:
                await forget_nonces(tx, before)
        except DATABASE_ERRORS as error:
            self.metrics.loop_errors.labels(loop="prune").inc()
            self.log.warning("database not available", action="prune.database", kind=type(error).__name__)


@dataclass(frozen=True, slots=True)
class _Door:
    """The members' door; what it answers is signed once the directory lists this desk's keys."""

    signed: PeerDoor
    keys: KeyRing

    async def finish(self, http: web.Request, response: web.Response) -> web.Response:
        """Sign an answer, or leave it as it is while there is no key that anybody could verify it with."""
        try:
            self.keys.signing(KeyUse.HTTP)
        except OperatorError:
            return response
        return await self.signed.finish(http, response)


def peer_door(
    settings: Settings, publisher: Publisher, keys: KeyRing, clock: Clock, log: Logger, metrics: Metrics
) -> PeerDoor:
    """Return what verifies the requests of members and signs the answers."""

    async def heard(_peer: str, verified: Verified) -> None:
        async with publisher.db.transaction("peer.heard") as tx:
            if not await remember_nonce(tx, verified.keyid, verified.nonce, clock.now()):
                raise ProtocolError("replay", "this request was answered before", field="nonce")

    return PeerDoor(
        base_url=settings.base_url,
        http_key=lambda: keys.http,
        membership=PublishedMembers(publisher, clock),
        clock=clock,
        metrics=metrics,
        log=log,
        window_s=settings.clock_window_s,
        heard=heard,
        admit=RequestRate.of(settings.peer_requests_per_s).request,
    )


def open_keys(settings: Settings, publisher: Publisher, clock: Clock) -> KeyRing:
    """Return the desk's keys; raises OperatorError when one is missing or exposed."""
    members = PublishedMembers(publisher, clock)
    return KeyRing(settings.keys_dir, settings.node_id, members.current, clock, DESK_KEYS)


@asynccontextmanager
async def running(
    settings: Settings, *, clock: Clock, log: Logger, make: MakeDatabase = Database
) -> AsyncIterator[tuple[Publisher, Listener, Listener]]:
    """Yield a running coordinator with its outer and its inner door."""
    metrics = Metrics.create()
    tls = open_peer_tls(settings)
    bounds = ConnectionLimits(
        connections_max=settings.connections_max,
        per_address_max=settings.connections_per_address_max,
        head_timeout_s=settings.head_timeout_s,
        write_timeout_s=settings.write_timeout_s,
    )
    limits = Limits(body_bytes_max=_BODY_BYTES_MAX, body_timeout_s=settings.body_timeout_s)
    async with opened(settings, clock, metrics, make) as publisher:
        publisher.check()
        keys = open_keys(settings, publisher, clock)
        signed = peer_door(settings, publisher, keys, clock, log, metrics)
        desk = Desk(settings.node_id, publisher.db, clock.now, signed.membership.current)
        rounds = Rounds(publisher, desk, settings, clock, log, metrics)
        outer = make_app(
            (*MirrorApi(publisher.file).routes(), *DeskApi(signed, desk).routes()),
            log=log,
            metrics=metrics,
            limits=limits,
            finish=_Door(signed, keys).finish,
        )
        health_of = Health(publisher, keys, clock, metrics, settings.timestamp_every_s)
        inner = make_app(health_of.routes(), log=log, metrics=metrics, limits=limits)
        scheduler = AsyncIOScheduler(timezone="UTC", job_defaults={"misfire_grace_time": None, "coalesce": True})
        now = datetime.now(UTC)
        renew_s = min(_ROUND_S, settings.timestamp_every_s)
        scheduler.add_job(rounds.renew, "interval", seconds=renew_s, next_run_time=now)
        scheduler.add_job(rounds.look, "interval", seconds=_LOOK_S, next_run_time=now)
        scheduler.add_job(tls.look, "interval", args=(log,), seconds=_LOOK_S)
        scheduler.add_job(rounds.prune, "interval", seconds=_PRUNE_S)
        shutdown_s = settings.shutdown_s
        door = await listen(outer, settings.listen_peer, shutdown_s=shutdown_s, tls=tls.door, connections=bounds)
        try:
            health = await listen(inner, settings.listen_api, shutdown_s=shutdown_s, connections=bounds)
            try:
                scheduler.start()
                log.info("coordinator serves", action="serve.start", node=settings.node_id, listen=settings.listen_peer)
                yield publisher, door, health
            finally:
                scheduler.shutdown(wait=False)
                await health.close()
        finally:
            await door.close()
            log.info("coordinator ended", action="serve.end", node=settings.node_id)


async def serve(settings: Settings, *, clock: Clock, log: Logger, make: MakeDatabase = Database) -> None:
    """Serve until SIGTERM or SIGINT; raises OperatorError when the start makes no sense."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, ended.set)
    async with running(settings, clock=clock, log=log, make=make):
        await ended.wait()
