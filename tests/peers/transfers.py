"""Transfers as a simulated peer makes them, honest ones and others; proofs of records that never went anywhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from node.conformance.speaker import RETAIN
from node.platform.ids import new_id
from protocol.bodies import Hosting
from protocol.checkpoint import Checkpoint, StreamId
from protocol.codes import StatusKind, TransferReason
from protocol.cosignature import cosign, sign_checkpoint
from protocol.custody import evidence_hash
from protocol.evidence import make_proof
from protocol.keys import KeyUse
from protocol.merkle import Edge, leaf_hash
from protocol.record import Handling, encode_step, parse_record
from protocol.steps import Custody, StatusBody, TransferBody
from tests.peers.simulator import PeerSimulator


def at_address(ip: str) -> dict[str, object]:
    """Evidence that a host is at an address."""
    return {"addresses": [{"ip": ip}]}


def proof(record: bytes, sender: PeerSimulator, receiver: PeerSimulator) -> str:
    """Return the tlog-proof of a record that `receiver` took from `sender` as the first of a stream."""
    stream = StreamId(sender.id, receiver.id, 1)
    edge = Edge.EMPTY.extend([leaf_hash(record)])
    checkpoint = Checkpoint(stream.origin(), 1, edge.root())
    now_s = int(sender.now().timestamp())
    note = sign_checkpoint(checkpoint, sender.keys.signing(KeyUse.STREAM), now_s=now_s)
    keys = receiver.keys.signing(KeyUse.RECEIPT)
    receipt = cosign(note, checkpoint, stream.receipt_name(), keys, now_s=now_s)
    return make_proof(record, 0, [], receipt.to_bytes()).decode()


@dataclass(slots=True)
class Chain:
    """An item that `reporter` sent to the first of `holders`, each of whom gave it to the next; the last one speaks."""

    reporter: PeerSimulator
    holders: Sequence[PeerSimulator]
    report: bytes = b""
    steps: list[Custody] = field(default_factory=list)

    def __post_init__(self) -> None:
        first = self.holders[0]
        if not self.report:
            self.report = self.reporter.report(country="DE", aud=first.id)
        envelope = parse_record(self.report).envelope
        hosting: Any = envelope.body["hosting"]
        self.steps = [self.station(self.reporter.id, hosting["country"], hosting["evidence"])]
        for number, one in enumerate(self.holders):
            self.steps.append(self.station(one.id, "NL", at_address(f"192.0.2.{number + 1}")))

    @property
    def speaker(self) -> PeerSimulator:
        """Who has the item, and gives it on."""
        return self.holders[-1]

    @property
    def item(self) -> str:
        return parse_record(self.report).envelope.item

    def station(self, node: str, country: str, evidence: Mapping[str, object]) -> Custody:
        return Custody(node=node, country=country, evidence=evidence_hash(evidence), at=self.now())

    def now(self) -> datetime:
        return self.reporter.now()

    def original(self) -> str:
        """The proof of the report as it was first sent."""
        return proof(self.report, self.reporter, self.holders[0])

    def transfer(self, *, envelope: Mapping[str, Any] | None = None, **body: Any) -> bytes:
        """Return the transfer to the node under test; members of the body and the envelope can be other ones."""
        now, said = self.now(), parse_record(self.report).envelope
        last = at_address(f"192.0.2.{len(self.holders)}")
        members: dict[str, Any] = {
            "reason": TransferReason.MOVED,
            "hosting": Hosting(
                country="NL", assigned_country="NL", confidence=90, reasons=("databases-agree",), evidence=last
            ),
            "original": self.original(),
            "trail": tuple(self.steps),
            **body,
        }
        around: dict[str, Any] = {
            "record_id": str(new_id(now)),
            "case": said.case,
            "item": said.item,
            "iss": self.speaker.id,
            "aud": self.speaker.target_id,
            "iat": now,
            "handling": Handling("takedown", said.handling.retain_until),
            "deliver_by": now + timedelta(days=1),
            "hops": [one.node for one in members["trail"][1:]],
            **(envelope or {}),
        }
        return encode_step(TransferBody(**members), **around)

    def delivered(self, holder: PeerSimulator, transfer: bytes, **body: Any) -> bytes:
        """Return the status in which `holder` says that it got the item by this transfer."""
        now, said = self.now(), parse_record(self.report).envelope
        members: dict[str, Any] = {
            "kind": StatusKind.DELIVERED,
            "at": now,
            "about": leaf_hash(self.report).hex(),
            "node": holder.id,
            "proof": proof(transfer, self.speaker, holder),
            **body,
        }
        return encode_step(
            StatusBody(**members),
            record_id=str(new_id(now)),
            case=said.case,
            item=said.item,
            iss=holder.id,
            aud=holder.target_id,
            iat=now,
            handling=Handling("takedown", now + RETAIN),
        )
