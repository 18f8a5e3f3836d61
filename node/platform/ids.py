"""Makes UUIDv7 identifiers (RFC 9562 section 5.7); never reads the clock: the time is passed in."""

import os
from datetime import datetime
from uuid import UUID

_VERSION_7 = 0x7 << 76
_VARIANT = 0b10 << 62
_RANDOM_A = 0xFFF << 64
_RANDOM_B = (1 << 62) - 1


def new_ids(count: int, now: datetime) -> list[UUID]:
    """Return `count` fresh UUIDv7 stamped with `now` (millisecond precision).

    Ids of one call are random within their millisecond: order between them promises nothing.
    """
    stamp = (int(now.timestamp() * 1000) & 0xFFFFFFFFFFFF) << 80
    pool = os.urandom(10 * count)
    ids = []
    for at in range(0, 10 * count, 10):
        bits = int.from_bytes(pool[at : at + 10], "big")
        ids.append(UUID(int=stamp | _VERSION_7 | (bits & _RANDOM_A) | _VARIANT | (bits & _RANDOM_B)))
    return ids


def new_id(now: datetime) -> UUID:
    """Return one fresh UUIDv7."""
    return new_ids(1, now)[0]
