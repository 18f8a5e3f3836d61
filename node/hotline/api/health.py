"""`/healthz`, `/readyz`, `/metrics`, `/api/v1/status`: how the node is. Never what it holds."""

from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

import msgspec
from aiohttp import web

from node.clock import rfc3339
from node.hotline.assembly import Node
from node.hotline.domain.lifecycle import State
from node.hotline.store.status import read_status
from node.platform.apikeys import Role
from node.platform.apiproblems import UNAVAILABLE
from node.platform.database import DATABASE_ERRORS
from node.platform.membership import FRESHNESS_WARNINGS, expiry_warnings, own_warnings
from node.platform.routes import Answer, Auth, Call, Route
from node.platform.trust import Freshness

_ENCODER = msgspec.json.Encoder()


class HealthOut(msgspec.Struct, frozen=True):
    """`status` is `ok`, or `degraded` with what needs a person in `warnings`."""

    status: str
    time: str
    warnings: list[str]


class CountOut(msgspec.Struct, frozen=True):
    """How many items stand alike; `received` are those that came from a peer."""

    state: State
    reason: str | None
    verdict: str | None
    hosting_country: str | None
    assigned_node: str | None
    received: bool
    items: int


class StreamOutOut(msgspec.Struct, frozen=True):
    """Our stream to a peer in records: written, receipted, told of in outcomes, and those refused among them."""

    peer: str
    epoch: int
    written: int
    receipted: int
    told: int
    refused: int


class StreamInOut(msgspec.Struct, frozen=True):
    """A peer's stream to us in records: held (receipted by us), applied, and those refused among them."""

    peer: str
    epoch: int
    held: int
    applied: int
    refused: int


class PeerOut(msgspec.Struct, frozen=True):
    """Our contact with a peer: when it was last heard from and reached, and why it is left alone at present."""

    peer: str
    last_heard_s: int | None
    last_reached_s: int | None
    failures: int
    retry_in_s: int | None
    last_problem: str | None
    clock_skew_s: int | None


class DirectoryOut(msgspec.Struct, frozen=True):
    """The membership directory in use; `state` is how far it can be relied on."""

    version: int
    issued_at: str
    age_s: int
    nodes: int
    state: Freshness
    fresh_until: str
    root_version: int


class DatabaseOut(msgspec.Struct, frozen=True):
    """A geolocation file in use."""

    file: str
    kind: str
    type: str
    built: str
    age_days: int


class RelayFailureOut(msgspec.Struct, frozen=True):
    """Records that a node never receipted, by why they were given up; they went another way."""

    node: str
    code: str
    records: int
    attempts: int


class OutOfReachOut(msgspec.Struct, frozen=True):
    """How many items that this hotline reported are with one that is no member any more, and why it is none."""

    node: str
    code: str
    items: int


class DisputeOut(msgspec.Struct, frozen=True):
    """Open disputes by their reason, and how many of them the desk does not have yet."""

    code: str
    open: int
    not_handed_in: int


class DeskRefusalOut(msgspec.Struct, frozen=True):
    """Disputes or contradictions (`equivocation`) that the desk refuses for good, by the code it answers."""

    kind: str
    code: str
    cases: int


class StatusOut(msgspec.Struct, frozen=True):
    """The state of the node in counts: `queues` are what waits, `equivocations` proofs that a peer told two stories.

    `differences` say where a peer has a stream otherwise than this node.
    """

    queues: dict[str, int]
    items: list[CountOut]
    streams_out: list[StreamOutOut]
    streams_in: list[StreamInOut]
    peers: list[PeerOut]
    relay_failures: list[RelayFailureOut]
    out_of_reach: list[OutOfReachOut]
    disputes: list[DisputeOut]
    desk_refusals: list[DeskRefusalOut]
    differences: list[str]
    equivocations: int
    directory: DirectoryOut
    databases: list[DatabaseOut]
    warnings: list[str]


class ReadyOut(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whether the node takes, answers and works: its database answers, and its start is over.

    `reason` is why it does not: `database`, or `starting` while it still asks its peers how far they are.
    """

    ready: bool
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class HealthApi:
    """What the doors work with; `begun` tells whether the start is over."""

    node: Node
    begun: Callable[[], bool]

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
                responses={
                    HTTPStatus.OK: Answer(
                        "It is; warnings name what needs a person.",
                        HealthOut,
                        example={"status": "ok", "time": "2026-11-22T16:00:00.000Z", "warnings": []},
                    )
                },
            ),
            Route(
                method="GET",
                path="/readyz",
                summary="Can the node take and answer",
                group="Node",
                handler=self._ready,
                auth=Auth.OPEN,
                responses={
                    HTTPStatus.OK: Answer("It can.", ReadyOut, example={"ready": True}),
                    HTTPStatus.SERVICE_UNAVAILABLE: Answer(
                        "The database does not answer, or the start is not over.",
                        ReadyOut,
                        example={"ready": False, "reason": "starting"},
                    ),
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
                responses={HTTPStatus.OK: Answer("The state of the node.", StatusOut)},
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
            return _json(ReadyOut(ready=False, reason="database"), HTTPStatus.SERVICE_UNAVAILABLE)
        if not self.begun():
            return _json(ReadyOut(ready=False, reason="starting"), HTTPStatus.SERVICE_UNAVAILABLE)
        return _json(ReadyOut(ready=True))

    async def _metrics(self, _call: Call) -> web.StreamResponse:
        return web.Response(body=self.node.metrics.render(), headers={"Content-Type": "text/plain; version=0.0.4"})

    async def _status(self, _call: Call) -> web.StreamResponse:
        now, use = self.node.clock.now(), self.node.membership.in_use()
        directory = use.directory
        async with self.node.db.transaction("status.read") as tx:
            status = await read_status(tx, now, self.node.settings.node_id, directory)
        status["directory"] = DirectoryOut(
            directory.version,
            rfc3339(directory.issued_at),
            round((now - directory.issued_at).total_seconds()),
            len(directory.nodes),
            use.freshness(now),
            rfc3339(use.fresh_until),
            use.root_version,
        )
        status["databases"] = [
            DatabaseOut(info.path.name, info.kind, info.type, rfc3339(info.build_date), info.age_days)
            for info in self.node.locator.databases(now)
        ]
        status["warnings"] = warnings_of(self.node)
        return _json(msgspec.convert(status, StatusOut))


def warnings_of(node: Node) -> list[str]:
    """Return what needs a person: old geolocation files, a directory that is old or was not taken, missing keys."""
    warnings = list(node.locator.warnings(node.clock.now()))
    freshness = node.membership.freshness()
    if freshness is not Freshness.FRESH:
        warnings.append(FRESHNESS_WARNINGS[freshness])
    use = node.membership.in_use()
    warnings += expiry_warnings(use, node.clock.now())
    warnings += own_warnings(use.directory, node.settings.node_id, node.settings.base_url)
    if node.membership.problem is not None:
        warnings.append("a source of the membership directory was of no use; see the log and `hotline status`")
    keys = node.keys.problem()
    return [*warnings, *([] if keys is None else [keys]), *node.standing]


def _json(value: object, status: int = HTTPStatus.OK) -> web.Response:
    return web.Response(status=status, body=_ENCODER.encode(value), content_type="application/json")
