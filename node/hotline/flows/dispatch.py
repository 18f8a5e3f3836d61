"""Decides whose each ready item is, and writes its record into that peer's stream, in one transaction."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from node.clock import rfc3339
from node.hotline.domain.lifecycle import Event, State, next_state
from node.hotline.domain.routing import Keep, Route, Send, Undeliverable, competent
from node.hotline.store import items, outbound
from node.hotline.store.qualification import from_column, is_illegal
from node.hotline.store.vault import Vault
from node.platform.database import Database, Row
from node.platform.ids import new_ids
from protocol.directory import Directory
from protocol.merkle import leaf_hash
from protocol.record import encode_report

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
            routed = [(row, competent(directory, row["hosting_country"], row["case_id"], self.node_id)) for row in rows]
            by_peer: dict[str, list[tuple[Row, Send]]] = {}
            for row, route in routed:
                if isinstance(route, Send):
                    by_peer.setdefault(route.node_id, []).append((row, route))
            heads = await outbound.lock_streams(tx, list(by_peer)) if by_peer else {}
            for peer, wanted in by_peer.items():
                await outbound.append(tx, heads[peer], self._records(heads[peer], wanted, now), now)
                await tx.notify(f"deliver:{peer}")
            await items.write_routes(tx, [self._move(row, route) for row, route in routed], now)
        return len(rows)

    def _move(self, row: Row, route: Route) -> tuple[UUID, str, str | None, str | None, str | None]:
        state = next_state(
            State.READY,
            _EVENT[type(route)],
            qualified=is_illegal(row["qualification"]),
            forward_unqualified=self.forward_unqualified,
        )
        if isinstance(route, Undeliverable):
            return row["id"], state, route.reason, None, None
        node = route.node_id if isinstance(route, Send) else self.node_id
        return row["id"], state, route.reason, route.assigned_country, node

    def _records(
        self, head: outbound.StreamHead, wanted: Sequence[tuple[Row, Send]], now: datetime
    ) -> list[outbound.OutboxRow]:
        rows = []
        for idx, (record_id, (row, route)) in enumerate(
            zip(new_ids(len(wanted), now), wanted, strict=True), start=head.next_index
        ):
            record = self._encode(record_id, row, route, now)
            rows.append(
                outbound.OutboxRow(
                    idx=idx,
                    record_id=record_id,
                    item_id=row["id"],
                    type="report",
                    leaf_hash=leaf_hash(record),
                    sealed=self.vault.seal_record("outbox", head.id, idx, record),
                )
            )
        return rows

    def _encode(self, record_id: UUID, row: Row, route: Send, now: datetime) -> bytes:
        raise NotImplementedError
