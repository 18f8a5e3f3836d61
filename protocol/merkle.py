"""The Merkle tree under a stream: hashes, edge, proofs (RFC 6962, SHA-256); never sees where leaves are stored."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import ClassVar, Final, NoReturn

# RFC 6962, section 2.1: the root of the tree without leaves is the hash of the empty string.
EMPTY_ROOT: Final = sha256(b"").digest()
HASH_BYTES: Final = 32
_HASH_LENGTHS: Final = frozenset({HASH_BYTES})
# Sizes are signed 64-bit wherever they are stored; a path then has at most 63 hashes.
TREE_SIZE_MAX: Final = 2**63 - 1
PROOF_HASHES_MAX: Final = 63


class ProofInvalid(Exception):  # noqa: N818 -- names the fact, and is the name the wire contract uses
    """A Merkle proof does not lead from what it starts with to the root it is for."""


def leaf_hash(data: bytes) -> bytes:
    """Return SHA-256(0x00 ‖ data), 32 bytes (RFC 6962, section 2.1)."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return SHA-256(0x01 ‖ left ‖ right), 32 bytes (RFC 6962, section 2.1)."""
    return sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True, slots=True)
class Edge:
    """The right edge of a tree: all that is needed to append to it and to know its root.

    `hashes` are the roots of the perfect subtrees the tree is made of, the largest (leftmost) first, one for each
    one-bit of `size`. Raises ValueError when the two do not fit: an edge is our own record, never a peer's.
    """

    size: int
    hashes: tuple[bytes, ...]

    EMPTY: ClassVar["Edge"]

    def __post_init__(self) -> None:
        """Refuse an edge that no tree has."""
        if not 0 <= self.size <= TREE_SIZE_MAX:
            raise ValueError("an edge's size is between 0 and 2^63 - 1")
        if len(self.hashes) != self.size.bit_count():
            raise ValueError("an edge has one hash for each one-bit of its size")
        _require_hashes(self.hashes)

    def extend(self, leaf_hashes: Iterable[bytes]) -> "Edge":
        """Return the edge after these leaf hashes; the cut into calls makes no difference to the result.

        Costs one hash a leaf. Raises ValueError for a hash that has not 32 bytes.
        """
        row = list(leaf_hashes)
        _require_hashes(row)
        size = self.size + len(row)
        old = list(self.hashes)
        new: list[bytes] = []
        # One level of the tree a round: `row` holds its new nodes, `below` how many it had before. A node without a
        # right sibling stays in the edge, whether it is an old one that got none or the last of the new ones.
        below = self.size
        while row or below:
            if below & 1:
                row.insert(0, old.pop())
            if len(row) & 1:
                new.append(row.pop())
            row = _parents(row)
            below >>= 1
        new.reverse()
        return Edge(size, tuple(new))

    def root(self) -> bytes:
        """Return the tree's root, 32 bytes; of the empty tree, EMPTY_ROOT."""
        if not self.hashes:
            return EMPTY_ROOT
        right = self.hashes[-1]
        for left in reversed(self.hashes[:-1]):
            right = node_hash(left, right)
        return right

    def to_bytes(self) -> bytes:
        """Return the hashes one after the other; the size is kept beside them."""
        return b"".join(self.hashes)

    @classmethod
    def from_bytes(cls, size: int, raw: bytes) -> "Edge":
        """Return the edge that `to_bytes` wrote; raises ValueError when the length does not fit the size."""
        return cls(size, tuple(raw[at : at + HASH_BYTES] for at in range(0, len(raw), HASH_BYTES)))


def inclusion_proof(index: int, leaf_hashes: Sequence[bytes]) -> tuple[bytes, ...]:
    """Return the path from the leaf at `index` to the root over all `leaf_hashes` (RFC 6962, section 2.1.1).

    Starts with the leaf's sibling. Costs one hash a leaf. Raises ValueError when there is no such leaf.
    """
    if not 0 <= index < len(leaf_hashes):
        raise ValueError("there is no leaf with this index")
    _require_hashes(leaf_hashes)
    proof = []
    row = list(leaf_hashes)
    while len(row) > 1:
        sibling = index ^ 1
        if sibling < len(row):
            proof.append(row[sibling])
        lone = row[-1:] if len(row) & 1 else []
        # A last node without a sibling is its own parent, so the tree keeps the shape of RFC 6962.
        row = _parents(row) + lone
        index >>= 1
    return tuple(proof)


def consistency_proof(old_size: int, leaf_hashes: Sequence[bytes]) -> tuple[bytes, ...]:
    """Return the proof that the tree of the first `old_size` leaves is the start of the tree of all of them.

    RFC 6962, section 2.1.2; empty for `old_size` 0 and for the whole tree. Raises ValueError when the old tree
    would be the larger one.
    """
    if not 0 <= old_size <= len(leaf_hashes):
        raise ValueError("the old tree is larger than the new one")
    _require_hashes(leaf_hashes)
    if old_size == 0:
        return ()
    proof = []
    # The subtree that still holds the boundary between old and new leaves, and how many old ones are in it.
    start, end, old = 0, len(leaf_hashes), old_size
    while old != end - start:
        left = 1 << (end - start - 1).bit_length() - 1
        if old <= left:
            proof.append(_root(leaf_hashes[start + left : end]))
            end = start + left
        else:
            proof.append(_root(leaf_hashes[start : start + left]))
            start += left
            old -= left
    # The old root itself is known to whoever checks, so it is left out when it is a node of the new tree.
    if start:
        proof.append(_root(leaf_hashes[start:end]))
    return tuple(reversed(proof))


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Raise ProofInvalid unless `leaf` (a leaf hash) is at `index` in the tree of `size` leaves with this `root`.

    RFC 9162, section 2.1.3.2.
    """
    if not 0 <= index < size:
        _invalid("there is no leaf with this index in a tree of this size")
    _require_proof_hashes(proof, leaf)
    at, last = index, size - 1
    computed = leaf
    for sibling in proof:
        if last == 0:
            _invalid("the proof is too long")
        if at & 1 or at == last:
            computed = node_hash(sibling, computed)
            # Levels at which this node has no sibling and so takes none from the proof.
            while at and not at & 1:
                at >>= 1
                last >>= 1
        else:
            computed = node_hash(computed, sibling)
        at >>= 1
        last >>= 1
    if last:
        _invalid("the proof is too short")
    if computed != root:
        _invalid("the proof leads to another root")


def verify_consistency(size1: int, size2: int, proof: Sequence[bytes], root1: bytes, root2: bytes) -> None:
    """Raise ProofInvalid unless the tree (size1, root1) is the start of the tree (size2, root2).

    RFC 9162, section 2.1.4.2. The empty tree is the start of every tree, by an empty proof (C2SP tlog-witness).
    """
    if not 0 <= size1 <= size2:
        _invalid("the first tree is larger than the second")
    if (size1 == 0 and root1 != EMPTY_ROOT) or (size2 == 0 and root2 != EMPTY_ROOT):
        _invalid("the empty tree has another root")
    if size1 in {0, size2}:
        if proof:
            _invalid("the proof is too long")
        if size1 == size2 and root1 != root2:
            _invalid("trees of one size have two roots")
        return
    _require_proof_hashes(proof)
    if not proof:
        _invalid("the proof is too short")
    _verify_growth(size1, size2, proof, root1, root2)


def _verify_growth(size1: int, size2: int, proof: Sequence[bytes], root1: bytes, root2: bytes) -> None:
    """Check a non-empty proof between two trees of different size, neither of them empty."""
    # A first tree that is perfect is itself a node of the second, and its root is not repeated in the proof.
    path = [root1, *proof] if size1.bit_count() == 1 else list(proof)
    at, last = size1 - 1, size2 - 1
    while at & 1:
        at >>= 1
        last >>= 1
    computed1 = computed2 = path[0]
    for sibling in path[1:]:
        if last == 0:
            _invalid("the proof is too long")
        if at & 1 or at == last:
            computed1 = node_hash(sibling, computed1)
            computed2 = node_hash(sibling, computed2)
            while at and not at & 1:
                at >>= 1
                last >>= 1
        else:
            computed2 = node_hash(computed2, sibling)
        at >>= 1
        last >>= 1
    if last:
        _invalid("the proof is too short")
    if computed1 != root1 or computed2 != root2:
        _invalid("the proof leads to other roots")


def _parents(row: list[bytes]) -> list[bytes]:
    """Return the parents of the pairs in `row`; a last node without a partner is left out."""
    nodes = iter(row)
    # Written out, not through node_hash: the call would cost a quarter of the whole.
    return [sha256(b"\x01" + left + right).digest() for left, right in zip(nodes, nodes, strict=False)]


def _root(leaf_hashes: Sequence[bytes]) -> bytes:
    return Edge.EMPTY.extend(leaf_hashes).root()


def _require_hashes(hashes: Iterable[bytes]) -> None:
    if not _HASH_LENGTHS.issuperset(map(len, hashes)):
        raise ValueError(f"a hash has {HASH_BYTES} bytes")


def _require_proof_hashes(proof: Sequence[bytes], *others: bytes) -> None:
    # Without this, bytes could be moved between the two halves of a node and the proof would still lead to the root.
    if not _HASH_LENGTHS.issuperset(map(len, (*proof, *others))):
        _invalid(f"a hash in the proof has not {HASH_BYTES} bytes")


def _invalid(reason: str) -> NoReturn:
    raise ProofInvalid(reason)


# Here, because making an edge uses the checks above.
Edge.EMPTY = Edge(0, ())
