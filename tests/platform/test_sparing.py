"""Log lines that others can cause are few, whatever they do, and what was left out is said."""

import asyncio
import io
import json
from typing import Any

from node.platform.sparing import Sparing
from node.platform.telemetry import Logger, make_logger


class Log:
    def __init__(self) -> None:
        self._lines = io.StringIO()
        self.to: Logger = make_logger("info", "json", self._lines)

    def said(self, action: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self._lines.getvalue().splitlines()]
        return [line for line in lines if line["action"] == action]


def refuse(sparing: Sparing, log: Log, *, peer: str | None = "a.hotline.example", code: str = "malformed") -> None:
    sparing.say(log.to.warning, "peer request refused", action="peer.refused", peer=peer, code=code)


async def test_a_flood_of_one_kind_writes_few_lines_and_one_that_counts_the_rest() -> None:
    log, sparing = Log(), Sparing(window_s=0.05, lines_max=3)
    for _ in range(1000):
        refuse(sparing, log)
    assert len(log.said("peer.refused")) == 3
    over = asyncio.Event()
    # Set after the window's own timer, which was set before.
    asyncio.get_running_loop().call_later(0.05, over.set)
    await over.wait()
    (said,) = log.said("log.spared")
    members = {name: said[name] for name in ("of", "peer", "code", "count", "level")}
    assert members == {
        "of": "peer.refused",
        "peer": "a.hotline.example",
        "code": "malformed",
        "count": 997,
        "level": "warning",
    }
    # The next minute begins anew.
    refuse(sparing, log)
    assert len(log.said("peer.refused")) == 4


async def test_another_peer_another_code_and_strangers_have_lines_of_their_own() -> None:
    log, sparing = Log(), Sparing(lines_max=1)
    for _ in range(3):
        refuse(sparing, log)
        refuse(sparing, log, peer="b.hotline.example")
        refuse(sparing, log, code="replay")
        refuse(sparing, log, peer=None)
    assert len(log.said("peer.refused")) == 4


async def test_what_was_left_out_is_said_at_the_end_too() -> None:
    log, sparing = Log(), Sparing(lines_max=1)
    refuse(sparing, log)
    refuse(sparing, log, code="replay")
    refuse(sparing, log, code="replay")
    sparing.end()
    assert [(said["code"], said["count"]) for said in log.said("log.spared")] == [("replay", 1)]
