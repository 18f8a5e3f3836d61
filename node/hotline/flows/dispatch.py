"""Decides whose each ready item is, and writes its record into that peer's stream, in one transaction."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import msgspec

from node.hotline.domain.assessment import to_wire
from node.hotline.domain.lifecycle import Event, State, next_state
from node.hotline.domain.routing import Keep, Route, Send, Undeliverable, competent
from node.hotline.store import items, outbound
from node.hotline.store.qualification import from_column, is_illegal
from node.hotline.store.vault import Vault
from node.platform.database import Database, Row
from node.platform.fieldcrypto import FieldSealed
from node.platform.ids import new_ids
from protocol.bodies import Hash, Hosting, ReportBody
from protocol.codes import Channel, Commerciality, HashAlgorithm, Kind, PaymentMethod, SiteType
from protocol.directory import Directory
from protocol.errors import ProtocolError
from protocol.merkle import leaf_hash
from protocol.record import Handling, encode_report

_EVIDENCE = msgspec.json.Decoder(dict[str, object])
_WIRE_HASHES = frozenset(HashAlgorithm)
_EVENT = {Keep: Event.ROUTED_KEEP, Send: Event.ROUTED_SEND, Undeliverable: Event.ROUTED_UNDELIVERABLE}


@dataclass(frozen=True, slots=True)
class Dispatcher:
    """What this flow works with; one for each process."""

    node_id: str
    db: Database
    vault: Vault
    clock_now: Callable[[], datetime]
    items_max: int
    forward_unqualified: bool
    deliver_by_days: int
    retain_days: int

    async def run_once(self, directory: Directory) -> int:
        """Route up to `items_max` ready items; returns how many.

        Routes, records and their indices are committed together: if we crash before, the items are still ready; if
        we crash after, their records are in the streams.
        """
        now = self.clock_now()
        async with self.db.transaction("dispatch.store") as tx:
            rows = await items.lock_ready(tx, self.items_max)
            if not rows:
                return 0
            moves: list[items.Move] = []
            by_peer: dict[str, list[tuple[UUID, UUID, bytes]]] = {}
            for record_id, row in zip(new_ids(len(rows), now), rows, strict=True):
                if not self._cleared(row):
                    state = next_state(State.READY, Event.WITHHELD, qualified=False, forward_unqualified=False)
                    moves.append(items.Move(row["id"], state, None, None, None))
                    continue
                route = competent(
                    directory, row["hosting_country"], row["case_id"], self.node_id, frozenset(row["failed"])
                )
                if isinstance(route, Send):
                    try:
                        record = self._encode(record_id, row, route, now)
                    except ProtocolError as error:
                        # One item that the wire cannot carry is shown as undeliverable; the others go.
                        route = Undeliverable(f"record-{error.code}", route.hosting_country)
                    except FieldSealed:
                        # Altered in the database, or moved from another row: this item stays, the others go.
                        route = Undeliverable("unreadable", route.hosting_country)
                    else:
                        by_peer.setdefault(route.node_id, []).append((record_id, row["id"], record))
                        moves.append(self._move(row, route, leaf_hash(record)))
                        continue
                moves.append(self._move(row, route))
            heads = await outbound.lock_streams(tx, list(by_peer)) if by_peer else {}
            for peer, records in by_peer.items():
                await outbound.append(tx, heads[peer], self._sealed(heads[peer], records), now)
            await items.write_routes(tx, moves, now)
            if by_peer:
                await tx.notify("deliver")
        return len(rows)

    def _cleared(self, row: Row) -> bool:
        """Forwarding without qualification may have been switched off since the item became ready."""
        return self.forward_unqualified or is_illegal(row["qualification"])

    def _move(self, row: Row, route: Route, report_hash: bytes | None = None) -> items.Move:
        state = next_state(
            State.READY,
            _EVENT[type(route)],
            qualified=is_illegal(row["qualification"]),
            forward_unqualified=self.forward_unqualified,
        )
        if isinstance(route, Undeliverable):
            return items.Move(row["id"], state, route.reason, None, None)
        node = route.node_id if isinstance(route, Send) else self.node_id
        return items.Move(row["id"], state, route.reason, route.assigned_country, node, report_hash)

    def _sealed(
        self, head: outbound.StreamHead, records: Sequence[tuple[UUID, UUID, bytes]]
    ) -> list[outbound.OutboxRow]:
        return [
            outbound.OutboxRow(
                idx=idx,
                record_id=record_id,
                item_id=item_id,
                type="report",
                leaf_hash=leaf_hash(record),
                sealed=self.vault.seal_record("outbox", head.id, idx, record),
            )
            for idx, (record_id, item_id, record) in enumerate(records, start=head.next_index)
        ]

    def _encode(self, record_id: UUID, row: Row, route: Send, now: datetime) -> bytes:
        """Make the bytes of the item's `report` record; raises ProtocolError when the wire could not carry it."""
        assessment = from_column(row["qualification"])
        item_id, case_id = row["id"], row["case_id"]
        referrer = row["referrer_enc"]
        hosting = Hosting(
            country=row["hosting_country"],
            registered_country=row["registered_country"],
            assigned_country=route.assigned_country,
            confidence=row["confidence"],
            reasons=tuple(row["verdict_reasons"] or ()),
            evidence=_EVIDENCE.decode(self.vault.open("items", "evidence_enc", item_id, row["evidence_enc"])),
        )
        body = ReportBody(
            url=self.vault.open("items", "url_enc", item_id, row["url_enc"]),
            kind=Kind(row["kind"]),
            page=None if row["page_id"] is None else str(row["page_id"]),
            referrer=None if referrer is None else self.vault.open("cases", "referrer_enc", case_id, referrer),
            hashes=_hashes(row["hashes"]),
            site_type=None if row["site_type"] is None else SiteType(row["site_type"]),
            commerciality=None if row["commerciality"] is None else Commerciality(row["commerciality"]),
            payment_methods=tuple(PaymentMethod(method) for method in row["payment_methods"]),
            channel=Channel(row["channel"]),
            reference=self.vault.reference(case_id, row["wire_reference_enc"], row["reference"]),
            received_at=row["received_at"],
            reported_at=row["reported_at"],
            qualification=None if assessment is None else to_wire(assessment),
            hosting=hosting,
        )
        return encode_report(
            body,
            record_id=str(record_id),
            case=str(case_id),
            item=str(item_id),
            iss=self.node_id,
            aud=route.node_id,
            iat=now,
            handling=Handling("takedown", now + timedelta(days=self.retain_days)),
            deliver_by=now + timedelta(days=self.deliver_by_days),
        )


def _hashes(column: Sequence[Mapping[str, str]] | None) -> tuple[Hash, ...]:
    """The hashes of the algorithms that the wire names."""
    if column is None:
        return ()
    return tuple(Hash(HashAlgorithm(one["alg"]), one["value"]) for one in column if one["alg"] in _WIRE_HASHES)
