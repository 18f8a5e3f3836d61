"""The body of a batch: a signed checkpoint and the records it covers; never looks inside either."""

from collections.abc import Sequence
from typing import Final

from protocol.errors import ProtocolError

MEDIA_TYPE: Final = "application/vnd.hx.batch"

# PROTOCOL section 6; the bytes are those of the whole body, the checkpoint's included.
BATCH_RECORDS_MAX: Final = 1000
BATCH_BYTES_MAX: Final = 1024 * 1024
# A batch that goes back to its sender carries the receiver's lines too.
RETURNED_BYTES_MAX: Final = BATCH_BYTES_MAX + 16 * 1024

_SIGNATURE_MARK: Final = "\u2014 ".encode()


def encode_batch(note: bytes, records: Sequence[bytes], *, bytes_max: int = BATCH_BYTES_MAX) -> bytes:
    """Return the body: the signed note as it is, one empty line, then each record on a line of its own.

    Raises ValueError for what `decode_batch` would not give back: our own mistake, not a peer's.
    """
    body = b"".join((note, b"\n", *(part for record in records for part in (record, b"\n"))))
    try:
        decoded = decode_batch(body, bytes_max=bytes_max)
    except ProtocolError as error:
        raise ValueError(error.detail) from error
    if decoded != (note, list(records)):
        raise ValueError("the note is none, or a record is empty or holds a line break")
    return body


def decode_batch(body: bytes, *, bytes_max: int = BATCH_BYTES_MAX) -> tuple[bytes, list[bytes]]:
    r"""Return the signed note and the records, byte for byte; neither is parsed or verified.

    The note's text has no empty line, then come an empty line and lines that begin with an em dash, so the second
    empty line ends the note. Records hold no line break, but anything else.
    Raises ProtocolError `too-large` over `bytes_max` or BATCH_RECORDS_MAX, `malformed` for broken framing, a
    batch without records, an empty record, or a last line that is not ended by `\n`: a cut body must not pass.
    """
    if len(body) > bytes_max:
        raise ProtocolError("too-large", f"a batch has at most {bytes_max} bytes", field="body")
    text_end = body.find(b"\n\n")
    note_end = body.find(b"\n\n", text_end + 2)
    if text_end < 1 or note_end < 0:
        raise ProtocolError("malformed", "the batch does not begin with a signed note and an empty line", field="body")
    signatures = body[text_end + 2 : note_end].split(b"\n")
    if not all(line.startswith(_SIGNATURE_MARK) for line in signatures):
        raise ProtocolError("malformed", "a line of the note's signatures is none", field="body")
    if not body.endswith(b"\n"):
        raise ProtocolError("malformed", "the last record is not ended by a line break", field="body")
    # Counted before it is split: the count bounds what the list may take.
    count = body.count(b"\n", note_end + 2)
    if count > BATCH_RECORDS_MAX:
        raise ProtocolError("too-large", f"a batch has at most {BATCH_RECORDS_MAX} records", field="body")
    records = body[note_end + 2 : -1].split(b"\n")
    if count < 1 or not all(records):
        raise ProtocolError("malformed", "the batch has no record, or one that is empty", field="body")
    return body[: note_end + 1], records
