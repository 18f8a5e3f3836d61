"""Makes the examples of docs/protocol.md from fixed keys and times; never invents one by hand.

`python -m tests.vectors.make` writes docs/examples. Everything comes out the same each time but the ML-DSA-44
signatures, which the library hedges: those are made once, stored, and kept for as long as they verify.
"""

import base64
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from protocol.batch import MEDIA_TYPE, encode_batch
from protocol.checkpoint import Checkpoint, StreamId
from protocol.cosignature import cosign, sign_checkpoint, verify_checkpoint, verify_cosignature
from protocol.directory import authority_vkey, open_directory, sign_directory
from protocol.errors import ProtocolError
from protocol.evidence import make_proof, verify_evidence
from protocol.httpsig import RequestContext, ResponseContext, parse_signature_input, signature_base
from protocol.keys import KeyUse, SignatureInvalid, SigningKey
from protocol.merkle import Edge, inclusion_proof, leaf_hash
from protocol.note import Note, SignatureType, encode_vkey, parse_note
from protocol.problems import MEDIA_TYPE as PROBLEM_TYPE
from protocol.problems import problem_body
from protocol.profile import LABEL, Request, Response, sign_request, sign_response
from tests.vectors.network import (
    AUTHORITY,
    FR,
    NL,
    NODE_KEYS,
    NOW_S,
    RECEIPT_S,
    directory_document,
    media_report,
    outcome,
    page_report,
    signing_key,
    signing_keys,
)
from tests.vectors.refused import refused

FOLDER: Final = Path(__file__).resolve().parents[2] / "docs" / "examples"
_STREAM: Final = StreamId(FR, NL, 1)
_SENDER_TYPES: Final = {"ed25519": SignatureType.ED25519, "ml-dsa-44": SignatureType.ML_DSA_44_COSIGNATURE}
_RECEIPT_TYPES: Final = {
    "ed25519": SignatureType.ED25519_COSIGNATURE,
    "ml-dsa-44": SignatureType.ML_DSA_44_COSIGNATURE,
}
_NONCE: Final = base64.b64encode(bytes(range(16))).decode()

Example = dict[str, Any]


def read_stored(folder: Path = FOLDER) -> dict[str, Example]:
    """Return the examples as they are stored, by file name without its ending."""
    return {path.stem: json.loads(path.read_bytes()) for path in sorted(folder.glob("*.json"))}


def build(stored: Mapping[str, Example]) -> dict[str, Example]:
    """Return every example; signatures that cannot be made again are taken from `stored` where they still verify."""
    records = {"page": page_report(), "media": media_report(), "outcome": outcome()}
    batch = _batch([records["page"], records["media"]], stored.get("batch", {}))
    return {
        "keys": _keys(),
        "directory": _directory(),
        "records": {
            name: {"raw": raw.decode(), "bytes": len(raw), "leaf_hash": leaf_hash(raw).hex()}
            for name, raw in records.items()
        },
        "batch": batch,
        "messages": _messages(batch),
        "proof": _proof([records["page"], records["media"]], batch),
        "refused": refused(records["page"]),
    }


def dumped(example: Example) -> bytes:
    """Return the bytes of an example's file."""
    return json.dumps(example, ensure_ascii=False, indent=2).encode() + b"\n"


def _keys() -> Example:
    nodes: Example = {}
    for node in (FR, NL):
        nodes[node] = [_key(node, use, signing_key(node, use, algorithm)) for use, algorithm in NODE_KEYS]
    authority = {
        "seed": AUTHORITY.seed.hex(),
        "public": _base64(AUTHORITY.public().raw),
        "vkey": authority_vkey(AUTHORITY.public()),
    }
    return {"authority": authority, "nodes": nodes}


def _key(node: str, use: KeyUse, key: SigningKey) -> Example:
    shown = {
        "use": use.value,
        "algorithm": key.algorithm.value,
        "seed": key.seed.hex(),
        "public": _base64(key.public().raw),
        "thumbprint": key.public().thumbprint(),
    }
    if use is KeyUse.STREAM:
        # The name is the origin line, so a stream key has one verifier key a stream; this is that of the example.
        if node == FR:
            shown["vkey"] = encode_vkey(_STREAM.origin(), _SENDER_TYPES[key.algorithm.value], key.public())
    elif use is KeyUse.RECEIPT:
        shown["vkey"] = encode_vkey(f"{node}/receipt", _RECEIPT_TYPES[key.algorithm.value], key.public())
    return shown


def _directory() -> Example:
    signed = sign_directory(directory_document(), AUTHORITY)
    return {"authority": authority_vkey(AUTHORITY.public()), "note": signed.decode()}


def _batch(records: list[bytes], stored: Example) -> Example:
    edge = Edge.EMPTY.extend([leaf_hash(record) for record in records])
    checkpoint = Checkpoint(_STREAM.origin(), edge.size, edge.root())
    sender, receiver = signing_keys(FR, KeyUse.STREAM), signing_keys(NL, KeyUse.RECEIPT)
    name = _STREAM.receipt_name()
    sender_keys = [key.public() for key in sender]
    receiver_keys = [key.public() for key in receiver]

    def is_note(note: Note) -> bool:
        verify_checkpoint(note, checkpoint, sender_keys)
        return len(note.signatures) == len(sender)

    note = _kept(stored.get("note"), is_note) or sign_checkpoint(checkpoint, sender, now_s=NOW_S)

    def is_receipt(receipt: Note) -> bool:
        at = verify_cosignature(receipt, checkpoint, name, receiver_keys)
        return at == RECEIPT_S and receipt.signatures[: len(sender)] == note.signatures

    receipt = _kept(stored.get("receipt"), is_receipt) or cosign(note, checkpoint, name, receiver, now_s=RECEIPT_S)
    return {
        "stream": {"iss": FR, "aud": NL, "epoch": 1, "origin": _STREAM.origin()},
        "first_index": 0,
        "records": ["page", "media"],
        "edge_before": [],
        "edge_after": [one.hex() for one in edge.hashes],
        "checkpoint": checkpoint.text(),
        "note": note.to_bytes().decode(),
        "body": encode_batch(note.to_bytes(), records).decode(),
        "receipt_time": RECEIPT_S,
        "receipt": receipt.to_bytes().decode(),
    }


def _kept(stored: str | None, verifies: Callable[[Note], bool]) -> Note | None:
    """Return the stored note if it is still the one that belongs here."""
    if stored is None:
        return None
    try:
        note = parse_note(stored.encode())
        return note if verifies(note) else None
    except (ProtocolError, SignatureInvalid):
        return None


def _messages(batch: Example) -> Example:
    put = _request("PUT", f"/peer/v1/inbox/{FR}/1/0", {"content-type": MEDIA_TYPE}, batch["body"].encode())
    get = _request("GET", f"/peer/v1/receipts/{FR}/1/1", {}, b"")
    note_type = {"content-type": "text/plain; charset=utf-8"}
    gap = ProtocolError("stream-gap", "records before the first index are missing here", extra={"expected": 0})
    problem = json.dumps(problem_body(gap), separators=(",", ":")).encode()
    receipt = batch["receipt"].encode()
    # The second record alone, to a receiver that holds nothing yet.
    second = encode_batch(batch["note"].encode(), [media_report()])
    ahead = _request("PUT", f"/peer/v1/inbox/{FR}/1/1", {"content-type": MEDIA_TYPE}, second)
    return {
        "batch": _exchange(put, Response(200, note_type, receipt)),
        "receipt": _exchange(get, Response(200, note_type, receipt)),
        "refusal": _exchange(ahead, Response(409, {"content-type": PROBLEM_TYPE}, problem)),
    }


def _request(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Request:
    request = Request(method, f"https://{NL}{path}", dict(headers), body)
    key = signing_keys(FR, KeyUse.HTTP)[0]
    return request.adding(sign_request(request, key, created=NOW_S, nonce=_NONCE))


def _exchange(request: Request, plain: Response) -> Example:
    key = signing_keys(NL, KeyUse.HTTP)[0]
    response = plain.adding(sign_response(plain, request, key, created=RECEIPT_S))
    context = RequestContext(_lines(request.headers), request.method, request.target_uri)
    answer = ResponseContext(_lines(response.headers), response.status, context)
    return {
        "request": {
            "method": request.method,
            "target_uri": request.target_uri,
            "headers": dict(request.headers),
            "body": request.body.decode(),
            "signature_base": _base(request.headers, context),
        },
        "response": {
            "status": response.status,
            "headers": dict(response.headers),
            "body": response.body.decode(),
            "signature_base": _base(response.headers, answer),
        },
    }


def _base(headers: Mapping[str, str], context: RequestContext | ResponseContext) -> str:
    signed = parse_signature_input(headers["signature-input"])[LABEL]
    return signature_base(signed, context).decode()


def _lines(headers: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    return {name: (value,) for name, value in headers.items()}


def _proof(records: list[bytes], batch: Example) -> Example:
    index = 1
    path = inclusion_proof(index, [leaf_hash(record) for record in records])
    proof = make_proof(records[index], index, path, batch["receipt"].encode())
    directory = open_directory(sign_directory(directory_document(), AUTHORITY), authority_vkey(AUTHORITY.public()))
    return {
        "record": "media",
        "index": index,
        "path": [one.hex() for one in path],
        "file": proof.decode(),
        "words": verify_evidence(proof, directory).words(),
    }


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def main() -> None:
    """Write the examples."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, example in build(read_stored()).items():
        (FOLDER / f"{name}.json").write_bytes(dumped(example))


if __name__ == "__main__":
    main()
