"""Checkpoints and stream names: exact text both ways, every malformed form, and tessera's test log."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.checkpoint import (
    EPOCH_MAX,
    NODE_ID_BYTES_MAX,
    ORIGIN_BYTES_MAX,
    Checkpoint,
    StreamId,
    check_node_id,
    parse_decimal,
)
from protocol.cosignature import verify_checkpoint
from protocol.errors import ProtocolError
from protocol.keys import SignatureInvalid
from protocol.merkle import (
    EMPTY_ROOT,
    HASH_BYTES,
    Edge,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    verify_consistency,
    verify_inclusion,
)
from protocol.note import encode_base64, parse_note, parse_vkey
from tests.vectors_dir import vectors

# C2SP tlog-checkpoint, its example.
SPEC_TEXT = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
# The verifier key of tessera's test log; its README names it, and so does ours beside the vectors.
TESSERA_VKEY = "example.com/log/testdata+33d7b496+AeHTu4Q3hEIMHNqc6fASMsq3rKNx280NI+oO5xCFkkSx"
TESSERA_SIZES = range(16)

ROOT = bytes(range(32))
ROOT_TEXT = encode_base64(ROOT)
SIZE_MAX = 2**63 - 1

node_ids = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?", fullmatch=True)


def test_the_specification_s_example() -> None:
    cp = Checkpoint.parse(SPEC_TEXT)
    assert (cp.origin, cp.size) == ("example.com/behind-the-sofa", 20852163)
    assert cp.text() == SPEC_TEXT


@given(
    origin=st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=60),
    size=st.integers(1, SIZE_MAX),
    root=st.binary(min_size=32, max_size=32),
)
def test_a_checkpoint_is_read_back_as_it_was_written(origin: str, size: int, root: bytes) -> None:
    cp = Checkpoint(origin, size, root)
    assert Checkpoint.parse(cp.text()) == cp


def test_the_empty_log_and_the_largest() -> None:
    for cp in (Checkpoint("o", 0, EMPTY_ROOT), Checkpoint("o" * ORIGIN_BYTES_MAX, SIZE_MAX, ROOT)):
        assert Checkpoint.parse(cp.text()) == cp


MALFORMED = {
    "nothing": "",
    "one line": "o\n",
    "two lines": "o\n1\n",
    "no newline at the end": f"o\n1\n{ROOT_TEXT}",
    "empty line at the end": f"o\n1\n{ROOT_TEXT}\n\n",
    "extension line": f"o\n1\n{ROOT_TEXT}\nmore\n",
    "no origin": f"\n1\n{ROOT_TEXT}\n",
    "control in the origin": f"o\x00\n1\n{ROOT_TEXT}\n",
    "origin too long": f"{'o' * (ORIGIN_BYTES_MAX + 1)}\n1\n{ROOT_TEXT}\n",
    "origin too long in bytes": f"{'é' * (ORIGIN_BYTES_MAX // 2 + 1)}\n1\n{ROOT_TEXT}\n",
    "no size": f"o\n\n{ROOT_TEXT}\n",
    "leading zero": f"o\n01\n{ROOT_TEXT}\n",
    "two zeros": f"o\n00\n{encode_base64(EMPTY_ROOT)}\n",
    "negative": f"o\n-1\n{ROOT_TEXT}\n",
    "signed": f"o\n+1\n{ROOT_TEXT}\n",
    "underscore": f"o\n1_0\n{ROOT_TEXT}\n",
    "space before the size": f"o\n 1\n{ROOT_TEXT}\n",
    "space after the size": f"o\n1 \n{ROOT_TEXT}\n",
    "hexadecimal": f"o\n0x1\n{ROOT_TEXT}\n",
    "fraction": f"o\n1.0\n{ROOT_TEXT}\n",
    "digits of another script": f"o\n\N{ARABIC-INDIC DIGIT ONE}\n{ROOT_TEXT}\n",
    "size of 2^63": f"o\n{2**63}\n{ROOT_TEXT}\n",
    "size of many digits": f"o\n{'9' * 5000}\n{ROOT_TEXT}\n",
    "no root": "o\n1\n\n",
    "root too short": f"o\n1\n{encode_base64(ROOT[:-1])}\n",
    "root too long": f"o\n1\n{encode_base64(ROOT + bytes(1))}\n",
    "root without padding": f"o\n1\n{ROOT_TEXT.rstrip('=')}\n",
    "bits behind the root": f"o\n1\n{ROOT_TEXT[:-2]}9=\n",
    "space after the root": f"o\n1\n{ROOT_TEXT} \n",
    "empty log with another root": f"o\n0\n{ROOT_TEXT}\n",
    "carriage returns": f"o\r\n1\r\n{ROOT_TEXT}\r\n",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(name: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        Checkpoint.parse(MALFORMED[name])
    assert caught.value.code == "malformed"


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: Checkpoint("", 1, ROOT), "origin"),
        (lambda: Checkpoint("a\nb", 1, ROOT), "origin"),
        (lambda: Checkpoint("a\ud800", 1, ROOT), "origin"),
        (lambda: Checkpoint("o", -1, ROOT), "size"),
        (lambda: Checkpoint("o", 2**63, ROOT), "size"),
        (lambda: Checkpoint("o", 1, ROOT[:-1]), "root"),
        (lambda: Checkpoint("o", 0, ROOT), "root"),
        (lambda: StreamId("", "b.example", 1), "iss"),
        (lambda: StreamId("a.example", "B.example", 1), "aud"),
        (lambda: StreamId("a.example", "b.example", 0), "epoch"),
        (lambda: StreamId("a.example", "b.example", EPOCH_MAX + 1), "epoch"),
    ],
)
def test_what_could_not_be_written_cannot_exist(make: Callable[[], object], field: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        make()
    assert (caught.value.code, caught.value.field) == ("malformed", field)


def test_the_name_of_a_stream() -> None:
    stream = StreamId("fr.hotline.example", "nl.hotline.example", 7)
    assert stream.origin() == "hx/1/fr.hotline.example/nl.hotline.example/7"
    assert stream.receipt_name() == "nl.hotline.example/receipt"
    assert StreamId.parse(stream.origin()) == stream


@given(iss=node_ids, aud=node_ids, epoch=st.integers(1, EPOCH_MAX))
def test_the_name_of_a_stream_is_read_back(iss: str, aud: str, epoch: int) -> None:
    stream = StreamId(iss, aud, epoch)
    assert StreamId.parse(stream.origin()) == stream


def test_the_longest_name_of_a_stream_fits_an_origin() -> None:
    stream = StreamId("a" * NODE_ID_BYTES_MAX, "b" * NODE_ID_BYTES_MAX, EPOCH_MAX)
    assert Checkpoint.parse(Checkpoint(stream.origin(), 1, ROOT).text()).origin == stream.origin()


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "hx/1/",
        "hx/1/a/b",
        "hx/1/a/b/",
        "hx/1/a/b/0",
        "hx/1/a/b/01",
        "hx/1/a/b/-1",
        "hx/1/a/b/1/",
        "hx/1/a/b/1/2",
        "hx/1/a/b/1\n",
        "hx/1//b/1",
        "hx/1/a//1",
        "hx/1/A/b/1",
        "hx/1/a_/b/1",
        "hx/1/../b/1",
        "hx/1/a./b/1",
        "hx/1/-a/b/1",
        f"hx/1/{'a' * (NODE_ID_BYTES_MAX + 1)}/b/1",
        f"hx/1/a/b/{EPOCH_MAX + 1}",
        f"hx/1/a/b/{2**63}",
        "hx/2/a/b/1",
        "HX/1/a/b/1",
        "/hx/1/a/b/1",
        "a/b/1",
        "hx/1/hx/1/a/b/1",
    ],
)
def test_not_the_name_of_a_stream(origin: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        StreamId.parse(origin)
    assert caught.value.code == "malformed"


def test_node_ids() -> None:
    for good in ("a", "1", "nl.example-hotline", "fr.hotline.example", "a" * NODE_ID_BYTES_MAX):
        check_node_id(good, field="iss")
    for bad in ("", ".", "..", "-", "a-", ".a", "a\n", "é", "a/b", "a b", "a" * (NODE_ID_BYTES_MAX + 1)):
        with pytest.raises(ProtocolError) as caught:
            check_node_id(bad, field="iss")
        assert caught.value.field == "iss"


def test_decimals() -> None:
    assert [parse_decimal(one, field="size") for one in ("0", "7", "10", str(SIZE_MAX))] == [0, 7, 10, SIZE_MAX]
    for bad in ("", "00", "07", " 7", "7\n", "-7", "+7", "7e1", "²", str(2**63), "9" * 19):
        with pytest.raises(ProtocolError) as caught:
            parse_decimal(bad, field="size")
        assert (caught.value.code, caught.value.field) == ("malformed", "size")


def tessera_leaves(size: int) -> list[bytes]:
    if size == 0:
        return []
    raw = vectors("tessera", "testdata", "log", "tile", "0", "000.p", str(size)).read_bytes()
    return [raw[at : at + HASH_BYTES] for at in range(0, len(raw), HASH_BYTES)]


def tessera_entries(size: int) -> list[bytes]:
    """Return the entries of a bundle: each has a two-byte length before it (C2SP tlog-tiles, "Log entries")."""
    if size == 0:
        return []
    raw = vectors("tessera", "testdata", "log", "tile", "entries", "000.p", str(size)).read_bytes()
    entries = []
    while raw:
        length = int.from_bytes(raw[:2], "big")
        entries.append(raw[2 : 2 + length])
        raw = raw[2 + length :]
    return entries


def tessera_checkpoint(size: int) -> Checkpoint:
    raw = vectors("tessera", "testdata", "log", f"checkpoint.{size}").read_bytes()
    note = parse_note(raw)
    assert note.to_bytes() == raw
    cp = Checkpoint.parse(note.text)
    assert cp.text() == note.text
    verify_checkpoint(note, cp, [parse_vkey(TESSERA_VKEY).key])
    return cp


@pytest.mark.parametrize("size", TESSERA_SIZES)
def test_tessera_checkpoint_signature_and_root(size: int) -> None:
    cp = tessera_checkpoint(size)
    leaves = tessera_leaves(size)
    assert (cp.origin, cp.size, len(leaves)) == ("example.com/log/testdata", size, size)
    assert [leaf_hash(entry) for entry in tessera_entries(size)] == leaves
    assert Edge.EMPTY.extend(leaves).root() == cp.root


def test_tessera_latest_checkpoint_is_the_last() -> None:
    log = ("tessera", "testdata", "log")
    assert vectors(*log, "checkpoint").read_bytes() == vectors(*log, "checkpoint.15").read_bytes()


def test_tessera_log_only_grew() -> None:
    checkpoints = [tessera_checkpoint(size) for size in TESSERA_SIZES]
    for new in checkpoints:
        leaves = tessera_leaves(new.size)
        for old in checkpoints[: new.size + 1]:
            proof = consistency_proof(old.size, leaves)
            verify_consistency(old.size, new.size, proof, old.root, new.root)
        for index, leaf in enumerate(leaves):
            verify_inclusion(leaf, index, new.size, inclusion_proof(index, leaves), new.root)


def test_tessera_signature_does_not_fit_another_checkpoint() -> None:
    note = parse_note(vectors("tessera", "testdata", "log", "checkpoint.14").read_bytes())
    other = tessera_checkpoint(15)
    with pytest.raises(SignatureInvalid):
        verify_checkpoint(note, other, [parse_vkey(TESSERA_VKEY).key])
