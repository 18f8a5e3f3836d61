"""Every code of the error registry, reproduced against a running node.

A code is either a problem that the node answers, with status, `retryable` and `scope` of the registry, or a refusal
that its outcome tells, as the peer fetches it; each case says which.
"""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from node.conformance.outcomes import find
from protocol.batch import decode_batch
from protocol.merkle import leaf_hash
from protocol.problems import REGISTRY
from tests.peers.network import Hub, edit_keys
from tests.peers.simulator import Answer, PeerSimulator, with_body, without

Case = Callable[[Hub, PeerSimulator], Awaitable[str]]


def said(answer: Answer) -> str:
    """Return the code of a problem, whose other members are those of the registry."""
    code = str(answer.problem["code"])
    wanted, members = REGISTRY[code], answer.problem
    assert (answer.status, members["status"]) == (wanted.status, wanted.status)
    assert (members["retryable"], members["scope"]) == (wanted.retryable, wanted.scope.value)
    return code


def answered(attempt: Callable[[PeerSimulator], Awaitable[Answer]]) -> Case:
    """The node answers with the problem."""

    async def run(_hub: Hub, peer: PeerSimulator) -> str:
        return said(await attempt(peer))

    return run


def told(make: Callable[[PeerSimulator], bytes]) -> Case:
    """The node takes the batch and refuses the record, which its outcome tells."""

    async def run(hub: Hub, peer: PeerSimulator) -> str:
        index = len(peer.taken)
        await peer.deliver([make(peer)])
        await hub.applied(peer)
        fetched = await peer.get(f"/peer/v1/outbox/{peer.id}/1?from=0")
        assert fetched.status == 200, fetched.body
        outcome = find(decode_batch(fetched.body)[1], peer.stream.origin(), index)
        assert outcome is not None
        return outcome.verdict

    return run


async def replayed(_hub: Hub, peer: PeerSimulator) -> str:
    request = peer.signed("GET", f"/peer/v1/streams/{peer.id}")
    assert (await peer.exchange(request)).status == 200
    return said(await peer.exchange(request))


async def revoked(hub: Hub, peer: PeerSimulator) -> str:
    peer.node.entry["state"] = "suspended"
    await hub.new_directory()
    return said(await peer.put(peer.batch(1)))


async def unknown(hub: Hub, peer: PeerSimulator) -> str:
    peer.node.entry["state"] = "maintenance"
    edit_keys(peer.node, "http", state="next")
    await hub.new_directory()
    return said(await peer.put(peer.batch(1)))


async def unknown_to_an_old_directory(hub: Hub, peer: PeerSimulator) -> str:
    """Nobody has vouched for the directory for hours: a key that is not in it may be one of a newer one."""
    world, usual = hub.network.world, hub.network.world.valid
    world.valid = timedelta(hours=1)
    peer.node.entry["state"] = "maintenance"
    edit_keys(peer.node, "http", state="next")
    await hub.new_directory()
    hub.clock.offset_s, peer.now = 7200, hub.clock.now
    try:
        return said(await peer.put(peer.batch(1)))
    finally:
        hub.clock.offset_s, world.valid = 0, usual
        await hub.new_directory()


async def conflict(hub: Hub, peer: PeerSimulator) -> str:
    await hub.applied(peer)
    row = await hub.row(
        "SELECT i.id FROM items i JOIN inbound_streams s ON s.id = i.received_stream WHERE s.peer = $1 LIMIT 1",
        peer.id,
    )
    return await told(lambda one: one.report(item=str(row["id"])))(hub, peer)


async def crowded(hub: Hub, peer: PeerSimulator) -> str:
    await hub.applied(peer)
    async with hub.applying_paused(peer):
        for _ in range(20):
            await peer.deliver([b"x"] * 50)
        return said(await peer.put(peer.batch(1)))


async def without_database(hub: Hub, peer: PeerSimulator) -> str:
    with hub.commits_failing("receive.store"):
        return said(await peer.put(peer.batch(1)))


CASES: dict[str, Case] = {
    "bad-signature": answered(lambda peer: peer.put(peer.batch(1), after=without("signature"))),
    "unknown-key": unknown,
    "key-revoked": revoked,
    "replay": replayed,
    "clock-skew": answered(lambda peer: peer.put(peer.batch(1), shift_s=-400)),
    "directory-stale": unknown_to_an_old_directory,
    "digest-mismatch": answered(lambda peer: peer.put(peer.batch(1), after=with_body(b"x"))),
    "malformed": answered(lambda peer: peer.put(replace(peer.batch(1), framed=b"x"))),
    "schema-invalid": told(lambda peer: peer.spoiled(body__url="")),
    "unknown-critical": told(lambda peer: peer.spoiled(crit=["later"])),
    "wrong-audience": answered(lambda peer: peer.get("/peer/v1/streams/other.hotline.example")),
    "not-competent": told(lambda peer: peer.report(country="DE")),
    "stream-gap": answered(lambda peer: peer.put(peer.ahead(1))),
    "root-mismatch": answered(lambda peer: peer.put(peer.batch(1, root=leaf_hash(b"other")))),
    "equivocation": answered(lambda peer: peer.put(peer.batch(2, first=0))),
    "id-conflict": conflict,
    "over-quota": crowded,
    "maintenance": without_database,
    "too-large": answered(lambda peer: peer.put(peer.batch(51))),
    "handling-violation": told(lambda peer: peer.spoiled(handling__purpose="advertising")),
}


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("code", sorted(CASES))
async def test_the_code_is_given_by_a_running_node(hub: Hub, code: str) -> None:
    peer = await hub.peer()
    await peer.deliver(2)
    assert await CASES[code](hub, peer) == code


def test_every_code_is_reproduced() -> None:
    assert CASES.keys() == REGISTRY.keys()
