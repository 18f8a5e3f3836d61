"""I2 of docs/protocol.md, section 10: of each record one outcome is told, and only of what was written.

Looked at when an outcome is written; that none is missing, at the end.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from protocol.bodies import OutcomeBody
from protocol.checkpoint import StreamId

if TYPE_CHECKING:
    from tests.simulation.checks import Log, Stream
    from tests.simulation.world import World


@dataclass(slots=True)
class Told:
    """Of which records of each stream an outcome was written, and where: in the stream the other way, at an index."""

    world: "World"
    places: "dict[Stream, dict[int, tuple[Stream, int]]]" = field(default_factory=dict)

    def outcome(self, stream: "Stream", idx: int, body: OutcomeBody) -> None:
        """Look at an outcome that was written into a stream at an index."""
        one = StreamId.parse(body.stream)
        about = one.iss, one.aud, one.epoch
        if about[0] not in self.world.stations:
            return
        log, told = self.world.checks.logs.get(about), self.places.setdefault(about, {})
        spoken = [number for low, high in (*body.accepted, *body.kept) for number in range(low, high + 1)]
        for number in (*spoken, *(refused.index for refused in body.refused)):
            if number in told:
                self._say(f"{body.stream}: what became of the record at {number} is told a second time")
            told[number] = stream, idx
            known = log is not None and number < len(log.types)
            if log is not None and known and log.types[number] == "outcome":
                self._say(f"{body.stream}: an outcome is told of the outcome at {number}")
            if not known and (log is None or number not in log.former):
                self._say(f"{body.stream}: an outcome is told of a record at {number}, which was never written")

    def cut(self, stream: "Stream", size: int) -> None:
        """Forget what was told in a stream from an index on: its writer's storage went back."""
        for about, told in self.places.items():
            self.places[about] = {number: place for number, place in told.items() if not _behind(place, stream, size)}

    def at_the_end(self, stream: "Stream", log: "Log") -> None:
        """Nothing is left to be told of a stream."""
        told = self.places.get(stream, {}).keys()
        receiver = self.world.stations[stream[1]]
        rows = receiver.disk.find("inbound_streams", peer=stream[0], epoch=stream[2])
        waits = {row["idx"] for one in rows for row in receiver.disk.find("inbox_waiting", stream=one["id"])}
        open_ = [idx for idx, kind in enumerate(log.types) if kind != "outcome" and idx not in told]
        missing = [idx for idx in open_ if idx not in waits]
        if missing:
            self._say(f"{StreamId(*stream).origin()}: no outcome was told of the records at {missing}")

    def _say(self, sentence: str) -> None:
        self.world.violated("I2", sentence)


def _behind(place: "tuple[Stream, int]", stream: "Stream", size: int) -> bool:
    return place[0] == stream and place[1] >= size
