"""The loops of a running node: locate, dispatch, deliver to each peer, apply, and the housekeeping on a schedule.

Each loop must survive whatever one round meets: it logs, counts and goes on. A wake-up only saves waiting.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from node.hotline.assembly import Node
from node.hotline.store import contacts, inbound, items, outbound
from node.platform.database import DATABASE_ERRORS
from protocol.directory import NodeEntry

#: After an unforeseen error a loop rests this long, so that it cannot spin.
_REST_S = 1.0
#: Locating and applying step aside for callers at the doors, at most so long for each round.
_GIVE_WAY_S = 0.5


class Jobs:
    """Starts, watches and stops the loops of one process."""

    def __init__(self, node: Node) -> None:
        """Take the assembled node; nothing runs yet."""
        self._node = node
        self._stop = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._scheduler = AsyncIOScheduler(timezone="UTC")
        self._delivering: dict[str, asyncio.Task[None]] = {}
        # The directory may have changed while no process ran.
        self._to_reroute = True

    def start(self) -> None:
        """Start every loop."""
        node = self._node
        self._spawn(self._listen())
        self._spawn(self._loop("locate", "locate", self._locate))
        self._spawn(self._loop("dispatch", "dispatch", lambda: node.dispatcher.run_once(node.directory())))
        self._spawn(self._loop("apply", "apply", self._apply))
        self._spawn(self._supervise_deliveries())
        every = self._scheduler.add_job
        # The scheduler goes by the machine's clock, and so does its first round.
        every(self._survive, "interval", args=("prune", self._prune), seconds=60)
        every(self._survive, "interval", args=("refresh", self._refresh), seconds=10, next_run_time=datetime.now(UTC))
        every(self._survive, "interval", args=("gauges", self._gauges), seconds=15)
        self._scheduler.start()

    async def stop(self) -> None:
        """Let every loop finish what it has in hand, at most `shutdown_s` seconds."""
        self._stop.set()
        self._scheduler.shutdown(wait=False)
        self._node.signals.wake("*")
        deadline = self._node.clock.monotonic() + self._node.settings.shutdown_s
        # A loop may begin a last delivery while it is being waited for.
        while pending := {*self._tasks, *self._delivering.values()}:
            left_s = deadline - self._node.clock.monotonic()
            _, late = await asyncio.wait(pending, timeout=max(0.0, left_s))
            if left_s <= 0:
                for task in late:
                    task.cancel()
                if late:
                    await asyncio.wait(late)
            # Their own callbacks take them off the list.
            await asyncio.sleep(0)

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _survive(self, name: str, work: Callable[[], Awaitable[object]]) -> object:
        """Run one round; whatever it meets is logged and counted, never raised (STYLE: one of the two such loops)."""
        try:
            return await work()
        except DATABASE_ERRORS as error:
            self._node.log.warning("database not available", action=f"{name}.database", kind=type(error).__name__)
        except Exception as error:  # noqa: BLE001 - the loop must survive; type and place are logged, never content
            self._node.log.error(  # noqa: TRY400 - a traceback could hold content
                "a loop met an unforeseen error", action=f"{name}.failed", kind=type(error).__name__, at=_place(error)
            )
        self._node.metrics.loop_errors.labels(loop=name).inc()
        return None

    async def _listen(self) -> None:
        """Hear what other processes notify, for as long as this one runs."""
        node = self._node
        listen = partial(node.db.listen, node.signals.wake, stop=self._stop, retry_s=node.settings.poll_s)
        while not self._stop.is_set():
            await self._survive("listen", listen)
            await self._pause(_REST_S)

    async def _loop(self, name: str, topic: str, run_once: Callable[[], Awaitable[int]]) -> None:
        while not self._stop.is_set():
            done = await self._survive(name, run_once)
            if done is None:
                await self._pause(_REST_S)
            elif not done:
                await self._node.signals.wait(topic, self._node.settings.poll_s)

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), seconds)

    async def _supervise_deliveries(self) -> None:
        """Keep one delivery running for each peer that has a backlog and need not be left alone."""
        while not self._stop.is_set():
            due = await self._survive("deliver", self._peers_due)
            for peer in due if isinstance(due, list) else []:
                if peer.id not in self._delivering and not self._stop.is_set():
                    task = asyncio.ensure_future(self._deliver(peer))
                    self._delivering[peer.id] = task
                    task.add_done_callback(partial(self._delivered, peer.id))
            await self._node.signals.wait("deliver", self._node.settings.poll_s)

    def _delivered(self, peer_id: str, _task: asyncio.Task[None]) -> None:
        self._delivering.pop(peer_id, None)

    async def _peers_due(self) -> list[NodeEntry]:
        node = self._node
        async with node.db.transaction("deliver.due") as tx:
            backlog = await outbound.peers_with_backlog(tx)
            known = {contact.node_id: contact for contact in await contacts.contacts(tx, backlog)}
        now, directory = node.clock.now(), node.directory()
        # No wait is longer than the cap: one that is was written while our clock was ahead.
        rests = timedelta(0), timedelta(seconds=node.settings.backoff_cap_s)
        due = []
        for peer_id in backlog:
            entry = directory.nodes.get(peer_id)
            retry_at = known[peer_id].retry_at if peer_id in known else None
            if entry is None or entry.state != "active":
                continue
            if retry_at is None or not rests[0] < retry_at - now <= rests[1]:
                due.append(entry)
        return due

    async def _deliver(self, peer: NodeEntry) -> None:
        """Deliver to one peer, unless another process does."""

        async def run() -> None:
            node = self._node
            async with node.db.session_lock(f"deliver:{peer.id}") as held:
                if held is not None:
                    await node.sender.deliver(peer, node.directory(), lambda: self._stop.is_set() or not held())

        await self._survive("deliver", run)

    async def _locate(self) -> int:
        """Locate what is due. Who reports is answered first; then many items are located together."""
        await self._node.give_way.turn(_GIVE_WAY_S)
        return await self._node.locating.run_once()

    async def _apply(self) -> int:
        """Apply what is stored. A receipt releases the sender, so it comes first; what it covers is safe."""
        await self._node.give_way.turn(_GIVE_WAY_S)
        return await self._node.applier.run_once(self._node.directory())

    async def _prune(self) -> None:
        node = self._node
        now = node.clock.now()
        async with node.db.transaction("prune.nonces") as tx:
            await inbound.forget_nonces(tx, now - timedelta(seconds=node.settings.nonce_retention_s))

    async def _refresh(self) -> None:
        """Look for a newer directory and newer geolocation files."""
        node = self._node
        if await node.membership.refresh():
            self._to_reroute = True
            node.log.info(
                "a new membership directory is in use", action="directory.changed", version=node.directory().version
            )
        if self._to_reroute:
            await node.rerouter.run()
            self._to_reroute = False
        await asyncio.to_thread(node.locator.refresh)

    async def _gauges(self) -> None:
        node = self._node
        now = node.clock.now()
        async with node.db.transaction("gauges.read") as tx:
            depths = await items.queue_depths(tx)
            met = await contacts.contacts(tx)
        for queue, depth in depths.items():
            node.metrics.queue_depth.labels(queue=queue).set(depth)
        for contact in met:
            if contact.last_reached_at is not None:
                age = (now - contact.last_reached_at).total_seconds()
                node.metrics.peer_last_contact_seconds.labels(peer=contact.node_id).set(age)
            wait_s = 0.0 if contact.retry_at is None else max(0.0, (contact.retry_at - now).total_seconds())
            node.metrics.peer_backoff_seconds.labels(peer=contact.node_id).set(wait_s)
            node.metrics.peer_clock_skew_seconds.labels(peer=contact.node_id).set(contact.clock_skew_s or 0)
        for info in node.locator.databases(now):
            node.metrics.database_age_days.labels(file=info.path.name).set(info.age_days)
        node.metrics.directory_age_seconds.set((now - node.directory().issued_at).total_seconds())


def _place(error: BaseException) -> str:
    """Name the file and line an error comes from, without its text (which could hold content)."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "unknown" if trace is None else f"{trace.tb_frame.f_code.co_filename.rsplit('/', 1)[-1]}:{trace.tb_lineno}"
