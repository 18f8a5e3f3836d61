"""Keeps roots of parts of the streams' trees, so that edges and paths of long ones cost little; decides nothing.

The leaves are the records' hashes in their tables. Of each complete part of PART nodes the root is kept, and of each
complete part of those, and so on: whatever is asked of a tree then reads at most two parts of each level.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from node.platform.database import Transaction
from protocol.merkle import Edge, inclusion_proof

#: The tables that streams stand in: ours to peers, and theirs to us.
OUTBOX: Final = "outbox"
INBOX: Final = "inbox"

_BITS: Final = 8
#: Nodes of one level below one kept root; those of the lowest level are records.
PART: Final = 1 << _BITS

_LEAVES: Final = {
    OUTBOX: "SELECT idx, leaf_hash FROM outbox WHERE stream = $1 AND idx >= $2 AND idx < $3 ORDER BY idx",
    INBOX: "SELECT idx, leaf_hash FROM inbox WHERE stream = $1 AND idx >= $2 AND idx < $3 ORDER BY idx",
}


@dataclass(frozen=True, slots=True)
class Tree:
    """The tree over one stream of `table` (OUTBOX or INBOX), seen by one transaction."""

    tx: Transaction
    table: str
    stream: int

    async def edge(self, size: int) -> Edge:
        """Return the edge when the tree had `size` leaves; LookupError when it never had."""
        hashes: tuple[bytes, ...] = ()
        level, nodes = 0, size
        while nodes:
            parts = nodes >> _BITS
            rest = await self._nodes(level, parts << _BITS, nodes)
            # What is left over at a level is smaller than all that has parts above it.
            hashes = Edge.EMPTY.extend(rest).hashes + hashes
            level, nodes = level + 1, parts
        return Edge(size, hashes)

    async def path(self, index: int, size: int) -> tuple[bytes, ...]:
        """Return the path from the leaf at `index` to the root over `size` leaves (RFC 6962, section 2.1.1).

        Raises LookupError when the tree never had so many, or there is no such leaf among them.
        """
        if not 0 <= index < size:
            raise LookupError("there is no leaf with this index")
        path: list[bytes] = []
        # The root of what is left over below: the last node of its level, though it is not complete.
        last: list[bytes] = []
        level, nodes, at = 0, size, index
        while True:
            parts = nodes >> _BITS
            rest = await self._nodes(level, parts << _BITS, nodes) + last
            part = at >> _BITS
            beside = rest if part == parts else await self._nodes(level, part << _BITS, (part + 1) << _BITS)
            path += inclusion_proof(at % PART, beside)
            if not parts:
                return tuple(path)
            last = [_root(rest)] if rest else []
            level, nodes, at = level + 1, parts, part

    async def grown(self, before: int, size: int) -> None:
        """Keep the roots of the parts that became complete as the tree grew from `before` to `size` leaves.

        The stream is locked and its new records are written.
        """
        level, old, new = 1, before >> _BITS, size >> _BITS
        while old < new:
            below = await self._nodes(level - 1, old << _BITS, new << _BITS)
            roots = [_root(below[at : at + PART]) for at in range(0, len(below), PART)]
            await self.tx.copy(
                "subtrees",
                ("log", "stream", "level", "number", "root"),
                [(self.table, self.stream, level, number, root) for number, root in enumerate(roots, start=old)],
            )
            level, old, new = level + 1, old >> _BITS, new >> _BITS

    async def cut(self, size: int) -> None:
        """Forget what is kept of the records behind `size`, which are taken out of the stream."""
        level, kept = 1, size >> _BITS
        while kept:
            await self.tx.execute(
                "DELETE FROM subtrees WHERE log = $1 AND stream = $2 AND level = $3 AND number >= $4",
                self.table,
                self.stream,
                level,
                kept,
            )
            level, kept = level + 1, kept >> _BITS
        await self.tx.execute(
            "DELETE FROM subtrees WHERE log = $1 AND stream = $2 AND level >= $3", self.table, self.stream, level
        )

    async def spoiled(self, size: int) -> list[tuple[int, int]]:
        """Return the records (first, end) whose kept root is not what the level below leads to.

        Nor may one be kept of records that are not all there. Reads the whole stream of `size` records, some of them at
        a time. Raises LookupError where records are missing.
        """
        rows = await self.tx.fetch(
            "SELECT level, number FROM subtrees WHERE log = $1 AND stream = $2 ORDER BY level, number",
            self.table,
            self.stream,
        )
        found = [
            (row["number"] << _BITS * row["level"], (row["number"] + 1) << _BITS * row["level"])
            for row in rows
            if row["number"] >= size >> _BITS * row["level"]
        ]
        level, nodes = 1, size >> _BITS
        while nodes:
            for first in range(0, nodes, PART):
                end = min(nodes, first + PART)
                kept = await self._nodes(level, first, end)
                below = await self._nodes(level - 1, first << _BITS, end << _BITS)
                for number, root in enumerate(kept, start=first):
                    if root != _root(below[(number - first) << _BITS : (number - first + 1) << _BITS]):
                        found.append((number << _BITS * level, (number + 1) << _BITS * level))
            level, nodes = level + 1, nodes >> _BITS
        return found

    async def _nodes(self, level: int, first: int, end: int) -> list[bytes]:
        """Return the complete nodes `first` to `end` (exclusive) of a level, each the root of PART of the one below."""
        if first == end:
            return []
        if not level:
            rows = await self.tx.fetch(_LEAVES[self.table], self.stream, first, end)
            if len(rows) != end - first:
                raise LookupError("the stream has not so many records")
            return [row["leaf_hash"] for row in rows]
        rows = await self.tx.fetch(
            "SELECT number, root FROM subtrees WHERE log = $1 AND stream = $2 AND level = $3 "
            "AND number >= $4 AND number < $5",
            self.table,
            self.stream,
            level,
            first,
            end,
        )
        kept: dict[int, bytes] = {row["number"]: row["root"] for row in rows}
        nodes = []
        for number in range(first, end):
            # One that is not kept costs time alone.
            root = kept.get(number)
            nodes.append(root or _root(await self._nodes(level - 1, number << _BITS, (number + 1) << _BITS)))
        return nodes


def _root(nodes: Sequence[bytes]) -> bytes:
    return Edge.EMPTY.extend(nodes).root()
