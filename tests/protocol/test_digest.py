"""Content-Digest: the examples of RFC 9530, and what is refused."""

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.digest import FIELD_BYTES_MAX, content_digest, verify_content_digest
from protocol.errors import ProtocolError

HELLO = b'{"hello": "world"}'
# RFC 9530, appendix D: the object alone. Appendix B.1, B.2 and B.3: with a line feed, of nothing, of a part.
HELLO_SHA_256 = "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:"
HELLO_SHA_512 = "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:"
RFC_9530_SHA_256 = [
    (HELLO, HELLO_SHA_256),
    (HELLO + b"\n", "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"),
    (b"", "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"),
    (b'"world"}\n', "sha-256=:jjcgBDWNAtbYUXI37CVG3gRuGOAjaaDRGpIUFsdyepQ=:"),
]
OTHERS_OF_APPENDIX_D = "md5=:Sd/dVLAcvNLSq16eXua5uQ==:, unixsum=:GQU=:, crc32c=:Q3lHIA==:"


def code_of(header: str, body: bytes) -> str:
    with pytest.raises(ProtocolError) as failure:
        verify_content_digest(header, body)
    assert failure.value.field == "content-digest"
    return failure.value.code


@pytest.mark.parametrize(("body", "header"), RFC_9530_SHA_256)
def test_rfc_9530_examples(body: bytes, header: str) -> None:
    assert content_digest(body) == header
    verify_content_digest(header, body)


def test_sha_512_is_accepted_and_every_known_value_counts() -> None:
    verify_content_digest(HELLO_SHA_512, HELLO)
    verify_content_digest(f"{HELLO_SHA_256}, {HELLO_SHA_512}", HELLO)
    verify_content_digest(f"{OTHERS_OF_APPENDIX_D}, {HELLO_SHA_256}", HELLO)
    wrong_512 = HELLO_SHA_512.replace("WZDP", "WZDQ")
    assert code_of(f"{HELLO_SHA_256}, {wrong_512}", HELLO) == "digest-mismatch"
    assert code_of(f"{wrong_512}, {HELLO_SHA_256}", HELLO) == "digest-mismatch"


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (HELLO_SHA_256.replace("X48", "X49"), "digest-mismatch"),
        ("sha-256=:X48E9qOokqqrvdts8nOJRA==:", "digest-mismatch"),  # a truncated one is not a prefix match
        ("", "malformed"),
        (OTHERS_OF_APPENDIX_D, "malformed"),
        ("SHA-256=X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=", "malformed"),  # RFC 3230
        ("sha-256=X48E9", "malformed"),
        ('sha-256="X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE="', "malformed"),
        ("sha-256=(:AA==:)", "malformed"),
        ("sha-256", "malformed"),
        ("sha-256=:X48E9\N{LATIN SMALL LETTER E WITH ACUTE}:", "malformed"),
        (f"{HELLO_SHA_256}, {HELLO_SHA_256}", "malformed"),
        (f"sha-256=:AA==:, {HELLO_SHA_256}", "malformed"),
        (f"{HELLO_SHA_256}, pad=:{'A' * FIELD_BYTES_MAX}:", "malformed"),
    ],
)
def test_refused(header: str, code: str) -> None:
    assert code_of(header, HELLO) == code


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_fits_its_body_and_no_other(body: bytes, other: bytes) -> None:
    for header in (
        content_digest(body),
        f"sha-512=:{base64.b64encode(hashlib.sha512(body).digest()).decode('ascii')}:",
    ):
        verify_content_digest(header, body)
        if other != body:
            assert code_of(header, other) == "digest-mismatch"
