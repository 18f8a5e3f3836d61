"""Content-Digest (RFC 9530) of a message body; never touches Repr-Digest, which speaks of another thing."""

import base64
import hashlib
import hmac
from collections.abc import Callable
from typing import Final, NoReturn

import http_sf
from http_sf.errors import StructuredFieldError

from protocol.errors import ProtocolError

FIELD: Final = "content-digest"

# Ours is 54 bytes, one with both algorithms 155; room is left for algorithms that are passed over.
FIELD_BYTES_MAX: Final = 1024

# RFC 9530, section 7.2: the two algorithms that are not deprecated.
_HASHES: Final[dict[str, Callable[[bytes], "hashlib._Hash"]]] = {"sha-256": hashlib.sha256, "sha-512": hashlib.sha512}


def content_digest(body: bytes) -> str:
    """Return the value of Content-Digest for `body`, SHA-256 only (RFC 9530, section 2)."""
    return f"sha-256=:{base64.b64encode(hashlib.sha256(body).digest()).decode('ascii')}:"


def verify_content_digest(header: str, body: bytes) -> None:
    """Return if every SHA-256 and SHA-512 value in `header` is that of `body`, and there is at least one.

    Other algorithms are passed over (RFC 9530, section 2: a recipient may ignore any of them).
    Raises ProtocolError `digest-mismatch`, or `malformed` for a field that is no dictionary, is longer than
    `FIELD_BYTES_MAX`, names an algorithm twice, or holds no usable value.
    """
    if header == content_digest(body):
        # As every node of ours writes it: there is nothing to read in it.
        return
    digests = _parse(header)
    for algorithm, expected in digests.items():
        if not hmac.compare_digest(_HASHES[algorithm](body).digest(), expected):
            raise ProtocolError("digest-mismatch", f"the body does not have the {algorithm} digest given", field=FIELD)


def _parse(header: str) -> dict[str, bytes]:
    if len(header) > FIELD_BYTES_MAX:
        _malformed(f"longer than {FIELD_BYTES_MAX} bytes")
    try:
        members = http_sf.parse(header.encode("ascii"), tltype="dictionary", on_duplicate_key=_refuse_duplicate)
    except (StructuredFieldError, UnicodeEncodeError):
        _malformed("not a dictionary of structured fields (RFC 9651)")
    digests: dict[str, bytes] = {}
    # mypy: a dictionary was asked for, and the library's return type is the union of all three.
    assert isinstance(members, dict)  # noqa: S101
    for algorithm, member in members.items():
        if algorithm not in _HASHES:
            continue
        value = member[0] if isinstance(member, tuple) else member
        if not isinstance(value, bytes):
            _malformed("a digest is not a byte sequence")
        digests[algorithm] = value
    if not digests:
        _malformed("neither sha-256 nor sha-512 is given")
    return digests


def _refuse_duplicate(_key: str, context: str) -> None:
    # The rule of structured fields is "the last one counts". Two readers that disagree on it would see two bodies.
    if context == "dictionary":
        _malformed("an algorithm is given twice")


def _malformed(reason: str) -> NoReturn:
    raise ProtocolError("malformed", f"Content-Digest: {reason}", field=FIELD)
