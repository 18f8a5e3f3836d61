"""What a report should have said, and who stands for a URL when the report of it is taken back. Decides nothing."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from node.hotline.domain.acts import overlaid
from node.hotline.domain.steps import Heir, KnownItem, heir_state
from node.hotline.store import intake, items, outbound
from node.hotline.store.qualification import from_column, to_column
from node.hotline.store.vault import Vault
from node.platform.database import Transaction
from protocol.record import parse_record
from protocol.steps import Corrected, CorrectionBody


@dataclass(frozen=True, slots=True)
class Amendments:
    """What amendments are written with."""

    tx: Transaction
    vault: Vault

    async def correct(self, item_id: UUID, case_id: UUID, members: Corrected, now: datetime) -> Corrected:
        """Write what is new of `members` into a case and its item, both locked here; return what was new."""
        case = await self.tx.row(
            "SELECT reference, wire_reference_enc, referrer_enc, site_type, commerciality, payment_methods FROM cases "
            "WHERE id = $1 FOR UPDATE",
            case_id,
        )
        if case is None:
            raise LookupError("every item has its case")
        sealed = case["referrer_enc"]
        referrer = None if sealed is None else self.vault.open("cases", "referrer_enc", case_id, sealed)
        reference = self.vault.reference(case_id, case["wire_reference_enc"], case["reference"])
        held = await self.tx.value("SELECT hashes FROM items WHERE id = $1 FOR UPDATE", item_id)
        hashes = None
        if members.hashes is not None:
            hashes = [{"alg": one.alg.value, "value": one.value} for one in members.hashes]
        methods = None if members.payment_methods is None else [method.value for method in members.payment_methods]
        new = Corrected(
            referrer=None if members.referrer == referrer else members.referrer,
            hashes=None if hashes == (held or []) else members.hashes,
            site_type=None if members.site_type == case["site_type"] else members.site_type,
            commerciality=None if members.commerciality == case["commerciality"] else members.commerciality,
            payment_methods=None if methods == list(case["payment_methods"]) else members.payment_methods,
            reference=None if members.reference == reference else members.reference,
        )
        if new.hashes is not None:
            await self.tx.execute(
                "UPDATE items SET hashes = $2::jsonb, updated_at = $3 WHERE id = $1", item_id, json.dumps(hashes), now
            )
        await self._write_case(case_id, new, methods)
        return new

    async def said_of(self, item_id: UUID) -> Corrected:
        """Return everything that we wrote to correct our report of an item, as one correction."""
        said = Corrected()
        for one in await outbound.corrections(self.tx, item_id):
            raw = self.vault.open_record("outbox", one["stream"], one["idx"], one["record_enc"])
            body = parse_record(raw).body
            if isinstance(body, CorrectionBody):
                said = overlaid(said, body.members)
        return said

    async def _write_case(self, case_id: UUID, new: Corrected, methods: Sequence[str] | None) -> None:
        sealed = reference = None
        if new.referrer is not None:
            sealed = self.vault.seal("cases", "referrer_enc", case_id, new.referrer)
        if new.reference is not None:
            reference = self.vault.seal("cases", "wire_reference_enc", case_id, new.reference)
        await self.tx.execute(
            "UPDATE cases SET referrer_enc = coalesce($2, referrer_enc), site_type = coalesce($3, site_type), "
            "commerciality = coalesce($4, commerciality), payment_methods = coalesce($5, payment_methods), "
            "wire_reference_enc = coalesce($6, wire_reference_enc) WHERE id = $1",
            case_id,
            sealed,
            new.site_type,
            new.commerciality,
            None if new.payment_methods is None else methods,
            reference,
        )

    async def withdraw(self, rows: Sequence[tuple[UUID, str]], now: datetime) -> None:
        """Write when and why (`id`, reason) reports were taken back, and that their hosts are looked for no more."""
        ids = [row[0] for row in rows]
        await self.tx.execute(
            "UPDATE items SET withdrawn_at = $3, withdrawn_reason = r.reason "
            "FROM unnest($1::uuid[], $2::text[]) AS r(id, reason) WHERE items.id = r.id AND withdrawn_at IS NULL",
            ids,
            [row[1] for row in rows],
            now,
        )
        await items.leave_queue(self.tx, ids)
        await self.tx.execute("DELETE FROM relocations WHERE item_id = ANY($1)", ids)

    async def succeed(self, ids: Sequence[UUID], now: datetime) -> None:
        """Let the oldest duplicate of each of these items, which count no more, stand for its URL."""
        for heir in await self._lock_heirs(ids):
            state, reason = heir_state(heir)
            await self.tx.execute(
                "UPDATE items SET duplicate_of = CASE WHEN id = $1 THEN NULL ELSE $1 END, "
                "state = CASE WHEN id = $1 THEN $3 ELSE state END, "
                "reason = CASE WHEN id = $1 THEN $4 ELSE reason END, updated_at = $5 WHERE duplicate_of = $2",
                heir.id,
                heir.instead_of,
                state,
                reason,
                now,
            )
            await self.tx.execute(
                "UPDATE url_identities u SET item_id = $1 FROM items i "
                "WHERE i.id = $2 AND u.url_digest = i.url_digest AND u.item_id = $2",
                heir.id,
                heir.instead_of,
            )
            if state == "locating":
                await items.requeue(self.tx, [heir.id], now)

    async def report_anew(self, item: KnownItem, new: UUID, now: datetime) -> UUID:
        """Write the item `new` of the same case for the URL of one that ended; return the item that counts for the URL.

        That is the one that counts already, where there is one; then none is written.
        """
        row = await self.tx.row("SELECT * FROM items WHERE id = $1", item.id)
        if row is None:
            raise LookupError("the item is locked")
        counts: UUID = await self.tx.value(
            "SELECT item_id FROM url_identities WHERE url_digest = $1", row["url_digest"]
        )
        if counts != item.id:
            return counts
        state, reason = heir_state(Heir(new, item.id, received=False, own=item.own))
        sealed = {
            name: None
            if row[name] is None
            else self.vault.seal("items", name, new, self.vault.open("items", name, item.id, row[name]))
            for name in ("url_enc", "normal_enc")
        }
        again = intake.ItemRow(
            id=new,
            case_id=item.case_id,
            kind=row["kind"],
            page_id=row["page_id"],
            url_enc=sealed["url_enc"] or b"",
            normal_enc=sealed["normal_enc"],
            url_digest=row["url_digest"],
            hashes=None if row["hashes"] is None else json.dumps(row["hashes"]),
            duplicate_of=None,
            state=state,
            reason=reason,
            qualification=to_column(item.own),
        )
        await self.tx.execute("UPDATE url_identities SET item_id = $2 WHERE url_digest = $1", row["url_digest"], new)
        await intake.copy_items(self.tx, [again], now)
        return new

    async def _lock_heirs(self, ids: Sequence[UUID]) -> list[Heir]:
        rows = await self.tx.fetch(
            "SELECT id, duplicate_of, received_stream IS NOT NULL AS received, qualification FROM items "
            "WHERE id IN (SELECT DISTINCT ON (duplicate_of) id FROM items "
            "WHERE duplicate_of = ANY($1) AND state = 'duplicate' ORDER BY duplicate_of, id) ORDER BY id FOR UPDATE",
            ids,
        )
        return [
            Heir(row["id"], row["duplicate_of"], received=row["received"], own=from_column(row["qualification"]))
            for row in rows
        ]


async def lock_identities(tx: Transaction, ids: Sequence[UUID]) -> None:
    """Lock the URL identities of items before the items themselves, as intake does, so that neither waits for ever."""
    await tx.fetch(
        "SELECT 1 FROM url_identities WHERE url_digest IN (SELECT url_digest FROM items WHERE id = ANY($1)) "
        "ORDER BY url_digest FOR UPDATE",
        ids,
    )


async def items_of_case(tx: Transaction, item_id: UUID) -> list[UUID]:
    """Return every item of the case that an item belongs to; none where the item is not known."""
    rows = await tx.fetch(
        "SELECT i.id FROM items i JOIN items known ON known.case_id = i.case_id WHERE known.id = $1", item_id
    )
    return [row["id"] for row in rows]
