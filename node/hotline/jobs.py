"""The loops of a running node: locate, dispatch, deliver to each peer, apply, judge, and housekeeping on a schedule.

Each loop must survive whatever one round meets: it logs, counts and goes on. A wake-up only saves waiting.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeAlias

from apscheduler.schedulers.asyncio import AsyncIOScheduler

from node.hotline.assembly import Node
from node.hotline.domain.slots import Slots
from node.hotline.pulling import Pulls
from node.hotline.rounds import Rounds
from node.hotline.store import contacts, heads, items, outbound
from node.hotline.store.standing import read_standing
from node.platform.database import DATABASE_ERRORS
from node.platform.membership import set_expiry_gauges
from node.platform.nonces import forget_nonces
from node.platform.trust import Freshness
from protocol.codes import Delivery
from protocol.directory import NodeEntry

#: After an unforeseen error a loop rests this long, so that it cannot spin.
_REST_S = 1.0
#: After so long a delivery makes room for one that waits for a place.
_TURN_S = 5.0
#: How often an old directory is complained of.
_REMIND_S = 3600.0
#: Locating and applying step aside for callers at the doors, at most so long for each round.
_GIVE_WAY_S = 0.5


#: So often it is looked whether a peer is due for the daily comparison.
_COMPARE_S = 600
#: So often it is looked for what peers did not take in time, or cannot take any more.
_FALLBACK_S = 60
#: So often it is looked for items whose country has a hotline: one came late, could not go, or was refused.
_ORPHANS_S = 60
#: So often it is looked for what a peer refused to believe and is told again.
_RETELL_S = 60


#: Something to be done in a round, and the loop whose failure it would be.
_Step: TypeAlias = tuple[str, Callable[[], Awaitable[object]]]


class Jobs:
    """Starts, watches and stops the loops of one process."""

    def __init__(self, node: Node, rounds: Rounds) -> None:
        """Take the assembled node and who it has met; nothing runs yet."""
        self._node = node
        self._rounds = rounds
        self._stop = asyncio.Event()
        self._pulls = Pulls(node, self._stop, self._survive)
        self._tasks: set[asyncio.Task[None]] = set()
        # A round that is late, because the process was stopped or busy, is still run, once.
        self._scheduler = AsyncIOScheduler(timezone="UTC", job_defaults={"misfire_grace_time": None, "coalesce": True})
        self._delivering: dict[str, asyncio.Task[None]] = {}
        self._slots = Slots(node.settings.deliveries_max, _TURN_S)
        self._suspects: set[str] = set()
        self._told_freshness = Freshness.FRESH, 0.0
        self._directory = node.directory()
        # The directory may have changed while no process ran.
        self._to_do = self._after_a_change()
        #: Since when peers could be asked without a break, on the monotonic clock; None while nothing may be sent.
        self._asking_since_s: float | None = None

    def start(self) -> None:
        """Start every loop."""
        node = self._node
        self._spawn(self._listen())
        self._spawn(self._loop("locate", "locate", self._locate))
        self._spawn(self._loop("dispatch", "dispatch", lambda: node.dispatcher.run_once(node.directory())))
        self._spawn(self._loop("apply", "apply", self._apply))
        self._spawn(self._loop("judge", "judge", self._judge))
        self._spawn(self._loop("move", "move", lambda: node.moving.relocator.run_once(node.directory())))
        self._spawn(self._loop("pull", "pull", self._pulls.supervise))
        self._spawn(self._settle_disputes())
        self._spawn(self._supervise_deliveries())
        every = self._scheduler.add_job
        # The scheduler goes by the machine's clock, and so does its first round.
        every(self._round, "interval", args=("prune", self._prune), seconds=60)
        every(self._round, "interval", args=("refresh", self._refresh), seconds=10, next_run_time=datetime.now(UTC))
        every(self._round, "interval", args=("compare", self._rounds.compare_due), seconds=_COMPARE_S)
        every(self._round, "interval", args=("gauges", self._gauges), seconds=15)
        every(self._round, "interval", args=("fallback", self._fallback), seconds=_FALLBACK_S)
        every(self._round, "interval", args=("orphans", self._orphans), seconds=_ORPHANS_S)
        every(self._round, "interval", args=("retell", self._retell), seconds=_RETELL_S)
        self._scheduler.start()

    async def stop(self) -> None:
        """Let every loop finish what it has in hand, at most `shutdown_s` seconds."""
        self._stop.set()
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
        self._node.signals.wake("*")
        deadline = self._node.clock.monotonic() + self._node.settings.shutdown_s
        await self._pulls.end()
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

    async def _round(self, name: str, work: Callable[[], Awaitable[object]]) -> None:
        """Run one scheduled round; the end of the process ends it, and what it had in hand is rolled back."""
        try:
            await self._survive(name, work)
        except asyncio.CancelledError:
            # The scheduler would report it as a fault of the round.
            if not self._stop.is_set():
                raise

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

        def heard(topic: str) -> None:
            node.signals.wake(topic)
            if topic == "deliver":
                # Who fetches waits for the same news as who delivers.
                node.signals.wake("outbox")

        listen = partial(node.db.listen, heard, stop=self._stop, retry_s=node.settings.poll_s)
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
            if isinstance(due, list) and not self._stop.is_set():
                entries = {peer.id: peer for peer in due}
                for peer_id in self._slots.admit(entries, self._suspects, self._node.clock.monotonic()):
                    task = asyncio.ensure_future(self._deliver(entries[peer_id]))
                    self._delivering[peer_id] = task
                    task.add_done_callback(partial(self._delivered, peer_id))
            await self._node.signals.wait("deliver", self._node.settings.poll_s)

    def _delivered(self, peer_id: str, _task: asyncio.Task[None]) -> None:
        self._delivering.pop(peer_id, None)
        self._slots.done(peer_id)
        if self._slots.waiting:
            self._node.signals.wake("deliver")

    async def _peers_due(self) -> list[NodeEntry]:
        node = self._node
        if node.membership.has_expired():
            # Who is a member is not known any more: what is written waits (PROTOCOL section 2).
            return []
        async with node.db.transaction("deliver.due") as tx:
            stops = await heads.stops(tx)
            # Whom a recovery left out is greeted, though nothing waits for it.
            backlog = sorted({*await outbound.peers_with_backlog(tx), *stops.left_out})
            known = {contact.node_id: contact for contact in await contacts.contacts(tx, backlog)}
        self._suspects = {contact.node_id for contact in known.values() if contact.failures}
        now, directory = node.clock.now(), node.directory()
        # No wait is longer than the cap: one that is was written while our clock was ahead.
        rests = timedelta(0), timedelta(seconds=node.settings.backoff_cap_s)
        due = []
        for peer_id in backlog:
            entry = directory.nodes.get(peer_id)
            retry_at = known[peer_id].retry_at if peer_id in known else None
            if (
                entry is None
                or entry.state != "active"
                or entry.delivery is Delivery.PULL
                or stops.set_back.get(peer_id)
            ):
                continue
            if retry_at is None or not rests[0] < retry_at - now <= rests[1]:
                due.append(entry)
        return due

    async def _deliver(self, peer: NodeEntry) -> None:
        """Deliver to one peer, unless another process does."""

        async def run() -> None:
            node = self._node
            async with node.db.session_lock(f"deliver:{peer.id}") as held:
                if held is not None and await self._rounds.may_deliver(peer):
                    await node.sender.deliver(peer, lambda: self._enough(peer.id, held))

        await self._survive("deliver", run)

    def _enough(self, peer_id: str, held: Callable[[], bool]) -> bool:
        """Tell a delivery to begin nothing more.

        We stop, its lock is gone, others wait for its place, or nothing is sent there any more: a newer directory says
        so, or the one in use has expired meanwhile.
        """
        entry = self._node.directory().nodes.get(peer_id)
        expired = self._node.membership.has_expired()
        if entry is None or entry.state != "active" or expired:
            return True
        over = self._slots.turn_is_over(peer_id, self._node.clock.monotonic())
        return over or self._stop.is_set() or not held()

    async def _locate(self) -> int:
        """Locate what is due. Who reports is answered first; then many items are located together."""
        await self._node.give_way.turn(_GIVE_WAY_S)
        return await self._node.locating.run_once()

    async def _apply(self) -> int:
        """Apply what is stored. A receipt releases the sender, so it comes first; what it covers is safe."""
        await self._node.give_way.turn(_GIVE_WAY_S)
        return await self._node.applier.run_once(self._node.directory())

    async def _judge(self) -> int:
        """Judge what waited for a recovery, beside what comes in: a peer that always has more would keep it waiting."""
        await self._node.give_way.turn(_GIVE_WAY_S)
        return await self._node.applier.judge_waiting(self._node.directory())

    async def _fallback(self) -> None:
        """Take back what peers did not receipt in time, or cannot take any more.

        Who belongs to the network is not known once the directory has expired. And nobody is late before it was asked:
        the longest wait between two attempts has to pass first, after a start and after such a time.
        """
        node = self._node
        if node.membership.has_expired():
            self._asking_since_s = None
            return
        now_s = node.clock.monotonic()
        if self._asking_since_s is None:
            self._asking_since_s = now_s
        late = now_s >= self._asking_since_s + node.settings.backoff_cap_s
        async with node.db.session_lock("fallback") as held:
            if held is not None:
                await node.moving.fallback.run(node.directory(), late=late)

    async def _orphans(self, *, at_once: bool = False) -> bool:
        """Let items go whose country has a hotline; `at_once` also what it refused as not its own just now.

        Returns False where nothing was done, since another round is at it just now.
        """
        node = self._node
        if node.membership.has_expired():
            return True
        async with node.db.session_lock("orphans") as held:
            if held is not None:
                await node.moving.orphans.run(node.directory())
                await node.moving.resender.run(node.directory(), at_once=at_once)
        return held is not None

    async def _retell(self) -> None:
        """Tell again who has an item, where it was not believed.

        Which receipts count is not known once the directory has expired: it waits.
        """
        if not self._node.membership.has_expired():
            await self._node.moving.reteller.run()

    async def _settle_disputes(self) -> None:
        while not self._stop.is_set():
            await self._survive("desk", self._desk)
            await self._node.signals.wait("desk", self._node.settings.desk_poll_s)

    async def _desk(self) -> None:
        """Hand disputes in and follow rulings, unless another process does.

        Which desk is the network's is not known once the directory has expired: both wait.
        """
        if self._node.membership.has_expired():
            return
        async with self._node.db.session_lock("desk") as held:
            if held is not None:
                await self._node.moving.disputer.run_once(self._node.directory())

    async def _prune(self) -> None:
        node = self._node
        now = node.clock.now()
        async with node.db.transaction("prune.nonces") as tx:
            await forget_nonces(tx, now - timedelta(seconds=node.settings.nonce_retention_s))
        await node.locating.recall()
        await node.moving.relocator.recall()

    async def _refresh(self) -> None:
        """Look for a newer directory and newer geolocation files; what fails keeps nothing else from being done."""
        node = self._node
        await self._survive("refresh", node.membership.refresh_if_due)
        # A newer one that cannot be remembered, since the database is away, is no reason to be silent.
        self._tell_freshness()
        if node.directory() is not self._directory:
            self._directory = node.directory()
            self._to_do = self._after_a_change()
            node.log.info(
                "a new membership directory is in use", action="directory.changed", version=node.directory().version
            )
        # What failed, or could not be done just now, is tried again in the next round.
        self._to_do = [step for step in self._to_do if not await self._done(*step)]
        await self._survive("refresh", partial(asyncio.to_thread, node.locator.refresh))
        await self._survive("refresh", partial(asyncio.to_thread, node.tls.look, node.log))

    def _after_a_change(self) -> list[_Step]:
        """Return what is done after a change of the directory, in its order, and the loop that each belongs to."""
        return [
            ("refresh", self._judge_receipts),
            ("refresh", self._node.rerouter.run),
            ("orphans", partial(self._orphans, at_once=True)),
            ("fallback", self._fallback),
            ("retell", self._retell),
            ("refresh", self._tell_given_up),
        ]

    async def _done(self, name: str, step: Callable[[], Awaitable[object]]) -> bool:
        """Run one step of a round, and tell whether it came to its end; one that returns False is to be run again."""

        async def whole() -> bool:
            return await step() is not False

        return await self._survive(name, whole) is True

    async def _judge_receipts(self) -> None:
        node = self._node
        worthless = await node.judge.run()
        if worthless:
            node.log.warning(
                "receipts prove nothing any more, and are given again", action="receipts.judged", count=worthless
            )

    async def _tell_given_up(self) -> None:
        """Say what is never sent, since who was to have it has left."""
        node = self._node
        left = node.directory().left()
        if not left:
            return
        async with node.db.transaction("deliver.read") as tx:
            rows = await outbound.given_up(tx, left)
        for row in rows:
            node.log.warning(
                "a hotline has left, and what it did not receipt is given up",
                action="deliver.given-up",
                peer=row["peer"],
                records=row["records"],
            )

    def _tell_freshness(self) -> None:
        """Say it when the directory's state changes, and every hour for as long as it is bad."""
        node = self._node
        state, now_s = node.membership.freshness(), node.clock.monotonic()
        told, told_at_s = self._told_freshness
        if state is told and (state is Freshness.FRESH or now_s < told_at_s + _REMIND_S):
            return
        self._told_freshness = state, now_s
        say = {Freshness.FRESH: node.log.info, Freshness.STALE: node.log.warning, Freshness.EXPIRED: node.log.error}
        say[state](
            "how far the membership directory can be relied on",
            action="directory.state",
            state=state.value,
            alarm=state is not Freshness.FRESH,
            problem=node.membership.problem,
        )

    async def _gauges(self) -> None:
        node = self._node
        now = node.clock.now()
        async with node.db.transaction("gauges.read") as tx:
            depths = await items.queue_depths(tx, node.directory().left())
            met = await contacts.contacts(tx)
            late_before = now - timedelta(days=node.settings.deliver_by_days)
            standing = await read_standing(tx, node.settings.node_id, node.directory(), late_before)
        node.standing[:] = standing.sentences()
        standing.set_gauges(node.metrics)
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
        for state in Freshness:
            node.metrics.directory_state.labels(state=state.value).set(state is node.membership.freshness())
        set_expiry_gauges(node.metrics, node.membership.in_use(), now)
        node.metrics.directory_fresh_seconds.set(node.membership.fresh_for_s())
        node.metrics.directory_age_seconds.set((now - node.directory().issued_at).total_seconds())


def _place(error: BaseException) -> str:
    """Name the file and line an error comes from, without its text (which could hold content)."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "unknown" if trace is None else f"{trace.tb_frame.f_code.co_filename.rsplit('/', 1)[-1]}:{trace.tb_lineno}"
