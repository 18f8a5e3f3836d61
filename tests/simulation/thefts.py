"""Keys that are replaced without notice in a history: retired, or stolen some time ago; and what their thief tries.

Which keys count when is written from docs/protocol.md, sections 1 and 6, and uses none of the code that decides.
"""

import base64
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from node.hotline.domain.windows import NONE
from node.platform.httpclient import PeerUnreachable
from node.platform.keyfiles import NodeKeys
from protocol.batch import MEDIA_TYPE, decode_batch, encode_batch
from protocol.checkpoint import Checkpoint, StreamId
from protocol.cosignature import cosign, sign_checkpoint
from protocol.directory import Directory, DirectoryKey
from protocol.errors import ProtocolError
from protocol.keys import KeyState, KeyUse, SigningKey
from protocol.merkle import Edge, leaf_hash
from protocol.note import Note, SignatureType, key_id, parse_note
from protocol.profile import Request, Response, sign_request
from protocol.timestamps import format_time
from tests.simulation import members
from tests.simulation.plan import Event
from tests.simulation.services import START
from tests.simulation.sql.tables import Row, Session
from tests.simulation.station import Station

if TYPE_CHECKING:
    from tests.simulation.world import World

_KEYID: Final = re.compile('keyid="([^"]+)"')
_TIME_BYTES: Final = 8
#: A directory that came into use while a receipt was being stored judges it a moment later.
_JUDGED_WITHIN_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Stolen:
    """Keys of one node that the directory lists as stolen, by their use, since when, and from which version on."""

    keys: dict[KeyUse, SigningKey]
    since: datetime
    version: int


@dataclass(slots=True)
class Thefts:
    """Replaces keys, steals some, and looks at what is made of their signatures."""

    world: "World"
    rng: random.Random = field(init=False)
    #: Which generation of keys a node has by now, where it is not the first.
    _generations: dict[tuple[str, KeyUse], int] = field(default_factory=dict)
    stolen: dict[str, Stolen] = field(default_factory=dict)
    #: When each node took up the directory that it uses, and which that was.
    _used: dict[str, tuple[float, Directory]] = field(default_factory=dict)
    #: By what each node judged the receipts of a peer and a direction.
    _windows: dict[tuple[str, str, str], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take chances of their own."""
        self.rng = random.Random(f"thefts {self.world.plan.seed}")

    @property
    def on(self) -> bool:
        """Whether a key is stolen in this history."""
        return any(event.kind == "compromised" for event in self.world.plan.events)

    # The events.

    def new_keys(self, event: Event) -> None:
        """Retire a node's keys and list new ones, which it signs with from now on; the others hear of it later."""
        now = format_time(self._now())
        self._replace(event, members.USES, {"state": "retired", "retired_at": now}, now)
        self.world.rekeyed_in = self.world.version

    def compromised(self, event: Event) -> None:
        """List a node's keys as stolen `amount` seconds ago, and new ones; everybody hears of it later."""
        node, uses = members.node_id(event.node), [KeyUse(use) for use in event.detail.split()]
        active = [key for key in self._listed(event) if key["state"] == "active" and key["use"] in uses]
        since = max(self._now() - timedelta(seconds=event.amount), *(_time(key["not_before"]) for key in active))
        self.stolen[node] = Stolen(
            {use: self._key(node, use) for use in uses}, since.replace(microsecond=0), self.world.version + 1
        )
        said = {"state": "compromised", "compromised_since": format_time(since)}
        # A key that counts for checkpoints and receipts counts by whole seconds.
        begins = since if event.number else self._now().replace(microsecond=0)
        self._replace(event, uses, said, format_time(max(begins, since)))

    def _replace(self, event: Event, uses: Sequence[KeyUse], said: dict[str, str], begins: str) -> None:
        world, station = self.world, self.world.station(event.node)
        world.generation += 1
        keys = self._listed(event)
        for key in keys:
            if key["state"] == "active" and key["use"] in uses:
                key.update(said)
        fresh = [members.key_entry(station.id, use, world.generation, not_before=begins) for use in uses]
        world.entries[event.node] = {**world.entries[event.node], "keys": [*keys, *fresh]}
        world.faults.directory(event)
        made = [one for one in members.keys_of(station.id, world.generation).stored if one.use in uses]
        # The old ones stay on its disk: the directory says which counts.
        station.keys = NodeKeys((*station.keys.stored, *made))
        self._generations |= {(station.id, use): world.generation for use in uses}
        world.expiry.write(station)

    def _listed(self, event: Event) -> list[dict[str, Any]]:
        keys: list[dict[str, Any]] = self.world.entries[event.node]["keys"]
        return keys

    def _key(self, node: str, use: KeyUse) -> SigningKey:
        return members.signing_key(f"{node} {use}", self._generations.get((node, use), 0))

    def _now(self) -> datetime:
        return START + timedelta(seconds=self.world.loop.time())

    def thief(self, event: Event) -> None:
        """Somebody signs with the keys stolen from `node` at `other`, once that one has heard of it."""
        node, target = members.node_id(event.node), self.world.stations[members.node_id(event.other)]
        stolen = self.stolen.get(node)
        if stolen is None or self.world.healed or not self._heard(target, stolen):
            return
        request = getattr(self, "_" + event.detail)(node, target, stolen)
        if request is not None:
            # It says an earlier time, as somebody would who had the key before it was listed.
            created = int((self._now() - timedelta(seconds=event.amount)).timestamp())
            self.world.spawn(self._try(request, self._http(node, stolen), created))

    def _heard(self, target: Station, stolen: Stolen) -> bool:
        run = target.run
        return run is not None and run.node is not None and run.node.directory().version >= stolen.version

    def _http(self, node: str, stolen: Stolen) -> SigningKey:
        """Return the stolen key, or else the node's own: nobody knows that it is stolen too."""
        return stolen.keys.get(KeyUse.HTTP) or self._key(node, KeyUse.HTTP)

    async def _try(self, request: Request, key: SigningKey, created: int) -> None:
        nonce = base64.b64encode(self.rng.randbytes(16)).decode()
        signed = request.adding(sign_request(request, key, created=created, nonce=nonce))
        try:
            answer = await self.world.network.exchange("a thief", signed, 8.0)
        except PeerUnreachable:
            return
        if answer.status < 500 and b'"code":' not in answer.body:
            self._say(f"{signed.method} {signed.target_uri} of a thief is answered {answer.status}")

    def _ask(self, node: str, target: Station, stolen: Stolen) -> Request | None:
        """Ask how far a stream is held."""
        if KeyUse.HTTP not in stolen.keys:
            return None
        return Request("GET", f"https://{target.id}/peer/v1/streams/{node}", {}, b"")

    def _write(self, node: str, target: Station, stolen: Stolen) -> Request | None:
        """Put a record into the node's stream that it never wrote."""
        heads = sorted((row["epoch"], row["id"]) for row in target.disk.find("inbound_streams", peer=node))
        epoch, held = heads[-1] if heads else (1, -1)
        rows = sorted(target.disk.find("inbox", stream=held), key=lambda row: row["idx"])
        record = b'{"v":1,"type":"report"}'
        edge = Edge.EMPTY.extend([*(row["leaf_hash"] for row in rows), leaf_hash(record)])
        checkpoint = Checkpoint(StreamId(node, target.id, epoch).origin(), edge.size, edge.root())
        key = stolen.keys.get(KeyUse.STREAM) or self._key(node, KeyUse.STREAM)
        if KeyUse.STREAM not in stolen.keys and KeyUse.HTTP not in stolen.keys:
            return None
        note = sign_checkpoint(checkpoint, (key,), now_s=int(self._now().timestamp()))
        path = f"/peer/v1/inbox/{node}/{epoch}/{len(rows)}"
        body = encode_batch(note.to_bytes(), [record])
        return Request("PUT", f"https://{target.id}{path}", {"content-type": MEDIA_TYPE}, body)

    def _receipt(self, node: str, target: Station, stolen: Stolen) -> Request | None:
        """Give a receipt, of a time at which the key was still good, for what the node was sent."""
        key = stolen.keys.get(KeyUse.RECEIPT)
        sent = [request for source, to, request in self.world.network.captured if (source, to) == (target.id, node)]
        batches = [request for request in sent if "/peer/v1/inbox/" in request.target_uri]
        if key is None or not batches:
            return None
        note = parse_note(decode_batch(batches[-1].body)[0])
        checkpoint = Checkpoint.parse(note.text)
        stream = StreamId.parse(checkpoint.origin)
        time_s = int((stolen.since - timedelta(seconds=2)).timestamp())
        own = Note(note.text, tuple(one for one in note.signatures if one.name == checkpoint.origin))
        forged = cosign(own, checkpoint, stream.receipt_name(), (key,), now_s=time_s)
        path = f"/peer/v1/receipts/{target.id}/{stream.epoch}/{checkpoint.size}"
        media_type = {"content-type": "text/plain; charset=utf-8"}
        return Request("PUT", f"https://{target.id}{path}", media_type, forged.to_bytes())

    # What is looked at.

    def _say(self, sentence: str) -> None:
        self.world.violated("I5", sentence)

    def arrived(self, target: str, request: Request) -> str | None:
        """Return what of a request is signed by a key that its receiver knows as stolen."""
        station = self.world.stations[target]
        if not self.on or station.run is None or station.run.node is None:
            return None
        bad = [
            (node.id, key)
            for node in station.run.node.directory().nodes.values()
            for key in node.keys
            if key.state is KeyState.COMPROMISED
        ]
        found = _KEYID.search(request.headers.get("signature-input", ""))
        if found is not None and found[1] in {key.public.thumbprint() for _, key in bad}:
            return "the request"
        if request.method == "PUT" and "/peer/v1/inbox/" in request.target_uri:
            return self._checkpoint(target, request, [key for _, key in bad if key.use is KeyUse.STREAM])
        return None

    @staticmethod
    def _checkpoint(target: str, request: Request, bad: Sequence[DirectoryKey]) -> str | None:
        try:
            note = parse_note(decode_batch(request.body)[0])
            origin = Checkpoint.parse(note.text).origin
        except ProtocolError:
            return None
        if any(one.name == f"{target}/receipt" for one in note.signatures):
            # A receipt that was given: the key was good then, or it is judged where it is stored.
            return None
        ids = {key_id(origin, SignatureType.ED25519, key.public.raw) for key in bad}
        return "the checkpoint" if any(one.name == origin and one.key_id in ids for one in note.signatures) else None

    def answered(self, target: str, signed: str | None, answer: Response) -> None:
        """What a stolen key has signed opens nothing, whatever time it states."""
        if signed is not None and b'"code":' not in answer.body and answer.status < 500:
            self._say(f"{target} answers {answer.status} though {signed} is signed with a key that it knows as stolen")

    def committed(self, station: Station, session: Session) -> None:
        """No receipt is stored as one that counts which proves nothing by the directory in use."""
        for row in session.writes.get("judged_keys", {}).values():
            self._judged(station, row)
        run = station.run
        if not self.on or run is None or run.assembled is None:
            return
        directory, now_s = run.assembled.directory(), self.world.loop.time()
        since_s, used = self._used.get(station.id, (-_JUDGED_WITHIN_S, directory))
        if used is not directory:
            since_s = now_s
        self._used[station.id] = since_s, directory
        if now_s < since_s + _JUDGED_WITHIN_S:
            return
        for table, column in (("receipts", "note"), ("inbound_batches", "receipt")):
            for row in session.writes.get(table, {}).values():
                if row is not None and not row["worthless"] and not counts(row[column], directory):
                    self._say(f"{station.id} stored a receipt for {row['size']} that proves nothing")

    def _judged(self, station: Station, row: Row | None) -> None:
        """A node has heard of keys once it judged its receipts by them: proofs made before may hold worthless ones."""
        if row is not None:
            key = station.id, row["peer"], row["direction"]
            if self._windows.setdefault(key, row["windows"]) not in {row["windows"], NONE}:
                self.world.checks.heard_s[station.id] = self.world.loop.time()
            self._windows[key] = row["windows"]

    def at_the_end(self) -> None:
        """What was signed in time keeps its worth, nothing else does, and every record has a receipt that counts."""
        for station in self.world.stations.values() if self.on else ():
            if station.run is None or station.run.node is None or station.id in self.world.authority.left:
                continue
            directory = station.run.node.directory()
            for name, note, worthless in self._receipts(station):
                if counts(note, directory) is worthless:
                    what = "nothing" if worthless else "something"
                    self._say(f"{station.id} holds that a receipt of its stream {name} proves {what}")
            for row in station.disk.rows("outbound_streams"):
                kept = station.disk.find("receipts", stream=row["id"])
                covered = max((one["size"] for one in kept if counts(one["note"], directory)), default=0)
                there = row["peer"] in self.world.stations.keys() - self.world.authority.left
                if there and covered < row["next_index"]:
                    self._say(f"{station.id} can prove {covered} of {row['next_index']} records to {row['peer']}")

    def _receipts(self, station: Station) -> Iterable[tuple[str, bytes, bool]]:
        for streams, table, column in (
            ("outbound_streams", "receipts", "note"),
            ("inbound_streams", "inbound_batches", "receipt"),
        ):
            for stream in station.disk.rows(streams):
                if stream["peer"] in self.world.stations:
                    for row in station.disk.find(table, stream=stream["id"]):
                        yield f"with {stream['peer']}", row[column], row["worthless"]


def counts(receipt: bytes, directory: Directory) -> bool:
    """Tell whether every key of both sides that was good when a receipt says it was given has a line on it.

    A stream key that was stolen later was good, a receipt key that was ever stolen is not.
    """
    note = parse_note(receipt)
    origin = Checkpoint.parse(note.text).origin
    stream = StreamId.parse(origin)
    name = stream.receipt_name()
    for stated in {one.signature[:_TIME_BYTES] for one in note.signatures if one.name == name}:
        at = datetime.fromtimestamp(int.from_bytes(stated), UTC)
        given = {
            key_id(name, SignatureType.ED25519_COSIGNATURE, key.public.raw)
            for key in directory.nodes[stream.aud].keys
            if key.use is KeyUse.RECEIPT and key.state is not KeyState.COMPROMISED and _good(key, at)
        }
        made = {
            key_id(origin, SignatureType.ED25519, key.public.raw)
            for key in directory.nodes[stream.iss].keys
            if key.use is KeyUse.STREAM and _good(key, at)
        }
        lines = {one.key_id for one in note.signatures if one.name == origin or one.signature.startswith(stated)}
        if given and made and lines >= given | made:
            return True
    return False


def _good(key: DirectoryKey, at: datetime) -> bool:
    ends = [end for end in (key.retired_at, key.compromised_since) if end is not None]
    return key.state is not KeyState.NEXT and key.not_before <= at and all(at < end for end in ends)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
