"""Counts what became of every item and holds the counts of all nodes against each other and against the file. Pure.

A line is a number for the reader; a check is two numbers that have to be equal. The demo has succeeded when all are.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from node.demo.reports import Expected, Fate

Status = Mapping[str, Any]
"""What a node says at /api/v1/status."""

UNDER_WAY: Final = frozenset({"locating", "ready"})
_PLAIN: Final[Mapping[str, str]] = {
    "own-country": "hosted in the hotline's own country",
    "mandated": "hosted where there is no hotline: this one is mandated",
    "onion": "onion service: no hosting country",
    "i2p": "i2p: no hosting country",
    "ipfs": "IPFS: no hosting country",
    "nxdomain": "no such name (NXDOMAIN)",
    "no-address": "the name has no address",
    "dns-servfail": "the name server fails (SERVFAIL), attempts used up",
    "no-opinion": "private or unknown address: no file knows it",
    "multicast": "multicast address",
    "localhost": "this machine's own name",
    "proxy-by-asn": "known by its network",
    "proxy-by-cname": "known by its alias",
    "no-competent-hotline": "no hotline is competent",
}


class Rank(StrEnum):
    """What a line is: categories share out all items among them, parts share out the line above them."""

    TOTAL = "total"
    CATEGORY = "category"
    VIEW = "view"  # another way to look at items that are counted elsewhere
    PART = "part"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table."""

    rank: Rank
    label: str
    count: int


@dataclass(frozen=True, slots=True)
class Check:
    """Two numbers that have to be equal."""

    label: str
    found: int
    wanted: int

    @property
    def holds(self) -> bool:
        """Whether they are."""
        return self.found == self.wanted


@dataclass(frozen=True, slots=True)
class Account:
    """The table and the checks."""

    lines: tuple[Line, ...]
    checks: tuple[Check, ...]

    @property
    def holds(self) -> bool:
        """Whether every item is accounted for."""
        return all(check.holds for check in self.checks)


@dataclass(frozen=True, slots=True)
class Stream:
    """How far one stream is, as its sender and its receiver tell; what the receiver does not know yet is 0."""

    written: int
    receipted: int
    told: int
    refused: int
    held: int
    applied: int

    @property
    def settled(self) -> bool:
        """Whether both sides are through with it. Outcome records are not answered, so `told` is not asked here."""
        return self.written == self.receipted == self.held == self.applied


def fates(status: Status) -> Counter[Fate]:
    """Return the fates of the items that came in at this node itself, duplicates among them."""
    found: Counter[Fate] = Counter()
    for row in status["items"]:
        if not row["received"]:
            found[_fate(row)] += row["items"]
    return found


def _fate(row: Mapping[str, Any]) -> Fate:
    state = row["state"]
    if state == "sent":
        return Fate(state, row["assigned_node"] or "")
    # Why an item waits or is under way is said by its state; a reason may be left from before.
    return Fate(state) if state in {"waiting", "duplicate", *UNDER_WAY} else Fate(state, row["reason"] or "")


def received_items(status: Status) -> int:
    """Return how many items this node has from its peers."""
    return sum(row["items"] for row in status["items"] if row["received"])


def routed_to(status: Status, peer_id: str) -> int:
    """Return how many items of this node were given to a peer, whatever it said of them."""
    return sum(row["items"] for row in status["items"] if not row["received"] and row["assigned_node"] == peer_id)


def by_country(status: Status) -> Counter[str]:
    """Return how many of the items that came in at this node were located in each country."""
    found: Counter[str] = Counter()
    for row in status["items"]:
        if not row["received"] and row["verdict"] == "hosted":
            found[row["hosting_country"]] += row["items"]
    return found


def stream(sender: Status, sender_id: str, receiver: Status, receiver_id: str) -> Stream:
    """Return the stream from one node to another, all its epochs together."""
    out = [row for row in sender["streams_out"] if row["peer"] == receiver_id]
    came = [row for row in receiver["streams_in"] if row["peer"] == sender_id]

    def total(rows: Iterable[Mapping[str, Any]], name: str) -> int:
        return sum(row[name] for row in rows)

    return Stream(
        written=total(out, "written"),
        receipted=total(out, "receipted"),
        told=total(out, "told"),
        refused=total(out, "refused"),
        held=total(came, "held"),
        applied=total(came, "applied"),
    )


def settled(statuses: Mapping[str, Status], sender_id: str) -> bool:
    """Return whether nothing is under way any more: no queue, no record, no receipt, no outcome.

    `statuses` by node id; the sender's has to be read first, or what it just wrote could be missed at the others.
    """
    sender = statuses[sender_id]
    if any(sender["queues"][queue] for queue in ("locate", "dispatch")):
        return False
    for peer_id, peer in statuses.items():
        if peer_id == sender_id:
            continue
        there = stream(sender, sender_id, peer, peer_id)
        back = stream(peer, peer_id, sender, sender_id)
        if not (there.settled and there.told == there.written and back.settled):
            return False
    return True


def account(expected: Expected, imported: Mapping[str, Any], statuses: Mapping[str, Status], sender_id: str) -> Account:
    """Return the table and the checks, from what every node says once all is settled.

    `imported` is what the import said, `statuses` by node id.
    """
    sender = statuses[sender_id]
    peers = {node_id: status for node_id, status in statuses.items() if node_id != sender_id}
    found = fates(sender)
    duplicates = found.pop(Fate("duplicate"), 0)
    streams = {peer_id: stream(sender, sender_id, peer, peer_id) for peer_id, peer in peers.items()}
    received = sum(found.values()) + duplicates
    delivered = {f"to {peer}": one.receipted - one.refused for peer, one in streams.items()}
    lines = (
        Line(Rank.TOTAL, "Rows in the file", imported["rows"]),
        Line(Rank.PART, "taken as reports", imported["reports"]),
        Line(Rank.PART, "rejected, listed with row number and reason", imported["rejected"]),
        Line(Rank.TOTAL, "Received: items, one for each URL of a report", received),
        *_parts(Rank.VIEW, "Located by country", dict(sorted(by_country(sender).items()))),
        Line(Rank.CATEGORY, "Duplicates of an item already known", duplicates),
        Line(Rank.CATEGORY, "Not illegal: closed", _total(found, "closed")),
        Line(Rank.CATEGORY, "Waiting for qualification", found[Fate("waiting")]),
        *_parts(
            Rank.CATEGORY,
            "Behind a relay, visible country not trusted: origin lookup",
            _details(found, "origin-lookup"),
        ),
        *_parts(Rank.CATEGORY, "Not located", _details(found, "unlocated")),
        *_parts(Rank.CATEGORY, "Kept at home", _details(found, "kept")),
        *_parts(Rank.CATEGORY, "Delivered with receipt", delivered),
        *_parts(Rank.CATEGORY, "Undeliverable", _details(found, "undeliverable") | _refused(found)),
    )
    shared_out = Check("the table's categories add up to all items", _sum(lines, Rank.CATEGORY), received)
    checks = _checks(expected, imported, found, duplicates, sender, peers, streams)
    return Account(lines, (shared_out, *checks))


def _checks(
    expected: Expected,
    imported: Mapping[str, Any],
    found: Counter[Fate],
    duplicates: int,
    sender: Status,
    peers: Mapping[str, Status],
    streams: Mapping[str, Stream],
) -> Iterable[Check]:
    rows = imported["reports"] + imported["repeated"] + imported["rejected"]
    yield Check("every row of the file is a report or rejected", rows, expected.rows)
    yield Check("rejected rows are the bad ones of the file", imported["rejected"], expected.rejected)
    yield Check("every item of the file is in the sender's database", sum(found.values()) + duplicates, expected.items)
    yield Check("duplicates are those of the file", duplicates, expected.duplicates)
    yield Check("nothing is under way any more", sum(_total(found, state) for state in UNDER_WAY), 0)
    for fate in sorted({*expected.fates, *found} - {Fate(state) for state in UNDER_WAY}):
        label = f"items {fate.state}" + (f", {fate.detail}" if fate.detail else "")
        yield Check(label, found[fate], expected.fates.get(fate, 0))
    for peer_id, one in streams.items():
        yield Check(f"records written for {peer_id}, of items sent", one.written, routed_to(sender, peer_id))
        yield Check(f"records receipted by {peer_id}, of those written", one.receipted, one.written)
        yield Check(f"records held at {peer_id}, of those receipted", one.held, one.receipted)
        yield Check(f"records applied at {peer_id}, of those held", one.applied, one.held)
        yield Check(f"records {peer_id} told the outcome of", one.told, one.applied)
        taken = one.applied - one.refused
        yield Check(f"items at {peer_id}, of records applied and not refused", received_items(peers[peer_id]), taken)


def _refused(found: Counter[Fate]) -> dict[str, int]:
    return {f"refused by its hotline: {detail}": count for detail, count in _details(found, "refused").items()}


def _total(found: Counter[Fate], state: str) -> int:
    return sum(count for fate, count in found.items() if fate.state == state)


def _details(found: Counter[Fate], state: str) -> dict[str, int]:
    return {_PLAIN.get(fate.detail, fate.detail): n for fate, n in sorted(found.items()) if fate.state == state}


def _parts(rank: Rank, label: str, counts: Mapping[str, int]) -> list[Line]:
    return [Line(rank, label, sum(counts.values())), *(Line(Rank.PART, name, n) for name, n in counts.items())]


def _sum(lines: Iterable[Line], rank: Rank) -> int:
    return sum(line.count for line in lines if line.rank is rank)
