"""The nonces of members' requests, in the table `nonces` that each role has: a request is answered once."""

from datetime import datetime

from node.platform.database import Transaction


async def remember_nonce(tx: Transaction, keyid: str, nonce: str, now: datetime) -> bool:
    """Remember a request's nonce; False when it was seen already."""
    fresh = await tx.execute(
        "INSERT INTO nonces (keyid, nonce, seen_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING", keyid, nonce, now
    )
    return fresh == 1


async def forget_nonces(tx: Transaction, before: datetime) -> int:
    """Forget the nonces seen before `before`; returns how many."""
    return await tx.execute("DELETE FROM nonces WHERE seen_at < $1", before)
