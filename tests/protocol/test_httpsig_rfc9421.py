"""RFC 9421 as oracle: appendix B.2 and B.4 and section 2.4, typed from the RFC, each with its signature base.

Ed25519, HMAC and ECDSA signatures are verified over the base this project makes, so a slip of the pen on either side
is seen. The RSA ones are left to their bases. `example.com` and `example.org` are reserved by RFC 2606.
"""

import base64
import hashlib
import hmac

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from protocol.digest import verify_content_digest
from protocol.httpsig import (
    Component,
    ComponentError,
    Context,
    RequestContext,
    ResponseContext,
    SignatureInput,
    format_signature_inputs,
    format_signatures,
    group_field_lines,
    parse_signature,
    parse_signature_input,
    signature_base,
)
from protocol.keys import Algorithm, PublicKey, SignatureInvalid, SigningKey

# Appendix B.1.3, test-key-ecc-p256 (x and y of the JWK).
ECC_P256_X = "qIVYZVLCrPZHGHjP17CTW0_-D9Lfw0EkjqF7xB4FivA"
ECC_P256_Y = "Mc4nN9LTDOBhfoUeg8Ye9WedFRhnZXZJA12Qp0zZ6F0"
# Appendix B.1.4, test-key-ed25519 (d and x of the JWK).
ED25519_D = "n4Ni-HpISpVObnQMW0wOhCKROaIKqKtW_2ZYb2p9KcU"
ED25519_X = "JrQLj5P_89iXES9-vFgrIy29clF9CC_oPPsw3c5D0bs"
# Appendix B.1.5, test-shared-secret.
SHARED_SECRET = "uzvJfB4u3N0Jy4T7NZ75MDVcr8zSTInedJtkgcu46YW4XByzNJjxBdtjUkdJPBtbmHhIDi6pcl8jsasjlTMtDQ=="

REQUEST_BODY = b'{"hello": "world"}'
REQUEST_DIGEST = "sha-512=:WZDPaVn/7XgHaAy8pmojAkGWoRx2UFChF41A2svX+TaPm+AbwAgBWnrIiYllu7BNNyealdVLvRwEmTHWXvJwew==:"
RESPONSE_BODY = b'{"message": "good dog"}'
RESPONSE_DIGEST = "sha-512=:mEWXIS7MaLRuGgxOBdODa3xqM1XdEvxoYhvlCFJ41QJgJc4GTsPp29l5oGX69wWdXymyU0rjJuahq4l5aGgfLQ==:"
BUSY_BODY = b'{"busy": true, "message": "Your call is very important to us"}'
BUSY_DIGEST = "sha-512=:0Y6iCBzGg5rZtoXS95Ijz03mslf6KAMCloESHObfwnHJDbkkWWQz6PhhU9kxsTbARtY2PTBOzq24uJFpHsMuAg==:"

# Appendix B.2.
TEST_REQUEST = RequestContext(
    group_field_lines(
        [
            ("Host", "example.com"),
            ("Date", "Tue, 20 Apr 2021 02:07:55 GMT"),
            ("Content-Type", "application/json"),
            ("Content-Digest", REQUEST_DIGEST),
            ("Content-Length", "18"),
        ],
    ),
    "POST",
    "https://example.com/foo?param=Value&Pet=dog",
)
TEST_RESPONSE = ResponseContext(
    group_field_lines(
        [
            ("Date", "Tue, 20 Apr 2021 02:07:56 GMT"),
            ("Content-Type", "application/json"),
            ("Content-Digest", RESPONSE_DIGEST),
            ("Content-Length", "23"),
        ],
    ),
    200,
)
# Section 2.4.
BUSY_RESPONSE = ResponseContext(
    group_field_lines(
        [
            ("Date", "Tue, 20 Apr 2021 02:07:56 GMT"),
            ("Content-Type", "application/json"),
            ("Content-Length", "62"),
            ("Content-Digest", BUSY_DIGEST),
        ],
    ),
    503,
    TEST_REQUEST,
)

B21 = 'sig-b21=();created=1618884473;keyid="test-key-rsa-pss";nonce="b3k2pp5k7z-50gnwp.yemd"'
B21_LINES: list[str] = []

B22 = (
    'sig-b22=("@authority" "content-digest" "@query-param";name="Pet")'
    ';created=1618884473;keyid="test-key-rsa-pss";tag="header-example"'
)
B22_LINES = [
    '"@authority": example.com',
    f'"content-digest": {REQUEST_DIGEST}',
    '"@query-param";name="Pet": dog',
]

B23 = (
    'sig-b23=("date" "@method" "@path" "@query" "@authority" "content-type" "content-digest" "content-length")'
    ';created=1618884473;keyid="test-key-rsa-pss"'
)
B23_LINES = [
    '"date": Tue, 20 Apr 2021 02:07:55 GMT',
    '"@method": POST',
    '"@path": /foo',
    '"@query": ?param=Value&Pet=dog',
    '"@authority": example.com',
    '"content-type": application/json',
    f'"content-digest": {REQUEST_DIGEST}',
    '"content-length": 18',
]

B24 = (
    'sig-b24=("@status" "content-type" "content-digest" "content-length");created=1618884473;keyid="test-key-ecc-p256"'
)
B24_SIGNATURE = "wNmSUAhwb5LxtOtOpNa6W5xj067m5hFrj0XQ4fvpaCLx0NKocgPquLgyahnzDnDAUy5eCdlYUEkLIj+32oiasw=="
B24_LINES = [
    '"@status": 200',
    '"content-type": application/json',
    f'"content-digest": {RESPONSE_DIGEST}',
    '"content-length": 23',
]

B25 = 'sig-b25=("date" "@authority" "content-type");created=1618884473;keyid="test-shared-secret"'
B25_SIGNATURE = "pxcQw6G3AjtMBQjwo8XzkZf/bws5LelbaMk5rGIGtE8="
B25_LINES = [
    '"date": Tue, 20 Apr 2021 02:07:55 GMT',
    '"@authority": example.com',
    '"content-type": application/json',
]

B26 = (
    'sig-b26=("date" "@method" "@path" "@authority" "content-type" "content-length")'
    ';created=1618884473;keyid="test-key-ed25519"'
)
B26_SIGNATURE = "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw=="
B26_LINES = [
    '"date": Tue, 20 Apr 2021 02:07:55 GMT',
    '"@method": POST',
    '"@path": /foo',
    '"@authority": example.com',
    '"content-type": application/json',
    '"content-length": 18',
]

SECTION_24 = (
    'reqres=("@status" "content-digest" "content-type" "@authority";req "@method";req "@path";req '
    '"content-digest";req);created=1618884479;keyid="test-key-ecc-p256"'
)
SECTION_24_SIGNATURE = "dMT/A/76ehrdBTD/2Xx8QuKV6FoyzEP/I9hdzKN8LQJLNgzU4W767HK05rx1i8meNQQgQPgQp8wq2ive3tV5Ag=="
SECTION_24_LINES = [
    '"@status": 503',
    f'"content-digest": {BUSY_DIGEST}',
    '"content-type": application/json',
    '"@authority";req: example.com',
    '"@method";req: POST',
    '"@path";req: /foo',
    f'"content-digest";req: {REQUEST_DIGEST}',
]

# The second example of section 2.4: the answer to a signed request covers what that signature covers.
SECTION_24_SIGNED = (
    'reqres=("@status" "content-digest" "content-type" "@authority";req "@method";req "@path";req "@query";req '
    '"content-digest";req "content-type";req "content-length";req);created=1618884479;keyid="test-key-ecc-p256"'
)
SECTION_24_SIGNED_SIGNATURE = "C73J41GVKc+TYXbSobvZf0CmNcptRiWN+NY1Or0A36ISg6ymdRN6ZgR2QfrtopFNzqAyv+CeWrMsNbcV2Ojsgg=="
SECTION_24_SIGNED_LINES = [
    '"@status": 503',
    f'"content-digest": {BUSY_DIGEST}',
    '"content-type": application/json',
    '"@authority";req: example.com',
    '"@method";req: POST',
    '"@path";req: /foo',
    '"@query";req: ?param=Value&Pet=dog',
    f'"content-digest";req: {REQUEST_DIGEST}',
    '"content-type";req: application/json',
    '"content-length";req: 18',
]

# Appendix B.4: one signature, seven messages.
TRANSFORM = 'transform=("@method" "@path" "@authority" "accept");created=1618884473;keyid="test-key-ed25519"'
TRANSFORM_SIGNATURE = "ZT1kooQsEHpZ0I1IjCqtQppOmIqlJPeo7DHR3SoMn0s5JZ1eRGS0A+vyYP9t/LXlh5QMFFQ6cpLt2m0pmj3NDA=="
TRANSFORM_LINES = [
    '"@method": GET',
    '"@path": /demo',
    '"@authority": example.org',
    '"accept": application/json, */*',
]


def unpadded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


ED25519 = SigningKey(Algorithm.ED25519, unpadded(ED25519_D))


def parsed(field: str) -> SignatureInput:
    (signed,) = parse_signature_input(field).values()
    return signed


def transformed(target: str, *accepts: str, method: str = "GET") -> RequestContext:
    return RequestContext(group_field_lines([("Accept", value) for value in accepts]), method, target)


def test_the_bodies_have_the_digests_printed() -> None:
    for body, digest in (
        (REQUEST_BODY, REQUEST_DIGEST),
        (RESPONSE_BODY, RESPONSE_DIGEST),
        (BUSY_BODY, BUSY_DIGEST),
    ):
        verify_content_digest(digest, body)


@pytest.mark.parametrize(
    ("field", "message", "lines"),
    [
        pytest.param(B21, TEST_REQUEST, B21_LINES, id="B.2.1"),
        pytest.param(B22, TEST_REQUEST, B22_LINES, id="B.2.2"),
        pytest.param(B23, TEST_REQUEST, B23_LINES, id="B.2.3"),
        pytest.param(B24, TEST_RESPONSE, B24_LINES, id="B.2.4"),
        pytest.param(B25, TEST_REQUEST, B25_LINES, id="B.2.5"),
        pytest.param(B26, TEST_REQUEST, B26_LINES, id="B.2.6"),
        pytest.param(SECTION_24, BUSY_RESPONSE, SECTION_24_LINES, id="2.4"),
        pytest.param(SECTION_24_SIGNED, BUSY_RESPONSE, SECTION_24_SIGNED_LINES, id="2.4-signed"),
        pytest.param(
            TRANSFORM,
            transformed("https://example.org/demo?name1=Value1&Name2=value2", "application/json", "*/*"),
            TRANSFORM_LINES,
            id="B.4",
        ),
    ],
)
def test_signature_bases(field: str, message: Context, lines: list[str]) -> None:
    params = field.partition("=")[2]
    expected = "".join(f"{line}\n" for line in lines) + f'"@signature-params": {params}'
    assert signature_base(parsed(field), message) == expected.encode("ascii")
    assert format_signature_inputs(parse_signature_input(field)) == field


def test_b26_ed25519_key_base_and_signature() -> None:
    """Ed25519 is deterministic: made from the message alone, both header fields are the RFC's to the byte."""
    assert ED25519.public().raw == unpadded(ED25519_X)
    names = ("date", "@method", "@path", "@authority", "content-type", "content-length")
    made = SignatureInput(
        tuple(Component(name) for name in names),
        (("created", 1618884473), ("keyid", "test-key-ed25519")),
    )
    signature = ED25519.sign(signature_base(made, TEST_REQUEST))
    assert format_signature_inputs({"sig-b26": made}) == B26
    assert format_signatures({"sig-b26": signature}) == f"sig-b26=:{B26_SIGNATURE}:"
    received = parse_signature(f"sig-b26=:{B26_SIGNATURE}:")["sig-b26"]
    PublicKey(Algorithm.ED25519, unpadded(ED25519_X)).verify(received, signature_base(parsed(B26), TEST_REQUEST))


def test_b25_hmac() -> None:
    secret = base64.b64decode(SHARED_SECRET)
    made = hmac.digest(secret, signature_base(parsed(B25), TEST_REQUEST), hashlib.sha256)
    assert made == base64.b64decode(B25_SIGNATURE)


@pytest.mark.parametrize(
    ("field", "signature", "message"),
    [
        pytest.param(B24, B24_SIGNATURE, TEST_RESPONSE, id="B.2.4"),
        pytest.param(SECTION_24, SECTION_24_SIGNATURE, BUSY_RESPONSE, id="2.4"),
        pytest.param(SECTION_24_SIGNED, SECTION_24_SIGNED_SIGNATURE, BUSY_RESPONSE, id="2.4-signed"),
    ],
)
def test_ecdsa_signatures_fit_our_bases(field: str, signature: str, message: Context) -> None:
    x, y = (int.from_bytes(unpadded(coordinate), "big") for coordinate in (ECC_P256_X, ECC_P256_Y))
    public = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    raw = base64.b64decode(signature)
    der = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    public.verify(der, signature_base(parsed(field), message), ec.ECDSA(hashes.SHA256()))


@pytest.mark.parametrize(
    "message",
    [
        transformed("https://example.org/demo?name1=Value1&Name2=value2", "application/json", "*/*"),
        transformed("https://example.org/demo?name1=Value1&Name2=value2&param=added", "application/json", "*/*"),
        transformed("https://example.org/demo?name1=Value1&Name2=value2", "application/json, */*"),
    ],
)
def test_b4_transformations_that_keep_the_signature(message: RequestContext) -> None:
    ED25519.public().verify(base64.b64decode(TRANSFORM_SIGNATURE), signature_base(parsed(TRANSFORM), message))


@pytest.mark.parametrize(
    "message",
    [
        transformed("https://example.com/demo?name1=Value1&Name2=value2", "application/json", "*/*", method="POST"),
        transformed("https://example.org/demo?name1=Value1&Name2=value2", "*/*", "application/json"),
    ],
)
def test_b4_transformations_that_break_the_signature(message: RequestContext) -> None:
    with pytest.raises(SignatureInvalid):
        ED25519.public().verify(base64.b64decode(TRANSFORM_SIGNATURE), signature_base(parsed(TRANSFORM), message))


def test_a_response_signature_is_none_without_its_request() -> None:
    with pytest.raises(ComponentError):
        signature_base(parsed(SECTION_24), ResponseContext(BUSY_RESPONSE.fields, 503))
