"""What happens to the nodes during a soak, drawn from a seed: one fault a node at a time, each put right."""

import asyncio
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from tests.soak.member import set_clock
from tests.soak.process import SoakProcess, pause
from tests.soak.site import Site, crash

#: Longer than any other session on the machine makes a start or an end take.
LIMIT_S: Final = 240.0
#: Before and behind the window in which a peer's clock is taken for right, which is 300 s.
_JUMPS_S: Final = (-900.0, -400.0, -120.0, 90.0, 290.0, 420.0, 1200.0)


@dataclass(slots=True)
class Faults:
    """Does harm and puts it right; `done` counts each kind."""

    site: Site
    nodes: Sequence[SoakProcess]
    coordinator: SoakProcess
    draw: random.Random
    done: Counter[str] = field(default_factory=Counter)
    _busy: set[str] = field(default_factory=set)
    _reserved: set[str] = field(default_factory=set)
    _under_way: set["asyncio.Task[None]"] = field(default_factory=set)

    async def run(self, stop: asyncio.Event, gap_s: float) -> None:
        """Begin a fault about every `gap_s` seconds until told to stop; then wait until all are over."""
        kinds: dict[str, tuple[int, Callable[[SoakProcess], Awaitable[None]]]] = {
            "kill": (4, self._kill),
            "end": (1, self._end),
            "stop": (3, self._stop),
            "clock": (3, self._clock),
            "cut": (3, self._cut),
            "drop": (2, self._drop),
            "certificate": (1, self._certificate),
            "coordinator": (2, self._coordinator),
        }
        names = list(kinds)
        while not stop.is_set():
            await pause(stop, gap_s * self.draw.uniform(0.3, 1.7))
            if self.draw.random() < 0.08:
                self._begin("database", self._database(self.draw.randrange(len(self.site.servers))))
                continue
            kind = self.draw.choices(names, [kinds[name][0] for name in names])[0]
            among = [self.coordinator] if kind == "coordinator" else self.nodes
            free = [node for node in among if node.id not in self._busy | self._reserved]
            if free and not stop.is_set():
                node = self.draw.choice(free)
                self._begin(kind, self._one(node, kinds[kind][1]))
        if self._under_way:
            await asyncio.gather(*self._under_way)

    def _begin(self, kind: str, work: Awaitable[None]) -> None:
        self.done[kind] += 1
        task = asyncio.ensure_future(work)
        self._under_way.add(task)
        task.add_done_callback(self._over)

    def _over(self, task: "asyncio.Task[None]") -> None:
        if task.cancelled() or task.exception() is None:
            self._under_way.discard(task)

    async def _one(self, node: SoakProcess, harm: Callable[[SoakProcess], Awaitable[None]]) -> None:
        self._busy.add(node.id)
        await harm(node)
        self._busy.discard(node.id)

    @asynccontextmanager
    async def holding(self, ids: Collection[str]) -> AsyncIterator[None]:
        """Do no harm to these while the block runs; it begins when all harm that was done to them is put right."""
        wanted = set(ids)
        while wanted & self._reserved:
            await pause(None, 0.1)
        self._reserved |= wanted
        try:
            while wanted & self._busy:
                await pause(None, 0.1)
            yield
        finally:
            self._reserved -= wanted

    async def _wait(self, low_s: float, high_s: float) -> None:
        await pause(None, self.draw.uniform(low_s, high_s))

    async def _kill(self, node: SoakProcess) -> None:
        status = await node.end(signal.SIGKILL, LIMIT_S)
        assert status == -signal.SIGKILL, f"{node.id} ended with {status} before it was killed"
        await self._start_again(node)

    async def _start_again(self, node: SoakProcess) -> None:
        await self._wait(0.2, 3)
        node.start()
        await node.serving(LIMIT_S)

    async def _end(self, node: SoakProcess) -> None:
        status = await node.end(signal.SIGTERM, LIMIT_S)
        # One that is told to end while it still starts has no handler yet.
        assert status in {0, -signal.SIGTERM}, f"{node.id} ended with {status}\n{node.tail()}"
        await self._start_again(node)

    async def _stop(self, node: SoakProcess) -> None:
        node.send(signal.SIGSTOP)
        await self._wait(1, 12)
        node.send(signal.SIGCONT)

    async def _clock(self, node: SoakProcess) -> None:
        set_clock(node.clock, self.draw.choice(_JUMPS_S))
        await self._wait(3, 15)
        set_clock(node.clock, 0.0)

    async def _cut(self, node: SoakProcess) -> None:
        if node.id == self.site.fetching:
            # Nobody calls it anyway.
            await self._stop(node)
            return
        relay = self.site.relays[node.id]
        relay.open = False
        relay.drop()
        await self._wait(1, 12)
        relay.open = True

    async def _drop(self, node: SoakProcess) -> None:
        """Cut the next answers somewhere, and every connection."""
        relay = self.site.relays[node.id]
        relay.cuts.extend(self.draw.randrange(0, 3000) for _ in range(3))
        await self._wait(0.5, 2)
        relay.cuts.clear()
        relay.drop()

    async def _certificate(self, node: SoakProcess) -> None:
        certificate = node.settings.peer_tls_certificate_file
        assert certificate is not None
        self.site.authority.issue(certificate.stem)

    async def _coordinator(self, coordinator: SoakProcess) -> None:
        """Kill the coordinator, or stop it, or cut it off: nodes go on by what they know, and by each other."""
        harm = self.draw.choices([self._kill, self._stop, self._cut], [3, 1, 1])[0]
        self.done[f"coordinator:{harm.__name__.strip('_')}"] += 1
        await harm(coordinator)

    async def _database(self, number: int) -> None:
        """Crash a database server, but not while a node on it starts, which without it would rightly not start."""
        everybody = (*self.nodes, self.coordinator)
        on_it = {one.id for one in everybody if self.site.server_of(one.id) == number}
        if on_it & self._reserved:
            self.done["database"] -= 1
            return
        async with self.holding(on_it):
            await asyncio.to_thread(crash, self.site.servers[number])
