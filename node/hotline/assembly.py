"""Puts a node together from its settings: opens what it stands on, hands each flow what it works with, closes all."""

import random
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path

import aiohttp
import dns.resolver

from geo.locator import Locator
from geo.mmdb import AsnDatabase, CountryDatabase, DatabaseInvalid
from geo.proxies import ProxyTable
from geo.resolver import Resolver, ResolverLimits
from node.clock import Clock
from node.errors import OperatorError
from node.hotline.domain.budgets import BudgetLimits, Rate
from node.hotline.domain.delivery import BatchAnswer, Problem
from node.hotline.flows.act import Actor
from node.hotline.flows.amend import Amender
from node.hotline.flows.apply.applier import Applier
from node.hotline.flows.assess import Assessor
from node.hotline.flows.compare import Comparer
from node.hotline.flows.deliver import Sender
from node.hotline.flows.dispatch import Dispatcher
from node.hotline.flows.give_back import GiveBack
from node.hotline.flows.greet import Greeter
from node.hotline.flows.intake import Intake
from node.hotline.flows.locate import Locating
from node.hotline.flows.offer import Offerer
from node.hotline.flows.prove import Prover
from node.hotline.flows.receive import Receiver
from node.hotline.flows.replay import Replayer
from node.hotline.flows.reroute import Rerouter
from node.hotline.flows.settle import Settler
from node.hotline.flows.transfer.relocate import Asker
from node.hotline.framing import Framer
from node.hotline.gateways.catchup import CatchupGateway
from node.hotline.gateways.peers import PeerGateway
from node.hotline.judging import Judge
from node.hotline.moving import Moving, assemble_moving
from node.hotline.store.directories import Directories
from node.hotline.store.tables import metadata
from node.hotline.store.telling import Teller
from node.hotline.store.vault import Vault, load_vault
from node.platform import migrate
from node.platform.database import DATABASE_ERRORS, Database
from node.platform.dbopening import MakeDatabase, open_database
from node.platform.fieldcrypto import MasterKey
from node.platform.giveway import GiveWay
from node.platform.httpclient import PeerClient, make_session
from node.platform.keyring import KeyRing
from node.platform.membership import VERSION_HEADER, Membership
from node.platform.signals import Signals
from node.platform.sources import HttpSource, make_source
from node.platform.telemetry import Logger, Metrics
from node.platform.tls import PeerTls, open_peer_tls
from node.setting_rules import split_address
from node.settings import Settings
from node.start_checks import check_at_start
from protocol.directory import Directory, NodeEntry
from protocol.keys import KeyUse

#: Built from the five registries' statistics, so that a first start works offline (geo/data/README.md).
BUILT_IN_COUNTRIES = Path(str(files("geo"))) / "data" / "country.mmdb"

ROLE = "hotline"
DATABASE_NAME = "hotline"
#: Signing, verifying and decrypting release the interpreter lock: two threads keep the event loop free (ARCHITECTURE).
CRYPTO_THREADS = 2
#: Records applied in one transaction: about 30 ms of work, which is how long a caller may find the loop busy.
APPLY_RECORDS_MAX = 250


@dataclass(frozen=True, slots=True)
class Store:
    """The database and the open field keys: all that a command needs that only reads and writes rows."""

    settings: Settings
    clock: Clock
    db: Database
    vault: Vault

    def intake(self) -> Intake:
        """Return the flow that takes reports in."""
        return Intake(self.db, self.vault, self.teller(), self.clock.now, self.settings.forward_unqualified)

    def assessor(self) -> Assessor:
        """Return the flow that sets a qualification."""
        return Assessor(self.db, self.teller(), self.clock.now, self.settings.forward_unqualified)

    def actor(self) -> Actor:
        """Return the flow that records actions."""
        return Actor(self.db, self.teller(), self.clock.now)

    def amender(self) -> Amender:
        """Return the flow that corrects and takes back reports."""
        return Amender(self.db, self.teller(), self.clock.now)

    def teller(self) -> Teller:
        """Return what steps are written with."""
        return Teller(self.settings.node_id, self.vault, self.settings.retain_days)

    def asker(self) -> Asker:
        """Return the flow that takes the wish for another location."""
        return Asker(self.db, self.vault, self.clock.now, self.settings.forward_unqualified)

    def prover(self) -> Prover:
        """Return the flow that writes proofs."""
        return Prover(self.db, self.vault)


@dataclass(frozen=True, slots=True)
class Node:
    """A whole node: what its doors and loops work with."""

    settings: Settings
    clock: Clock
    log: Logger
    metrics: Metrics
    signals: Signals
    give_way: GiveWay
    store: Store
    db: Database
    keys: KeyRing
    membership: Membership
    judge: Judge
    locator: Locator
    locating: Locating
    dispatcher: Dispatcher
    sender: Sender
    receiver: Receiver
    applier: Applier
    rerouter: Rerouter
    moving: Moving
    greeter: Greeter
    offerer: Offerer
    settler: Settler
    give_back: GiveBack
    comparer: Comparer
    standing: list[str]
    catchup: CatchupGateway
    tls: PeerTls

    def directory(self) -> Directory:
        """Return the membership directory in use."""
        return self.membership.current()


class _DeliveryWatch:
    """Counts and logs what happens to batches."""

    def __init__(self, metrics: Metrics, log: Logger) -> None:
        self._metrics = metrics
        self._log = log

    def receipted(self, peer: str, records: int) -> None:
        self._metrics.records_sent.labels(peer=peer).inc(records)
        self._metrics.receipts.labels(peer=peer).inc()
        self._metrics.batches.labels(peer=peer, outcome="receipted").inc()
        self._log.info("batch receipted", action="deliver.receipt", peer=peer, records=records)

    def failed(self, peer: str, problem: Problem, *, alarm: bool) -> None:
        self._metrics.problems.labels(code=problem.code, direction="met").inc()
        self._metrics.batches.labels(peer=peer, outcome="failed").inc()
        say = self._log.error if alarm else self._log.warning
        say("batch not taken", action="deliver.failed", peer=peer, code=problem.code, alarm=alarm)


@asynccontextmanager
async def open_store(
    settings: Settings, *, clock: Clock, metrics: Metrics | None = None, make: MakeDatabase = Database
) -> AsyncIterator[Store]:
    """Yield the store; raises OperatorError when the database, its schema or the field keys are not as they must be."""
    async with open_database(settings, metrics=metrics, make=make) as db:
        try:
            if not await migrate.is_current(db.engine, ROLE, metadata):
                raise OperatorError("The database schema is not the one of this version; run `hotline migrate`.")
            async with db.transaction("start.keys") as tx:
                vault = await load_vault(tx, MasterKey.load(settings))
        except DATABASE_ERRORS as error:
            raise OperatorError(f"The database went away during the start ({type(error).__name__}).") from None
        yield Store(settings, clock, db, vault)


@asynccontextmanager
async def assemble(
    settings: Settings, *, clock: Clock, log: Logger, make: MakeDatabase = Database
) -> AsyncIterator[Node]:
    """Yield a whole node and close it after; raises OperatorError, one sentence, for anything that makes no sense."""
    check_at_start(settings)
    tls = open_peer_tls(settings)
    metrics = Metrics.create()
    pool = ThreadPoolExecutor(CRYPTO_THREADS, thread_name_prefix="crypto")
    try:
        async with (
            open_store(settings, clock=clock, metrics=metrics, make=make) as store,
            make_session(timeout_s=settings.peer_timeout_s, tls=tls.calls) as session,
        ):
            membership = await _membership(settings, store, clock, session)
            locator = open_locator(settings, clock)
            try:
                yield _node(settings, clock, log, metrics, store, membership, locator, session, pool, tls)
            finally:
                await locator.close()
    finally:
        pool.shutdown(wait=True)


@asynccontextmanager
async def open_peers(
    settings: Settings, clock: Clock, directory: Callable[[], Directory]
) -> AsyncIterator[PeerGateway]:
    """Yield the door to the peers for a command that asks them something; raises OperatorError without keys."""
    check_at_start(settings)
    keys = KeyRing(settings.keys_dir, settings.node_id, directory, clock)
    async with make_session(timeout_s=settings.peer_timeout_s, tls=open_peer_tls(settings).calls) as session:
        client = PeerClient(session, lambda: keys.http, clock, window_s=settings.clock_window_s)
        yield PeerGateway(client, clock, directory, settings.node_id)


def open_locator(settings: Settings, clock: Clock) -> Locator:
    """Return the door to geolocation; raises OperatorError when a file or a name server is not usable."""

    def now_s() -> float:
        return clock.now().timestamp()

    try:
        resolver = Resolver(
            [split_address(server, default_port=53) for server in settings.dns_servers] or system_servers(),
            now_s=now_s,
            limits=ResolverLimits(
                timeout_s=settings.dns_timeout_ms / 1000,
                rounds=settings.dns_tries_max,
                names_in_flight_max=settings.dns_concurrency_max,
            ),
        )
        return Locator(
            resolver,
            [CountryDatabase(path) for path in settings.geo_country_databases or (BUILT_IN_COUNTRIES,)],
            [AsnDatabase(path) for path in settings.geo_asn_databases],
            ProxyTable.load(),
            allow_reserved=settings.geo_allow_reserved,
            now_s=now_s,
        )
    except DatabaseInvalid as error:
        raise OperatorError(f"A geolocation file cannot be used: {error}.") from None
    except ValueError as error:
        raise OperatorError(f"Setting dns_servers: {error}.") from None


def system_servers() -> list[tuple[str, int]]:
    """Return the name servers that the system is configured with."""
    try:
        return [(str(server), 53) for server in dns.resolver.Resolver().nameservers]
    except dns.resolver.NoResolverConfiguration:
        raise OperatorError("Setting dns_servers: the system names no name server; give one.") from None


async def _membership(settings: Settings, store: Store, clock: Clock, session: aiohttp.ClientSession) -> Membership:
    if not settings.directory_root:
        raise OperatorError(
            "Setting directory_root: the fingerprint of the directory's root is missing; `hotline join` writes it."
        )
    membership = Membership(
        folder=settings.directory_dir,
        fingerprint=settings.directory_root,
        sources=[make_source(source, session) for source in settings.directory_sources],
        ledger=Directories(store.db, clock),
        clock=clock,
        own_id=settings.node_id,
        mirror=lambda node: HttpSource(session, node.base_url, node.id),
        refresh_s=settings.directory_refresh_s,
    )
    try:
        await membership.start()
    except DATABASE_ERRORS as error:
        raise OperatorError(f"The database went away during the start ({type(error).__name__}).") from None
    if settings.node_id not in membership.current().nodes:
        raise OperatorError(f"The membership directory does not list this node ({settings.node_id}).")
    return membership


def _key_ring(settings: Settings, membership: Membership, clock: Clock) -> KeyRing:
    """Refuse to start with keys that the directory does not list: every peer would refuse what we sign."""
    keys = KeyRing(settings.keys_dir, settings.node_id, membership.current, clock)
    for use in (KeyUse.HTTP, KeyUse.STREAM, KeyUse.RECEIPT):
        keys.signing(use)
    return keys


def _node(
    settings: Settings,
    clock: Clock,
    log: Logger,
    metrics: Metrics,
    store: Store,
    membership: Membership,
    locator: Locator,
    session: aiohttp.ClientSession,
    pool: Executor,
    tls: PeerTls,
) -> Node:
    keys = _key_ring(settings, membership, clock)
    gateway = PeerGateway(
        PeerClient(
            session,
            lambda: keys.http,
            clock,
            window_s=settings.clock_window_s,
            said=lambda: {VERSION_HEADER: str(membership.current().version)},
        ),
        clock,
        membership.current,
        settings.node_id,
        membership.hint,
    )

    catchup = CatchupGateway(gateway, settings.node_id)
    watch = _DeliveryWatch(metrics, log)
    judge = Judge(settings.node_id, store.db, pool, membership.current)
    settler = Settler(settings.node_id, store.db, judge, pool, clock.now, watch.receipted)
    framer = Framer(
        settings.node_id,
        store.db,
        store.vault,
        keys.following(KeyUse.STREAM),
        pool,
        clock.now,
        settings.batch_bytes_max,
    )

    async def put_batch(peer: NodeEntry, epoch: int, first_index: int, body: bytes) -> BatchAnswer:
        with metrics.delivery_batch_seconds.time():
            return await gateway.put_batch(peer, epoch, first_index, body)

    return Node(
        settings=settings,
        clock=clock,
        log=log,
        metrics=metrics,
        signals=Signals(),
        give_way=GiveWay(),
        store=store,
        db=store.db,
        keys=keys,
        membership=membership,
        judge=judge,
        locator=locator,
        locating=Locating(
            db=store.db,
            vault=store.vault,
            locate=locator.locate,
            observe=lambda kind: metrics.items_located.labels(kind=kind).inc(),
            clock_now=clock.now,
            draw=random.random,
            items_max=settings.locate_batch_items_max,
            attempts_max=settings.locate_attempts_max,
            retry_base_s=settings.locate_retry_base_s,
            forward_unqualified=settings.forward_unqualified,
        ),
        dispatcher=Dispatcher(
            node_id=settings.node_id,
            db=store.db,
            vault=store.vault,
            clock_now=clock.now,
            items_max=settings.batch_records_max,
            forward_unqualified=settings.forward_unqualified,
            deliver_by_days=settings.deliver_by_days,
            retain_days=settings.retain_days,
        ),
        sender=Sender(
            node_id=settings.node_id,
            db=store.db,
            vault=store.vault,
            judge=judge,
            stream_keys=keys.following(KeyUse.STREAM),
            pool=pool,
            put_batch=put_batch,
            watch=watch,
            clock_now=clock.now,
            draw=random.random,
            batch_records_max=settings.batch_records_max,
            batch_bytes_max=settings.batch_bytes_max,
            batches_in_flight_max=settings.batches_in_flight_max,
            backoff_base_s=settings.backoff_base_s,
            backoff_cap_s=settings.backoff_cap_s,
        ),
        receiver=Receiver(
            node_id=settings.node_id,
            db=store.db,
            vault=store.vault,
            judge=judge,
            receipt_keys=partial(keys.counting, KeyUse.RECEIPT),
            pool=pool,
            batch_records_max=settings.batch_records_max,
            unapplied_records_max=settings.unapplied_records_max,
            budgets=BudgetLimits(
                Rate(settings.peer_records_per_s, settings.peer_records_burst),
                Rate(settings.peer_bytes_per_s, settings.peer_bytes_burst),
            ),
            clock_now=clock.now,
        ),
        applier=Applier(
            node_id=settings.node_id,
            db=store.db,
            vault=store.vault,
            teller=store.teller(),
            came=Replayer(store.db, store.vault, store.teller(), clock.now, settings.forward_unqualified).arrived,
            pool=pool,
            clock_now=clock.now,
            records_max=APPLY_RECORDS_MAX,
            log=log,
        ),
        rerouter=Rerouter(store.db, clock.now, settings.batch_records_max, settings.forward_unqualified),
        moving=assemble_moving(
            settings, store.db, store.teller(), clock, log, locator, gateway, membership.has_expired
        ),
        greeter=Greeter(settings.node_id, store.db, catchup, pool, clock.now),
        offerer=Offerer(store.db, framer, settings.batch_records_max),
        settler=settler,
        comparer=Comparer(store.db, catchup, settler.settle, pool, clock.now),
        standing=[],
        give_back=GiveBack(store.db, store.vault, pool),
        catchup=catchup,
        tls=tls,
    )
