"""A node that breaks one rule fails the checks that hold that rule, and no other."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from node.conformance.batch_checks import BATCH_CHECKS
from node.conformance.checks import Check, Verdict
from node.conformance.record_checks import RECORD_CHECKS
from node.conformance.speaker import forged
from node.conformance.table import CHECKS
from protocol.checkpoint import Checkpoint
from protocol.cosignature import cosign
from protocol.errors import ProtocolError
from protocol.httpsig import parse_signature_input
from protocol.keys import Algorithm, KeyUse, SigningKey
from protocol.merkle import leaf_hash
from protocol.note import Note, parse_note
from protocol.profile import Request, Response, sign_request
from tests.conformance.broken import Defect, Door, broken
from tests.conformance.conftest import Subject

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: What the node says of records it delivers itself, past any door. Of the many ways to spoil a batch these are enough.
_SPOILED = {
    "gap",
    "order-gap-before-root",
    "last-line-cut",
    "other-root",
    "one-key-missing",
    "nothing-stored",
    "goes-on",
}
_LEFT_OUT = {one.name for one in (*RECORD_CHECKS, *BATCH_CHECKS)} - _SPOILED
#: A batch ahead of its turn is let wait by the node: these are made only where the defect is theirs.
_WAITED = {"gap", "order-gap-before-root"}
AT_THE_DOOR: tuple[Check, ...] = tuple(one for one in CHECKS if one.name not in _LEFT_OUT)
OTHER = SigningKey(Algorithm.ED25519, b"another node's key, of no member")

Change = Callable[[Door, Request, Response], Response]


def answering(change: Change) -> Defect:
    """Ask the real node, and change what it says."""

    async def defect(door: Door, request: Request) -> Response:
        return change(door, request, await door.forward(request))

    return defect


def members(when: Callable[[dict[str, Any]], bool], **other: object) -> Defect:
    """Give members of a JSON answer other values; None takes one away."""

    def change(door: Door, request: Request, response: Response) -> Response:
        try:
            tree = json.loads(response.body)
        except ValueError:
            return response
        if not isinstance(tree, dict) or not when(tree):
            return response
        merged = {name: value for name, value in {**tree, **other}.items() if value is not None}
        return door.sign(replace(response, body=json.dumps(merged).encode()), request)

    return answering(change)


def header_gone(name: str) -> Defect:
    def change(door: Door, request: Request, response: Response) -> Response:
        left = {key: value for key, value in response.headers.items() if key != name}
        return response if left == response.headers else door.sign(replace(response, headers=left), request)

    return answering(change)


def unsigned(_door: Door, _request: Request, response: Response) -> Response:
    gone = {"signature", "signature-input"}
    return replace(response, headers={key: value for key, value in response.headers.items() if key not in gone})


def unbound(door: Door, _request: Request, response: Response) -> Response:
    """Signed, but for no request in particular."""
    elsewhere = Request("GET", "https://nobody.example/", {}, b"")
    return door.sign(response, elsewhere)


def partly_bound(door: Door, request: Request, response: Response) -> Response:
    """Bound to the request's target and method, not to its signature."""
    headers = {name: value for name, value in request.headers.items() if not name.startswith("signature")}
    return door.sign(response, replace(request, headers=headers))


def by_another(door: Door, request: Request, response: Response) -> Response:
    return door.sign(response, request, OTHER)


def left_out(door: Door, request: Request, response: Response) -> Response:
    """A fetched batch without its last record."""
    if response.status != 200 or "/outbox/" not in request.target_uri:
        return response
    shorter = response.body[: response.body.rindex(b"\n", 0, -1) + 1]
    return door.sign(replace(response, body=shorter), request)


def is_receipt(request: Request, response: Response) -> bool:
    return response.status == 200 and request.method == "PUT" and "/inbox/" in request.target_uri


def receipts(forge: Callable[[Door, Note], bytes]) -> Defect:
    """Change every receipt, wherever it is shown, always in the same way."""

    def change(door: Door, request: Request, response: Response) -> Response:
        if response.status != 200 or not response.headers.get("content-type", "").startswith("text/plain"):
            return response
        if response.body not in door.seen:
            forged_body = forge(door, parse_note(response.body))
            door.seen[response.body] = replace(response, body=forged_body)
        return door.sign(replace(response, body=door.seen[response.body].body), request)

    return answering(change)


def own_lines(door: Door, note: Note) -> tuple[Any, ...]:
    return tuple(one for one in note.signatures if one.name != f"{door.node.id}/receipt")


def other_root(door: Door, note: Note) -> bytes:
    covered = replace(Checkpoint.parse(note.text), root=leaf_hash(b"another tree"))
    keys = door.node.keys.signing(KeyUse.RECEIPT)
    unsigned_note = Note(covered.text(), own_lines(door, note))
    return cosign(unsigned_note, covered, f"{door.node.id}/receipt", keys, now_s=int(door.now_s())).to_bytes()


def one_key(_door: Door, note: Note) -> bytes:
    return Note(note.text, note.signatures[:-1]).to_bytes()


def sender_gone(door: Door, note: Note) -> bytes:
    ours = tuple(one for one in note.signatures if one.name == f"{door.node.id}/receipt")
    return Note(note.text, ours).to_bytes()


def receipt_anew(door: Door, request: Request, response: Response) -> Response:
    """Sign the receipt again when a record was receipted before."""
    if not is_receipt(request, response):
        return response
    first = request.target_uri
    if response.body not in door.seen:
        door.seen[response.body] = response
        door.seen[first] = response
        return response
    note = parse_note(response.body)
    covered = Checkpoint.parse(note.text)
    keys = door.node.keys.signing(KeyUse.RECEIPT)
    bare = Note(note.text, own_lines(door, note))
    again = cosign(bare, covered, f"{door.node.id}/receipt", keys, now_s=int(door.now_s())).to_bytes()
    return door.sign(replace(response, body=again), request)


async def replayable(door: Door, request: Request) -> Response:
    """Answer a signed request that was answered before as it was answered before."""
    key = (request.target_uri, *sorted(request.headers.items()), request.body)
    if key not in door.seen:
        door.seen[key] = await door.forward(request)
    return door.seen[key]


async def takes_unsigned(door: Door, request: Request) -> Response:
    """Take a request that nobody signed for one of the member's."""
    if "signature" in request.headers or "well-known" in request.target_uri or request.method != "GET":
        return await door.forward(request)
    added = sign_request(request, door.member.keys.http, created=int(door.now_s()), nonce="AAECAwQFBgcICQoLDA0ODw==")
    answer = await door.forward(request.adding(added))
    return door.sign(answer, request)


async def time_first(door: Door, request: Request) -> Response:
    """Look at the clock before anything else of the signature."""
    try:
        signed = parse_signature_input(request.headers["signature-input"])["hx"]
        created = dict(signed.params)["created"]
    except (KeyError, ValueError):
        return await door.forward(request)
    if isinstance(created, int) and abs(created - door.now_s()) > 300:
        error = ProtocolError("clock-skew", "too late", extra={"server_time": "2026-11-22T16:00:00.000Z"})
        return door.problem(request, error)
    return await door.forward(request)


async def any_algorithm(door: Door, request: Request) -> Response:
    """Let the message choose its algorithm: pass over an `alg` that is not the key's."""
    if 'alg="ml-dsa-44"' not in request.headers.get("signature-input", ""):
        return await door.forward(request)
    given: Mapping[str, Any] = dict(parse_signature_input(request.headers["signature-input"])["hx"].params)
    true = forged(request, parameters={**given, "alg": "ed25519"}, key=door.member.keys.http)
    return door.sign(await door.forward(true), request)


def code_is(code: str) -> Callable[[dict[str, Any]], bool]:
    return lambda tree: tree.get("code") == code


DEFECTS: list[tuple[str, Defect, set[str]]] = [
    ("unsigned-answers", answering(unsigned), {"answers-signed"}),
    ("answers-bound-to-nothing", answering(unbound), {"answers-bound", "answers-verify"}),
    ("answers-without-signature-req", answering(partly_bound), {"answers-bound"}),
    ("answers-signed-by-another", answering(by_another), {"answers-verify"}),
    ("receipt-for-another-root", receipts(other_root), {"receipt", "receipt-of-anything", "newest"}),
    ("receipt-by-one-key", receipts(one_key), {"receipt", "receipt-of-anything"}),
    ("receipt-without-the-sender", receipts(sender_gone), {"receipt", "receipt-of-anything"}),
    (
        "receipt-not-byte-stable",
        answering(receipt_anew),
        {"repeat", "repeat-smaller", "repeat-larger", "repeat-with-new", "repeat-at-once"},
    ),
    ("accepts-a-replay", replayable, {"replay", "replay-of-a-batch"}),
    ("takes-unsigned-requests", takes_unsigned, {"unsigned"}),
    ("time-before-tag", time_first, {"order-tag-before-time", "order-components-before-time"}),
    ("algorithm-of-the-message", any_algorithm, {"other-algorithm"}),
    (
        "wrong-code",
        members(code_is("stream-gap"), code="root-mismatch"),
        {"gap", "order-gap-before-root"},
    ),
    ("gap-without-expected", members(code_is("stream-gap"), expected=None), {"gap"}),
    ("skew-without-time", members(code_is("clock-skew"), server_time=None), {"from-the-past", "from-the-future"}),
    (
        "wrong-scope",
        members(code_is("key-revoked"), scope="batch"),
        {"retired-key", "compromised-key"},
    ),
    ("no-credit", header_gone("hx-credit"), {"credit"}),
    ("no-directory-version", header_gone("hx-directory"), {"directory-header"}),
    (
        "limits-above-the-protocol",
        members(lambda tree: "limits" in tree, limits={"batch_records_max": 5000}),
        {"well-known-limits"},
    ),
    ("hello-that-forgets", members(lambda tree: "held" in tree and "written" in tree, held=[]), {"hello"}),
    ("outbox-that-leaves-one-out", answering(left_out), {"outbox"}),
    ("another-node's-name", members(lambda tree: "limits" in tree, node="other.hotline.example"), {"well-known"}),
    ("another-major-version", members(lambda tree: "limits" in tree, versions=["2.0"]), {"well-known-versions"}),
]


@pytest.mark.parametrize(("defect", "failing"), [case[1:] for case in DEFECTS], ids=[case[0] for case in DEFECTS])
async def test_a_broken_rule_fails_the_checks_that_hold_it(tested: Subject, defect: Defect, failing: set[str]) -> None:
    node, member = tested.hub.network.tested, tested.hub.network.world.nodes[-1]
    async with broken(node, member, tested.hub.session, defect) as address:
        found = await tested.results(address, tuple(one for one in AT_THE_DOOR if one.name not in _WAITED - failing))
    assert {one.check.name: one.sentence for one in found if one.verdict is Verdict.FAILED}.keys() == failing
