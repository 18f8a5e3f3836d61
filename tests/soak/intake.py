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
from tests.soak.process import pause
from tests.soak.site import ORPHANED, address

#: Stands in every reported URL, and so may stand nowhere else.
MARK: Final = "geheimnis"
_TAKEN: Final = frozenset({200, 201})
_LATER: Final = frozenset({503})
_DONE: Final = frozenset({200, 202})
_REPORTS_MAX: Final = 8
#: The share of calls after which something is done about an item that came from a peer.
_ACTS: Final = 0.5
#: The share of reports of what is hosted where there is no hotline.
_ORPHANS: Final = 0.03
#: Of the wished rate so much is left at least, or there would be nothing to account for.
_SHARE_MIN: Final = 0.2
#: All nodes together are asked what waits; a machine that has time left answers much sooner.
_ASKED_S: Final = 1.5


@dataclass(slots=True)
class Pace:
    """How many reports a second are handed in at all nodes together; what the machine cannot follow is not asked of it.

    `slowest` is the smallest share of the wished rate that there was.
    """

    reports_per_s: float
    waiting_max: int
    share: float = 1.0
    slowest: float = 1.0

    def look(self, waiting: int, asked_s: float) -> None:
        """Go slower while more waits at the nodes than `waiting_max`, or the machine took long to tell; else faster."""
        busy = waiting > self.waiting_max or asked_s > _ASKED_S
        self.share = max(_SHARE_MIN, self.share * 0.6) if busy else min(1.0, self.share * 1.25)
        self.slowest = min(self.slowest, self.share)

    def wait_s(self, count: int, feeds: int) -> float:
        """Return for how long one of so many feeds waits after it has handed in `count` reports."""
        return count * feeds / (self.reports_per_s * self.share)


@dataclass(slots=True)
class Feed:
    """The reports handed in at one node: the item that each reference was acknowledged with, and where it is hosted."""

    node: SoakNode
    countries: Sequence[str]
    session: aiohttp.ClientSession
    draw: random.Random
    #: The node whose items nobody does anything about, once it was said: a restore could not bring back what it sent.
    spared: str = ""
    handed_in: int = 0
    tries: int = 0
    acknowledged: dict[str, str] = field(default_factory=dict)
    reports: dict[str, dict[str, Any]] = field(default_factory=dict)
    #: Items that a reference was acknowledged with before its report had to be handed in again, by the reference.
    replaced: dict[str, list[str]] = field(default_factory=dict)
    abroad: set[str] = field(default_factory=set)
    acts: Counter[str] = field(default_factory=Counter)

    async def run(self, stop: asyncio.Event, pace: Pace, feeds: int) -> None:
        """Hand reports in at this pace until told to stop, and then until the last is acknowledged."""
        while not stop.is_set():
            count = self.draw.randint(1, _REPORTS_MAX)
            await self._hand_in([self._report() for _ in range(count)])
            if self.draw.random() < _ACTS:
                await self._act()
            await pause(stop, pace.wait_s(count, feeds) * self.draw.uniform(0.5, 1.5))

    async def hand_in_again(self, references: Sequence[str]) -> int:
        """Hand in again what was acknowledged after a backup that was restored; returns how many items are new."""
        new = 0
        for first in range(0, len(references), _REPORTS_MAX):
            some = references[first : first + _REPORTS_MAX]
            before = {reference: self.acknowledged[reference] for reference in some}
            await self._hand_in([self.reports[reference] for reference in some])
            for reference, item in before.items():
                if self.acknowledged[reference] != item:
                    self.replaced.setdefault(reference, []).append(item)
                    new += 1
        return new

    def _report(self) -> dict[str, Any]:
        number = self.handed_in
        self.handed_in += 1
        country = ORPHANED if self.draw.random() < _ORPHANS else self.draw.choice(self.countries)
        reference = f"{self.node.country}-{number:07}"
        # Some are reported again, and some wait for a person.
        shown = number if self.draw.random() > 0.05 else self.draw.randrange(number + 1)
        said: dict[str, Any] = {
            "url": f"http://{address(country, number)}/{MARK}/{self.node.country}/{shown}",
            "reference": reference,
        }
        if self.draw.random() > 0.1:
            said["qualification"] = {"classification": "national"}
            if country not in {self.node.country, ORPHANED}:
                self.abroad.add(reference)
        return said

    async def _hand_in(self, reports: list[dict[str, Any]]) -> None:
        while (taken := await self._try(reports)) is None:
            await pause(None, 0.2)
        for report, one in zip(reports, taken, strict=True):
            self.acknowledged[report["reference"]] = one["items"][0]["id"]
            self.reports[report["reference"]] = report

    async def _act(self) -> None:
        """Do something about one item, as an analyst would, most often one of a peer; a fault may come between."""
        wishes: dict[str, tuple[str, bool, str, str, dict[str, str]]] = {
            "moved": ("assigned", False, "POST", "move", {"ip": address(self.draw.choice(self.countries), 0)}),
            "assessed": ("assigned", False, "PATCH", "assessment", {"classification": "national"}),
            "notified": ("kept", False, "POST", "actions", {"action": "hoster-notified"}),
            "removed": ("kept", False, "POST", "actions", {"action": "removed"}),
            "corrected": ("sent", True, "POST", "corrections", {"site_type": "forum"}),
            "withdrawn": ("sent", True, "POST", "withdrawal", {"reason": "reported-in-error"}),
        }
        kind = self.draw.choices(list(wishes), [3, 3, 3, 3, 1, 1])[0]
        state, own, method, path, wish = wishes[kind]
        try:
            async with asyncio.timeout(10):
                async with self.node.db.transaction("test.held") as tx:
                    item = await tx.value(
                        "SELECT i.id FROM items i LEFT JOIN inbound_streams s ON s.id = i.received_stream "
                        "WHERE i.state = $1 AND (s.id IS NULL) = $2 AND coalesce(s.peer, '') <> $3 "
                        "ORDER BY random() LIMIT 1",
                        state,
                        own,
                        self.spared or "nobody",
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
