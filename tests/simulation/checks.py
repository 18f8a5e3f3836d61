"""The invariants of docs/protocol.md, section 10, looked at after every commit and answer, or at the end.

Which of them when is said in docs/architecture.md, "How it is tested: the simulator".
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from uuid import UUID

from protocol.batch import decode_batch
from protocol.bodies import OutcomeBody, ReportBody
from protocol.checkpoint import Checkpoint, StreamId
from protocol.codes import StatusKind
from protocol.errors import ProtocolError
from protocol.merkle import Edge, leaf_hash
from protocol.note import parse_note
from protocol.profile import Request, Response
from protocol.record import Record, parse_record
from protocol.steps import StatusBody, TransferBody
from protocol.tlogproof import parse_tlog_proof
from tests.simulation.custody import Custody
from tests.simulation.outdated import is_outdated, proves
from tests.simulation.quiet import size_held
from tests.simulation.restores import is_set_back
from tests.simulation.sql.tables import ROW_ID, Row, Session
from tests.simulation.station import Station
from tests.simulation.stepchecks import StepChecks
from tests.simulation.told import Told

if TYPE_CHECKING:
    from tests.simulation.world import World

#: In a history without faults of their own, honest nodes wait no longer for a receipt, whatever another does (I9).
RECEIPT_WITHIN_S: Final = 10.0
#: Bounds of what one node holds for its peers' requests (I12).
TASKS_MAX: Final = 300
NONCES_MAX: Final = 2_000
#: Calls to one peer beside the batches on their way: a greeting, a directory, a fetch, a receipt.
BESIDE_MAX: Final = 4

Stream = tuple[str, str, int]


@dataclass(slots=True)
class Arrival:
    """A batch as it came to a door: how much of it the node had stored by then."""

    stream: Stream
    first: int
    count: int
    held: bool


@dataclass(slots=True)
class Log:
    """What a node wrote into a stream, index by index, and when."""

    leaves: list[bytes] = field(default_factory=list)
    types: list[str] = field(default_factory=list)
    items: list[UUID | None] = field(default_factory=list)
    written_s: list[float] = field(default_factory=list)
    receipted_s: dict[int, float] = field(default_factory=dict)
    #: What stood at an index before the writer's storage went back.
    former: dict[int, set[bytes]] = field(default_factory=dict)

    def cut(self, size: int) -> None:
        """Go back to what the first `size` records were."""
        for idx in range(size, len(self.leaves)):
            self.former.setdefault(idx, set()).add(self.leaves[idx])
        for column in (self.leaves, self.types, self.items, self.written_s):
            del column[size:]


@dataclass(slots=True)
class Checks:
    """Sees everything that becomes durable and every answer; tells the world what must not be."""

    world: "World"
    logs: dict[Stream, Log] = field(default_factory=dict)
    receipts: dict[tuple[str, int], bytes] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    heard_s: dict[str, float] = field(default_factory=dict)
    applied: set[tuple[str, int, int]] = field(default_factory=set)
    refused: set[tuple[str, str, int, int, str]] = field(default_factory=set)
    steps: StepChecks = field(init=False)
    custody: Custody = field(init=False)
    told: Told = field(init=False)
    _looks: "dict[str, Callable[[Station, Row], None]]" = field(init=False)

    def __post_init__(self) -> None:
        """Know who looks at which table."""
        self.steps = StepChecks(self.world)
        self.custody = Custody(self.world)
        self.told = Told(self.world)
        self._looks = {
            "outbox": self._outbox,
            "inbox": self._inbox,
            "receipts": self._receipt,
            "inbound_streams": self._inbound,
            "delivery_cursors": self._cursor,
            "directory_versions": self._version,
            "items": self._item,
            "equivocations": self._equivocation,
            "inbox_refusals": self._refusal,
            "actions": self.steps.action,
            "apply_cursors": self.steps.applied,
            "url_identities": self._identity,
            "disputes": self.world.disputes.dispute,
            "stream_differences": self._difference,
        }

    def _say(self, invariant: str, sentence: str) -> None:
        self.world.violated(invariant, sentence)

    # After every commit.

    def committed(self, station: Station, name: str, session: Session) -> None:
        """Look at what one transaction wrote."""
        # Most read, and write nothing.
        if session.writes:
            self._written(station, name, session)
        if station.run is not None and (running := station.run.tasks_running(TASKS_MAX)) is not None:
            self._say("I12", f"{station.id} has {running} tasks")

    def _written(self, station: Station, name: str, session: Session) -> None:
        if name == "recover.own":
            self._taken_back(station, session)
        # Records first: what is said of a stream is held against what stands in it.
        for table, look in self._looks.items():
            if table not in session.writes:
                continue
            for row in session.writes[table].values():
                if row is not None:
                    look(station, row)
        self.custody.committed(station, session)
        if "nonces" in session.writes and "peers" in session.writes:
            self._heard(station, name, session)
        if name == "deliver.receipt":
            self._reached(station, session)

    def set_back(self, station: Station) -> None:
        """A node's storage went back: so does what is known of it."""
        for stream, log in self.logs.items():
            if stream[0] == station.id:
                rows = station.disk.find("outbound_streams", peer=stream[1], epoch=stream[2])
                self._cut(stream, log, len(station.disk.find("outbox", stream=rows[0]["id"])) if rows else 0)
        self.applied = {one for one in self.applied if one[0] != station.id}
        for row in station.disk.rows("items"):
            self._made(station, row)
        self.steps.set_back(station)
        self.custody.set_back(station)
        stored = [row["version"] for row in station.disk.rows("directory_versions")]
        self.versions[station.id] = max(stored, default=0)
        for (origin, size), note in list(self.receipts.items()):
            stream = _stream_of(origin)
            if stream[1] == station.id and not self._has(stream, size, note):
                self.world.restores.forgotten.add(note)
                del self.receipts[origin, size]

    def _has(self, stream: Stream, size: int, note: bytes) -> bool:
        """Tell whether either side of a stream has stored a receipt."""
        sender, receiver = self.world.stations.get(stream[0]), self.world.stations[stream[1]]
        for row in receiver.disk.find("inbound_streams", peer=stream[0], epoch=stream[2]):
            if receiver.disk.find("inbound_batches", stream=row["id"], size=size, receipt=note):
                return True
        if sender is None:
            return False
        rows = sender.disk.find("outbound_streams", peer=stream[1], epoch=stream[2])
        return any(sender.disk.find("receipts", stream=row["id"], size=size, note=note) for row in rows)

    def _taken_back(self, station: Station, session: Session) -> None:
        """What a node takes back of its own is what it had written there; what it wrote there since goes elsewhere."""
        back = [row for row in session.writes.get("outbox", {}).values() if row is not None]
        for number in {row["stream"] for row in back}:
            stream = self.stream(station, "outbound_streams", number)
            log = self.logs.setdefault(stream, Log())
            first = min(row["idx"] for row in back if row["stream"] == number)
            wrong = [row["idx"] for row in back if row["leaf_hash"] not in log.former.get(row["idx"], ())]
            if wrong:
                self._say("I5", f"{_named(stream)}: {station.id} took back what it never wrote at {wrong[0]}")
            if first < len(log.leaves):
                self._cut(stream, log, first)

    def _cut(self, stream: Stream, log: Log, size: int) -> None:
        log.cut(size)
        self.told.cut(stream, size)

    def _difference(self, station: Station, row: Row) -> None:
        """I4: nobody proves to a node that it told two stories, unless its storage went back."""
        if is_set_back(row) and station.id not in self.world.restores.ever:
            self._say("I4", f"{row['peer']} proved {row['kind']} to {station.id}, which was never set back")

    def stream(self, station: Station, table: str, number: int) -> Stream:
        """Return the stream that a node keeps under a number."""
        (row,) = station.disk.find(table, id=number)
        ends = (station.id, row["peer"]) if table == "outbound_streams" else (row["peer"], station.id)
        return (*ends, row["epoch"])

    def _outbox(self, station: Station, row: Row) -> None:
        """I4: the log has no gap. I5: what is stored is what is hashed. I10: what may not leave does not."""
        stream = self.stream(station, "outbound_streams", row["stream"])
        log = self.logs.setdefault(stream, Log())
        if row["idx"] != len(log.leaves):
            self._say("I4", f"{_named(stream)}: index {row['idx']} was written after {len(log.leaves)} records")
            return
        raw = station.vault.open_record("outbox", row["stream"], row["idx"], row["record_enc"])
        if leaf_hash(raw) != row["leaf_hash"]:
            self._say("I5", f"{_named(stream)}: the record at {row['idx']} is not the hashed one")
        log.leaves.append(row["leaf_hash"])
        log.types.append(row["type"])
        log.items.append(row["item_id"])
        log.written_s.append(self.world.loop.time())
        body = parse_record(raw).body
        if isinstance(body, OutcomeBody):
            self.told.outcome(stream, row["idx"], body)
        if isinstance(body, TransferBody):
            self.world.disputes.transfer(stream, row["idx"], row["item_id"], body)
        if row["type"] in {"report", "transfer"} and not self._may_leave(body):
            self._say("I10", f"{_named(stream)}: an item that is not qualified left at index {row['idx']}")

    def _may_leave(self, body: object) -> bool:
        """Tell whether an item may leave by its report; what a hostile node reported was never ours to qualify."""
        if isinstance(body, TransferBody):
            report = parse_record(parse_tlog_proof(body.original.encode()).extra or b"")
            return report.envelope.iss not in self.world.stations or self._may_leave(report.body)
        return not isinstance(body, ReportBody) or self.world.may_leave(body.url)

    def _inbox(self, station: Station, row: Row) -> None:
        """I4 and I5: what a node holds of an honest peer is, index by index, what that one wrote."""
        stream = self.stream(station, "inbound_streams", row["stream"])
        log = self.logs.get(stream, Log())
        raw = station.vault.open_record("inbox", row["stream"], row["idx"], row["record_enc"])
        if leaf_hash(raw) != row["leaf_hash"]:
            self._say("I5", f"{_named(stream)}: {station.id} holds another record at {row['idx']} than it hashed")
        if stream[0] not in self.world.stations:
            return
        if row["leaf_hash"] in log.former.get(row["idx"], ()):
            # It was on its way when its writer's storage went back.
            return
        if row["idx"] >= len(log.leaves):
            self._say("I5", f"{_named(stream)}: {station.id} holds a record at {row['idx']} that was never written")
        elif log.leaves[row["idx"]] != row["leaf_hash"]:
            self._say("I5", f"{_named(stream)}: {station.id} holds another record at {row['idx']}")

    def _receipt(self, station: Station, row: Row) -> None:
        """I1 and I3: what a receipt covers is stored there, and it is the receipt that is stored there."""
        if row["worthless"]:
            return
        stream = self.stream(station, "outbound_streams", row["stream"])
        log = self.logs.get(stream, Log())
        checkpoint = Checkpoint.parse(parse_note(row["note"]).text)
        root = Edge.EMPTY.extend(log.leaves[: checkpoint.size]).root()
        if checkpoint.size != row["size"] or root != checkpoint.root or checkpoint.origin != _named(stream):
            self._say("I5", f"{_named(stream)}: the receipt for {row['size']} covers something else")
        for idx in range(checkpoint.size):
            log.receipted_s.setdefault(idx, self.world.loop.time())
        receiver = self.world.stations.get(stream[1])
        if receiver is not None:
            self._stored(receiver, stream, row["size"], row["note"])

    def _stored(self, receiver: Station, stream: Stream, size: int, note: bytes) -> None:
        if note in self.world.restores.forgotten:
            # It was on its way when its giver's storage went back.
            return
        inbound = next(
            iter(receiver.disk.find("inbound_streams", peer=stream[0], epoch=stream[2])),
            None,
        )
        if inbound is None or inbound["size"] < size:
            held = 0 if inbound is None else inbound["size"]
            self._say("I1", f"{_named(stream)}: a receipt covers {size} records, {receiver.id} holds {held}")
            return
        kept = receiver.disk.find("inbound_batches", stream=inbound["id"], size=size)
        if not kept or kept[0]["receipt"] != note:
            self._say("I3", f"{_named(stream)}: the receipt for {size} is not the one that {receiver.id} stored")

    def _inbound(self, station: Station, row: Row) -> None:
        """I12: what waits to be applied is bounded."""
        applied = [r["applied"] for r in station.disk.find("apply_cursors", stream=row["id"])]
        waiting = row["size"] - (applied[0] if applied else 0)
        # A recovery takes everything again that was taken once.
        if waiting > station.settings.unapplied_records_max and station.id not in self.world.restores.due:
            self._say("I12", f"{station.id} holds {waiting} records of {row['peer']} that are not applied")
        if len(station.disk.rows("nonces")) > NONCES_MAX:
            self._say("I12", f"{station.id} remembers {len(station.disk.rows('nonces'))} nonces")

    def _cursor(self, station: Station, row: Row) -> None:
        stream = self.stream(station, "outbound_streams", row["stream"])
        written = len(self.logs.get(stream, Log()).leaves)
        if row["acked_size"] > written:
            self._say("I1", f"{_named(stream)}: {row['acked_size']} receipted of {written} written")

    def _version(self, station: Station, row: Row) -> None:
        """I7: a node never goes back to an older directory."""
        newest = self.versions.get(station.id, 0)
        if row["version"] < newest:
            self._say("I7", f"{station.id} took directory version {row['version']} after {newest}")
        if row["version"] > newest:
            self.heard_s[station.id] = self.world.loop.time()
        self.versions[station.id] = max(newest, row["version"])

    def directory_used(self, station: Station, version: int) -> None:
        """I7, for what is in use rather than what is stored."""
        newest = self.versions.get(station.id, 0)
        if version < newest:
            self._say("I7", f"{station.id} uses directory version {version} after {newest}")
        self.versions[station.id] = max(newest, version)

    def _item(self, station: Station, row: Row) -> None:
        """I2: a record makes one item."""
        self.steps.item(station, row)
        if not self._made(station, row):
            self._say("I2", f"{station.id} made two items of the record at {row['received_idx']}")

    def _made(self, station: Station, row: Row) -> bool:
        """Remember what an item was made of; tells whether it is the only one."""
        key = station.id, row["received_stream"], row["received_idx"]
        fresh = (station.id, row[ROW_ID], -1)
        if row["received_stream"] is None or fresh in self.applied:
            return True
        twice = key in self.applied
        self.applied |= {fresh, key}
        return not twice

    def _identity(self, station: Station, row: Row) -> None:
        """I2: no history reports a URL twice."""
        if row["times_seen"] != 1:
            self._say("I2", f"{station.id} counted an item {row['times_seen']} times")

    def _equivocation(self, station: Station, row: Row) -> None:
        if row["peer"] in self.world.stations:
            self._say("I4", f"{station.id} holds proof that honest {row['peer']} told two stories at {row['size']}")

    def _refusal(self, station: Station, row: Row) -> None:
        stream = self.stream(station, "inbound_streams", row["stream"])
        if (refused := (*stream, row["idx"], row["code"])) in self.refused:
            # Before the storage went back, which the node's own outcome tells.
            return
        if self.world.restores.is_unaware(station):
            # It is judged again when the node is recovered; what still stands then is looked at in the end.
            return
        self.refused.add(refused)
        giver = self.world.stations.get(stream[0])
        if giver is None or is_outdated(self.world, station, giver, row):
            return
        # What is here, which its writer may have lost since with its storage.
        (kept,) = station.disk.find("inbox", stream=row["stream"], idx=row["idx"])
        record = parse_record(station.vault.open_record("inbox", row["stream"], row["idx"], kept["record_enc"]))
        item = None if isinstance(record.body, OutcomeBody) else UUID(record.envelope.item)
        wrong = self.steps.refused(station, stream, row, _kind(record), item)
        if wrong is not None:
            self._say("I2", f"{station.id} refused a record of {stream[0]}, {wrong}: {row['code']} {row['detail']}")

    def _heard(self, station: Station, name: str, session: Session) -> None:
        """An authenticated call ends the back-off towards its sender (section 6)."""
        for row in session.writes["peers"].values():
            if row is not None and row["retry_at"] is not None:
                self._say("I9", f"{station.id} still leaves {row['node_id']} alone after its call ({name})")

    def _reached(self, station: Station, session: Session) -> None:
        for row in (session.writes.get("peers") or {}).values():
            if row is not None and (row["failures"] or row["retry_at"] is not None):
                self._say("I9", f"{station.id} counts failures of {row['node_id']} after its receipt")

    # At every answer.

    def arrived(self, target: str, request: Request) -> Arrival | None:
        """Note a batch at a door before anything is done with it."""
        station = self.world.stations.get(target)
        parts = request.target_uri.split("/")[3:]
        if station is None or request.method != "PUT" or parts[:3] != ["peer", "v1", "inbox"]:
            return None
        try:
            count = len(decode_batch(request.body)[1])
        except ProtocolError:
            return None
        stream = parts[3], target, int(parts[4])
        return Arrival(stream, int(parts[5]), count, int(parts[5]) + count <= size_held(station, stream))

    def answered(self, source: str, arrival: Arrival | None, answer: Response) -> None:
        """I1: a receipt leaves after its commit. I3: it stays while it proves something, and answers each repeat."""
        if arrival is None:
            return
        station = self.world.stations[arrival.stream[1]]
        version = answer.headers.get("hx-directory", "")
        if version.isdecimal():
            self.directory_used(station, int(version))
        if answer.status == 200:
            checkpoint = Checkpoint.parse(parse_note(answer.body).text)
            key = checkpoint.origin, checkpoint.size
            first = self.receipts.setdefault(key, answer.body)
            if first != answer.body:
                if proves(first, station):
                    self._say("I3", f"{checkpoint.origin}: two receipts for {checkpoint.size} records")
                self.receipts[key] = answer.body
            if size_held(station, _stream_of(checkpoint.origin)) < checkpoint.size:
                self._say("I1", f"{checkpoint.origin}: a receipt for {checkpoint.size} left before they were stored")
        elif arrival.held and source in self.world.stations and source == arrival.stream[0]:
            code = _code(answer)
            if code in {"over-quota", "id-conflict", "stream-gap", "equivocation", "root-mismatch", "malformed"}:
                self._say("I3", f"{station.id} answered a repeat of what it holds with {code}")

    def leaves(self, source: str, target: str, request: Request) -> None:
        """I1 and I3: a receipt that is brought leaves after its commit, and is the one that was stored."""
        self.world.authority.leaves(source, target, request)
        station = self.world.stations.get(source)
        parts = request.target_uri.split("/")[3:]
        if station is not None and request.method == "PUT" and parts[:3] == ["peer", "v1", "receipts"]:
            self._stored(station, (target, source, int(parts[4])), int(parts[5]), request.body)

    def in_flight(self, source: str, target: str, count: int) -> None:
        """I12: a sender has few batches under way to one peer."""
        station = self.world.stations.get(source)
        if station is not None and count > station.settings.batches_in_flight_max + BESIDE_MAX:
            self._say("I12", f"{source} has {count} calls under way to {target}")

    # At the end.

    def at_the_end(self) -> None:
        """Compare both sides of everything."""
        for stream, log in self.logs.items():
            if stream[1] in self.world.stations and log.leaves and self.world.authority.left.isdisjoint(stream[:2]):
                self._compare(stream, log)
        for node in sorted(self.world.restores.ever):
            for row in self.world.stations[node].disk.rows("inbox_refusals"):
                self._refusal(self.world.stations[node], row)
        self.custody.at_the_end()
        self.world.disputes.at_the_end()
        self.steps.at_the_end()

    def _compare(self, stream: Stream, log: Log) -> None:
        sender, receiver = self.world.stations[stream[0]], self.world.stations[stream[1]]
        inbound = next(
            (r for r in receiver.disk.rows("inbound_streams") if (r["peer"], r["epoch"]) == (stream[0], stream[2])),
            None,
        )
        if inbound is None:
            self._say("I1", f"{_named(stream)}: nothing arrived of {len(log.leaves)} records")
            return
        held = sorted((r["idx"], r["leaf_hash"]) for r in receiver.disk.rows("inbox") if r["stream"] == inbound["id"])
        if held != list(enumerate(log.leaves)):
            self._say("I1", f"{_named(stream)}: {len(held)} records arrived of {len(log.leaves)}, or not the same")
        batches = [r for r in receiver.disk.rows("inbound_batches") if r["stream"] == inbound["id"]]
        given = {r["size"]: r["receipt"] for r in batches if not r["worthless"]}
        outbound = next(
            r for r in sender.disk.rows("outbound_streams") if (r["peer"], r["epoch"]) == (stream[1], stream[2])
        )
        kept = [r for r in sender.disk.rows("receipts") if r["stream"] == outbound["id"]]
        got = {r["size"]: r["note"] for r in kept if not r["worthless"]}
        if self.world.restores.ever & set(stream[:2]):
            # What lost its worth on one side, and is forgotten on the other, may be covered by another receipt
            # there (docs/adr/0021).
            worthless = {r["size"] for r in (*batches, *kept) if r["worthless"]}
            got = {size: note for size, note in got.items() if size not in worthless}
            given = {size: note for size, note in given.items() if size not in worthless}
        if got != given:
            self._say("I3", f"{_named(stream)}: receipts for {sorted(given)} were given, {sorted(got)} are kept")
        for size, note in got.items():
            if not proves(note, sender):
                self._say("I6", f"{_named(stream)}: the receipt for {size} proves nothing")
        self.told.at_the_end(stream, log)
        late = [
            idx
            for idx, at_s in enumerate(log.written_s)
            if self.world.plan.quiet and log.receipted_s.get(idx, at_s) - at_s > RECEIPT_WITHIN_S
        ]
        if late:
            self._say("I9", f"{_named(stream)}: the record at {late[0]} waited for its receipt")


def _stream_of(origin: str) -> Stream:
    """Return the stream of an origin line."""
    one = StreamId.parse(origin)
    return one.iss, one.aud, one.epoch


def _named(stream: Stream) -> str:
    return StreamId(*stream).origin()


def _kind(record: Record) -> str:
    """Return a record's type; a status that an item is closed is a step, and no other status is."""
    body, kind = record.body, record.envelope.type
    return "status-final" if isinstance(body, StatusBody) and body.kind is StatusKind.FINAL else kind


def _code(answer: Response) -> str:
    text = answer.body.decode("utf-8", "replace")
    return text.split('"code":"', 1)[1].split('"', 1)[0] if '"code":"' in text else str(answer.status)
