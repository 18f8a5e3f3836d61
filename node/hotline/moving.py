"""Puts together what moves items: relocation, disputes, fallback, what goes again, who hears of it. Does none of it."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from geo.locator import Locator
from node.clock import Clock
from node.hotline.flows.transfer.disputes import Disputer
from node.hotline.flows.transfer.fallback import Fallback
from node.hotline.flows.transfer.orphans import Orphans
from node.hotline.flows.transfer.relay import Relay
from node.hotline.flows.transfer.relocate import Relocator
from node.hotline.flows.transfer.resend import Resender
from node.hotline.flows.transfer.retell import Reteller
from node.hotline.gateways.desk import DeskGateway
from node.hotline.gateways.peers import PeerGateway
from node.hotline.store.telling import Teller
from node.platform.database import Database
from node.platform.telemetry import Logger
from node.settings import Settings

#: Items moved in one transaction: each takes a proof, and its stream's lock is held meanwhile.
MOVES_MAX = 50


@dataclass(frozen=True, slots=True)
class Moving:
    """The flows by which items change hands; one for each process."""

    relocator: Relocator
    disputer: Disputer
    fallback: Fallback
    orphans: Orphans
    resender: Resender
    reteller: Reteller


def assemble_moving(
    settings: Settings,
    db: Database,
    teller: Teller,
    clock: Clock,
    log: Logger,
    locator: Locator,
    gateway: PeerGateway,
    has_expired: Callable[[], bool],
) -> Moving:
    """Return the flows, each with what it works with; `has_expired` tells it of the directory."""
    vault = teller.vault
    relay = Relay(teller, settings.forward_unqualified, settings.deliver_by_days, log)
    desk = DeskGateway(gateway)
    return Moving(
        relocator=Relocator(
            db=db,
            relay=relay,
            locate=locator.locate,
            clock_now=clock.now,
            draw=random.random,
            items_max=MOVES_MAX,
            attempts_max=settings.locate_attempts_max,
            retry_base_s=settings.locate_retry_base_s,
        ),
        disputer=Disputer(
            db=db,
            vault=vault,
            relay=relay,
            teller=teller,
            dispute=desk.dispute,
            equivocation=desk.equivocation,
            ruling=desk.ruling,
            clock_now=clock.now,
            may_call=lambda: not has_expired(),
            log=log,
        ),
        fallback=Fallback(db, relay, clock.now, MOVES_MAX),
        orphans=Orphans(db, relay, clock.now, MOVES_MAX),
        resender=Resender(db, relay, clock.now, MOVES_MAX),
        reteller=Reteller(db, teller, clock.now, log, MOVES_MAX),
    )
