"""What has to be refused beside records: messages, receipts, proofs and directories that break one rule each."""

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from node.conformance.speaker import COMPONENTS, forged
from protocol.checkpoint import Checkpoint
from protocol.keys import KeyUse
from protocol.note import Note, NoteSignature, parse_note
from protocol.profile import Request, sign_request
from protocol.tlogproof import parse_tlog_proof
from tests.vectors.network import FR, NL, NOW_S, directory_document, page_report, signing_keys

Case = dict[str, Any]

_NONCE: Final = base64.b64encode(bytes(range(16))).decode()
_STREAM: Final = f"/peer/v1/streams/{FR}"


def messages() -> list[Case]:
    """Return requests with the step of section 4 that refuses them; all are read at the time `now`."""
    key = signing_keys(FR, KeyUse.HTTP)[0]
    bare = Request("GET", f"https://{NL}{_STREAM}", {}, b"")
    good = bare.adding(sign_request(bare, key, created=NOW_S, nonce=_NONCE))
    parameters: dict[str, Any] = {
        "created": NOW_S,
        "expires": NOW_S + 60,
        "nonce": _NONCE,
        "keyid": key.public().thumbprint(),
        "alg": "ed25519",
        "tag": "hx-peer-v1",
    }

    def other(*, components: tuple[str, ...] = (COMPONENTS[0], COMPONENTS[1], COMPONENTS[4]), **said: Any) -> Request:
        return forged(bare, components=components, parameters={**parameters, **said}, key=key)

    def put(**headers: str) -> Request:
        batch = Request("PUT", f"https://{NL}/peer/v1/inbox/{FR}/1/0", {"content-type": "text/plain", **headers}, b"a")
        return batch.adding(sign_request(batch, key, created=NOW_S, nonce=_NONCE))

    def headers(**values: str | None) -> Request:
        said = {**good.headers, **{name.replace("_", "-"): value for name, value in values.items()}}
        return replace(good, headers={name: value for name, value in said.items() if value is not None})

    signed = good.headers["signature-input"]
    stream_key = signing_keys(FR, KeyUse.STREAM)[0].public().thumbprint()
    cases: list[tuple[str, Request, int, str]] = [
        ("no signature", headers(signature=None, signature_input=None), 1, "bad-signature"),
        ("no version", headers(hx_version=None), 1, "malformed"),
        ("another version", headers(hx_version="2"), 1, "malformed"),
        ("a space too many", headers(signature_input=signed.replace(";", "; ", 1)), 1, "malformed"),
        ("another label", headers(signature_input=signed.replace("hx=", "sig=", 1)), 1, "malformed"),
        ("a parameter of its own", other(novelty="1"), 1, "malformed"),
        ("no expiry", other(expires=None), 1, "malformed"),
        ("good for an hour", other(expires=NOW_S + 3600), 1, "malformed"),
        ("a short nonce", other(nonce="AAAA"), 1, "malformed"),
        ("another tag", other(tag="other"), 2, "bad-signature"),
        ("the target is not covered", other(components=(COMPONENTS[0], COMPONENTS[4])), 3, "bad-signature"),
        ("made 301 s ago", other(created=NOW_S - 301, expires=NOW_S - 241), 4, "clock-skew"),
        ("made in 301 s", other(created=NOW_S + 301, expires=NOW_S + 361), 4, "clock-skew"),
        ("a key nobody has", other(keyid="nobody"), 5, "unknown-key"),
        ("a stream key", other(keyid=stream_key), 5, "unknown-key"),
        ("another algorithm than the key's", other(alg="ml-dsa-44"), 5, "bad-signature"),
        ("a forged signature", headers(signature="hx=:" + "A" * 86 + "==:"), 6, "bad-signature"),
        ("signed for another path", replace(good, target_uri=good.target_uri + "x"), 6, "bad-signature"),
        ("another body", replace(put(), body=b"b"), 7, "digest-mismatch"),
        ("another tag, and too old", other(tag="other", created=NOW_S - 400, expires=NOW_S - 340), 2, "bad-signature"),
        (
            "too old, and an unknown key",
            other(keyid="nobody", created=NOW_S - 400, expires=NOW_S - 340),
            4,
            "clock-skew",
        ),
    ]
    return [
        {
            "what": what,
            "request": {
                "method": request.method,
                "target_uri": request.target_uri,
                "headers": dict(request.headers),
                "body": request.body.decode(),
            },
            "now": NOW_S,
            "step": step,
            "code": code,
        }
        for what, request, step, code in cases
    ]


def receipts(batch: Case) -> list[Case]:
    """Return receipts of the example batch that prove nothing."""
    note = parse_note(batch["receipt"].encode())
    sender, receiver = note.signatures[:2], note.signatures[2:]
    other = replace(Checkpoint.parse(note.text), root=bytes(32)).text()

    def flipped(one: NoteSignature) -> NoteSignature:
        return replace(one, signature=one.signature[:-1] + bytes([one.signature[-1] ^ 1]))

    def later(one: NoteSignature) -> NoteSignature:
        at = int.from_bytes(one.signature[:8]) + 1
        return replace(one, signature=at.to_bytes(8) + one.signature[8:])

    cases = [
        ("not cosigned", Note(note.text, sender)),
        ("by the first receipt key alone", Note(note.text, (*sender, receiver[0]))),
        ("by the second receipt key alone", Note(note.text, (*sender, receiver[1]))),
        ("without the sender's second line", Note(note.text, (sender[0], *receiver))),
        ("a cosignature that does not verify", Note(note.text, (*sender, receiver[0], flipped(receiver[1])))),
        ("two times", Note(note.text, (*sender, receiver[0], later(receiver[1])))),
        ("for another root", Note(other, note.signatures)),
        ("under another name", Note(note.text, (*sender, *(replace(one, name=f"{FR}/receipt") for one in receiver)))),
    ]
    return [{"what": what, "receipt": one.to_bytes().decode()} for what, one in cases]


def proofs(proof: str, batch: Case) -> list[Case]:
    """Return files that prove nothing, each with the step of section 7 that fails."""
    good = parse_tlog_proof(proof.encode())
    checkpoint = Checkpoint.parse(good.note.text)
    record = good.extra or b""
    signatures = good.note.signatures
    foreign = checkpoint.text().replace(checkpoint.origin, "log.example", 1)
    other_stream = checkpoint.text().replace("hx/1/fr", "hx/1/be", 1)
    cases = [
        ("no record in it", 1, replace(good, extra=None)),
        ("the record is no JSON", 2, replace(good, extra=record[:-1])),
        (
            "the checkpoint is no stream's",
            3,
            replace(good, note=Note(foreign, signatures)),
        ),
        ("the record is another sender's", 4, replace(good, note=Note(other_stream, signatures))),
        ("another record than the one proven", 5, replace(good, extra=page_report())),
        ("another index", 5, replace(good, index=0)),
        ("another path", 5, replace(good, hashes=(bytes(32),))),
        ("the receiver signed with one key", 6, replace(good, note=Note(good.note.text, signatures[:-1]))),
        ("the sender signed with one key", 7, replace(good, note=Note(good.note.text, signatures[1:]))),
    ]
    note = {"what": "no tlog-proof", "step": 1, "file": batch["note"]}
    return [note, *({"what": what, "step": step, "file": one.to_bytes().decode()} for what, step, one in cases)]


def directories() -> list[Case]:
    """Return changes of the example directory that no reader takes: the members set, and the one at fault."""
    first = json.loads(directory_document())["nodes"][0]
    cases: list[tuple[str, list[str | int], object, str]] = [
        ("another version of the document", ["v"], 2, "v"),
        ("a version below 1", ["version"], 0, "version"),
        ("a time without milliseconds", ["issued_at"], "2026-11-20T12:00:00Z", "issued_at"),
        ("a node id with a capital", ["nodes", 0, "id"], "FR.hotline.example", "nodes[0].id"),
        ("two nodes of one id", ["nodes", 1, "id"], FR, "nodes[1].id"),
        ("a country that is none", ["nodes", 0, "countries"], ["XX"], "nodes[0].countries[0]"),
        ("a base address with a path", ["nodes", 0, "base_url"], f"https://{FR}/hx", "nodes[0].base_url"),
        ("no version", ["nodes", 0, "versions"], [], "nodes[0].versions"),
        ("a negative weight", ["nodes", 0, "weight"], -1, "nodes[0].weight"),
        ("an active node without keys", ["nodes", 0, "keys"], [], "nodes[0].keys"),
        ("a key of small order", ["nodes", 0, "keys", 0, "public"], "A" * 43 + "=", "nodes[0].keys[0].public"),
        ("a retired key without its time", ["nodes", 0, "keys", 0, "state"], "retired", "nodes[0].keys[0].retired_at"),
        ("a key of two nodes", ["nodes", 1, "keys", 0], first["keys"][0], "nodes[1].keys[0].public"),
        ("a mandate of nobody", ["routing", "mandated"], ["be.hotline.example"], "routing.mandated[0]"),
        ("a desk that is a name", ["routing", "desk"], FR, "routing.desk"),
        ("a desk that is a node", ["routing", "desk", "id"], FR, "routing.desk.id"),
        ("a desk without keys", ["routing", "desk", "keys"], [], "routing.desk.keys"),
    ]
    return [{"what": what, "path": path, "value": value, "field": field} for what, path, value, field in cases]


def with_change(path: list[str | int], value: object) -> bytes:
    """Return the example directory with one member set to another value."""
    document = json.loads(directory_document())
    place: Any = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return json.dumps(document).encode()


def step_records(good: Mapping[str, bytes]) -> Iterator[Case]:
    """Yield records of the other types that break one rule each, in the stream of their issuer."""

    def case(name: str, what: str, step: int, code: str, field: str | None, change: Callable[[Any], None]) -> Case:
        tree = json.loads(good[name])
        change(tree)
        raw = json.dumps(tree, ensure_ascii=False, separators=(",", ":"))
        return {
            "what": what,
            "raw": raw,
            "step": step,
            "code": code,
            "field": field,
            "iss": json.loads(good[name])["iss"],
            "aud": json.loads(good[name])["aud"],
        }

    def put(*path: str, value: object) -> Callable[[Any], None]:
        def change(tree: Any) -> None:
            for step in path[:-1]:
                tree = tree[step]
            tree[path[-1]] = value

        return change

    schema, offence = "schema-invalid", "handling-violation"
    yield case(
        "assessment",
        "a classification nobody knows",
        10,
        schema,
        "body.qualification.classification",
        put("body", "qualification", "classification", value="bad"),
    )
    yield case("action", "an action nobody knows", 10, schema, "body.action", put("body", "action", value="deleted"))
    yield case("action", "a reason it has not", 10, schema, "body.reason", put("body", "reason", value="other"))
    yield case("correction", "nothing is corrected", 10, schema, "body.members", put("body", "members", value={}))
    yield case("correction", "a hash that is none", 10, schema, "body.corrects", put("body", "corrects", value="ab"))
    yield case("withdrawal", "a reason nobody knows", 10, schema, "body.reason", put("body", "reason", value="regret"))
    yield case("status-final", "a member of another kind", 10, schema, "body.node", put("body", "node", value=NL))
    yield case(
        "status-relay-failure", "a member is missing", 10, schema, "body.attempts", put("body", "attempts", value=None)
    )
    yield case("status-epoch", "a stream that is none", 10, schema, "body.stream", put("body", "stream", value="hx/1"))
    yield case("transfer", "a ruling without being one", 10, schema, "body.ruling", put("body", "ruling", value="a"))
    yield case("transfer", "an empty trail", 10, schema, "body.trail", put("body", "trail", value=[]))
    yield case("transfer", "no proof at all", 11, schema, "body.original", put("body", "original", value="a"))
    yield case(
        "transfer", "the hops are not the trail's", 11, offence, "hops", put("hops", value=["be.hotline.example"])
    )
    yield case(
        "transfer",
        "the original is of another item",
        11,
        offence,
        "body.original",
        put("item", value="019abc11-0000-7000-8000-000000000099"),
    )
    yield case(
        "transfer",
        "kept longer than the first reporter allowed",
        11,
        offence,
        "handling.retain_until",
        put("handling", "retain_until", value="2028-11-22T16:00:00.123Z"),
    )
    yield case("status-delivered", "given to another node", 11, offence, "body.node", put("body", "node", value=NL))
