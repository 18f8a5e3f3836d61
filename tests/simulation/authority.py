"""What the network's authority does to members in a history: it suspends them, lists them as left or in maintenance.

A member that was listed so is active again when the history ends, but for one that leaves for good. Whether the others
keep to it is looked at on the way: nobody sends to who is none any more or takes anything from it, and what waits for
it is taken back. Its own process may go on as long as it likes.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from uuid import UUID

from node.hotline.domain.lifecycle import State
from protocol.profile import Request, Response
from tests.simulation import members
from tests.simulation.custody import GIVING
from tests.simulation.plan import ACTIVE_S, BACK_AFTER_S, Event
from tests.simulation.sql.tables import Row
from tests.simulation.station import Station

if TYPE_CHECKING:
    from tests.simulation.world import World

#: How long a batch may be on its way to the line.
_UNDER_WAY_S: Final = 0.1
#: States in which a member is none.
GONE: Final = frozenset({"suspended", "left"})
_KEYID: Final = re.compile('keyid="([^"]+)"')


@dataclass(slots=True)
class Authority:
    """Lists members; `away` are those that are not active now, `ever` those that were none at some time."""

    world: "World"
    away: set[str] = field(default_factory=set)
    ever: set[str] = field(default_factory=set)
    #: Those that never come back.
    left: set[str] = field(default_factory=set)
    #: By member, from which version of the directory on, and to which, it is none.
    gone: dict[str, tuple[int, int | None]] = field(default_factory=dict)

    def list_as(self, event: Event) -> None:
        """List a member as the event says, until its time is over."""
        world, node = self.world, members.node_id(event.node)
        self.away.add(node)
        self._write(event, event.detail)
        if event.detail in GONE:
            self.ever.add(node)
            self.gone[node] = world.version, None
        world.later(event.amount, lambda: self._back(event))

    def goodbye(self, event: Event) -> None:
        """A member leaves for good: at once, or as planned, with no country any more for `amount` seconds before."""
        world, node = self.world, members.node_id(event.node)
        self.ever.add(node)
        self.left.add(node)
        if event.detail == "planned":
            world.entries[event.node] = {**world.entries[event.node], "countries": []}
            world.faults.directory(event)
            world.later(event.amount, lambda: self._gone(event))
        else:
            self._gone(event)

    def _gone(self, event: Event) -> None:
        self._write(event, "left")
        self.gone[members.node_id(event.node)] = self.world.version, None

    def _back(self, event: Event) -> None:
        node = members.node_id(event.node)
        if event.detail in GONE:
            if event.at_s + event.amount >= ACTIVE_S + BACK_AFTER_S:
                self._look(node)
            self.gone[node] = self.gone[node][0], self.world.version + 1
        self.away.discard(node)
        self._write(event, "active")

    def _write(self, event: Event, state: str) -> None:
        self.world.note("--", "info", f"{event.node} is listed as {state}")
        self.world.entries[event.node] = {**self.world.entries[event.node], "state": state}
        self.world.faults.directory(event)

    def _look(self, node: str) -> None:
        """What waited for a member that is none any more was taken back: everybody has heard of it for long.

        But for what nobody else is competent for, and the member may come back.
        """
        for station in self.waiting(node):
            self.world.violated("member", f"{station} still waits for {node}, which is no member any more")

    def waiting(self, node: str) -> Iterable[str]:
        """Return who waits for a receipt of a member for something that it gave away."""
        for station in self.world.stations.values():
            for row in station.disk.rows("items") if station.id != node else ():
                given = row["assigned_node"] == node and row["state"] in {State.SENT, State.LEAVING}
                goes = given and self._is_proven(station, row) and self._is_anothers(station, node, row["id"])
                if goes and self._waits(station, node, row["id"]):
                    yield station.id

    def _is_anothers(self, station: Station, node: str, item: object) -> bool:
        """Tell whether an item is taken from a member that has left, or beside which there is a mandate."""
        if any(one["id"] == node and one["state"] == "left" for one in self.world.entries.values()):
            return True
        if (country := self.world.plan.mandated) is None:
            return False
        listed, other = self.world.entries[country], members.node_id(country)
        failed = {row["node"] for row in station.disk.find("relay_failures", item_id=item)}
        serves = listed["state"] not in GONE and bool(listed["countries"])
        return other != node and serves and other not in failed

    @staticmethod
    def _is_proven(station: Station, row: Row) -> bool:
        """Tell whether an item can go elsewhere: not without a receipt that counts, which its giver has to ask for."""
        if row["received_stream"] is None:
            return True
        batches = station.disk.find("inbound_batches", stream=row["received_stream"])
        return any(one["size"] > row["received_idx"] and not one["worthless"] for one in batches)

    @staticmethod
    def _waits(station: Station, node: str, item: object) -> bool:
        """Tell whether a record of an item has no receipt."""
        acked = {row["stream"]: row["acked_size"] for row in station.disk.rows("delivery_cursors")}
        for row in station.disk.find("outbound_streams", peer=node):
            # What was receipted once has arrived, though that receipt may prove nothing any more.
            sizes = [one["size"] for one in station.disk.find("receipts", stream=row["id"])]
            arrived = max([acked[row["id"]], *sizes])
            mine = station.disk.find("outbox", item_id=item, stream=row["id"])
            if any(one["type"] in GIVING and one["idx"] >= arrived for one in mine):
                return True
        return False

    def is_taken_back(self, node: str, item: UUID) -> bool:
        """Tell whether an item was taken back from a member at some time: it never goes there by itself again."""
        stations = self.world.stations.values()
        return any(one.disk.find("relay_failures", item_id=item, node=node) for one in stations)

    def crossed(self, item: UUID | None) -> bool:
        """Tell whether an item was taken back from who was no member: records of it may have crossed that."""
        return any(
            row["node"] in self.ever and row["item_id"] == item
            for station in self.world.stations.values()
            for row in station.disk.rows("relay_failures")
        )

    def leaves(self, source: str, target: str, request: Request) -> None:
        """Nobody sends records to who is no member by the directory that it uses."""
        station, gone = self.world.stations.get(source), self.gone.get(target)
        if gone is None or request.method != "PUT" or "/peer/v1/inbox/" not in request.target_uri:
            return
        if station is None or station.run is None or station.run.node is None:
            return
        version = station.run.node.directory().version
        if self.world.loop.time() - self.world.checks.heard_s.get(source, 0.0) < _UNDER_WAY_S:
            # It was cut by the directory before.
            return
        if gone[0] <= version and (gone[1] is None or version < gone[1]):
            self.world.violated("member", f"{source} sends to {target}, which is no member by its directory")

    def arrived(self, target: str, request: Request) -> str | None:
        """Return who signed a request, where its receiver knows that one as no member."""
        run = self.world.stations[target].run
        found = _KEYID.search(request.headers.get("signature-input", ""))
        if not self.gone or run is None or run.node is None or found is None:
            return None
        for node in run.node.directory().nodes.values():
            if node.state in GONE and any(key.public.thumbprint() == found[1] for key in node.keys):
                return node.id
        return None

    def answered(self, target: str, signer: str | None, answer: Response) -> None:
        """Who is no member is refused, whatever it asks."""
        if signer is not None and b'"code":' not in answer.body and answer.status < HTTPStatus.INTERNAL_SERVER_ERROR:
            self.world.violated("member", f"{target} answers {answer.status} to {signer}, which is no member")
