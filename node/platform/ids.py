"""Makes UUIDv7 identifiers (RFC 9562 section 5.7); never reads the clock: the time is passed in."""

import os
from datetime import datetime
from uuid import UUID

from asyncpg.pgproto import pgproto

_RANDOM_BYTES = 10


def new_ids(count: int, now: datetime) -> list[UUID]:
    """Return `count` fresh UUIDv7 stamped with `now` (millisecond precision).

    Ids of one call are random within their millisecond: order between them promises nothing. They are of the driver's
    UUID type, a subclass of the standard one that is made and written to the database several times as fast.
    """
    stamp = int(now.timestamp() * 1000).to_bytes(6, "big")
    pool = os.urandom(_RANDOM_BYTES * count)
    ids: list[UUID] = []
    for at in range(0, _RANDOM_BYTES * count, _RANDOM_BYTES):
        # Four bits of version, twelve random; two bits of variant, sixty-two random.
        middle = bytes((0x70 | pool[at] & 0x0F, pool[at + 1], 0x80 | pool[at + 2] & 0x3F))
        ids.append(pgproto.UUID(stamp + middle + pool[at + 3 : at + _RANDOM_BYTES]))
    return ids


def new_id(now: datetime) -> UUID:
    """Return one fresh UUIDv7."""
    return new_ids(1, now)[0]
