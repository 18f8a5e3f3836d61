"""What an analyst does about an item through the API: recorded, repeated without harm, refused with the state."""

from node.platform.apikeys import Role
from tests.api.door import CANARY, ITEMS, Door
from tests.api.test_items import FR, NL, reported

NATIONAL = {"classification": "national"}


async def test_actions_are_recorded_once_and_shown(door: Door) -> None:
    item = await reported(door, f"http://{FR}/here", qualification=NATIONAL)
    await door.until(item, "kept")
    path = f"{ITEMS}/{item}/actions"
    said = {"action": "authorities-informed", "at": "2026-11-20T12:00:00Z", "by": "analyst 7"}
    for _ in range(2):
        reply = await door.ask("POST", path, said)
        assert (reply.status, reply.json()) == (200, {"id": item, "state": "kept"})
    reply = await door.ask("POST", path, {**said, "by": "another"})
    assert reply.errors(409, "conflict") == []
    assert "once" in reply.json()["detail"]
    for _ in range(2):
        reply = await door.ask("POST", path, {"action": "unavailable", "reason": "link-expired"})
        assert reply.json() == {"id": item, "state": "done"}
    reply = await door.ask("POST", path, {"action": "removed"})
    assert reply.errors(409, "conflict") == []
    assert "done" in reply.json()["detail"]
    shown = await door.item(item)
    assert [(one["node"], one["action"], one["by"], one["reason"]) for one in shown["actions"]] == [
        (shown["actions"][0]["node"], "authorities-informed", "analyst 7", None),
        (shown["actions"][0]["node"], "unavailable", None, "link-expired"),
    ]
    assert shown["actions"][0]["at"] == "2026-11-20T12:00:00.000Z"


async def test_what_is_wrong_with_an_action_is_named(door: Door) -> None:
    item = await reported(door, f"http://{NL}/waits")
    await door.until(item, "waiting")
    path = f"{ITEMS}/{item}/actions"
    for body, field, reason in (
        ({}, "action", "missing"),
        ({"action": CANARY}, "action", "unknown-code"),
        ({"action": "removed", "reason": CANARY}, "reason", "unknown-code"),
        ({"action": "removed", "reason": "other"}, "reason", "not-with-this"),
        ({"action": "removed", "at": "2099-01-01T00:00:00Z"}, "at", "in-the-future"),
        ({"action": "removed", "by": "a\x07"}, "by", "control-character"),
        ({"action": "removed", "x": CANARY}, "x", "unknown-field"),
    ):
        reply = await door.ask("POST", path, body)
        assert reply.errors(422, "invalid") == [(field, reason)]
    # It is not assigned to anybody yet.
    assert (await door.ask("POST", path, {"action": "removed"})).errors(409, "conflict") == []
    unknown = f"{ITEMS}/0192f7a0-0000-7000-8000-000000000001/actions"
    assert (await door.ask("POST", unknown, {"action": "removed"})).errors(404, "not-found") == []
    assert (await door.ask("POST", path, {"action": "removed"}, role=Role.READER)).status == 403
    assert (await door.item(item))["actions"] == []


async def test_a_report_is_corrected_and_taken_back(door: Door) -> None:
    item = await reported(door, f"http://{NL}/waits")
    await door.until(item, "waiting")
    path = f"{ITEMS}/{item}"
    reply = await door.ask("POST", f"{path}/corrections", {})
    assert reply.errors(422, "invalid") == [("", "empty")]
    reply = await door.ask("POST", f"{path}/corrections", {"referrer": f"file:///{CANARY}"})
    assert reply.errors(422, "invalid") == [("referrer", "unsupported-scheme")]
    reply = await door.ask("POST", f"{path}/corrections", {"hashes": [{"algorithm": "md5", "value": "1"}]})
    assert reply.errors(422, "invalid") == [("hashes[0].value", "bad-hash")]
    reply = await door.ask("POST", f"{path}/corrections", {"reference": f"https://{CANARY}.example/1"})
    assert reply.errors(422, "invalid") == [("reference", "url-as-reference")]
    said = {
        "site_type": "forum",
        "referrer": "https://board.example/1",
        "payment_methods": ["visa"],
        "reference": "2026-000124",
    }
    for _ in range(2):
        reply = await door.ask("POST", f"{path}/corrections", said)
        assert (reply.status, reply.json()) == (200, {"id": item, "state": "waiting"})
    assert (await door.ask("POST", f"{path}/withdrawal", {})).errors(422, "invalid") == [("reason", "missing")]
    # The node's own reason, and no person's.
    reply = await door.ask("POST", f"{path}/withdrawal", {"reason": "rerouted"})
    assert reply.errors(422, "invalid") == [("reason", "unknown-code")]
    for _ in range(2):
        reply = await door.ask("POST", f"{path}/withdrawal", {"reason": "legal-order"})
        assert (reply.status, reply.json()) == (200, {"id": item, "state": "withdrawn"})
    shown = await door.item(item)
    assert (shown["state"], shown["withdrawn_reason"]) == ("withdrawn", "legal-order")
    assert shown["reference"] == "2026-000124"
    assert shown["withdrawn_at"]
    assert (await door.ask("POST", f"{path}/corrections", said)).errors(409, "conflict") == []
    reply = await door.ask("PATCH", f"{path}/assessment", NATIONAL)
    assert reply.errors(409, "conflict") == []
    assert "withdrawn" in reply.json()["detail"]
