"""Makes the published vectors, the examples of docs/protocol.md among them, from fixed keys and times; invents none.

`python -m tests.vectors.make` writes the JSON files beside it. Everything comes out the same each time but ML-DSA-44
signatures, which the library hedges: those are made once, stored, and kept for as long as they verify.
"""

import base64
import json
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from node.platform.repository import (
    ONLINE,
    ROOT,
    TARGETS,
    RoleKeys,
    fingerprint,
    make_root,
    make_snapshot,
    make_targets,
    make_timestamp,
    name_of_root,
    published,
    sign,
    tuf_key,
)
from protocol.batch import MEDIA_TYPE, encode_batch
from protocol.checkpoint import Checkpoint, StreamId
from protocol.cosignature import cosign, sign_checkpoint, verify_checkpoint, verify_cosignature
from protocol.directory import parse_directory
from protocol.errors import ProtocolError
from protocol.evidence import make_proof, verify_evidence
from protocol.httpsig import RequestContext, ResponseContext, parse_signature_input, signature_base
from protocol.keys import KeyUse, SignatureInvalid, SigningKey
from protocol.merkle import Edge, inclusion_proof, leaf_hash
from protocol.note import Note, SignatureType, encode_vkey, parse_note
from protocol.problems import MEDIA_TYPE as PROBLEM_TYPE
from protocol.problems import problem_body
from protocol.profile import LABEL, Request, Response, sign_request, sign_response
from tests.vectors import desk, pure, spoiled
from tests.vectors.network import (
    AUTHORITY,
    DE,
    DESK,
    DESK_KEYS,
    FR,
    NL,
    NODE_KEYS,
    NOW,
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
from tests.vectors.steps import delivered, steps, transfer, unknown
from tests.vectors.urls import urls

FOLDER: Final = Path(__file__).resolve().parent
_STREAM: Final = StreamId(FR, NL, 1)
_MOVES: Final = StreamId(NL, DE, 1)
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
    page, media = page_report(), media_report()
    records = {"page": page, "media": media, "outcome": outcome(), **steps(media)}
    batch = _batch(_STREAM, {"page": page, "media": media}, stored.get("batch", {}))
    proof = _proof([page, media], batch)
    records["transfer"] = transfer(media, proof["file"])
    moved = _batch(_MOVES, {"transfer": records["transfer"]}, stored.get("transfer", {}))
    moved["proof"] = make_proof(records["transfer"], 0, [], moved["receipt"].encode()).decode()
    records["status-delivered"] = delivered(media, moved["proof"])
    records |= unknown(page)
    refusals = refused(page)
    refusals["records"] += spoiled.step_records(records)
    return {
        "keys": _keys(),
        "directory": {**_directory(), "windows": pure.windows(), "refused": spoiled.directories()},
        "records": {name: _record(name, raw) for name, raw in records.items()},
        "batch": batch,
        "transfer": moved,
        "receipts": {"good": [batch["receipt"], moved["receipt"]], "refused": spoiled.receipts(batch)},
        "messages": {**_messages(batch), "refused": spoiled.messages()},
        "proof": {**proof, "refused": spoiled.proofs(proof["file"], batch)},
        "refused": refusals,
        "urls": urls(),
        "trees": pure.trees(),
        "evidence": {"cases": pure.evidence()},
        "routing": {"cases": pure.routing()},
        "delivery": pure.delivery(),
        "problems": pure.problems(),
        "hello": pure.hello(),
        "desk": desk.desk(batch, stored.get("desk", {})),
    }


def dumped(example: Example) -> bytes:
    """Return the bytes of an example's file."""
    return json.dumps(example, ensure_ascii=False, indent=2).encode() + b"\n"


def _record(name: str, raw: bytes) -> Example:
    said = json.loads(raw)
    return {
        "raw": raw.decode(),
        "bytes": len(raw),
        "leaf_hash": leaf_hash(raw).hex(),
        "iss": said["iss"],
        "aud": said["aud"],
        "becomes": "kept" if name in {"unknown-type", "later-schema", "status-epoch"} else "accepted",
    }


def _keys() -> Example:
    nodes: Example = {}
    for node in (FR, NL, DE):
        nodes[node] = [_key(node, use, signing_key(node, use, algorithm)) for use, algorithm in NODE_KEYS]
    nodes[DESK] = [_key(DESK, use, signing_key(DESK, use, algorithm)) for use, algorithm in DESK_KEYS]
    authority = {
        "seed": AUTHORITY.seed.hex(),
        "public": _base64(AUTHORITY.public().raw),
        "keyid": tuf_key(AUTHORITY.public()).keyid,
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
        # The name is the origin line, so a stream key has one verifier key a stream; this is that of the examples.
        stream = {FR: _STREAM, NL: _MOVES}.get(node)
        if stream is not None:
            shown["vkey"] = encode_vkey(stream.origin(), _SENDER_TYPES[key.algorithm.value], key.public())
    elif use is KeyUse.RECEIPT:
        shown["vkey"] = encode_vkey(f"{node}/receipt", _RECEIPT_TYPES[key.algorithm.value], key.public())
    return shown


def _directory() -> Example:
    """Return the metadata of the directory: one key signs for every role here."""
    document, keys = directory_document(), RoleKeys([AUTHORITY.public()], 1)
    root = sign(make_root(1, dict.fromkeys((ROOT, TARGETS, *ONLINE), keys), _until(365)), AUTHORITY)
    targets = sign(make_targets(document, _until(365)), AUTHORITY)
    snapshot = make_snapshot(targets, NOW_S, _until(30), AUTHORITY)
    timestamp = make_timestamp(snapshot, NOW_S, _until(3), AUTHORITY)
    files = {name_of_root(root): root, **published(targets, document, snapshot, timestamp)}
    return {"root_fingerprint": fingerprint(root), "files": {name: raw.decode() for name, raw in files.items()}}


def _until(days: int) -> datetime:
    return NOW.replace(microsecond=0) + timedelta(days=days)


def _batch(stream: StreamId, records: Mapping[str, bytes], stored: Example) -> Example:
    edge = Edge.EMPTY.extend([leaf_hash(record) for record in records.values()])
    checkpoint = Checkpoint(stream.origin(), edge.size, edge.root())
    sender, receiver = signing_keys(stream.iss, KeyUse.STREAM), signing_keys(stream.aud, KeyUse.RECEIPT)
    name = stream.receipt_name()
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
        "stream": {"iss": stream.iss, "aud": stream.aud, "epoch": 1, "origin": stream.origin()},
        "first_index": 0,
        "records": list(records),
        "edge_before": [],
        "edge_after": [one.hex() for one in edge.hashes],
        "checkpoint": checkpoint.text(),
        "note": note.to_bytes().decode(),
        "body": encode_batch(note.to_bytes(), list(records.values())).decode(),
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
    version = {"hx-directory": str(json.loads(directory_document())["version"])}
    receipt = batch["receipt"].encode()
    # The second record alone, to a receiver that holds nothing yet.
    second = encode_batch(batch["note"].encode(), [media_report()])
    ahead = _request("PUT", f"/peer/v1/inbox/{FR}/1/1", {"content-type": MEDIA_TYPE}, second)
    fetch = _request("GET", f"/peer/v1/outbox/{FR}/1?from=0&wait=20", {}, b"")
    nothing = json.dumps({"written": 0, "epoch": 1}).encode()
    return {
        "batch": _exchange(put, Response(200, {**note_type, "hx-credit": "998000", **version}, receipt)),
        "receipt": _exchange(get, Response(200, {**note_type, **version}, receipt)),
        "fetch": _exchange(fetch, Response(404, {"content-type": "application/json", **version}, nothing)),
        "refusal": _exchange(ahead, Response(409, {"content-type": PROBLEM_TYPE, **version}, problem)),
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
    directory = parse_directory(directory_document())
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
    for name, example in build(read_stored()).items():
        (FOLDER / f"{name}.json").write_bytes(dumped(example))


if __name__ == "__main__":
    main()
