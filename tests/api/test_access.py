"""Who may call: every route but health needs a key of the right role, in either form of the header, while it counts."""

import base64
from datetime import timedelta
from uuid import UUID

import pytest

from node.hotline.api.groupcommit import GroupCommit
from node.hotline.serve import api_routes
from node.hotline.store.apikeys import ApiKeys
from node.platform.apikeys import CACHE_TTL_S, NewApiKey, Role, new_api_key
from node.platform.routes import Auth, Route
from tests.api.door import ITEMS, Door, basic, bearer

STATUS = "/api/v1/status"
#: What answers without a key, and nothing else does.
OPEN = {"/healthz", "/readyz"}


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def door(shared_door: Door) -> Door:
    """One node for all of these."""
    return shared_door


def table(door: Door) -> tuple[Route, ...]:
    return api_routes(door.node, GroupCommit(door.node.store.intake(), reports_max=1))


def path_of(route: Route) -> str:
    return route.path.replace("{item}", str(UUID(int=7)))


async def new_key(door: Door, *roles: Role) -> tuple[NewApiKey, dict[str, str]]:
    """A key of its own for one test, and the header to send."""
    key = new_api_key()
    await ApiKeys(door.node.db).add(key, "one test", frozenset(roles), door.clock.now())
    return key, {"Authorization": bearer(key)}


async def test_every_route_but_health_needs_a_key(door: Door) -> None:
    routes = table(door)
    assert {route.path for route in routes if route.auth is Auth.OPEN} == OPEN
    assert {route.auth for route in routes} == {Auth.OPEN, Auth.API_KEY}
    for route in routes:
        reply = await door.ask(route.method, path_of(route), role=None)
        if route.path in OPEN:
            assert reply.status == 200, route.path
        else:
            assert reply.errors(401, "unauthenticated") == [], route.path
            assert reply.headers.getall("WWW-Authenticate")[0].startswith("Bearer ")  # type: ignore[attr-defined]


async def test_every_role_that_a_route_does_not_name_is_refused(door: Door) -> None:
    for route in table(door):
        for role in Role:
            reply = await door.ask(route.method, path_of(route), role=role)
            if route.auth is Auth.API_KEY and role not in route.roles:
                assert reply.errors(403, "forbidden") == [], (route.path, role)
            else:
                assert reply.status not in {401, 403}, (route.path, role)


async def test_what_each_role_may_do_is_what_its_name_says(door: Door) -> None:
    allowed = {(route.method, route.path): {role.value for role in route.roles} for route in table(door)}
    assert allowed["POST", "/api/v1/reports"] == {"intake", "analyst", "admin"}
    assert allowed["PATCH", "/api/v1/items/{item}/assessment"] == {"analyst", "admin"}
    assert allowed["GET", "/api/v1/items/{item}/proof"] == {"analyst", "admin"}
    assert allowed["GET", "/api/v1/items/{item}"] == {"reader", "analyst", "admin"}
    assert allowed["GET", "/metrics"] == {"monitor", "admin"}


async def test_a_key_is_checked_before_the_body_is_looked_at(door: Door) -> None:
    rows = await door.rows()
    assert (await door.report(b"\xff", role=None)).errors(401, "unauthenticated") == []
    assert (await door.report({"url": "https://host.example/"}, role=Role.READER)).errors(403, "forbidden") == []
    assert await door.rows() == rows


async def test_basic_authentication_takes_the_key_as_password_under_any_name(door: Door) -> None:
    key = door.keys[Role.MONITOR]
    for user in ("anybody", "", "üser"):
        assert (await door.ask("GET", STATUS, headers={"Authorization": basic(key, user)})).status == 200
    reply = await door.ask("GET", STATUS, headers={"Authorization": bearer(key).replace("Bearer", "bEARER")})
    assert reply.status == 200


def encoded(text: bytes) -> str:
    return base64.b64encode(text).decode()


NO_KEYS = (
    "",
    "Bearer",
    "Bearer ",
    "Bearer hx_canary",
    f"Bearer hx_{'a' * 12}_{'b' * 43}",
    "Basic",
    "Basic canary",
    "Basic !!!!",
    f"Basic {encoded(b'canary')}",
    f"Basic {encoded(bytes([255, 254]))}",
    f"Basic {encoded(b'user:hx_canary')}",
    "Digest username=canary",
)


async def test_what_is_no_key_is_refused(door: Door) -> None:
    for header in NO_KEYS:
        reply = await door.ask("GET", STATUS, headers={"Authorization": header})
        assert reply.errors(401, "unauthenticated") == [], header


async def test_a_wrong_secret_and_another_ones_id_are_refused(door: Door) -> None:
    text = door.keys[Role.ADMIN].text
    _, key_id, secret = text.split("_")
    for wrong in (
        text[:-1] + ("a" if text[-1] != "a" else "b"),
        f"hx_{door.keys[Role.READER].key_id}_{secret}",
        f"hx_{key_id}_{secret}x",
        f"{text}\tx",
    ):
        reply = await door.ask("GET", STATUS, headers={"Authorization": f"Bearer {wrong}"})
        assert reply.errors(401, "unauthenticated") == []


async def test_a_revoked_key_stops_within_the_time_it_is_remembered(door: Door) -> None:
    keys = ApiKeys(door.node.db)
    key, headers = await new_key(door, Role.MONITOR)
    assert (await door.ask("GET", STATUS, headers=headers)).status == 200
    assert await keys.revoke(key.key_id, door.clock.now())
    assert not await keys.revoke(key.key_id, door.clock.now())
    door.clock.ahead_s += CACHE_TTL_S + 0.1
    assert (await door.ask("GET", STATUS, headers=headers)).errors(401, "unauthenticated") == []
    assert (await door.ask("GET", STATUS, role=Role.ADMIN)).status == 200


async def test_an_expired_key_stops_when_it_expires(door: Door) -> None:
    key, headers = await new_key(door, Role.MONITOR)
    async with door.node.db.transaction("test.expire") as tx:
        at = door.clock.now() + timedelta(seconds=60)
        await tx.execute("UPDATE api_keys SET expires_at = $2 WHERE id = $1", key.key_id, at)
    assert (await door.ask("GET", STATUS, headers=headers)).status == 200
    door.clock.ahead_s += 61
    assert (await door.ask("GET", STATUS, headers=headers)).errors(401, "unauthenticated") == []


async def test_a_key_with_several_roles_may_do_what_each_may(door: Door) -> None:
    _, headers = await new_key(door, Role.INTAKE, Role.READER)
    assert (await door.report({"url": "https://host.example/"}, headers=headers)).status == 201
    assert (await door.ask("GET", ITEMS, headers=headers)).status == 200
    assert (await door.ask("GET", "/metrics", headers=headers)).errors(403, "forbidden") == []


async def test_the_database_holds_no_key(door: Door) -> None:
    async with door.node.db.transaction("test.read") as tx:
        rows = await tx.fetch("SELECT api_keys::text AS row FROM api_keys")
    assert len(rows) >= len(Role)
    for key in door.keys.values():
        secret = key.text.rpartition("_")[2]
        assert not any(secret in row["row"] for row in rows)


async def test_every_answer_forbids_a_browser_to_do_anything_with_it(door: Door) -> None:
    for path, role in (("/healthz", None), (ITEMS, Role.ADMIN), ("/nowhere", None), ("/api/docs", Role.ADMIN)):
        headers = (await door.ask("GET", path, role=role)).headers
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "script-src" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Server"] == "hotline"
