"""What a node writes to its log while everything goes wrong: one JSON object a line, and nothing that was reported."""

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from node.platform.telemetry import LibraryLogs, make_logger
from tests.api.door import CANARY, Door, database_gone, open_door
from tests.hotline.network import ILLEGAL, eventually
from tests.world import ADDRESS, World

URL = f"http://{ADDRESS['NL']}/{CANARY}"


class Log:
    """Everything the node and its libraries wrote."""

    def __init__(self) -> None:
        self.stream = io.StringIO()
        self.logger = make_logger("debug", "json", self.stream)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream.getvalue().splitlines()]

    def actions(self) -> set[str]:
        return {line["action"] for line in self.lines()}

    async def until(self, action: str) -> None:
        """Wait until something was done that is logged."""

        async def logged() -> bool:
            return action in self.actions()

        await eventually(logged)

    def check(self) -> None:
        """Check that nothing of what was reported is there, and that each line says what it is."""
        text = self.stream.getvalue()
        for secret in (CANARY, ADDRESS["NL"], "://"):
            assert secret not in text.lower()
        for line in self.lines():
            assert {"event", "level", "time", "action"} <= line.keys()


@pytest.fixture
def log() -> Iterator[Log]:
    """The node's log, with what libraries say through `logging` in it, as `hotline serve` has it."""
    made = Log()
    with libraries_heard(made):
        yield made


@contextmanager
def libraries_heard(log: Log) -> Iterator[None]:
    root = logging.getLogger()
    handler = LibraryLogs(log.logger)
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


class LeakyError(Exception):
    """An error of some library that quotes what it was given."""


async def test_a_run_full_of_errors_leaves_no_trace_of_what_was_reported(
    world: World, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.create_field_keys(world.nodes[:1])
    async with open_door(world.nodes[0], log=log.logger) as door:
        # Refused at the door.
        for body in (
            b"\xff" + CANARY.encode(),
            {"url": f"javascript:{CANARY}"},
            {CANARY: 1},
            {"url": URL, "note": "\x01"},
        ):
            await door.report(body)
        for path in (f"/{CANARY}", f"/api/v1/items/{CANARY}", f"/api/v1/items?{CANARY}={CANARY}"):
            await door.ask("GET", path)
        for request in (
            f"GET {URL} HTTP/9.9\r\n\r\n",
            f"{CANARY} / HTTP/1.1\r\n\r\n",
            f"GET / HTTP/1.1\r\n{URL}\r\n\r\n",
        ):
            await door.raw(request.encode())
        # Taken, and its peer is not there.
        reply = await door.report({"url": URL, "reference": CANARY, "qualification": ILLEGAL})
        item = reply.json()["reports"][0]["items"][0]["id"]
        await door.until(item, "sent")
        await log.until("deliver.failed")
        # A handler and a loop meet errors that quote the URL.
        await _break_a_handler(door, item, monkeypatch)
        await log.until("web.failed")
        await _break_a_loop(door, monkeypatch)
        await log.until("locate.failed")
        # The database goes away in the middle.
        async with database_gone(door.node.db, world.nodes[1].settings.database_url):
            await door.ask("GET", "/api/v1/items")
            await door.report({"url": f"{URL}/3"})
            await log.until("locate.database")
    assert {
        "serve.start",
        "deliver.failed",
        "web.failed",
        "web.unavailable",
        "locate.failed",
        "serve.end",
    } <= log.actions()
    log.check()


async def _break_a_handler(door: Door, item: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def leak(*_: object) -> str:
        raise LeakyError(URL)

    with monkeypatch.context() as patch:
        patch.setattr("node.hotline.api.items.defang", leak)
        reply = await door.ask("GET", f"/api/v1/items/{item}")
        assert reply.errors(500, "internal") == []


async def _break_a_loop(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    def leak(_: object) -> str:
        raise LeakyError(URL)

    monkeypatch.setattr("node.hotline.flows.locate.located_name", leak)
    await door.report({"url": f"{URL}/2"})


async def test_a_library_that_complains_is_heard_without_its_words(log: Log) -> None:
    logging.getLogger("asyncio").error("Task exception was never retrieved: %s", URL)
    logging.getLogger("aiohttp.server").error("Error handling request %s", URL, exc_info=LeakyError(URL))
    logging.getLogger("dns").info(URL)
    said = log.lines()
    assert [line["library"] for line in said] == ["asyncio", "aiohttp.server"]
    assert said[1]["error"] == "LeakyError"
    log.check()
