"""What the peer door does around the protocol: addresses, methods, media types and headers that are no text."""

import pytest

from node.platform.sparing import LINES_MAX
from tests.peers.network import Hub
from tests.peers.simulator import with_body, with_headers
from tests.peers.test_checking_order import Attempt, put

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_request_is_verified_against_the_configured_address_not_the_host_header(hub: Hub) -> None:
    peer = await hub.peer()
    await peer.deliver(1, after=with_headers(host="elsewhere.invalid"))
    assert (await hub.holdings(peer)).size == 1


@pytest.mark.parametrize(
    ("attempt", "status", "code"),
    [
        pytest.param(
            put(before=with_headers(content_type="application/json")), 415, "unsupported-media-type", id="type"
        ),
        pytest.param(put(before=with_headers(content_encoding="gzip")), 415, "unsupported-media-type", id="encoding"),
        pytest.param(put(path="/peer/v1/inbox/nobody/1/x"), 422, "invalid", id="index-no-number"),
        pytest.param(put(path="/peer/v1/inbox/nobody/x/1"), 422, "invalid", id="epoch-no-number"),
        pytest.param(put(path="/peer/v1/inbox/nobody/1/1?more=1"), 422, "invalid", id="query"),
        pytest.param(put(path="/peer/v2/inbox/nobody/1/1"), 404, "not-found", id="path"),
        pytest.param(lambda peer: peer.call("DELETE", peer.inbox_path(0)), 405, "method-not-allowed", id="method"),
    ],
)
async def test_what_the_door_refuses_before_the_protocol_is_signed_too(
    hub: Hub, attempt: Attempt, status: int, code: str
) -> None:
    """These are no codes of HX/1: no peer that speaks it meets them. `PeerSimulator` verifies the signature."""
    peer = await hub.peer()
    await peer.deliver(2)
    before = await hub.holdings(peer)
    answer = await attempt(peer)
    assert (answer.status, answer.problem["code"]) == (status, code)
    assert await hub.holdings(peer) == before
    await peer.deliver(1)


@pytest.mark.parametrize("name", ["hx-version", "content-digest", "signature-input", "signature"])
async def test_a_header_that_is_no_ascii_breaks_nothing(hub: Hub, name: str) -> None:
    peer = await hub.peer()
    await peer.deliver(1)
    answer = await peer.put(peer.batch(1), after=lambda one: one.adding({name: one.headers[name] + "\xff"}))
    assert answer.problem["code"] in {"malformed", "bad-signature"}
    assert hub.logged(action="web.failed") == []
    await peer.deliver(1)


async def test_refusals_without_end_are_counted_each_and_logged_a_few_times(hub: Hub) -> None:
    peer = await hub.peer()
    before = _mismatches(hub)
    for _ in range(3 * LINES_MAX):
        await hub.problem(peer.put(peer.batch(1), after=with_body(b"x")), "digest-mismatch", field="content-digest")
    assert _mismatches(hub) - before == 3 * LINES_MAX
    assert len(hub.logged(action="peer.refused", code="digest-mismatch", peer=peer.id)) == LINES_MAX


def _mismatches(hub: Hub) -> float:
    labels = {"code": "digest-mismatch", "direction": "given"}
    return hub.node.metrics.registry.get_sample_value("hotline_problems_total", labels) or 0.0
