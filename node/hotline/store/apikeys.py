"""The API keys of machines: only a hash of each secret is here."""

from datetime import datetime

import sqlalchemy as sa

from node.hotline.store.tables import api_keys
from node.platform.apikeys import ApiKeyRow, NewApiKey, Role
from node.platform.database import Database


class ApiKeys:
    """The table behind `node.platform.apikeys.ApiKeyCheck`."""

    def __init__(self, db: Database) -> None:
        """Take the database."""
        self._db = db

    async def find(self, key_id: str) -> ApiKeyRow | None:
        """Return the key of this id, or None."""
        rows = await self._select(api_keys.c.id == key_id)
        return rows[0] if rows else None

    async def every(self) -> list[ApiKeyRow]:
        """Return all keys, the oldest first."""
        return await self._select(sa.true())

    async def add(self, key: NewApiKey, name: str, roles: frozenset[Role], now: datetime) -> None:
        """Store a new key's hash."""
        async with self._db.transaction("apikeys.add") as tx:
            await tx.sql.execute(
                api_keys.insert().values(
                    id=key.key_id,
                    name=name,
                    roles=sorted(roles),
                    secret_sha256=key.secret_sha256,
                    created_at=now,
                )
            )

    async def revoke(self, key_id: str, now: datetime) -> bool:
        """Revoke a key; False when there is none of this id that still counts."""
        async with self._db.transaction("apikeys.revoke") as tx:
            done = await tx.sql.execute(
                api_keys.update().where(api_keys.c.id == key_id, api_keys.c.revoked_at.is_(None)).values(revoked_at=now)
            )
        return done.rowcount == 1

    async def _select(self, condition: sa.ColumnElement[bool]) -> list[ApiKeyRow]:
        async with self._db.transaction("apikeys.read") as tx:
            found = await tx.sql.execute(api_keys.select().where(condition).order_by(api_keys.c.created_at))
            return [
                ApiKeyRow(
                    key_id=row.id,
                    name=row.name,
                    secret_sha256=row.secret_sha256,
                    roles=frozenset(Role(role) for role in row.roles),
                    expires_at=row.expires_at,
                    revoked_at=row.revoked_at,
                )
                for row in found
            ]
