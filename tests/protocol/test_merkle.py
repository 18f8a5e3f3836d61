"""The Merkle tree against the definitions of RFC 6962, written out here a second time, by recursion."""

from collections.abc import Callable, Sequence
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.merkle import (
    EMPTY_ROOT,
    TREE_SIZE_MAX,
    Edge,
    ProofInvalid,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    verify_consistency,
    verify_inclusion,
)

LEAVES = tuple(leaf_hash(b"record %d" % number) for number in range(70))


def mth(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962, section 2.1, over leaf hashes."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return sha256(b"\x01" + mth(leaves[:split]) + mth(leaves[split:])).digest()


def path(index: int, leaves: Sequence[bytes]) -> list[bytes]:
    """RFC 6962, section 2.1.1."""
    if len(leaves) == 1:
        return []
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    if index < split:
        return [*path(index, leaves[:split]), mth(leaves[split:])]
    return [*path(index - split, leaves[split:]), mth(leaves[:split])]


def subproof(old: int, leaves: Sequence[bytes], *, whole: bool) -> list[bytes]:
    """RFC 6962, section 2.1.2."""
    if old == len(leaves):
        return [] if whole else [mth(leaves)]
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    if old <= split:
        return [*subproof(old, leaves[:split], whole=whole), mth(leaves[split:])]
    return [*subproof(old - split, leaves[split:], whole=False), mth(leaves[:split])]


def flip(raw: bytes, bit: int) -> bytes:
    return (int.from_bytes(raw, "big") ^ (1 << bit)).to_bytes(len(raw), "big")


def distinct(count: int) -> tuple[bytes, ...]:
    return tuple(leaf_hash(b"%d" % number) for number in range(count))


def test_hashes_are_prefixed() -> None:
    assert leaf_hash(b"") == sha256(b"\x00").digest()
    assert leaf_hash(b"record") == sha256(b"\x00record").digest()
    assert node_hash(LEAVES[0], LEAVES[1]) == sha256(b"\x01" + LEAVES[0] + LEAVES[1]).digest()
    assert sha256(b"").digest() == EMPTY_ROOT == Edge.EMPTY.root()


@pytest.mark.parametrize("size", range(len(LEAVES) + 1))
def test_root_is_that_of_the_rfc(size: int) -> None:
    assert Edge.EMPTY.extend(LEAVES[:size]).root() == mth(LEAVES[:size])


@given(cuts=st.lists(st.integers(0, 40), max_size=12))
def test_any_cut_gives_the_same_edge(cuts: list[int]) -> None:
    leaves = distinct(sum(cuts))
    edge, at = Edge.EMPTY, 0
    for cut in cuts:
        edge = edge.extend(iter(leaves[at : at + cut]))
        at += cut
        assert edge.root() == mth(leaves[:at])
    assert edge == Edge.EMPTY.extend(leaves)
    assert len(edge.hashes) == len(leaves).bit_count()
    assert Edge.from_bytes(edge.size, edge.to_bytes()) == edge


def test_an_edge_does_not_change() -> None:
    edge = Edge.EMPTY.extend(LEAVES[:5])
    before = edge.root()
    edge.extend(LEAVES[5:9])
    assert (edge.size, edge.root()) == (5, before)
    assert edge.extend(()) == edge


@pytest.mark.parametrize(
    ("size", "hashes"),
    [(-1, ()), (1, ()), (0, (LEAVES[0],)), (3, LEAVES[:1]), (2, LEAVES[:2]), (1, (b"short",)), (2**63, (LEAVES[0],))],
)
def test_an_edge_no_tree_has_cannot_exist(size: int, hashes: tuple[bytes, ...]) -> None:
    with pytest.raises(ValueError, match=r"edge|hash"):
        Edge(size, hashes)


def test_an_edge_is_not_read_from_the_wrong_bytes() -> None:
    raw = Edge.EMPTY.extend(LEAVES[:3]).to_bytes()
    for size, wrong in ((3, raw[:-1]), (3, raw + b"\x00"), (4, raw), (0, raw), (3, b"")):
        with pytest.raises(ValueError, match=r"edge|hash"):
            Edge.from_bytes(size, wrong)


def test_a_leaf_hash_of_another_length_is_refused() -> None:
    uses: list[Callable[[list[bytes]], object]] = [
        Edge.EMPTY.extend,
        lambda leaves: inclusion_proof(0, leaves),
        lambda leaves: consistency_proof(1, leaves),
    ]
    for use in uses:
        with pytest.raises(ValueError, match="32 bytes"):
            use([LEAVES[0], b"short"])


def test_the_largest_tree_takes_no_more() -> None:
    full = Edge(TREE_SIZE_MAX, (LEAVES[0],) * 63)
    with pytest.raises(ValueError, match="2\\^63"):
        full.extend(LEAVES[:1])


@pytest.mark.parametrize("size", range(1, 34))
def test_every_inclusion_proof_is_that_of_the_rfc_and_verifies(size: int) -> None:
    leaves = LEAVES[:size]
    for index in range(size):
        proof = inclusion_proof(index, leaves)
        assert list(proof) == path(index, leaves)
        verify_inclusion(leaves[index], index, size, proof, mth(leaves))


@pytest.mark.parametrize("size", range(34))
def test_every_consistency_proof_is_that_of_the_rfc_and_verifies(size: int) -> None:
    leaves = LEAVES[:size]
    for old in range(size + 1):
        proof = consistency_proof(old, leaves)
        assert list(proof) == (subproof(old, leaves, whole=True) if old else [])
        verify_consistency(old, size, proof, mth(leaves[:old]), mth(leaves))


@given(data=st.data(), size=st.integers(1, 300))
@settings(max_examples=80, deadline=None)
def test_one_changed_bit_breaks_an_inclusion_proof(data: st.DataObject, size: int) -> None:
    leaves = distinct(size)
    index = data.draw(st.integers(0, size - 1))
    proof, root = inclusion_proof(index, leaves), mth(leaves)
    verify_inclusion(leaves[index], index, size, proof, root)
    parts = [leaves[index], root, *proof]
    part, bit = data.draw(st.integers(0, len(parts) - 1)), data.draw(st.integers(0, 255))
    parts[part] = flip(parts[part], bit)
    with pytest.raises(ProofInvalid):
        verify_inclusion(parts[0], index, size, parts[2:], parts[1])
    with pytest.raises(ProofInvalid):
        verify_inclusion(leaves[index], index ^ (1 << data.draw(st.integers(0, 12))), size, proof, root)


@given(data=st.data(), size=st.integers(2, 300))
@settings(max_examples=80, deadline=None)
def test_one_changed_bit_breaks_a_consistency_proof(data: st.DataObject, size: int) -> None:
    leaves = distinct(size)
    old = data.draw(st.integers(1, size - 1))
    proof = consistency_proof(old, leaves)
    parts = [mth(leaves[:old]), mth(leaves), *proof]
    verify_consistency(old, size, parts[2:], parts[0], parts[1])
    part, bit = data.draw(st.integers(0, len(parts) - 1)), data.draw(st.integers(0, 255))
    parts[part] = flip(parts[part], bit)
    with pytest.raises(ProofInvalid):
        verify_consistency(old, size, parts[2:], parts[0], parts[1])


@given(data=st.data(), size=st.integers(2, 100))
@settings(max_examples=60, deadline=None)
def test_a_proof_with_a_hash_more_or_less_is_refused(data: st.DataObject, size: int) -> None:
    leaves = distinct(size)
    index = data.draw(st.integers(0, size - 1))
    old = data.draw(st.integers(1, size - 1))
    where = data.draw(st.integers(0, 5))
    for wrong in altered(inclusion_proof(index, leaves), where):
        with pytest.raises(ProofInvalid):
            verify_inclusion(leaves[index], index, size, wrong, mth(leaves))
    for wrong in altered(consistency_proof(old, leaves), where):
        with pytest.raises(ProofInvalid):
            verify_consistency(old, size, wrong, mth(leaves[:old]), mth(leaves))


def altered(proof: tuple[bytes, ...], where: int) -> list[tuple[bytes, ...]]:
    at = min(where, len(proof))
    return [(*proof[:at], LEAVES[0], *proof[at:]), proof[1:], proof[:-1], ()]


def test_bytes_cannot_move_between_the_halves_of_a_node() -> None:
    leaves = LEAVES[:2]
    verify_inclusion(leaves[0], 0, 2, (leaves[1],), mth(leaves))
    longer, shorter = leaves[0] + leaves[1][:1], leaves[1][1:]
    with pytest.raises(ProofInvalid, match="32 bytes"):
        verify_inclusion(longer, 0, 2, (shorter,), mth(leaves))


def test_a_proof_for_no_leaf_is_refused() -> None:
    root = mth(LEAVES[:4])
    for index, size in ((-1, 4), (4, 4), (0, 0), (2**64 - 1, 4)):
        with pytest.raises(ProofInvalid, match="no leaf"):
            verify_inclusion(LEAVES[0], index, size, (), root)
    for index, count in ((-1, 3), (3, 3), (0, 0)):
        with pytest.raises(ValueError, match="no leaf"):
            inclusion_proof(index, LEAVES[:count])


def test_a_tree_does_not_shrink() -> None:
    with pytest.raises(ProofInvalid, match="larger"):
        verify_consistency(3, 2, (), mth(LEAVES[:3]), mth(LEAVES[:2]))
    with pytest.raises(ProofInvalid, match="larger"):
        verify_consistency(-1, 2, (), EMPTY_ROOT, mth(LEAVES[:2]))
    for old in (-1, 4):
        with pytest.raises(ValueError, match="larger"):
            consistency_proof(old, LEAVES[:3])


def test_the_empty_tree_is_the_start_of_every_tree() -> None:
    verify_consistency(0, 5, (), EMPTY_ROOT, mth(LEAVES[:5]))
    verify_consistency(0, 0, (), EMPTY_ROOT, EMPTY_ROOT)
    with pytest.raises(ProofInvalid, match="too long"):
        verify_consistency(0, 5, (LEAVES[0],), EMPTY_ROOT, mth(LEAVES[:5]))
    with pytest.raises(ProofInvalid, match="another root"):
        verify_consistency(0, 5, (), LEAVES[0], mth(LEAVES[:5]))


def test_one_size_has_one_root() -> None:
    with pytest.raises(ProofInvalid, match="two roots"):
        verify_consistency(2, 2, (), mth(LEAVES[:2]), mth(LEAVES[1:3]))
