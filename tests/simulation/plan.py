"""What happens in a history, drawn from its seed: a list of events, so that it can be shortened by leaving some out."""

import random
from dataclasses import dataclass
from typing import Final

ACTIVE_S: Final = 40.0
#: After so long every node that lives has heard of new keys, and the old ones open no door any more.
KNOWN_AFTER_S: Final = 25.0
#: Names of durable steps at which a node is killed.
STEPS: Final = (
    "intake.store",
    "locate.lease",
    "locate.store",
    "dispatch.store",
    "deliver.receipt",
    "deliver.failed",
    "receive.store",
    "apply.store",
    "move.store",
)
#: Names of those that few histories see: by chance alone no node would die there.
SELDOM: Final = frozenset(
    {
        "act.store",
        "assess.store",
        "correct.store",
        "dispute.follow",
        "dispute.handed",
        "dispute.refused",
        "fallback.store",
        "locate.recall",
        "move.recall",
        "orphans.store",
        "pull.back",
        "pull.begin",
        "receive.equivocation",
        "recover.again",
        "recover.asked",
        "recover.begin",
        "recover.end",
        "recover.epochs",
        "recover.own",
        "recover.replay",
        "recover.resend",
        "reroute.store",
        "resend.store",
        "retell.store",
        "withdraw.store",
    }
)
#: How often a node dies at a commit that nobody named: any, or a seldom one.
_ANYWHERE: Final = 0.3

#: How often one of the nodes cannot be called.
_FETCHING: Final = 0.2
#: How often analysts do something, and what.
_ANALYSTS: Final = 0.35
_STEPS: Final = ("assess", "assess", "act", "act", "correct", "move", "withdraw", "offend")
_BURST_S: Final = 6.0
#: How often a member is listed as something else than active, and how long after the healing it is back at the latest.
_LISTED: Final = 0.12
BACK_AFTER_S: Final = 30.0

#: How often a member leaves for good.
_GOODBYE: Final = 0.04
#: How often the directory's metadata expire, and the events that make nodes notice.
_EXPIRING: Final = 0.05
EXPIRING: Final = frozenset({"unsigned", "unread"})
#: How often keys of a node are stolen, which, and what their thief does.
_STOLEN: Final = 0.05
_STOLEN_KEYS: Final = (*["http stream receipt"] * 3, "stream receipt", "stream", "receipt", "http")

#: How often a node's storage goes back to what it held some seconds before, and where its recovery is killed then.
_RESTORED: Final = 0.08
#: How often nobody runs `hotline recover` then, of the times that the database alone goes back.
_UNATTENDED: Final = 0.5
_RECOVERY_STEPS: Final = (
    "recover.begin",
    "recover.own",
    "receive.store",
    "recover.epochs",
    "recover.replay",
    "apply.store",
    "recover.end",
)


#: How often the network has a desk, and two hotlines each say that an item is the other's.
_DISPUTED: Final = 0.06
_DESK_STEPS: Final = ("move.store", "dispute.handed", "dispute.follow")


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happens `at_s` seconds after the beginning; what the members mean, the kind says."""

    at_s: float
    kind: str
    node: str
    other: str = ""
    amount: float = 0.0
    number: int = 0
    detail: str = ""

    def __str__(self) -> str:
        parts = [f"{self.at_s:6.2f} s", self.kind, self.node]
        parts += [self.other] if self.other else []
        parts += [self.detail] if self.detail else []
        parts += [f"number {self.number}"] if self.number else []
        parts += [f"{self.amount:.2f}"] if self.amount else []
        return "  ".join(parts)


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole history before it happens."""

    seed: int
    countries: tuple[str, ...]
    hostile: str | None
    hostile_mode: str
    fetching: str | None
    mandated: str | None
    desk: bool
    batch_records_max: int
    batches_in_flight_max: int
    unapplied_records_max: int
    apply_records_max: int
    locations_at_once: int
    events: tuple[Event, ...]

    def quiet_within_s(self, usual_s: float) -> float:
        """Return how long what waits may wait after the healing: leases stand until a clock that was ahead is there."""
        return usual_s + max((0.0, *(float(one.number) for one in self.events if one.kind == "clock")))

    @property
    def quiet(self) -> bool:
        """Whether nothing happens to the honest nodes: then a dead or hostile peer may slow nobody (I9)."""
        return all(event.kind in {"report", "move", "analyst", "hostile", "directory"} for event in self.events)


def draw(seed: int) -> Plan:
    """Return the history of a seed."""
    rng = random.Random(seed)
    honest = ("FR", "NL", "DE")[: rng.choice((2, 2, 3))]
    hostile = "BE" if rng.random() < 0.4 else None
    countries = honest if hostile is None else (*honest, hostile)
    events = [_report(rng, honest, countries) for _ in range(rng.randint(3, 9))]
    if rng.random() < 0.85:
        events += [_fault(rng, honest, countries) for _ in range(rng.randint(1, 5))]
    if rng.random() < 0.5:
        events += [_move(rng, honest, countries) for _ in range(rng.randint(1, 4))]
    if rng.random() < 0.4:
        events += _directory(rng, honest)
    if hostile is not None:
        events += [_hostile(rng, honest, hostile) for _ in range(rng.randint(1, 5))]
    events += _anywhere(seed, honest)
    events += _analysts(seed, honest)
    events += _listed(seed, countries)
    events += _restored(seed, honest, events)
    events += _expiring(seed, honest)
    events += _stolen(seed, honest)
    disputes = _disputed(seed, honest)
    events += disputes
    events += _goodbye(seed, honest, events)
    return Plan(
        seed=seed,
        countries=countries,
        hostile=hostile,
        hostile_mode=rng.choice(("silent", "dead", "garbage", "forge", "rewind", "starve", "honest")),
        fetching=_fetching(seed, honest),
        mandated=_mandated(seed, honest),
        desk=bool(disputes),
        batch_records_max=rng.choice((1, 2, 3, 5)),
        batches_in_flight_max=rng.choice((1, 2, 3)),
        unapplied_records_max=rng.choice((4, 8, 30)),
        apply_records_max=rng.choice((1, 2, 5)),
        locations_at_once=rng.choice((1, 3, 10)),
        events=tuple(sorted(events, key=lambda event: event.at_s)),
    )


def _fetching(seed: int, honest: tuple[str, ...]) -> str | None:
    """Return whose node cannot be called and fetches; two such could not reach each other."""
    rng = random.Random(f"fetching {seed}")
    return rng.choice(honest) if rng.random() < _FETCHING else None


def _anywhere(seed: int, honest: tuple[str, ...]) -> list[Event]:
    """Nodes die at the `number`-th commit of those that write, whatever it is, or of those that are seldom."""
    rng = random.Random(f"anywhere {seed}")
    if rng.random() >= _ANYWHERE:
        return []
    return [
        Event(
            rng.uniform(0.0, 30.0),
            "crash-at-commit",
            rng.choice(honest),
            number=rng.randint(1, 20) if which == "any" else rng.choice((1, 1, 1, 2)),
            amount=rng.choice((0.5, 3.0, 12.0)) * rng.uniform(0.5, 1.5),
            detail=f"{rng.choice(('before', 'after'))} {which}",
        )
        for which in rng.choices(("any", "seldom"), k=rng.randint(1, 3))
    ]


def _analysts(seed: int, honest: tuple[str, ...]) -> list[Event]:
    """What analysts do at a node: qualify, act, correct, move, withdraw, offend (`tests.simulation.analysts`)."""
    rng = random.Random(f"analysts {seed}")
    if rng.random() >= _ANALYSTS:
        return []
    # Near enough to one another that they meet on the way.
    begins_s = rng.uniform(4.0, ACTIVE_S - _BURST_S)
    return [
        Event(begins_s + rng.uniform(0.0, _BURST_S), "analyst", rng.choice(honest), detail=rng.choice(_STEPS))
        for _ in range(rng.randint(3, 7))
    ]


def _mandated(seed: int, honest: tuple[str, ...]) -> str | None:
    """Return whose hotline takes what is hosted in a country without one."""
    rng = random.Random(f"mandated {seed}")
    return rng.choice((None, *honest))


def _listed(seed: int, countries: tuple[str, ...]) -> list[Event]:
    """A member is suspended, leaves or is in maintenance, and comes back."""
    rng = random.Random(f"listed {seed}")
    if rng.random() >= _LISTED:
        return []
    at_s = rng.uniform(1.0, 30.0)
    lasts_s = rng.choice((rng.uniform(8.0, 20.0), ACTIVE_S + BACK_AFTER_S - at_s))
    state = rng.choice(("suspended", "suspended", "left", "maintenance"))
    return [Event(at_s, "listed", rng.choice(countries), amount=lasts_s, detail=state)]


def _restored(seed: int, honest: tuple[str, ...], others: list[Event]) -> list[Event]:
    """A node's storage goes back: `amount` seconds after the backup, for `number` seconds the node is down.

    Its folder of the directory goes back with it, or stays; or it serves for a while before it is recovered, and no
    peer can be reached; or it is started as if nothing had happened. Its recovery may be killed. Another member may be
    suspended meanwhile, and is not asked.
    """
    rng = random.Random(f"restored {seed}")
    if rng.random() >= _RESTORED:
        return []
    node, at_s = rng.choice(honest), rng.uniform(1.0, 28.0)
    lasts_s = rng.uniform(0.5, ACTIVE_S - 4.0 - at_s)
    detail = rng.choice(("folder", "database", "alone"))
    kinds = {event.kind for event in others}
    if detail == "database" and "listed" not in kinds and random.Random(f"unattended {seed}").random() < _UNATTENDED:
        # Somebody who knows more can be asked, or nobody would ever find out.
        detail = "unattended"
    events = [Event(at_s, "restore", node, number=rng.choice((1, 9)), amount=lasts_s, detail=detail)]
    if detail == "alone":
        # What the backup holds on its way is sent again before it is known that it had arrived.
        other = rng.choice([country for country in honest if country != node])
        sent_at_s = at_s - rng.uniform(0.0, 0.4)
        events.append(Event(sent_at_s, "report", node, other, number=2, detail="qualified"))
    if rng.random() < 0.4:
        step = f"{rng.choice(('before', 'after'))} {rng.choice(_RECOVERY_STEPS)}"
        killed = Event(at_s + lasts_s, "crash-at-commit", node, number=rng.randint(1, 3), amount=2.0, detail=step)
        events.append(killed)
    if "listed" not in kinds and rng.random() < 0.25 and detail != "unattended":
        away = rng.choice([country for country in honest if country != node])
        begins_s = rng.uniform(at_s, at_s + lasts_s)
        ends_s = rng.uniform(at_s + lasts_s + 10.0, ACTIVE_S + BACK_AFTER_S)
        events.append(Event(begins_s, "listed", away, amount=ends_s - begins_s, detail="suspended"))
    return events


def _expiring(seed: int, honest: tuple[str, ...]) -> list[Event]:
    """Nobody renews the directory's metadata for a while, or one node does not hear of it."""
    rng = random.Random(f"expiring {seed}")
    if rng.random() >= _EXPIRING:
        return []
    at_s, lasts_s = rng.uniform(1.0, 12.0), rng.uniform(12.0, ACTIVE_S)
    if rng.random() < 0.5:
        return [
            Event(at_s, "unsigned", "--", amount=lasts_s, detail=rng.choice(("timestamp", "timestamp", "snapshot")))
        ]
    return [Event(at_s, "unread", rng.choice(honest), amount=lasts_s, detail=rng.choice(("alone", "alone", "mirrors")))]


def _stolen(seed: int, honest: tuple[str, ...]) -> list[Event]:
    """A node's keys are listed as stolen since a moment that is past, with new ones, and a thief uses them after.

    `number` tells that the new ones count from that moment on, and not from now on.
    """
    rng = random.Random(f"stolen {seed}")
    if rng.random() >= _STOLEN:
        return []
    node, other = rng.sample(honest, 2)
    at_s = rng.uniform(4.0, 26.0)
    ago_s = rng.choice((rng.uniform(0.0, 2.0), rng.uniform(2.0, at_s)))
    stolen = Event(at_s, "compromised", node, amount=ago_s, number=rng.randrange(2), detail=rng.choice(_STOLEN_KEYS))
    tries = [
        Event(
            rng.uniform(at_s + 1.0, ACTIVE_S - 1.0),
            "thief",
            node,
            other,
            amount=rng.choice((0.0, rng.uniform(1.0, 250.0))),
            detail=rng.choice(("ask", "write", "write", "receipt", "receipt")),
        )
        for _ in range(rng.randint(1, 4))
    ]
    return [stolen, *tries]


def _disputed(seed: int, honest: tuple[str, ...]) -> list[Event]:
    """Two hotlines push an item to and fro, `number` times at most (`tests.simulation.disputes`).

    They go by countries alone, so that evidence soon is known, or by an address each time. The desk may be down, lose
    answers or what it took in since a backup, or hand out rulings that somebody else signed.
    """
    rng = random.Random(f"desk {seed}")
    if rng.random() >= _DISPUTED:
        return []
    at_s = rng.uniform(0.5, 14.0)
    node, holder = rng.sample(honest, 2)
    other = rng.choice([country for country in honest if country != holder])
    by = rng.choice(("country", "country", "address"))
    pushes = rng.randint(3, 9)
    events = [
        Event(at_s, "report", node, holder, number=rng.choice((1, 2)), detail="qualified"),
        Event(at_s + rng.uniform(1.0, 4.0), "ping-pong", holder, other, number=pushes, detail=by),
    ]
    begins_s, lasts_s = rng.uniform(at_s, at_s + 12.0), rng.choice((3.0, 12.0)) * rng.uniform(0.5, 1.5)
    for kind, share in (("desk-down", 0.3), ("desk-lossy", 0.4), ("desk-forges", 0.4), ("desk-restored", 0.2)):
        if rng.random() < share:
            events.append(Event(begins_s + rng.uniform(0.0, 4.0), kind, rng.choice(honest), amount=lasts_s, number=60))
    if rng.random() < 0.3:
        step = f"{rng.choice(('before', 'after'))} {rng.choice(_DESK_STEPS)}"
        events.append(Event(0.0, "crash-at-commit", holder, number=rng.randint(1, 2), amount=lasts_s, detail=step))
    return events


def _goodbye(seed: int, honest: tuple[str, ...], others: list[Event]) -> list[Event]:
    """A member leaves for good, at once or as planned: then it has no country any more for `amount` seconds before.

    Not where one comes back that was listed otherwise, where storage goes back, for what the one that left held of it
    is lost, or where an item is in dispute.
    """
    rng = random.Random(f"goodbye {seed}")
    if rng.random() >= _GOODBYE or {"listed", "restore", "ping-pong"} & {event.kind for event in others}:
        return []
    at_s, lasts_s = rng.uniform(2.0, 25.0), rng.uniform(4.0, 14.0)
    return [Event(at_s, "goodbye", rng.choice(honest), amount=lasts_s, detail=rng.choice(("planned", "at once")))]


def _at(rng: random.Random) -> float:
    return rng.uniform(0.0, ACTIVE_S)


def _report(rng: random.Random, honest: tuple[str, ...], countries: tuple[str, ...]) -> Event:
    """Reports at one node, most of them hosted elsewhere; `other` is where, `number` how many."""
    node = rng.choice(honest)
    other = rng.choice([country for country in countries if country != node])
    if rng.random() < 0.1:
        other = node
    detail = "qualified" if rng.random() < 0.8 else "unqualified"
    return Event(_at(rng), "report", node, other, number=rng.choice((1, 1, 2, 4)), detail=detail)


def _move(rng: random.Random, honest: tuple[str, ...], countries: tuple[str, ...]) -> Event:
    """An item in custody at one node is said to be hosted elsewhere now."""
    node = rng.choice(honest)
    other = rng.choice([country for country in countries if country != node])
    return Event(rng.uniform(8.0, ACTIVE_S), "move", node, other)


def _directory(rng: random.Random, honest: tuple[str, ...]) -> list[Event]:
    """A newer version, perhaps with new keys of a node, perhaps an older one put back, or an old key used later."""
    node, other = rng.sample(honest, 2)
    if rng.random() < 0.5:
        # Nobody is told in advance, as where a key was stolen.
        at_s = rng.uniform(0.0, 8.0)
        events = [Event(at_s, "new-keys", node)]
        if rng.random() < 0.7:
            events.append(Event(at_s + KNOWN_AFTER_S + rng.uniform(1.0, 6.0), "stolen-key", node, other))
        return events
    at_s = rng.uniform(0.0, 25.0)
    events = [Event(at_s, "directory", node)]
    if rng.random() < 0.7:
        events.append(Event(at_s + rng.uniform(5.0, 14.0), "old-directory", other, number=rng.randrange(2)))
    return events


def _fault(rng: random.Random, honest: tuple[str, ...], countries: tuple[str, ...]) -> Event:
    node = rng.choice(honest)
    other = rng.choice([country for country in countries if country != node])
    lasts_s = rng.choice((0.5, 3.0, 12.0, 25.0)) * rng.uniform(0.5, 1.5)
    at_s = _at(rng)
    match rng.randrange(12):
        case 0:
            return Event(at_s, "crash", node, amount=lasts_s)
        case 1 | 2 | 3:
            detail = f"{rng.choice(('before', 'after'))} {rng.choice(STEPS)}"
            return Event(0.0, "crash-at-commit", node, number=rng.randint(1, 6), amount=lasts_s, detail=detail)
        case 4:
            return Event(at_s, "cut", node, other, amount=lasts_s)
        case 5:
            return Event(at_s, "cut-both", node, other, amount=lasts_s)
        case 6 | 7:
            share = rng.choice((10, 30, 60))
            return Event(at_s, rng.choice(("lossy", "doubling")), node, other, number=share, amount=lasts_s)
        case 8:
            kind = rng.choice(("slow", "garbling"))
            return Event(at_s, kind, node, other, number=rng.choice((2, 5)) if kind == "slow" else 30, amount=lasts_s)
        case 9:
            return Event(at_s, "database-away", node, amount=lasts_s)
        case 10:
            return Event(at_s, "apply-held", node, amount=lasts_s)
        case _:
            return Event(at_s, "clock", node, number=rng.choice((-900, -30, 30, 900)), amount=lasts_s)


_ATTACKS: Final = (
    "garbage",
    "equivocate",
    "impersonate",
    "replay",
    "bad-records",
    "bad-records",
    "wrong-root",
    "flood",
)


def _hostile(rng: random.Random, honest: tuple[str, ...], hostile: str) -> Event:
    return Event(_at(rng), "hostile", hostile, rng.choice(honest), detail=rng.choice(_ATTACKS))
