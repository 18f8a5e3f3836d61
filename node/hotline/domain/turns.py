"""Whose received records are applied next: weighted fair queueing with start tags. Pure; reads no row.

Each peer has a mark on one line of virtual time, whatever epochs its stream has. The lowest mark is served, and moves
on by the records it got over its share. A peer that comes back from idleness starts where the others are: being idle
saves nothing up. So however much one peer sent, another waits for one turn of each before it, never for the backlog.
"""

from collections.abc import Mapping

#: How far one record moves a peer of share 1.
RECORD = 1000
SHARE_MAX = 100
#: The member of a node's `limits` in the directory that says its share.
SHARE_LIMIT = "share"


def start_of(mark: int, passed: int) -> int:
    """Return where a peer at `mark` starts, when the latest start of any was `passed`."""
    return max(mark, passed)


def mark_after(start: int, records: int, share: int) -> int:
    """Return the mark of a peer that started at `start` and got `records` applied."""
    return start + -(-records * RECORD // min(max(share, 1), SHARE_MAX))


def share_of(limits: Mapping[str, int]) -> int:
    """Return the share that the directory gives a node: its limit `share`, from 1 (left out: the same) to 100."""
    return min(max(limits.get(SHARE_LIMIT, 1), 1), SHARE_MAX)
