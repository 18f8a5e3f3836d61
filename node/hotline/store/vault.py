"""Seals and opens the fields of rows, and digests URLs for search; the keys come wrapped from `field_keys`."""

import os
from dataclasses import dataclass
from datetime import datetime
from struct import Struct
from uuid import UUID

from node.errors import OperatorError
from node.platform.database import Transaction
from node.platform.fieldcrypto import DigestKey, FieldCipher, MasterKey, row_aad, unwrap, wrap

_STREAM_ROW = Struct(">iq")
_FIELD = "field"
_DIGEST = "digest"
_URL_DOMAIN = "url"


@dataclass(frozen=True, slots=True)
class Vault:
    """The open keys of one process."""

    cipher: FieldCipher
    digest_key: DigestKey

    def seal(self, table: str, column: str, row_id: UUID, text: str) -> bytes:
        """Return `text` sealed for exactly this table, column and row."""
        return self.cipher.encrypt(text.encode(), row_aad(table, column, row_id.bytes))

    def open(self, table: str, column: str, row_id: UUID, sealed: bytes) -> str:
        """Return the text; raises FieldSealed when the value was altered or comes from another row."""
        return self.cipher.decrypt(sealed, row_aad(table, column, row_id.bytes)).decode()

    def seal_record(self, table: str, stream: int, idx: int, record: bytes) -> bytes:
        """Return a stream's record sealed for its place."""
        return self.cipher.encrypt(record, row_aad(table, "record_enc", _STREAM_ROW.pack(stream, idx)))

    def open_record(self, table: str, stream: int, idx: int, sealed: bytes) -> bytes:
        """Return a stream's record, exactly the bytes that were sealed."""
        return self.cipher.decrypt(sealed, row_aad(table, "record_enc", _STREAM_ROW.pack(stream, idx)))

    def reference(self, case_id: UUID, sealed: bytes | None, own: str | None) -> str | None:
        """Return a report's reference as records have it: the one sealed with its case, else the submitter's `own`."""
        return own if sealed is None else self.open("cases", "wire_reference_enc", case_id, sealed)

    def url_digest(self, normal: str) -> bytes:
        """Return the keyed digest under which a normalised URL is found again (32 bytes)."""
        return self.digest_key.digest(_URL_DOMAIN, normal)

    def content_digest(self, content: str) -> bytes:
        """Return the keyed digest that tells two reports under one reference apart (32 bytes)."""
        return self.digest_key.digest("report", content)


async def create_keys(tx: Transaction, master: MasterKey, now: datetime) -> None:
    """Make the first field key and the digest key, wrapped under `master`; does nothing when they exist."""
    if await tx.value("SELECT count(*) FROM field_keys"):
        return
    for key_id, purpose in ((1, _FIELD), (2, _DIGEST)):
        wrapped = wrap(master, purpose, key_id, os.urandom(32))
        await tx.execute(
            "INSERT INTO field_keys (id, purpose, wrapped, master_id, created_at) VALUES ($1, $2, $3, $4, $5) "
            "ON CONFLICT DO NOTHING",
            key_id,
            purpose,
            wrapped,
            master.id,
            now,
        )


async def load_vault(tx: Transaction, master: MasterKey) -> Vault:
    """Unwrap the keys; raises OperatorError when there are none or they are under another master key."""
    fields: dict[int, bytes] = {}
    digest: bytes | None = None
    for row in await tx.fetch("SELECT id, purpose, wrapped, master_id FROM field_keys ORDER BY id"):
        if row["master_id"] != master.id:
            raise OperatorError("The database's field keys are wrapped under another master key than the one given.")
        key = unwrap(master, row["purpose"], row["id"], row["wrapped"])
        if row["purpose"] == _FIELD:
            fields[row["id"]] = key
        else:
            digest = key
    if not fields or digest is None:
        raise OperatorError("The database holds no field keys; run `hotline init` or `hotline migrate` first.")
    return Vault(FieldCipher(fields, max(fields)), DigestKey(digest))


async def rotate_master(tx: Transaction, old: MasterKey, new: MasterKey) -> int:
    """Wrap every field key under `new` instead of `old`; returns how many. The keys themselves stay."""
    rows = await tx.fetch("SELECT id, purpose, wrapped FROM field_keys ORDER BY id FOR UPDATE")
    for row in rows:
        key = unwrap(old, row["purpose"], row["id"], row["wrapped"])
        await tx.execute(
            "UPDATE field_keys SET wrapped = $2, master_id = $3 WHERE id = $1",
            row["id"],
            wrap(new, row["purpose"], row["id"], key),
            new.id,
        )
    return len(rows)
