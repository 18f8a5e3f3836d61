"""How long tests wait for a condition: limits are chosen for a quiet machine and stretched for a slow or busy one."""

#: A condition that comes true ends the waiting at once, so patience costs nothing but when a test fails.
PATIENCE = 4.0


def stretched(limit_s: float) -> float:
    """Return the seconds to wait at most where `limit_s` is enough on a quiet machine."""
    return limit_s * PATIENCE
