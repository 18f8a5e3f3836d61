"""The record that begins a new epoch of a stream (PROTOCOL section 6): it names the last checkpoint of the old one."""

from datetime import datetime
from typing import Final

from protocol.checkpoint import Checkpoint, StreamId
from protocol.codes import StatusKind
from protocol.errors import ProtocolError
from protocol.note import decode_base64, encode_base64
from protocol.record import Handling, encode_step, parse_record
from protocol.steps import StatusBody
from protocol.strictjson import loads

#: It goes to the desk whole where it contradicts what was signed before.
BEGINNING_BYTES_MAX: Final = 4096


def encode_epoch(ended: Checkpoint, *, record_id: str, iss: str, aud: str, now: datetime, handling: Handling) -> bytes:
    """Return the first record of the epoch after the one that ended with this checkpoint.

    It belongs to no case: its `case` and `item` are its own id.
    """
    body = StatusBody(
        kind=StatusKind.EPOCH, at=now, stream=ended.origin, size=ended.size, root=encode_base64(ended.root)
    )
    return encode_step(
        body, record_id=record_id, case=record_id, item=record_id, iss=iss, aud=aud, iat=now, handling=handling
    )


def says_only_its_end(raw: bytes) -> bool:
    """Say whether an epoch's first record holds no member, and no value, but what `encode_epoch` writes.

    So nothing can travel in it to somebody who may see no content.
    """
    record = parse_record(raw)
    said, body = record.envelope, record.body
    if not isinstance(body, StatusBody):
        return False
    bare = StatusBody(kind=body.kind, at=body.at, stream=body.stream, size=body.size, root=body.root)
    again = encode_step(
        bare,
        record_id=said.id,
        case=said.id,
        item=said.id,
        iss=said.iss,
        aud=said.aud,
        iat=said.iat,
        handling=said.handling,
    )
    return bool(loads(again) == loads(raw))


def ended_epoch(raw: bytes, origin: str) -> Checkpoint:
    """Return the checkpoint that an epoch's first record names; it must be of the stream `origin`.

    Raises ProtocolError `malformed` for any other record.
    """
    if len(raw) > BEGINNING_BYTES_MAX:
        raise ProtocolError(
            "malformed", f"an epoch's first record has at most {BEGINNING_BYTES_MAX} bytes", field="epoch"
        )
    try:
        body = parse_record(raw).body
    except ProtocolError:
        body = None
    if not isinstance(body, StatusBody) or body.kind is not StatusKind.EPOCH:
        raise ProtocolError("malformed", "an epoch begins with a status of kind epoch", field="epoch")
    named = Checkpoint(
        StreamId.parse(body.stream or "").origin(), body.size or 0, decode_base64(body.root or "", field="root")
    )
    if named.origin != origin:
        raise ProtocolError("malformed", "a new epoch names the one before", field="epoch")
    return named
