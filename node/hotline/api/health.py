"""`/healthz`, `/readyz`, `/metrics`, `/api/v1/status`: how the node is. Never what it holds."""

from dataclasses import dataclass
from http import HTTPStatus

import msgspec
from aiohttp import web

from node.clock import rfc3339
from node.hotline.assembly import Node
from node.hotline.store.status import read_status
from node.platform.apikeys import Role
from node.platform.apiproblems import UNAVAILABLE
from node.platform.database import DATABASE_ERRORS
from node.platform.routes import Answer, Auth, Call, Route

_ENCODER = msgspec.json.Encoder()


class HealthOut(msgspec.Struct, frozen=True):
    """`status` is `ok`, or `degraded` with what needs a person in `warnings`."""

    status: str
    time: str
    warnings: list[str]


class ReadyOut(msgspec.Struct, frozen=True):
    """Whether the node can take and answer: its store answers and its directory is read."""

    ready: bool


@dataclass(frozen=True, slots=True)
class HealthApi:
    """What the doors work with."""

    node: Node

    def routes(self) -> list[Route]:
        """Return the operations on the node itself."""
        monitors = frozenset({Role.MONITOR, Role.ADMIN})
        return [
            Route(
                method="GET",
                path="/healthz",
                summary="Is the process alive",
                group="Node",
                handler=self._health,
                auth=Auth.OPEN,
                responses={HTTPStatus.OK: Answer("It is; warnings name what needs a person.", HealthOut)},
            ),
            Route(
                method="GET",
                path="/readyz",
                summary="Can the node take and answer",
                group="Node",
                handler=self._ready,
                auth=Auth.OPEN,
                responses={
                    HTTPStatus.OK: Answer("It can.", ReadyOut),
                    HTTPStatus.SERVICE_UNAVAILABLE: Answer("The store does not answer.", ReadyOut),
                },
            ),
            Route(
                method="GET",
                path="/metrics",
                summary="Metrics in the Prometheus text format",
                group="Node",
                handler=self._metrics,
                roles=monitors,
                responses={HTTPStatus.OK: Answer("The metrics.", None, media_type="text/plain")},
            ),
            Route(
                method="GET",
                path="/api/v1/status",
                summary="Queues, peers, database and directory ages",
                group="Node",
                handler=self._status,
                roles=monitors | {Role.READER, Role.ANALYST},
                responses={HTTPStatus.OK: Answer("The state of the node.", None)},
                problems=(UNAVAILABLE,),
            ),
        ]

    async def _health(self, _call: Call) -> web.StreamResponse:
        warnings = warnings_of(self.node)
        body = HealthOut("degraded" if warnings else "ok", rfc3339(self.node.clock.now()), warnings)
        return _json(body)

    async def _ready(self, _call: Call) -> web.StreamResponse:
        try:
            async with self.node.db.transaction("ready.contact") as tx:
                await tx.value("SELECT 1")
        except DATABASE_ERRORS:
            return _json(ReadyOut(ready=False), HTTPStatus.SERVICE_UNAVAILABLE)
        return _json(ReadyOut(ready=True))

    async def _metrics(self, _call: Call) -> web.StreamResponse:
        return web.Response(body=self.node.metrics.render(), headers={"Content-Type": "text/plain; version=0.0.4"})

    async def _status(self, _call: Call) -> web.StreamResponse:
        async with self.node.db.transaction("status.read") as tx:
            status = await read_status(tx, self.node.clock.now())
        status["directory"] = {
            "version": self.node.directory().version,
            "issued_at": rfc3339(self.node.directory().issued_at),
        }
        status["warnings"] = warnings_of(self.node)
        return _json(status)


def warnings_of(node: Node) -> list[str]:
    """Return what needs a person: old geolocation files, a directory file that was not taken."""
    warnings = list(node.locator.warnings(node.clock.now()))
    if node.membership.problem is not None:
        warnings.append("the membership directory file was not taken into use; see the log and `hotline status`")
    return warnings


def _json(value: object, status: int = HTTPStatus.OK) -> web.Response:
    return web.Response(status=status, body=_ENCODER.encode(value), content_type="application/json")
