"""Directory metadata that expire in a history: renewed every few seconds, until nobody signs or a node reads nothing.

Only histories with such an event have them; in all others the metadata outlast everything. Days are seconds here, but a
node tells fresh, stale and expired by the program's own rules. What it may do in each is written from docs/protocol.md,
section 2, and uses none of the code that decides.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from node.platform.trust import Trusted
from protocol.profile import Request, Response
from tests.simulation import members
from tests.simulation.plan import EXPIRING, Event
from tests.simulation.services import RUNNING, START
from tests.simulation.station import Run, Station

if TYPE_CHECKING:
    from tests.simulation.world import World

#: How long a timestamp and a snapshot count, how often the first is renewed, and how long a directory is stale.
_TIMESTAMP_S: Final = 14.0
_SNAPSHOT_S: Final = 24.0
_RENEW_S: Final = 3.0
STALE: Final = timedelta(seconds=8)
#: How often a node asks others than its own repository.
REFRESH_S: Final = 8.0
#: What was looked at and read from storage before the directory expired leaves so soon.
_SENT_WITHIN: Final = timedelta(seconds=0.1)
#: A node looks at its directory every 10 s; after so long it has said what it found.
_SAID_WITHIN_S: Final = 13.0


@dataclass(slots=True)
class Expiry:
    """The signing machine of the network's coordinator, and who reads what it signs."""

    world: "World"
    #: What is not renewed at the moment.
    left: set[str] = field(default_factory=set)
    #: Nodes whose repository is not written any more, and of those the ones that reach no mirror either.
    frozen: set[str] = field(default_factory=set)
    alone: set[str] = field(default_factory=set)
    _stamps: members.Stamps | None = None
    _signed: dict[str, bytes] = field(default_factory=dict)
    #: Since when each node's directory is not fresh: its life, what it is, the time.
    _since: dict[str, tuple[Run, str, float]] = field(default_factory=dict)
    #: Nodes that wait for a mirror's answer; what comes of it they say afterwards.
    asking: set[str] = field(default_factory=set)

    @property
    def on(self) -> bool:
        """Whether metadata expire in this history."""
        return any(event.kind in EXPIRING for event in self.world.plan.events)

    def directory(self) -> dict[str, bytes]:
        """Return the newest version of the directory that was signed."""
        if not self.on:
            return self._made()
        if not self._signed:
            self.sign()
        return self._signed

    def sign(self) -> None:
        """Sign what changed, and the timestamp and the snapshot anew where it is time."""
        if not self.on or "timestamp" in self.left:
            return
        now, before = self._now(), self._stamps
        number = 1 if before is None else before.timestamp + 1
        until = now + timedelta(seconds=_TIMESTAMP_S)
        half = timedelta(seconds=_SNAPSHOT_S / 2)
        if before is None or (before.snapshot_until - now <= half and "snapshot" not in self.left):
            self._stamps = members.Stamps(number, now + 2 * half, number, until)
        else:
            self._stamps = members.Stamps(before.snapshot, before.snapshot_until, number, until)
        self._signed = self._made()

    def _made(self) -> dict[str, bytes]:
        world = self.world
        entries = list(world.entries.values())
        return members.directory(world.version, entries, world.plan.mandated, self._stamps, desk=world.plan.desk)

    def _now(self) -> datetime:
        # Metadata state whole seconds.
        return START + timedelta(seconds=int(self.world.loop.time()))

    def write(self, station: Station) -> None:
        """Let a node's repository have the newest version."""
        if station.id not in self.frozen:
            station.file.write(self.directory())

    async def renew(self) -> None:
        """Sign anew every few seconds, and look whether each node says how old its directory is."""
        while self.on:
            await self.world.loop.pause(_RENEW_S)
            self.sign()
            for station in self.world.stations.values():
                self.write(station)
                self._look(station)

    # The events.

    def unsigned(self, event: Event) -> None:
        """Nobody signs the timestamp anew, or not the snapshot: for everybody."""
        self.left.add(event.detail)
        self.world.later(event.amount, lambda: self.left.discard(event.detail))

    def unread(self, event: Event) -> None:
        """A node's repository stays as it is: it hears of nothing newer, or from mirrors only."""
        node = members.node_id(event.node)
        self.frozen.add(node)
        if event.detail == "alone":
            self.alone.add(node)
        self.world.later(event.amount, lambda: self._read_again(node))

    def _read_again(self, node: str) -> None:
        self.frozen.discard(node)
        self.alone.discard(node)

    def heal(self) -> None:
        """Let everything be signed and read again."""
        for who in (self.left, self.frozen, self.alone):
            who.clear()
        self.sign()

    # What is looked at.

    def offers(self, station: Station) -> bool:
        """Tell whether a node's repository has the newest directory, and that one is in force by the node's clock."""
        in_force = self._stamps is None or self._now() < min(self._stamps.timestamp_until, self._stamps.snapshot_until)
        return in_force and station.file.files == self.directory() and not station.clock.ahead_s

    def age(self, run: Run, late: timedelta = timedelta(0)) -> str:
        """Return what a node's directory is by the node's own clock, or was `late` ago."""
        if run.assembled is None or not self.on:
            return "fresh"
        until, now = run.assembled.membership.in_use().fresh_until, run.station.clock.now() - late
        if now < until:
            return "fresh"
        return "stale" if now < until + STALE else "expired"

    def _say(self, sentence: str) -> None:
        self.world.violated("I7", sentence)

    def taken(self, station: Station, trusted: Trusted) -> None:
        """Nothing is taken into use that is not fresh itself."""
        if trusted.use is None or station.trusted.get("timestamp.json") == trusted.use.files["timestamp.json"]:
            return
        if trusted.use.fresh_until <= station.clock.now():
            self._say(f"{station.id} took a directory that was fresh until {trusted.use.fresh_until:%H:%M:%S}")

    def leaves(self, source: str, request: Request) -> None:
        """Whose directory has expired asks for a newer one, and sends nothing else."""
        run = RUNNING.get()
        if run is None or "/peer/v1/directory/" in request.target_uri or self.age(run, _SENT_WITHIN) != "expired":
            return
        path = request.target_uri.split("/", 3)[3]
        self._say(f"{source} sends {request.method} {path}, and its directory has expired")

    def answered(self, target: str, request: Request, answer: Response) -> None:
        """No record leaves by an answer either; and what arrives is refused only where a newer directory may help."""
        station = self.world.stations[target]
        if station.run is None:
            return
        age, stale = self.age(station.run), b'"code":"directory-stale"' in answer.body
        if age == "expired" and answer.status == 200 and "/peer/v1/outbox/" in request.target_uri:
            self._say(f"{target} gives its records, and its directory has expired")
        if age == "fresh" and stale:
            self._say(f"{target} calls a fresh directory stale")

    def _look(self, station: Station) -> None:
        """That nobody vouches for a node's directory any more is noticed, and said."""
        run = station.run
        state = "fresh" if run is None or run.node is None else self.age(run)
        if run is None or state == "fresh":
            self._since.pop(station.id, None)
            return
        known = self._since.get(station.id)
        if known is None or known[:2] != (run, state) or station.id in self.asking:
            self._since[station.id] = run, state, self.world.loop.time()
        elif self.world.loop.time() - known[2] > _SAID_WITHIN_S and self._said(station) != state:
            self._say(f"{station.id} does not say that its directory is {state}")

    def _said(self, station: Station) -> str:
        """Return what a node said last of its directory in this life."""
        name = f"  {station.id.split('.', maxsplit=1)[0]:3} "
        for line in reversed(self.world.trace):
            if name not in line:
                continue
            if "directory.state" in line:
                return line.split("state=")[1].split()[0]
            if line.endswith("restart"):
                break
        return "fresh"
