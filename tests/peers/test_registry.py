"""Every code of the error registry, reproduced against a running node; what cannot be yet is listed with its reason.

A code is either a problem that the node answers, or a refusal that its outcome tells; each case says which.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

import node
from protocol.merkle import leaf_hash
from protocol.problems import REGISTRY
from tests.peers.network import Hub, edit_keys
from tests.peers.simulator import PeerSimulator, with_body, without

#: Codes that this version never gives, each with what is missing; all of them are understood when a peer gives them
#: (test_delivery.py, test_every_problem_of_the_registry_is_survived).
NOT_YET = {
    "directory-stale": "the signed directory file has no expiry; staleness comes with the TUF metadata (section 2)",
}

Case = Callable[[Hub, PeerSimulator], Awaitable[str]]


def answered(attempt: Callable[[PeerSimulator], Awaitable[object]]) -> Case:
    """The node answers with the problem."""

    async def run(_hub: Hub, peer: PeerSimulator) -> str:
        answer = await attempt(peer)
        return str(answer.problem["code"])  # type: ignore[attr-defined]

    return run


def told(make: Callable[[PeerSimulator], bytes]) -> Case:
    """The node takes the batch and refuses the record, which its outcome tells."""

    async def run(hub: Hub, peer: PeerSimulator) -> str:
        await peer.deliver([make(peer)])
        await hub.applied(peer)
        row = await hub.row(
            "SELECT r.code FROM inbox_refusals r JOIN inbound_streams s ON s.id = r.stream WHERE s.peer = $1", peer.id
        )
        return str(row["code"])

    return run


async def replayed(_hub: Hub, peer: PeerSimulator) -> str:
    request = peer.signed("GET", f"/peer/v1/streams/{peer.id}")
    assert (await peer.exchange(request)).status == 200
    return str((await peer.exchange(request)).problem["code"])


async def revoked(hub: Hub, peer: PeerSimulator) -> str:
    peer.node.entry["state"] = "suspended"
    await hub.new_directory()
    return str((await peer.put(peer.batch(1))).problem["code"])


async def unknown(hub: Hub, peer: PeerSimulator) -> str:
    peer.node.entry["state"] = "maintenance"
    edit_keys(peer.node, "http", state="next")
    await hub.new_directory()
    return str((await peer.put(peer.batch(1))).problem["code"])


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
        return str((await peer.put(peer.batch(1))).problem["code"])


async def without_database(hub: Hub, peer: PeerSimulator) -> str:
    with hub.commits_failing("receive.store"):
        return str((await peer.put(peer.batch(1))).problem["code"])


CASES: dict[str, Case] = {
    "bad-signature": answered(lambda peer: peer.put(peer.batch(1), after=without("signature"))),
    "unknown-key": unknown,
    "key-revoked": revoked,
    "replay": replayed,
    "clock-skew": answered(lambda peer: peer.put(peer.batch(1), shift_s=-400)),
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


def test_every_code_is_reproduced_or_has_its_reason() -> None:
    assert CASES.keys() | NOT_YET.keys() == REGISTRY.keys()
    assert not CASES.keys() & NOT_YET.keys()


def test_what_is_listed_as_missing_is_missing() -> None:
    """When the program begins to give one of these, it gets its case here."""
    source = "".join(path.read_text() for path in sorted(Path(node.__path__[0]).rglob("*.py")))
    given = set(re.findall(r'ProtocolError\(\s*"([a-z-]+)"', source))
    assert not given & NOT_YET.keys()
