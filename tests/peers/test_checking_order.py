"""The checking order at the receiver, steps 1 to 8: each by its failure, made by a peer that really signs.

Each case shows the exact problem (`Hub.problem` compares every member with the registry), that nothing was stored,
and that the next good batch on the same stream is taken. Steps 9 to 13 are in `test_records.py`, keys that the
directory says something about in `test_directory_keys.py`.
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from node.conformance.speaker import COMPONENTS
from protocol.batch import BATCH_BYTES_MAX
from protocol.checkpoint import StreamId
from protocol.keys import KeyUse
from protocol.merkle import EMPTY_ROOT, leaf_hash
from protocol.note import Note, NoteSignature, parse_note
from tests.peers.network import Hub
from tests.peers.simulator import (
    Answer,
    Batch,
    Change,
    PeerSimulator,
    fresh_nonce,
    with_body,
    with_headers,
    without,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")

Attempt = Callable[[PeerSimulator], Awaitable[Answer]]
UNSIGNED = without("signature", "signature-input")


def put(before: Change | None = None, after: Change | None = None, **how: Any) -> Attempt:
    """A good batch in a spoiled request."""
    return lambda peer: peer.put(peer.batch(1), before=before, after=after, **how)


def put_resigned(*, components: tuple[str, ...] = COMPONENTS, **parameters: Any) -> Attempt:
    return lambda peer: peer.put(peer.batch(1), after=peer.resigned(components=components, **parameters))


def framed(spoil: Callable[[bytes], bytes]) -> Attempt:
    """A batch whose body is spoiled before it is signed: the sender itself says this."""
    return batch(lambda peer: spoiled_frame(peer.batch(2), spoil))


def spoiled_frame(made: Batch, spoil: Callable[[bytes], bytes]) -> Batch:
    return replace(made, framed=spoil(made.body))


def noted(spoil: Callable[[bytes], bytes]) -> Attempt:
    """A batch whose signed note is spoiled, in an honest frame."""
    return batch(lambda peer: spoiled_note(peer.batch(1), spoil))


def spoiled_note(made: Batch, spoil: Callable[[bytes], bytes]) -> Batch:
    return replace(made, note=spoil(made.note))


def batch(make: Callable[[PeerSimulator], Batch]) -> Attempt:
    return lambda peer: peer.put(make(peer))


# 1. Size.

SIZE = [
    pytest.param(
        lambda peer: peer.call("PUT", peer.inbox_path(3), bytes(1_200_001)), "too-large", None, id="announced"
    ),
    pytest.param(
        lambda peer: peer.call("PUT", peer.inbox_path(3), bytes(1_200_001), chunked=True),
        "too-large",
        None,
        id="chunked",
    ),
    pytest.param(
        lambda peer: peer.call("PUT", peer.inbox_path(3), bytes(1_200_001), after=UNSIGNED),
        "too-large",
        None,
        id="before-the-signature",
    ),
]

# 2. Request signature.

SIGNATURE = [
    pytest.param(put(after=UNSIGNED), "bad-signature", "signature-input", id="not-signed"),
    pytest.param(put(after=without("signature")), "bad-signature", "signature", id="no-signature"),
    pytest.param(put(after=without("hx-version")), "malformed", "hx-version", id="no-version"),
    pytest.param(put(after=with_headers(hx_version="2")), "malformed", "hx-version", id="other-version"),
    pytest.param(put(after=with_headers(signature="hx=:AA==:")), "bad-signature", "signature", id="altered-signature"),
    pytest.param(put(after=with_headers(signature="a, b")), "malformed", "signature", id="no-structured-field"),
    pytest.param(put_resigned(tag="other"), "bad-signature", "signature-input", id="other-tag"),
    pytest.param(put_resigned(alg="ml-dsa-44"), "bad-signature", "signature-input", id="other-algorithm"),
    pytest.param(put_resigned(nonce="AAAA"), "malformed", "signature-input", id="short-nonce"),
    pytest.param(put_resigned(expires=int(time.time()) + 3600), "malformed", "signature-input", id="lives-too-long"),
    pytest.param(put_resigned(keyid="nobody"), "unknown-key", "keyid", id="unknown-keyid"),
    *(
        pytest.param(
            put_resigned(components=tuple(one for one in COMPONENTS if one != left_out)),
            "bad-signature",
            "signature-input",
            id=f"not-covered-{left_out.strip('@')}",
        )
        for left_out in COMPONENTS
    ),
    pytest.param(put(shift_s=-302), "clock-skew", "signature-input", id="expired"),
    pytest.param(put(shift_s=320), "clock-skew", "signature-input", id="from-the-future"),
    pytest.param(
        lambda peer: peer.put(peer.batch(1), key=peer.keys.signing(KeyUse.STREAM)[0]),
        "unknown-key",
        "keyid",
        id="signed-with-the-stream-key",
    ),
    pytest.param(
        lambda peer: peer.put(
            peer.batch(1), after=lambda one: replace(one, method="PUT", target_uri=one.target_uri + "0")
        ),
        "bad-signature",
        "signature",
        id="sent-to-another-path-than-signed",
    ),
    pytest.param(
        lambda peer: peer.put(
            peer.batch(1),
            before=lambda one: replace(one, target_uri=one.target_uri.replace("127.0.0.1", "node.invalid")),
            after=lambda one: replace(one, target_uri=one.target_uri.replace("node.invalid", "127.0.0.1")),
        ),
        "bad-signature",
        "signature",
        id="signed-for-another-host",
    ),
]

# 3. Digest.

DIGEST = [
    pytest.param(
        put(after=lambda one: with_body(one.body.replace(b'"page"', b'"hage"'))(one)),
        "digest-mismatch",
        "content-digest",
        id="altered-body",
    ),
    pytest.param(
        put(after=lambda one: with_body(one.body[: len(one.body) // 2])(one)),
        "digest-mismatch",
        "content-digest",
        id="truncated-body",
    ),
    pytest.param(put(after=with_body(b"")), "digest-mismatch", "content-digest", id="no-body"),
    pytest.param(
        lambda peer: peer.put(
            peer.batch(1),
            after=lambda one: peer.resigned()(with_headers(content_digest="md5=:AAAAAAAAAAAAAAAAAAAAAA==:")(one)),
        ),
        "malformed",
        "content-digest",
        id="no-known-algorithm",
    ),
    pytest.param(
        lambda peer: peer.put(
            peer.batch(1),
            after=lambda one: peer.resigned()(
                with_headers(content_digest=f"{one.headers['content-digest']}, sha-512=:AA==:")(one)
            ),
        ),
        "digest-mismatch",
        "content-digest",
        id="one-of-two-digests-wrong",
    ),
    pytest.param(
        put(after=with_headers(content_digest="sha-256=:AA==:")), "bad-signature", "signature", id="altered-digest"
    ),
]

# 4. Framing.


def large_records(peer: PeerSimulator) -> Batch:
    made = peer.batch([peer.spoiled(pad="x" * 50_000) for _ in range(22)])
    body = made.note + b"\n" + b"".join(record + b"\n" for record in made.records)
    assert len(body) > BATCH_BYTES_MAX
    return replace(made, framed=body)


def many_records(peer: PeerSimulator) -> Batch:
    made = peer.batch(1)
    return replace(made, framed=made.note + b"\n" + b"{}\n" * 1001)


FRAMING = [
    pytest.param(framed(lambda _: b"\n"), "malformed", "body", id="nothing"),
    pytest.param(framed(lambda body: body[:-1]), "malformed", "body", id="last-line-not-ended"),
    pytest.param(framed(lambda body: body[: body.rindex(b'{"v"')]), "malformed", "size", id="last-record-left-out"),
    pytest.param(framed(lambda body: body + b"\n"), "malformed", "body", id="empty-record"),
    pytest.param(framed(lambda body: body.partition(b'{"v"')[0]), "malformed", "body", id="no-record"),
    pytest.param(framed(lambda body: body[body.index(b'{"v"') :]), "malformed", "body", id="no-note"),
    pytest.param(framed(lambda body: body.replace(b"\n\n", b"\n", 1)), "malformed", "body", id="no-empty-line"),
    pytest.param(framed(lambda body: body.replace("— ".encode(), b"- ")), "malformed", "body", id="no-em-dash"),
    pytest.param(batch(large_records), "too-large", "body", id="over-a-mebibyte"),
    pytest.param(batch(many_records), "too-large", "body", id="over-a-thousand-records"),
    pytest.param(batch(lambda peer: peer.batch(51)), "too-large", None, id="over-this-node's-records"),
]

# 5. Checkpoint syntax and origin.


def lines(change: Callable[[list[str]], list[str]]) -> Callable[[bytes], bytes]:
    """Change the lines of the checkpoint's text; the signature lines stay, step 8 is far away."""

    def spoil(note: bytes) -> bytes:
        text, _, signatures = note.decode().partition("\n\n")
        return "\n".join(change(text.split("\n"))).encode() + b"\n\n" + signatures.encode()

    return spoil


def told_by(iss: str | None = None, aud: str | None = None, epoch: int = 1) -> Attempt:
    """A batch of another stream than ours to the target, truly signed by us."""
    return lambda peer: peer.put(
        peer.batch(1, origin=f"hx/1/{iss or peer.id}/{aud or peer.target_id}/{epoch}"),
        path=peer.inbox_path(len(peer.taken), epoch=epoch),
    )


def in_path(**parts: Any) -> Attempt:
    return lambda peer: peer.put(peer.batch(1), path=peer.inbox_path(len(peer.taken), **parts))


CHECKPOINT = [
    pytest.param(noted(lines(lambda text: [text[0], "x", text[2]])), "malformed", "size", id="size-no-number"),
    pytest.param(noted(lines(lambda text: [text[0], "04", text[2]])), "malformed", "size", id="size-with-zero-before"),
    pytest.param(noted(lines(lambda text: [text[0], text[1], "AA=="])), "malformed", "root", id="short-root"),
    pytest.param(noted(lines(lambda text: [*text[:2], "?" * 44])), "malformed", "root", id="root-no-base64"),
    pytest.param(noted(lines(lambda text: [*text, "more"])), "malformed", "checkpoint", id="extension-line"),
    pytest.param(noted(lines(lambda text: text[:2])), "malformed", "checkpoint", id="two-lines"),
    pytest.param(noted(lines(lambda text: ["hx/1", *text[1:]])), "malformed", "origin", id="no-hx-origin"),
    pytest.param(
        noted(lines(lambda text: [text[0].replace("hx/1", "hx/2"), *text[1:]])), "malformed", "origin", id="hx-2"
    ),
    pytest.param(told_by(iss="other.hotline.example"), "wrong-audience", "origin", id="not-the-signer's-stream"),
    pytest.param(told_by(aud="other.hotline.example"), "wrong-audience", "origin", id="to-another-node"),
    pytest.param(in_path(iss="other.hotline.example"), "wrong-audience", "origin", id="path-of-another-sender"),
    pytest.param(told_by(epoch=3), "malformed", "epoch", id="unknown-epoch"),
    pytest.param(told_by(epoch=2**40), "malformed", "epoch", id="epoch-beyond-any-column"),
    pytest.param(in_path(epoch=2), "malformed", "epoch", id="epoch-only-in-the-path"),
    pytest.param(in_path(epoch=0), "malformed", "epoch", id="epoch-zero"),
    pytest.param(batch(lambda peer: peer.batch(2, size=4)), "malformed", "size", id="size-not-first-plus-records"),
    pytest.param(
        batch(lambda peer: replace(peer.batch(1, size=0, root=EMPTY_ROOT), first=-1)),
        "malformed",
        "first",
        id="negative-index",
    ),
    pytest.param(
        batch(lambda peer: replace(peer.batch(1), first=2**70)), "malformed", "first", id="index-beyond-any-column"
    ),
]

# 6. First index against what is held.

GAP = [
    pytest.param(batch(lambda peer: peer.ahead(1)), "stream-gap", None, id="one-missing"),
    pytest.param(batch(lambda peer: peer.ahead(40, 5)), "stream-gap", None, id="forty-missing"),
]

# 7. The leaves extend the held edge to exactly the signed root.

OTHER_ROOT = leaf_hash(b"another tree")


def partly_held(peer: PeerSimulator) -> Batch:
    """Two records held, two new, and a root they do not lead to."""
    return peer.batch([*peer.taken[1:3], *peer.reports(2)], first=1, root=OTHER_ROOT)


def swapped(peer: PeerSimulator) -> Batch:
    made = peer.batch(2)
    return replace(made, records=made.records[::-1])


def other_body(peer: PeerSimulator) -> Batch:
    """The signed root is the one held; only the record in the body is another: one story, wrongly copied."""
    return replace(peer.cut(1, 3), records=(peer.taken[1], peer.report()))


ROOT = [
    pytest.param(batch(lambda peer: peer.batch(2, root=OTHER_ROOT)), "root-mismatch", "root", id="other-root"),
    pytest.param(batch(partly_held), "root-mismatch", "root", id="other-root-over-held-records"),
    pytest.param(batch(swapped), "root-mismatch", "root", id="reordered"),
    pytest.param(
        batch(lambda peer: replace(peer.batch(1), records=(peer.report(),))), "root-mismatch", "root", id="altered"
    ),
    pytest.param(batch(other_body), "root-mismatch", "root", id="altered-at-a-held-index"),
]

# 8. Checkpoint signatures.


def keep_lines(choose: Callable[[tuple[NoteSignature, ...]], tuple[NoteSignature, ...]]) -> Callable[[bytes], bytes]:
    """Change the signature lines: the first is Ed25519, the second ML-DSA-44."""

    def spoil(raw: bytes) -> bytes:
        note = parse_note(raw)
        return Note(note.text, choose(note.signatures)).to_bytes()

    return spoil


def flipped(one: NoteSignature) -> NoteSignature:
    return replace(one, signature=one.signature[:-1] + bytes([one.signature[-1] ^ 1]))


def with_keys_of(use: KeyUse) -> Attempt:
    return lambda peer: peer.put(peer.batch(1, keys=peer.keys.signing(use)))


CHECKPOINT_SIGNATURES = [
    pytest.param(noted(keep_lines(lambda two: two[:1])), "bad-signature", None, id="ml-dsa-missing"),
    pytest.param(noted(keep_lines(lambda two: two[1:])), "bad-signature", None, id="ed25519-missing"),
    pytest.param(noted(keep_lines(lambda two: (flipped(two[0]), two[1]))), "bad-signature", None, id="ed25519-wrong"),
    pytest.param(noted(keep_lines(lambda two: (two[0], flipped(two[1])))), "bad-signature", None, id="ml-dsa-wrong"),
    pytest.param(noted(keep_lines(lambda two: (*two, two[0]))), "bad-signature", None, id="a-line-twice"),
    pytest.param(with_keys_of(KeyUse.RECEIPT), "bad-signature", None, id="receipt-keys"),
    pytest.param(lambda peer: peer.put(peer.batch(1, keys=[peer.keys.http])), "bad-signature", None, id="http-key"),
    pytest.param(
        lambda peer: peer.put(replace(peer.batch(1), note=peer.batch(1).note)),
        "root-mismatch",
        "root",
        id="of-another-batch",
    ),
]


@pytest.mark.parametrize(
    ("attempt", "code", "field"),
    [*SIZE, *SIGNATURE, *DIGEST, *FRAMING, *CHECKPOINT, *GAP, *ROOT, *CHECKPOINT_SIGNATURES],
)
async def test_each_step_refuses_with_its_code_and_stores_nothing(
    hub: Hub, attempt: Attempt, code: str, field: str | None
) -> None:
    peer = await hub.peer()
    await peer.deliver(3)
    await hub.refuses(peer, attempt(peer), code, field=field)


async def test_the_answers_carry_what_the_sender_needs(hub: Hub) -> None:
    peer = await hub.peer()
    await peer.deliver(3)
    assert (await hub.refuses(peer, peer.put(peer.ahead(2)), "stream-gap"))["expected"] == 3
    assert (await hub.refuses(peer, peer.put(peer.batch(51)), "too-large"))["credit"] == 50
    skew = await hub.refuses(peer, peer.put(peer.batch(1), shift_s=-400), "clock-skew", field="signature-input")
    assert skew["server_time"].endswith("Z")


async def test_a_body_that_breaks_off_is_not_taken(hub: Hub) -> None:
    peer = await hub.peer()
    await peer.deliver(3)
    before = await hub.holdings(peer)
    batch = peer.batch(2)
    request = peer.signed("PUT", peer.inbox_path(batch.first), batch.body)
    for part in (0, 100, len(batch.body) - 1):
        assert b" 200 " not in (await peer.send_part(request, part))[:20]
    assert await hub.holdings(peer) == before
    await peer.deliver(batch)


async def test_a_replay_is_refused_and_changes_nothing(hub: Hub) -> None:
    peer = await hub.peer()
    batch = peer.batch(2)
    request = peer.signed("PUT", peer.inbox_path(0), batch.body)
    assert (await peer.exchange(request)).status == 200
    peer.taken = list(batch.records)
    await hub.refuses(peer, peer.exchange(request), "replay", field="nonce")
    # The same nonce over another batch is a replay as well.
    nonce = fresh_nonce()
    await peer.deliver(1, nonce=nonce)
    await hub.refuses(peer, peer.put(peer.batch(1), nonce=nonce), "replay", field="nonce")


async def test_a_refused_request_does_not_use_up_its_nonce(hub: Hub) -> None:
    peer = await hub.peer()
    await peer.deliver(1)
    nonce = fresh_nonce()
    await hub.problem(peer.put(peer.ahead(1), nonce=nonce), "stream-gap")
    await peer.deliver(1, nonce=nonce)


# The order itself: a batch that breaks several rules is refused for the first of them.


def unsigned_note(made: Batch) -> Batch:
    return spoiled_note(made, keep_lines(lambda two: two[:1]))


ORDER: list[tuple[str, Attempt]] = [
    # 1 before 2: the body is too large and the request not signed.
    ("too-large", lambda peer: peer.call("PUT", peer.inbox_path(3), bytes(1_200_001), after=UNSIGNED)),
    # 2 before 3: not signed, and the body is not the one of the digest.
    ("bad-signature", put(after=lambda one: with_body(b"x")(without("signature")(one)))),
    # 3 before 4: the body is neither the one of the digest nor a batch.
    ("digest-mismatch", put(after=with_body(b"x"))),
    # 4 before 5: one byte is missing at the end, and the origin is another's.
    (
        "malformed",
        batch(
            lambda peer: spoiled_frame(
                peer.batch(1, origin=StreamId(peer.id, "other.hotline.example", 1).origin()), lambda body: body[:-1]
            )
        ),
    ),
    # 5 before 6: to another node, with a gap, the wrong root and a signature missing.
    (
        "wrong-audience",
        batch(
            lambda peer: unsigned_note(
                peer.batch(
                    1,
                    history=[*peer.taken, peer.report()],
                    origin=StreamId(peer.id, "other.hotline.example", 1).origin(),
                    root=OTHER_ROOT,
                )
            )
        ),
    ),
    # 6 before 7: a gap, the wrong root and a signature missing.
    (
        "stream-gap",
        batch(lambda peer: unsigned_note(peer.batch(1, history=[*peer.taken, peer.report()], root=OTHER_ROOT))),
    ),
    # 7 before 8: the wrong root and a signature missing.
    ("root-mismatch", batch(lambda peer: unsigned_note(peer.batch(1, root=OTHER_ROOT)))),
    # 8 before what the record says: nobody vouches for it.
    ("bad-signature", batch(lambda peer: unsigned_note(peer.batch([b"no record at all"])))),
]


@pytest.mark.parametrize(("code", "attempt"), ORDER, ids=[f"{n}-{code}" for n, (code, _) in enumerate(ORDER, start=1)])
async def test_the_first_step_that_fails_decides(hub: Hub, code: str, attempt: Attempt) -> None:
    peer = await hub.peer()
    await peer.deliver(3)
    assert (await attempt(peer)).problem["code"] == code
    assert (await hub.holdings(peer)).size == 3


async def test_nothing_refused_here_was_a_failure_of_the_node(hub: Hub) -> None:
    """Runs last: no refusal of this module came from an error that nobody foresaw."""
    assert hub.logged(level="error", action="web.failed") == []
    assert hub.logged(level="error", action="web.unavailable") == []
