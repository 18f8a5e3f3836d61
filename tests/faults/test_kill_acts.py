"""`kill -9` around what people do about an item: told whole or not at all, once, and never lost at the other side."""

from typing import Any

import aiohttp
import pytest

from tests.faults.network import Network
from tests.faults.orders import both_sides
from tests.faults.station import Station, until

#: Each with who does it and the step it is durable by.
ACTS: dict[str, tuple[str, str, str, dict[str, Any], str]] = {
    "assess": ("nl", "PATCH", "assessment", {"classification": "national", "law": "article 240b"}, "assess.store"),
    "act": ("nl", "POST", "actions", {"action": "hoster-notified"}, "act.store"),
    "correct": ("fr", "POST", "corrections", {"site_type": "forum"}, "correct.store"),
    "withdraw": ("fr", "POST", "withdrawal", {"reason": "reported-in-error"}, "withdraw.store"),
}
_NOTED = (
    "SELECT (SELECT count(*) FROM actions) + (SELECT count(*) FROM assessments) "
    "+ (SELECT count(*) FROM items WHERE withdrawn_at IS NOT NULL) "
    "+ (SELECT count(*) FROM cases WHERE site_type = 'forum')"
)
_TOLD = "SELECT count(*) FROM outbox WHERE type IN ('action', 'assessment', 'correction', 'withdrawal')"


@pytest.mark.parametrize("name", ACTS)
async def test_what_was_done_is_told_once_whatever_dies(network: Network, name: str) -> None:
    who, method, path, body, step = ACTS[name]
    actor, hearer = (network.nl, network.fr) if who == "nl" else (network.fr, network.nl)
    workers = [await network.fr.start(), await network.nl.start()]
    await network.feed.hand_in(1)
    await network.settle()
    for worker in workers:
        await worker.kill()
    item = network.feed.acknowledged[0]
    # At the node that acts.
    for noted, order in enumerate(both_sides(step)):
        dying = await actor.start(kill=order)
        await actor.serving()
        assert not await _done(actor, method, f"{item}/{path}", body)
        await actor.struck(dying)
        assert await actor.count(_NOTED) == await actor.count(_TOLD) == noted
    await actor.start()
    await actor.serving()
    assert await _done(actor, method, f"{item}/{path}", body)
    assert await actor.count(_NOTED) == await actor.count(_TOLD) == 1
    # At the node that hears of it.
    for noted, order in enumerate(both_sides("apply.store")):
        await hearer.struck(await hearer.start(kill=order))
        assert await hearer.count(_NOTED) == noted
    await hearer.start()
    await _heard(hearer, actor)
    assert await hearer.count(_NOTED) == 1
    for station in (hearer, actor):
        assert await station.count("SELECT count(*) FROM outbox_refusals") == 0


async def _done(station: Station, method: str, path: str, body: dict[str, Any]) -> bool:
    """Do it through the API; False when the node died meanwhile."""
    headers = {"Authorization": f"Bearer {station.key}"}
    url = f"{station.api}/api/v1/items/{path}"
    try:
        async with station.session.request(method, url, json=body, headers=headers) as answer:
            assert answer.status == 200, await answer.text()
            return True
    except aiohttp.ClientError:
        return False


async def _heard(hearer: Station, actor: Station) -> None:
    """Wait until everything that was said is applied."""

    async def home() -> bool:
        waiting = await actor.count(
            "SELECT count(*) FROM outbound_streams s JOIN delivery_cursors c ON c.stream = s.id "
            "WHERE c.acked_size < s.next_index"
        )
        unapplied = await hearer.count(
            "SELECT count(*) FROM inbound_streams s JOIN apply_cursors c ON c.stream = s.id WHERE c.applied < s.size"
        )
        return waiting == unapplied == 0

    await until(home, "everything that was said is applied")
