"""Tells when a history is quiet after its healing: all is delivered, applied, told, located and recovered."""

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from node.hotline.domain.comparison import Direction, Kind
from node.hotline.domain.lifecycle import State
from node.hotline.domain.windows import windows_of
from tests.simulation.station import Station

if TYPE_CHECKING:
    from tests.simulation.world import World


@dataclass(slots=True)
class Quiet:
    """Looks at every node."""

    world: "World"

    def waiting(self) -> str | None:
        """Tell what is still to happen, or None when all is quiet."""
        for node in self.world.authority.away:
            return f"{node} is not back yet"
        left = self.world.authority.left
        for node in left:
            for station_id in self.world.authority.waiting(node):
                return f"{station_id} still waits for {node}, which has left"
        for station in self.world.stations.values():
            if station.id in left:
                # Nobody hears it any more.
                continue
            if station.run is None or station.run.node is None:
                return f"{station.id} is down"
            if self.world.restores.is_set_back(station):
                return f"{station.id} is to be recovered again"
            for row in station.disk.rows("stream_differences"):
                if row["kind"] == Kind.NOT_ASKED and row["mended_at"] is None and row["peer"] in self.world.stations:
                    return f"{station.id} does not know yet what {row['peer']} holds"
            if station.run.node.directory().version != self.world.version:
                return f"{station.id} has not heard of the newest directory"
            judged = {(row["peer"], row["direction"]): row["windows"] for row in station.disk.rows("judged_keys")}
            for (peer, direction), windows in judged.items():
                ends = (station.id, peer) if direction == Direction.OUT else (peer, station.id)
                if windows_of(station.run.node.directory(), *ends) not in {windows, None}:
                    return f"{station.id} has not judged its receipts with {peer} by the newest directory"
            for state in (State.READY, State.LOCATING):
                if any(row["state"] == state for row in station.disk.rows("items")):
                    return f"an item of {station.id} is {state}"
            if any(self._may_move(station, row["item_id"]) for row in station.disk.rows("relocations")):
                return f"{station.id} has items to locate anew"
            # For who never says what it holds it is waited for weeks.
            if station.disk.rows("inbox_waiting") and not station.disk.find(
                "stream_differences", kind=Kind.NOT_ASKED, mended_at=None
            ):
                return f"{station.id} has steps that wait for whom it did not ask"
            if any(row["again_at"] is not None for row in station.disk.rows("outbox_refusals")):
                return f"{station.id} is to tell again what was not believed"
            if (disputed := self.world.disputes.waiting(station)) is not None:
                return disputed
            sizes = {row["stream"]: row["applied"] for row in station.disk.rows("apply_cursors")}
            for row in station.disk.rows("inbound_streams"):
                if row["size"] > sizes[row["id"]] and row["peer"] not in left:
                    return f"{station.id} has applied {sizes[row['id']]} of {row['size']} records of {row['peer']}"
            acked = {row["stream"]: row["acked_size"] for row in station.disk.rows("delivery_cursors")}
            for row in station.disk.rows("outbound_streams"):
                if row["peer"] in left:
                    continue
                peer, size = self.world.stations.get(row["peer"]), acked[row["id"]]
                if peer is not None and row["next_index"] > size:
                    return f"{peer.id} has receipted {size} of {row['next_index']} of {station.id}"
                if peer is not None and size_held(peer, (station.id, peer.id, row["epoch"])) < size:
                    return f"{peer.id} does not hold all that it receipted of {station.id}"
        return None

    def _may_move(self, station: Station, item: UUID) -> bool:
        """Tell whether an item can be handed on; what a hostile node sent, or one that left, may have no receipt."""
        row = next(row for row in station.disk.rows("items") if row["id"] == item)
        if row["received_stream"] is None:
            return True
        giver = self.world.checks.stream(station, "inbound_streams", row["received_stream"])[0]
        return giver in self.world.stations.keys() - self.world.authority.left


def size_held(station: Station, stream: tuple[str, str, int]) -> int:
    """Return how many records of a stream a node holds."""
    rows = station.disk.find("inbound_streams", peer=stream[0], epoch=stream[2])
    return rows[0]["size"] if rows else 0
