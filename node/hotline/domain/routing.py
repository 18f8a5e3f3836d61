"""Whose item it is: the rule from directory and hosting country to one hotline. Never looks anything up.

The hosting country's hotline is competent. In a country with several, each gets its share by weight.
Where there is none, a mandated hotline takes it: hosting country and assigned country stay two facts.
"""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from protocol.codes import NodeState
from protocol.directory import Directory, NodeEntry

OWN_COUNTRY = "own-country"
HOSTING_COUNTRY = "hosting-country"
MANDATED = "mandated"
NO_COMPETENT_HOTLINE = "no-competent-hotline"

_RECEIVING = frozenset({NodeState.ACTIVE, NodeState.MAINTENANCE})
"""States of a node that is sent to; in maintenance, records queue at the sender."""

_FRACTION_BITS = 52  # so that a half more still fits a float exactly


@dataclass(frozen=True, slots=True)
class Keep:
    """This node acts on the item itself."""

    reason: str
    hosting_country: str
    assigned_country: str


@dataclass(frozen=True, slots=True)
class Send:
    """The item goes to the stream of `node_id`."""

    node_id: str
    hosting_country: str
    assigned_country: str
    reason: str


@dataclass(frozen=True, slots=True)
class Undeliverable:
    """Nobody in the directory is competent; tried again when the directory changes."""

    reason: str
    hosting_country: str


Route = Keep | Send | Undeliverable


def competent(
    directory: Directory, country: str, case_id: UUID, own: str, excluding: frozenset[str] = frozenset()
) -> Route:
    """Decide who acts on an item hosted in `country` (a code as the directory writes it), seen from node `own`.

    All items of one case that are hosted in one country go to the same hotline, at every node with this directory.
    `excluding` are those that did not take the item in time.
    """
    entry = directory.nodes.get(own)
    if entry is not None and country in entry.countries:
        return Keep(OWN_COUNTRY, country, country)
    nodes = [node for node in directory.nodes.values() if node.id not in excluding]
    chosen = _choose((node for node in nodes if country in node.countries), case_id)
    if chosen is not None:
        return Send(chosen.id, country, country, HOSTING_COUNTRY)
    mandated = (node for node in nodes if node.id in directory.mandated)
    chosen = _choose((node for node in mandated if node.countries), case_id)
    if chosen is None:
        return Undeliverable(NO_COMPETENT_HOTLINE, country)
    if chosen.id == own:
        return Keep(MANDATED, country, chosen.countries[0])
    return Send(chosen.id, country, chosen.countries[0], MANDATED)


def countries_elsewhere(directory: Directory, own: str) -> list[str] | None:
    """Return the countries from which an item may have to leave `own`; None for all, when another one is mandated."""
    others = [node for node in directory.nodes.values() if node.id != own and node.state in _RECEIVING]
    if any(node.id in directory.mandated for node in others):
        return None
    return sorted({country for node in others for country in node.countries})


def _choose(nodes: Iterable[NodeEntry], case_id: UUID) -> NodeEntry | None:
    """Weighted rendezvous hashing among those that receive: the highest score wins, ties go by node id.

    When a node comes or goes, only the cases move that it wins or loses, and each wins in proportion to its weight.
    A weight of 0 means no share among several; it leaves no country without a hotline.
    """
    receiving = [node for node in nodes if node.state in _RECEIVING]
    weighted = [node for node in receiving if node.weight > 0] or receiving
    if len(weighted) <= 1:
        return weighted[0] if weighted else None
    return max(weighted, key=lambda node: (_score(node.id, node.weight or 1, case_id), node.id))


def _score(node_id: str, weight: int, case_id: UUID) -> float:
    """Return -weight / ln(u), u uniform in (0, 1) from SHA-256 over the domain, the node and the case.

    -ln(u) / weight is exponentially distributed with rate `weight`, and the smallest of several such values is
    each one's in proportion to its rate.
    """
    digest = hashlib.sha256(b"hx/1/route\x00" + node_id.encode() + b"\x00" + case_id.bytes).digest()
    fraction = int.from_bytes(digest[:8], "big") >> (64 - _FRACTION_BITS)
    # Half a step up: u is never 0 (no logarithm) and never 1 (no division).
    return -weight / math.log((fraction + 0.5) / (1 << _FRACTION_BITS))
