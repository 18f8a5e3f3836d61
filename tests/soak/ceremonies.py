"""What the operators and the signers of the network do during a soak, one after the other, each by its commands."""

import asyncio
import random
import re
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from node.clock import rfc3339
from node.platform.keyfiles import descriptor_path
from node.setting_files import add_settings
from tests.soak.coordination import Coordination
from tests.soak.faults import LIMIT_S, Faults
from tests.soak.node import SoakNode
from tests.soak.process import pause
from tests.soak.restore import Restore, Restored
from tests.soak.site import Site

_CASE: Final = re.compile(r"^\s*([0-9a-f]{8}-[0-9a-f-]{27})\s+[0-9a-f-]{36}\s+(\S+)\s+(\S+)\s", re.MULTILINE)
#: So long before they count new keys are announced; in operation it is 48 h.
_NOTICE: Final = timedelta(seconds=6)


@dataclass(slots=True)
class Ceremonies:
    """Changes the directory and the nodes; `done` counts each kind."""

    site: Site
    nodes: Sequence[SoakNode]
    coordination: Coordination
    faults: Faults
    draw: random.Random
    say: Callable[[str], None]
    done: Counter[str] = field(default_factory=Counter)
    restored: list[Restored] = field(default_factory=list)
    #: Nodes whose keys changed, and when the old ones stopped to count.
    rotated: dict[str, datetime] = field(default_factory=dict)

    async def run(
        self, stop: asyncio.Event, seconds: float, gap_s: float, restores: Sequence[Restore], least: int
    ) -> None:
        """Do one after the other until told to stop, and `least` of them however long it takes.

        Restores are spread over `seconds`.
        """
        began = asyncio.get_running_loop().time()
        planned = self._planned(restores, seconds)
        kinds = list(self._kinds())
        deck: list[str] = []
        held = 0
        while not stop.is_set() or planned or held < least:
            await pause(stop, gap_s * self.draw.uniform(0.5, 1.5))
            if planned and (stop.is_set() or asyncio.get_running_loop().time() - began >= planned[0][0]):
                _, kind, work = planned.pop(0)
                await self._do(kind, work)
            elif not stop.is_set() or held < least:
                # Each kind comes once before one comes twice.
                deck = deck or self.draw.sample(kinds, len(kinds))
                kind = deck.pop()
                held += await self._do(kind, self._kinds()[kind])
        await self._clear()

    def _kinds(self) -> dict[str, Callable[[], Awaitable[object]]]:
        return {
            "suspension": self._suspend,
            "rotation": self._rotate,
            "address": self._move,
            "maintenance": self._maintain,
            "stolen keys": self._replace_stolen,
            "renewal": self._renew,
            "ruling": self._rule,
        }

    def _planned(
        self, restores: Sequence[Restore], seconds: float
    ) -> list[tuple[float, str, Callable[[], Awaitable[object]]]]:
        """Return when which backup is taken and when it is restored, one after the other."""
        step = seconds / max(1, len(restores))
        planned: list[tuple[float, str, Callable[[], Awaitable[object]]]] = []
        for number, one in enumerate(restores):
            planned.append((step * (number + 0.2), "backup", one.back_up))
            planned.append((step * (number + 0.6), "restore", lambda one=one: self._restore(one)))  # type: ignore[misc]
        return planned

    async def _do(self, kind: str, work: Callable[[], Awaitable[object]]) -> bool:
        """Hold a ceremony; tells whether there was anything to do."""
        began = asyncio.get_running_loop().time()
        if await work() is False:
            return False
        self.done[kind] += 1
        self.say(f"{kind}: {asyncio.get_running_loop().time() - began:.1f} s")
        return True

    async def _restore(self, one: Restore) -> None:
        self.restored.append(await one.restore())
        self.say(f"restored: {self.restored[-1]}")

    async def _during(self, state: str) -> None:
        node = self.draw.choice(self.nodes)
        await self.coordination.change("--state", f"{node.id}={state}")
        await pause(None, self.draw.uniform(2, 10))
        await self.coordination.change("--state", f"{node.id}=active")

    async def _suspend(self) -> None:
        await self._during("suspended")

    async def _maintain(self) -> None:
        await self._during("maintenance")

    async def _renew(self) -> None:
        await self.coordination.change("--root-days", "365", "--days", "365")

    async def _rotate(self) -> None:
        """New keys by announcement and switch, as `hotline keys rotate-signing` has it, without a restart."""
        node = self.draw.choice([one for one in self.nodes if one.id not in self.rotated] or self.nodes)
        await self._rotation(node, "announce", "--at", rfc3339(datetime.now(UTC) + _NOTICE))
        moment = datetime.now(UTC) + _NOTICE
        await self._rotation(node, "switch", "--at", rfc3339(moment))
        self.rotated[node.id] = moment

    async def _replace_stolen(self) -> None:
        """New keys at once: what the old ones signed from now on proves nothing."""
        node = self.draw.choice(self.nodes)
        now = datetime.now(UTC)
        await self._rotation(node, "compromised", "--at", rfc3339(now))
        self.rotated[node.id] = now

    async def _rotation(self, node: SoakNode, *words: str) -> None:
        await self.coordination.commands.run(node.file, "keys", "rotate-signing", *words)
        await self.coordination.change("--member", str(descriptor_path(node.settings)), "--urgent")

    async def _clear(self) -> None:
        """Move the keys out of the way that no signature needs any more; every clock is right by now."""
        for node in self.nodes:
            if node.id in self.rotated:
                await pause(None, (self.rotated[node.id] - datetime.now(UTC)).total_seconds() + 1)
                await self.coordination.commands.run(node.file, "keys", "rotate-signing", "clear")

    async def _move(self) -> None:
        """A node moves to another address, published first or restarted first."""
        node = self.draw.choice([one for one in self.nodes if one.id != self.site.fetching])
        url = await self.site.move(node.node)
        await self.coordination.commands.run(node.file, "descriptor", "--base-url", url)
        member = str(descriptor_path(node.settings))
        published_first = self.draw.random() < 0.5
        if published_first:
            await self.coordination.change("--member", member)
        async with self.faults.holding({node.id}):
            await node.end(signal.SIGTERM, LIMIT_S)
            add_settings(node.file, {"base_url": url})
            node.read_settings()
            node.start()
            await node.serving(LIMIT_S)
        if not published_first:
            await self.coordination.change("--member", member)

    async def _rule(self) -> bool:
        """Decide a dispute that waits at the desk, if there is one; tells whether it did."""
        coordinator = self.coordination.coordinator
        listed = await self.coordination.commands.attempt(coordinator.file, "desk", "list")
        cases = _CASE.findall(listed.text) if listed.status == 0 else []
        if not cases:
            return False
        case, *parties = self.draw.choice(cases)
        custodian = self.draw.choice(parties)
        done = await self.coordination.commands.attempt(
            coordinator.file, "desk", "decide", case, "--custodian", custodian, "--country", custodian[:2].upper()
        )
        return done.status == 0
