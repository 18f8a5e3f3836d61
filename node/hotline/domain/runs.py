"""Which records of a stream may be applied together. Pure; reads no row.

Records of one kind are written at once, which is fast; records about one item have to be applied in their order. So the
records of a turn are cut into runs: each of one kind, an item's records in their order, and as few as that allows.
"""

from collections.abc import Callable, Hashable, Iterable
from typing import TypeVar

_Record = TypeVar("_Record")


def runs_of(
    records: Iterable[_Record], kind_of: Callable[[_Record], Hashable], item_of: Callable[[_Record], Hashable]
) -> list[list[_Record]]:
    """Cut records, given in stream order, into runs of one kind that are to be applied one after the other.

    A record joins the last run of its kind, unless that comes before a run with a record about the same item: then it
    begins a new one. So records about one item keep their order, and records of one kind keep theirs.
    """
    runs: list[list[_Record]] = []
    last_of_kind: dict[Hashable, int] = {}
    last_of_item: dict[Hashable, int] = {}
    for record in records:
        kind, item = kind_of(record), item_of(record)
        at = last_of_kind.get(kind)
        if at is None or at < last_of_item.get(item, 0):
            at = last_of_kind[kind] = len(runs)
            runs.append([])
        runs[at].append(record)
        last_of_item[item] = at
    return runs
