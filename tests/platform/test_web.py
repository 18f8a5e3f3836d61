"""The HTTP shell: who may call, what is refused before it is read, and how every error is answered."""

import asyncio
import base64
import io
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from node.errors import OperatorError
from node.platform.apikeys import ApiKeyCheck, ApiKeyRow, Role, new_api_key
from node.platform.listener import ConnectionLimits
from node.platform.sparing import LINES_MAX
from node.platform.telemetry import Metrics, make_logger
from node.platform.web import Limits, Listener, listen, make_app, with_documentation
from tests.platform.manual_clock import ManualClock
from tests.platform.sample_api import INFO, ROUTES

INTAKE, ANALYST, EXPIRED = new_api_key(), new_api_key(), new_api_key()
ITEM = "/api/v1/items/019376a0-5c00-7000-8000-000000000001"
REPORT = {"channel": "public", "reference": "a", "media": [{"url": "https://files.example/a"}]}


class Store:
    """Three keys in memory."""

    def __init__(self, clock: ManualClock) -> None:
        rows = (
            ApiKeyRow(INTAKE.key_id, "form", INTAKE.secret_sha256, frozenset({Role.INTAKE})),
            ApiKeyRow(ANALYST.key_id, "analyst", ANALYST.secret_sha256, frozenset({Role.ANALYST, Role.READER})),
            ApiKeyRow(EXPIRED.key_id, "old", EXPIRED.secret_sha256, frozenset(Role), expires_at=clock.now()),
        )
        self.rows = {row.key_id: row for row in rows}

    async def find(self, key_id: str) -> ApiKeyRow | None:
        return self.rows.get(key_id)


@dataclass
class Server:
    """A served sample API and a client of it."""

    listener: Listener
    session: aiohttp.ClientSession
    metrics: Metrics
    log: io.StringIO

    async def call(
        self, method: str, path: str, *, key: str | None = INTAKE.text, **options: Any
    ) -> tuple[aiohttp.ClientResponse, Any]:
        """Return the response and its JSON."""
        headers = dict(options.pop("headers", {}))
        if key is not None:
            headers.setdefault("Authorization", f"Bearer {key}")
        async with self.session.request(
            method, self.listener.base_url + path, headers=headers, allow_redirects=False, **options
        ) as response:
            raw = await response.read()
            return response, json.loads(raw) if response.content_type.endswith("json") else raw

    async def raw(self, request: bytes) -> bytes:
        """Return what the server answers to the bytes of a request until it closes the connection."""
        reader, writer = await asyncio.open_connection(self.listener.host, self.listener.port)
        writer.write(request)
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer


@dataclass(frozen=True)
class Setup:
    """How a test wants its server."""

    limits: Limits = field(default_factory=lambda: Limits(body_bytes_max=2000, body_timeout_s=5.0))


@pytest.fixture
def setup() -> Setup:
    """The usual server; a test overrides it by parametrisation."""
    return Setup()


async def stamp(request: web.Request, response: web.Response) -> web.Response:
    """Mark every answer, as the peer protocol signs it."""
    if request.headers.get("X-Break-Finish"):
        raise RuntimeError("https://files.example/secret")
    response.headers["X-Finished"] = str(response.status)
    return response


@pytest.fixture
async def server(setup: Setup) -> AsyncIterator[Server]:
    clock, metrics, log = ManualClock(), Metrics.create(), io.StringIO()
    app = make_app(
        with_documentation(ROUTES, INFO, prefix="/api", roles=frozenset({Role.READER})),
        log=make_logger("info", "json", log),
        metrics=metrics,
        limits=setup.limits,
        keys=ApiKeyCheck(Store(clock), clock),
        finish=stamp,
    )
    listener = await listen(app, "127.0.0.1:0", shutdown_s=1.0, connections=ConnectionLimits(linger_s=0.05))
    async with aiohttp.ClientSession() as session:
        yield Server(listener, session, metrics, log)
    await listener.close()


def assert_problem(response: aiohttp.ClientResponse, body: Any, status: int, code: str) -> None:
    assert (response.status, body["status"], body["code"]) == (status, status, code)
    assert response.content_type == "application/problem+json"
    assert body["type"] == f"urn:hx:problem:{code}"
    assert body["request_id"] == response.headers["X-Request-Id"]
    assert response.headers["X-Finished"] == str(status)
    assert "files.example" not in json.dumps(body)


async def test_a_request_is_decoded_checked_and_answered(server: Server) -> None:
    response, body = await server.call("POST", "/api/v1/reports", json=REPORT)
    assert (response.status, body) == (201, {"reference": "a", "items": 1, "caller": "form"})
    assert response.headers["X-Finished"] == "201"


async def test_every_answer_carries_the_same_strict_headers(server: Server) -> None:
    for path, key in (("/healthz", None), ("/nowhere", None), (ITEM, ANALYST.text), ("/api/docs", ANALYST.text)):
        response, _ = await server.call("GET", path, key=key)
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Cache-Control"] == "no-store"
        assert response.headers["Referrer-Policy"] == "no-referrer"
        assert response.headers["Server"] == "hotline"
        assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert len(response.headers.getall("X-Request-Id")) == 1


async def test_the_key_comes_as_bearer_or_as_password(server: Server) -> None:
    password = base64.b64encode(f"anyone:{ANALYST.text}".encode()).decode()
    for header in (f"Bearer {ANALYST.text}", f"bearer  {ANALYST.text}", f"Basic {password}"):
        response, _ = await server.call("GET", ITEM, key=None, headers={"Authorization": header})
        assert response.status == 200


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer hx_x_y",
        f"Bearer {EXPIRED.text}",
        f"Token {ANALYST.text}",
        f"Bearer {new_api_key().text}",
        "Basic !!!",
        "Basic é",
        "Basic " + base64.b64encode(b"\xff:\xff").decode(),
        "Basic " + base64.b64encode(ANALYST.text.encode()).decode(),
    ],
    ids=[
        "none",
        "empty",
        "no key",
        "no form",
        "expired",
        "scheme",
        "unknown",
        "no base64",
        "no ascii",
        "no utf-8",
        "no password",
    ],
)
async def test_who_does_not_prove_who_they_are_is_told_how(server: Server, header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    response, body = await server.call("GET", ITEM, key=None, headers=headers)
    assert_problem(response, body, 401, "unauthenticated")
    schemes = [each.split()[0] for each in response.headers.getall("WWW-Authenticate")]
    assert schemes == ["Bearer", "Basic"]
    assert server.log.getvalue() == ""


async def test_who_has_no_role_for_it_is_told_which(server: Server) -> None:
    response, body = await server.call("GET", ITEM)
    assert_problem(response, body, 403, "forbidden")
    assert "analyst" in body["detail"]


async def test_health_is_open_and_the_rest_is_not(server: Server) -> None:
    for route in ROUTES:
        path = route.path.replace("{item}", ITEM.rsplit("/", 1)[-1]).replace("{iss}", "nl.hotline.example")
        response, _ = await server.call(route.method, path, key=None)
        expected = 401 if route.roles else {"/healthz": 200}.get(path, 415)
        assert response.status == expected


@pytest.mark.parametrize(
    ("body", "field_name", "reason"),
    [
        ({**REPORT, "channel": "https://files.example/a"}, "channel", "not-allowed"),
        ({**REPORT, "media": "https://files.example/a"}, "media", "wrong-type"),
        ({**REPORT, "media": [{"url": "u"}, {"url": 5}]}, "media[1].url", "wrong-type"),
        ({**REPORT, "media": [{}]}, "media[0].url", "missing"),
        ({**REPORT, "media": [{"url": ""}]}, "media[0].url", "too-short"),
        ({**REPORT, "media": [{"url": "u"}] * 4}, "media", "too-long"),
        ({**REPORT, "reference": "x" * 9}, "reference", "too-long"),
        ({**REPORT, "count": 6}, "count", "out-of-range"),
        ({**REPORT, "case": "https://files.example/a"}, "case", "bad-format"),
        ({**REPORT, "colour": 1}, "colour", "unknown-field"),
        ({**REPORT, "https://files.example/a": 1}, "", "unknown-field"),
        ([], "", "wrong-type"),
    ],
)
async def test_a_field_at_fault_is_named_with_the_reason(
    server: Server, body: Any, field_name: str, reason: str
) -> None:
    response, answer = await server.call("POST", "/api/v1/reports", json=body)
    assert_problem(response, answer, 422, "invalid")
    (fault,) = answer["errors"]
    assert (fault["field"], fault["reason"]) == (field_name, reason)
    assert fault["detail"]


@pytest.mark.parametrize(
    ("raw", "detail"),
    [
        (b"", "not JSON"),
        (b'{"channel":', "not JSON"),
        (b'{"channel":"\xff"}', "not UTF-8"),
        (b"[" * 1999, "not JSON"),
        (b'{"reference":"\\ud800"}', "not JSON"),
    ],
)
async def test_a_body_that_is_no_json_is_malformed(server: Server, raw: bytes, detail: str) -> None:
    headers = {"Content-Type": "application/json"}
    response, body = await server.call("POST", "/api/v1/reports", data=raw, headers=headers)
    if raw.startswith(b"["):
        # An array is refused at once, however deep it goes on.
        assert_problem(response, body, 422, "invalid")
    else:
        assert_problem(response, body, 400, "malformed")
        assert detail in body["detail"]


async def test_parameters_are_converted_and_checked_like_fields(server: Server) -> None:
    _, body = await server.call("GET", ITEM + "?limit=20", key=ANALYST.text)
    assert body == {"item": ITEM.rsplit("/", 1)[-1], "limit": 20}
    for query, field_name, reason in (
        ("?limit=x", "limit", "wrong-type"),
        ("?limit=1e1", "limit", "wrong-type"),
        ("?limit=20.0", "limit", "wrong-type"),
        ("?limit=0", "limit", "out-of-range"),
        ("?limit=1&limit=2", "limit", "repeated"),
        ("?page=https://files.example/a", "query", "unknown-field"),
    ):
        response, body = await server.call("GET", ITEM + query, key=ANALYST.text)
        assert_problem(response, body, 422, "invalid")
        assert [(each["field"], each["reason"]) for each in body["errors"]] == [(field_name, reason)]
    response, body = await server.call("GET", "/api/v1/items/files.example", key=ANALYST.text)
    assert_problem(response, body, 422, "invalid")


async def test_what_is_not_served_is_answered_as_a_problem(server: Server) -> None:
    response, body = await server.call("GET", "/api/v1/https:/files.example/a")
    assert_problem(response, body, 404, "not-found")
    response, body = await server.call("DELETE", "/healthz")
    assert_problem(response, body, 405, "method-not-allowed")
    assert response.headers["Allow"] == "GET"
    response, body = await server.call("POST", "/api/v1/reports", data=b"{}", headers={"Content-Type": "text/csv"})
    assert_problem(response, body, 415, "unsupported-media-type")
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    response, body = await server.call("POST", "/api/v1/reports", data=b"{}", headers=headers)
    assert_problem(response, body, 415, "unsupported-media-type")


async def test_a_handlers_own_problem_is_its_answer(server: Server) -> None:
    response, body = await server.call("POST", "/api/v1/reports", json={**REPORT, "reference": "known"})
    assert_problem(response, body, 409, "conflict")
    response, body = await server.call("GET", ITEM + "?limit=15", key=ANALYST.text)
    assert_problem(response, body, 404, "not-found")


async def test_a_handler_that_fails_is_named_in_the_log_and_nothing_of_it_leaves(server: Server) -> None:
    response, body = await server.call("GET", ITEM + "?limit=13", key=ANALYST.text)
    assert_problem(response, body, 500, "internal")
    (line,) = [json.loads(each) for each in server.log.getvalue().splitlines()]
    assert (line["action"], line["error"]) == ("web.failed", "RuntimeError")
    assert line["request_id"] == body["request_id"]
    assert line["route"] == "/api/v1/items/{item}"
    assert "files.example" not in server.log.getvalue()


async def test_a_flood_of_failures_writes_few_lines_and_counts_the_rest(server: Server) -> None:
    for _ in range(3 * LINES_MAX):
        response, _ = await server.call("GET", ITEM + "?limit=13", key=ANALYST.text)
        assert response.status == 500
    # Another failure is seen all the same.
    await server.call("GET", "/healthz", key=None, headers={"X-Break-Finish": "1"})
    await server.listener.close()
    lines = [json.loads(each) for each in server.log.getvalue().splitlines()]
    said = [(line["route"], line["at"] != "") for line in lines if line["action"] == "web.failed"]
    assert said == [("/api/v1/items/{item}", True)] * LINES_MAX + [("/healthz", True)]
    (left_out,) = [line for line in lines if line["action"] == "log.spared"]
    members = tuple(left_out[name] for name in ("of", "code", "route", "count", "level"))
    assert members == ("web.failed", "internal", "/api/v1/items/{item}", 2 * LINES_MAX, "error")


async def test_a_database_that_is_away_is_unavailable(server: Server) -> None:
    response, body = await server.call("GET", ITEM + "?limit=14", key=ANALYST.text)
    assert_problem(response, body, 503, "unavailable")
    assert response.headers["Retry-After"] == "1"


async def test_an_answer_that_cannot_be_finished_is_a_failure(server: Server) -> None:
    response, body = await server.call("GET", "/healthz", key=None, headers={"X-Break-Finish": "1"})
    assert (response.status, body["code"]) == (500, "internal")


async def test_a_problem_of_the_peer_protocol_keeps_its_registered_form(server: Server) -> None:
    headers = {"Content-Type": "application/vnd.hx.batch"}
    path = "/peer/v1/inbox/nl.hotline.example"
    response, body = await server.call("PUT", path, key=None, data=b"refuse", headers=headers)
    assert (response.status, body["code"], body["expected"], body["retryable"]) == (409, "stream-gap", 7, True)
    response, body = await server.call("PUT", path, key=None, data=b"x" * 2000, headers=headers)
    assert body == {"bytes": 2000}


async def test_a_body_announced_as_too_large_is_refused_unread(server: Server) -> None:
    head = (
        f"POST /api/v1/reports HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {INTAKE.text}\r\n"
        "Content-Type: application/json\r\nContent-Length: 2001\r\nExpect: 100-continue\r\n\r\n"
    )
    answer = await server.raw(head.encode())
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"too-large"' in answer
    assert b"100 Continue" not in answer


async def test_a_body_within_the_limit_is_asked_for(server: Server) -> None:
    body = json.dumps(REPORT).encode()
    head = (
        f"POST /api/v1/reports HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {INTAKE.text}\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nExpect: 100-continue\r\n\r\n"
    )
    answer = await server.raw(head.encode() + body)
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 ")


async def test_a_body_that_grows_too_large_is_cut_off(server: Server) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b" " * 100

    headers = {"Content-Type": "application/json"}
    response, body = await server.call("POST", "/api/v1/reports", data=parts(), headers=headers)
    assert_problem(response, body, 413, "too-large")


async def test_nobody_without_a_key_gets_a_body_read(server: Server) -> None:
    head = "POST /api/v1/reports HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 1000\r\n\r\n"
    assert (await server.raw(head.encode())).startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("setup", [Setup(Limits(body_bytes_max=2000, body_timeout_s=0.05))])
async def test_a_body_that_does_not_come_is_not_waited_for(server: Server) -> None:
    head = (
        f"POST /api/v1/reports HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {INTAKE.text}\r\n"
        'Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"channel":'
    )
    answer = await server.raw(head.encode())
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"too-slow"' in answer


@pytest.mark.parametrize("setup", [Setup(Limits(body_bytes_max=2000, bodies_bytes_max=500))])
async def test_bodies_together_stay_within_the_memory_given_to_them(server: Server) -> None:
    headers = {"Content-Type": "application/json"}
    for _ in range(3):
        response, body = await server.call("POST", "/api/v1/reports", data=b" " * 501, headers=headers)
        assert_problem(response, body, 503, "overloaded")
        assert response.headers["Retry-After"] == "1"
        # What was held is given back.
        response, _ = await server.call("POST", "/api/v1/reports", json=REPORT)
        assert response.status == 201


async def test_a_body_in_broken_chunks_is_malformed(server: Server) -> None:
    head = (
        f"POST /api/v1/reports HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {INTAKE.text}\r\n"
        "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\nzz\r\n"
    )
    assert b'"code":"malformed"' in await server.raw(head.encode())
    assert server.log.getvalue() == ""


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"GET /files.example HTTP/1.1\r\nHost: x\r\nBad Name: files.example\r\n\r\n",
        b"\x16\x03\x01files.example\r\n\r\n",
        b"GET /" + b"files.example" * 1000 + b" HTTP/1.1\r\n\r\n",
    ],
)
async def test_what_is_not_http_is_answered_without_a_word_of_it(
    server: Server, request_bytes: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await server.raw(request_bytes)
    assert b"application/problem+json" in answer
    assert b"files.example" not in answer
    assert b"aiohttp" not in answer
    assert b"X-Content-Type-Options: nosniff" in answer
    assert server.log.getvalue() + caplog.text == ""
    assert 'route="(broken)",status="400"} 1.0' in server.metrics.render().decode()


async def test_requests_are_counted_by_route_and_never_by_path(server: Server) -> None:
    await server.call("GET", ITEM, key=ANALYST.text)
    await server.call("GET", "/secret-path")
    await server.call("PROPFIND", "/healthz")
    text = server.metrics.render().decode()
    assert 'http_requests_total{method="GET",route="/api/v1/items/{item}",status="200"} 1.0' in text
    assert 'http_requests_total{method="GET",route="(none)",status="404"} 1.0' in text
    assert 'method="other"' in text
    assert "secret-path" not in text
    assert ITEM.rsplit("/", 1)[-1] not in text


async def test_the_documentation_is_served_to_those_who_may_read_it(server: Server) -> None:
    response, document = await server.call("GET", "/api/openapi.json", key=ANALYST.text)
    assert document["openapi"] == "3.1.0"
    response, page = await server.call("GET", "/api/docs", key=ANALYST.text)
    assert response.content_type == "text/html"
    assert "style-src 'self'" in response.headers["Content-Security-Policy"]
    assert b'href="docs.css"' in page
    response, _ = await server.call("GET", "/api/docs.css", key=ANALYST.text)
    assert (response.status, response.content_type) == (200, "text/css")
    response, _ = await server.call("GET", "/api/docs")
    assert response.status == 403


def test_a_route_that_needs_keys_is_not_served_without_them() -> None:
    log = make_logger("info", "json", io.StringIO())
    limits = Limits(body_bytes_max=1)
    with pytest.raises(ValueError, match="needs API keys"):
        make_app(ROUTES, log=log, metrics=Metrics.create(), limits=limits)
    make_app(ROUTES[2:], log=log, metrics=Metrics.create(), limits=limits)


async def test_an_address_in_use_is_one_sentence(server: Server) -> None:
    app = make_app(
        [replace(ROUTES[3])],
        log=make_logger("info", "json", io.StringIO()),
        metrics=Metrics.create(),
        limits=Limits(body_bytes_max=1),
    )
    address = f"{server.listener.host}:{server.listener.port}"
    with pytest.raises(OperatorError, match="cannot be listened on"):
        await listen(app, address, shutdown_s=1.0)


async def test_a_clean_shutdown_lets_a_request_finish(server: Server) -> None:
    entered, leave = asyncio.Event(), asyncio.Event()

    async def slow(_call: object) -> web.Response:
        entered.set()
        await leave.wait()
        return web.Response(text="done")

    app = make_app(
        [replace(ROUTES[3], handler=slow)],
        log=make_logger("info", "json", io.StringIO()),
        metrics=Metrics.create(),
        limits=Limits(body_bytes_max=1),
    )
    listener = await listen(app, "127.0.0.1:0", shutdown_s=5.0)
    request = asyncio.create_task(server.session.get(listener.base_url + "/healthz"))
    await entered.wait()
    started = time.monotonic()
    closing = asyncio.create_task(listener.close())
    leave.set()
    async with await request as response:
        assert await response.text() == "done"
    await closing
    assert time.monotonic() - started < 5
