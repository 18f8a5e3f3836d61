"""Signed notes and verifier keys: the specification's example, exact bytes both ways, every malformed form."""

import base64
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import ProtocolError
from protocol.keys import Algorithm, SignatureInvalid, SigningKey
from protocol.note import (
    KEY_NAME_BYTES_MAX,
    NOTE_BYTES_MAX,
    NOTE_SIGNATURES_MAX,
    SIGNATURE_BYTES_MAX,
    Note,
    NoteSignature,
    SignatureType,
    VerifierKey,
    decode_base64,
    encode_base64,
    encode_vkey,
    key_id,
    parse_note,
    parse_vkey,
    sign_note,
    verify_note,
)

# C2SP signed-note, "Example".
SPEC_VKEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
SPEC_NOTE = (
    "This is an example message.\n"
    "\n"
    "— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
).encode()
# C2SP signed-note, its first example: two paragraphs, and letters beyond ASCII.
SPEC_POEM = (
    "Ognuno sta solo sul cuor della terra\n"
    "trafitto da un raggio di sole:\n"
    "\n"
    "ed è subito sera.\n"
    "\n"
    "— quasimodo.example/salvatore "
    "NnugSzTjtVAewIS+Z/iJhUPeFDkO/5QQ2i5ddnGITLlC+EhfLW9oJKONrMouFSQU0xMcXxj99ihAQwaqP3ZekRwNtIc=\n"
).encode()

KEY = SigningKey(Algorithm.ED25519, bytes(range(32)))
ML_DSA = SigningKey(Algorithm.ML_DSA_44, bytes(range(32)))
LINE = NoteSignature("log.example", b"\x01\x02\x03\x04", b"signature").line()

names = st.text(min_size=1, max_size=60).filter(
    lambda name: "+" not in name and not any(one.isspace() or one < " " for one in name),
)
texts = st.text(st.characters(exclude_categories=("Cs", "Cc"), include_characters="\n"), max_size=200)
signatures = st.builds(NoteSignature, names, st.binary(min_size=4, max_size=4), st.binary(min_size=1, max_size=100))
notes = st.builds(
    lambda text, lines: Note(text + "\n", tuple(lines)),
    texts,
    st.lists(signatures, min_size=1, max_size=5),
)


def test_the_specification_s_example_verifies() -> None:
    note = parse_note(SPEC_NOTE)
    assert note.text == "This is an example message.\n"
    verify_note(note, parse_vkey(SPEC_VKEY))
    assert note.to_bytes() == SPEC_NOTE


def test_the_specification_s_example_does_not_verify_when_changed() -> None:
    vkey = parse_vkey(SPEC_VKEY)
    with pytest.raises(SignatureInvalid):
        verify_note(parse_note(SPEC_NOTE.replace(b"an example", b"no example")), vkey)
    line = parse_note(SPEC_NOTE).signatures[0]
    for bit in range(len(line.signature) * 8):
        changed = (int.from_bytes(line.signature, "big") ^ (1 << bit)).to_bytes(len(line.signature), "big")
        with pytest.raises(SignatureInvalid):
            verify_note(Note("This is an example message.\n", (NoteSignature(line.name, line.key_id, changed),)), vkey)


def test_a_text_of_two_paragraphs() -> None:
    note = parse_note(SPEC_POEM)
    assert note.text.endswith("sole:\n\ned è subito sera.\n")
    assert [one.name for one in note.signatures] == ["quasimodo.example/salvatore"]
    assert note.signatures[0].key_id.hex() == "367ba04b"
    assert note.to_bytes() == SPEC_POEM


def test_signs_a_note() -> None:
    note = sign_note('{"version":1}\n', "authority.example", KEY)
    vkey = VerifierKey("authority.example", SignatureType.ED25519, KEY.public())
    verify_note(parse_note(note.to_bytes()), vkey)
    # What is signed is the text, with its newline and nothing more.
    KEY.public().verify(note.signatures[0].signature, b'{"version":1}\n')


def test_only_plain_note_keys_sign_and_verify_plain_notes() -> None:
    with pytest.raises(ValueError, match="Ed25519"):
        sign_note("text\n", "authority.example", ML_DSA)
    note = sign_note("text\n", "authority.example", KEY)
    for sig_type, key in ((SignatureType.ED25519_COSIGNATURE, KEY), (SignatureType.ML_DSA_44_COSIGNATURE, ML_DSA)):
        with pytest.raises(ValueError, match="checkpoint"):
            verify_note(note, VerifierKey("authority.example", sig_type, key.public()))


def test_a_line_counts_by_name_and_id_together() -> None:
    vkey = VerifierKey("log.example", SignatureType.ED25519, KEY.public())
    good = sign_note("text\n", "log.example", KEY).signatures[0]
    same_name = NoteSignature("log.example", b"\x00\x00\x00\x00", good.signature)
    same_id = NoteSignature("other.example", good.key_id, good.signature)
    with pytest.raises(SignatureInvalid, match="no line"):
        verify_note(Note("text\n", (same_name, same_id)), vkey)
    verify_note(Note("text\n", (same_name, same_id, good)), vkey)


def test_a_known_key_s_line_that_fails_rejects_the_note() -> None:
    vkey = VerifierKey("log.example", SignatureType.ED25519, KEY.public())
    good = sign_note("text\n", "log.example", KEY).signatures[0]
    bad = NoteSignature(good.name, good.key_id, bytes(64))
    with pytest.raises(SignatureInvalid):
        verify_note(Note("text\n", (bad,)), vkey)
    for lines in ((good, bad), (bad, good), (good, good)):
        with pytest.raises(SignatureInvalid, match="more than one"):
            verify_note(Note("text\n", lines), vkey)


@given(note=notes)
def test_a_note_is_read_back_as_it_was_written(note: Note) -> None:
    assert parse_note(note.to_bytes()) == note


def rewritten(raw: bytes) -> bytes | None:
    try:
        return parse_note(raw).to_bytes()
    except ProtocolError:
        return None


@given(data=st.data(), note=notes)
@settings(max_examples=200)
def test_whatever_is_read_is_written_back_the_same(data: st.DataObject, note: Note) -> None:
    raw = bytearray(note.to_bytes())
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at : at + data.draw(st.integers(0, 2))] = data.draw(st.sampled_from([b"", b"\n", b"\n\n", b" ", b"=", b"\xff"]))
    assert rewritten(bytes(raw)) in {None, bytes(raw)}


def test_the_text_may_be_empty_lines() -> None:
    for text in ("\n", "\n\n\n", "a\n\n\n", "\n\na\n", f"a\n\n{LINE}"):
        raw = f"{text}\n{LINE}".encode()
        assert parse_note(raw).text == text
        assert parse_note(raw).to_bytes() == raw


def signature_line(encoded: str, *, name: str = "log.example", mark: str = "— ") -> str:
    return f"text\n\n{mark}{name} {encoded}\n"


GOOD = encode_base64(b"\x01\x02\x03\x04" + b"x" * 8)
MALFORMED = {
    "nothing": "",
    "only an empty line": "\n",
    "no signature": "text\n",
    "no signature line": "text\n\n",
    "no text": LINE,
    "no empty line": f"text\n{LINE}",
    "empty line with a space": f"text\n \n{LINE}",
    "carriage returns": f"text\r\n\r\n{LINE}",
    "no newline at the end": f"text\n\n{LINE}"[:-1],
    "something for the newline at the end": f"text\n\n{LINE}"[:-1] + "x",
    "empty line at the end": f"text\n\n{LINE}\n",
    "something after the lines": f"text\n\n{LINE}more\n",
    "empty line between the lines": f"text\n\n{LINE}\nmore\n",
    "tab in the text": f"te\txt\n\n{LINE}",
    "nul in the text": f"te\0xt\n\n{LINE}",
    "escape in the text": f"te\x1bxt\n\n{LINE}",
    "hyphen": signature_line(GOOD, mark="- "),
    "en dash": signature_line(GOOD, mark="\N{EN DASH} "),
    "no space after the dash": signature_line(GOOD, mark="—"),
    "two spaces after the dash": signature_line(GOOD, mark="—  "),
    "two spaces before the signature": signature_line(" " + GOOD),
    "space after the signature": signature_line(GOOD + " "),
    "no name": signature_line(GOOD, name=""),
    "no signature bytes": signature_line(""),
    "nothing after the name": "text\n\n— log.example\n",
    "plus in the name": signature_line(GOOD, name="log+example"),
    "no-break space in the name": signature_line(GOOD, name="log\N{NO-BREAK SPACE}example"),
    "ideographic space in the name": signature_line(GOOD, name="log\N{IDEOGRAPHIC SPACE}example"),
    "next line in the name": signature_line(GOOD, name="log\x85example"),
    "tab in the name": signature_line(GOOD, name="log\texample"),
    "name too long": signature_line(GOOD, name="n" * (KEY_NAME_BYTES_MAX + 1)),
    "name too long in bytes": signature_line(GOOD, name="é" * (KEY_NAME_BYTES_MAX // 2 + 1)),
    "only a key id": signature_line(encode_base64(b"\x01\x02\x03\x04")),
    "less than a key id": signature_line(encode_base64(b"\x01\x02\x03")),
    "signature too long": signature_line(encode_base64(bytes(4 + SIGNATURE_BYTES_MAX + 1))),
    "no padding": signature_line("AQIDBAU"),
    "too much padding": signature_line(GOOD + "="),
    "padding in the middle": signature_line("AQIDBA==AQIDBA=="),
    "bits behind the last byte": signature_line("AQIDBAV="),
    "base64url": signature_line("AQIDBP-_"),
    "not base64": signature_line("AQID!AUG"),
    "digits of another script": signature_line("AQID\N{ARABIC-INDIC DIGIT THREE}AUG"),
    "one signature too many": f"text\n\n{LINE * (NOTE_SIGNATURES_MAX + 1)}",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(name: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_note(MALFORMED[name].encode())
    assert caught.value.code == "malformed"


def test_not_utf_8() -> None:
    for wrong in (b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\x80"):
        with pytest.raises(ProtocolError, match="UTF-8"):
            parse_note(b"text" + wrong + f"\n\n{LINE}".encode())


def test_limits_are_what_they_say() -> None:
    longest = NoteSignature("n" * KEY_NAME_BYTES_MAX, b"\x00\x00\x00\x00", bytes(SIGNATURE_BYTES_MAX))
    full = Note("text\n", (longest,) * NOTE_SIGNATURES_MAX)
    assert NOTE_SIGNATURES_MAX >= 16
    assert parse_note(full.to_bytes()) == full
    raw = Note("t" * NOTE_BYTES_MAX + "\n", (longest,)).to_bytes()
    with pytest.raises(ProtocolError) as caught:
        parse_note(raw)
    assert caught.value.code == "too-large"
    assert parse_note(raw, bytes_max=len(raw)).to_bytes() == raw
    with pytest.raises(ProtocolError):
        parse_note(raw, bytes_max=len(raw) - 1)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Note("no newline", (NoteSignature("a", bytes(4), b"x"),)),
        lambda: Note("", (NoteSignature("a", bytes(4), b"x"),)),
        lambda: Note("text\n", ()),
        lambda: Note("text\n", (NoteSignature("a", bytes(4), b"x"),) * (NOTE_SIGNATURES_MAX + 1)),
        lambda: Note("te\x00xt\n", (NoteSignature("a", bytes(4), b"x"),)),
        lambda: Note("te\ud800xt\n", (NoteSignature("a", bytes(4), b"x"),)),
        lambda: NoteSignature("", bytes(4), b"x"),
        lambda: NoteSignature("a b", bytes(4), b"x"),
        lambda: NoteSignature("a\udfff", bytes(4), b"x"),
        lambda: NoteSignature("a", bytes(3), b"x"),
        lambda: NoteSignature("a", bytes(5), b"x"),
        lambda: NoteSignature("a", bytes(4), b""),
        lambda: VerifierKey("a", SignatureType.ED25519, ML_DSA.public()),
        lambda: VerifierKey("a", SignatureType.ML_DSA_44_COSIGNATURE, KEY.public()),
        lambda: VerifierKey("a+b", SignatureType.ED25519, KEY.public()),
    ],
)
def test_what_could_not_be_written_cannot_exist(make: Callable[[], object]) -> None:
    with pytest.raises(ProtocolError) as caught:
        make()
    assert caught.value.code == "malformed"


def test_vkey_of_the_specification() -> None:
    vkey = parse_vkey(SPEC_VKEY)
    assert (vkey.name, vkey.sig_type, vkey.key_id.hex()) == ("example.com/foo", SignatureType.ED25519, "530d903a")
    assert encode_vkey(vkey.name, vkey.sig_type, vkey.key) == SPEC_VKEY
    assert key_id("example.com/foo", 0x01, vkey.key.raw) == vkey.key_id


@pytest.mark.parametrize("sig_type", list(SignatureType))
def test_vkeys_are_read_back(sig_type: SignatureType) -> None:
    key = (KEY if sig_type.algorithm is Algorithm.ED25519 else ML_DSA).public()
    text = encode_vkey("log.example/1", sig_type, key)
    assert parse_vkey(text) == VerifierKey("log.example/1", sig_type, key)
    assert base64.b64decode(text.split("+", 2)[2]) == bytes([sig_type]) + key.raw


def test_one_key_has_another_id_for_each_name_and_type() -> None:
    raw = KEY.public().raw
    ids = {key_id(name, sig_type, raw) for name in ("a.example", "b.example") for sig_type in SignatureType}
    assert len(ids) == 6


def vkey(name: str, identity: str | None, material: bytes) -> str:
    identity = identity or key_id(name, material[0] if material else 0, material[1:]).hex()
    return f"{name}+{identity}+{encode_base64(material)}"


RAW = KEY.public().raw
MALFORMED_VKEYS = {
    "nothing": "",
    "one part": "example.com/foo",
    "two parts": "example.com/foo+530d903a",
    "no name": SPEC_VKEY.removeprefix("example.com/foo"),
    "space in the name": vkey("log example", None, b"\x01" + RAW),
    "upper-case id": SPEC_VKEY.replace("530d903a", "530D903A"),
    "short id": SPEC_VKEY.replace("530d903a", "530d903"),
    "another id": SPEC_VKEY.replace("530d903a", "530d903b"),
    "id of another name": SPEC_VKEY.replace("example.com", "example.org"),
    "no material": vkey("log.example", "00000000", b""),
    "type 0": vkey("log.example", None, b"\x00" + RAW),
    "type 2": vkey("log.example", None, b"\x02" + RAW),
    "type 255": vkey("log.example", None, b"\xff" + RAW),
    "key too short": vkey("log.example", None, b"\x01" + RAW[:-1]),
    "key too long": vkey("log.example", None, b"\x01" + RAW + b"\x00"),
    "key of small order": vkey("log.example", None, b"\x01" + bytes(32)),
    "key of the other algorithm": vkey("log.example", None, b"\x06" + RAW),
    "no padding": vkey("log.example", None, b"\x06" + ML_DSA.public().raw).rstrip("="),
    "newline": SPEC_VKEY + "\n",
}


@pytest.mark.parametrize("name", MALFORMED_VKEYS)
def test_malformed_vkey(name: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        parse_vkey(MALFORMED_VKEYS[name])
    assert caught.value.code == "malformed"


@given(raw=st.binary(max_size=50))
def test_base64_is_read_back(raw: bytes) -> None:
    assert decode_base64(encode_base64(raw), field="x") == raw


def reencoded(text: str) -> str | None:
    try:
        return encode_base64(decode_base64(text, field="x"))
    except ProtocolError:
        return None


@given(text=st.text(st.sampled_from("AQg/+=w9_- \n"), max_size=12))
def test_base64_has_one_spelling(text: str) -> None:
    assert reencoded(text) in {None, text}


def test_an_error_never_holds_the_content() -> None:
    for raw in (
        b"secret-word\n",
        b"secret-word\n\n\xe2\x80\x94 secret-word !\n",
        b"secret-word\x00\n\n" + LINE.encode(),
    ):
        with pytest.raises(ProtocolError) as caught:
            parse_note(raw)
        assert "secret" not in f"{caught.value} {caught.value.detail} {caught.value.extra}"
