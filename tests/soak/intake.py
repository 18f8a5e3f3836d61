"""Hands reports in at a node as a machine of the hotline would, each under its reference, until it is acknowledged."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from node.platform.database import DATABASE_ERRORS
from tests.soak.node import SoakNode
from tests.soak.site import address

#: Stands in every reported URL, and so may stand nowhere else.
MARK: Final = "geheimnis"
_TAKEN: Final = frozenset({200, 201})
_LATER: Final = frozenset({503})
_DONE: Final = frozenset({200, 202})
_REPORTS_MAX: Final = 8
#: The share of calls after which something is done about an item that came from a peer.
_ACTS: Final = 0.5


@dataclass(slots=True)
class Feed:
    """The reports handed in at one node: the item that each reference was acknowledged with, and where it is hosted."""

    node: SoakNode
    countries: Sequence[str]
    session: aiohttp.ClientSession
    draw: random.Random
    handed_in: int = 0
    tries: int = 0
    acknowledged: dict[str, str] = field(default_factory=dict)
    abroad: set[str] = field(default_factory=set)
    acts: Counter[str] = field(default_factory=Counter)

    async def run(self, stop: asyncio.Event, reports_per_s: float) -> None:
        """Hand reports in at about this rate until told to stop, and then until the last is acknowledged."""
        while not stop.is_set():
            count = self.draw.randint(1, _REPORTS_MAX)
            await self._hand_in([self._report() for _ in range(count)])
            if self.draw.random() < _ACTS:
                await self._act()
            await _pause(stop, count / reports_per_s * self.draw.uniform(0.5, 1.5))

    def _report(self) -> dict[str, Any]:
        number = self.handed_in
        self.handed_in += 1
        country = self.draw.choice(self.countries)
        reference = f"{self.node.country}-{number:07}"
        # Some are reported again, and some wait for a person.
        shown = number if self.draw.random() > 0.05 else self.draw.randrange(number + 1)
        said: dict[str, Any] = {
            "url": f"http://{address(country, number)}/{MARK}/{self.node.country}/{shown}",
            "reference": reference,
        }
        if self.draw.random() > 0.1:
            said["qualification"] = {"classification": "national"}
            if country != self.node.country:
                self.abroad.add(reference)
        return said

    async def _hand_in(self, reports: list[dict[str, Any]]) -> None:
        pause = asyncio.Event()
        while (taken := await self._try(reports)) is None:
            await _pause(pause, 0.2)
        for report, one in zip(reports, taken, strict=True):
            self.acknowledged[report["reference"]] = one["items"][0]["id"]

    async def _act(self) -> None:
        """Do something about one item that a peer gave us, as an analyst would; a fault may come between."""
        wishes: dict[str, tuple[str, str, str, dict[str, str]]] = {
            "moved": ("assigned", "POST", "move", {"ip": address(self.draw.choice(self.countries), 0)}),
            "assessed": ("assigned", "PATCH", "assessment", {"classification": "national"}),
            "notified": ("kept", "POST", "actions", {"action": "hoster-notified"}),
            "removed": ("kept", "POST", "actions", {"action": "removed"}),
        }
        kind = self.draw.choice(list(wishes))
        state, method, path, wish = wishes[kind]
        try:
            async with asyncio.timeout(10):
                async with self.node.db.transaction("test.held") as tx:
                    item = await tx.value(
                        "SELECT id FROM items WHERE received_stream IS NOT NULL AND state = $1 "
                        "ORDER BY random() LIMIT 1",
                        state,
                    )
                if item is None:
                    return
                async with self.session.request(
                    method, f"{self.node.api}/api/v1/items/{item}/{path}", json=wish, headers=self.node.headers
                ) as answer:
                    self.acts[kind] += answer.status in _DONE
        except (*DATABASE_ERRORS, aiohttp.ClientError, TimeoutError):
            return

    async def _try(self, reports: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
        """Return the node's answer; None when there was none, or it asks for patience."""
        self.tries += 1
        try:
            async with self.session.post(
                f"{self.node.api}/api/v1/reports",
                json={"reports": reports},
                headers=self.node.headers,
                timeout=aiohttp.ClientTimeout(total=10),
            ) as answer:
                if answer.status in _LATER:
                    return None
                assert answer.status in _TAKEN, f"{self.node.id} answered {answer.status}: {await answer.text()}"
                taken: list[dict[str, Any]] = (await answer.json())["reports"]
                return taken
        except (aiohttp.ClientError, TimeoutError):
            return None


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
