"""Items: the queues in pages, the search in any spelling, the defanged view, the assessment and the proof."""

from uuid import UUID, uuid4

from node.platform.apikeys import Role
from protocol.evidence import verify_evidence
from tests.api.door import CANARY, ITEMS, Door, open_door
from tests.world import ADDRESS, World

FR, NL = ADDRESS["FR"], ADDRESS["NL"]
ILLEGAL = {"classification": "national", "age": "infant", "law": "Article 227-23", "by": "analyst 7"}


async def reported(door: Door, url: str, **fields: object) -> str:
    """Report one URL and return its item."""
    reply = await door.report({"url": url, **fields})
    assert reply.status == 201
    item: str = reply.json()["reports"][0]["items"][0]["id"]
    return item


def assessment(item: str) -> str:
    return f"{ITEMS}/{item}/assessment"


async def test_a_queue_is_read_in_pages_without_gap_or_overlap(door: Door) -> None:
    batch = [{"url": f"https://h{n}.example/", "qualification": {"classification": "not-illegal"}} for n in range(25)]
    reply = await door.report({"reports": [*batch, {"url": f"http://{NL}/waits"}]})
    closed = {one["items"][0]["id"] for one in reply.json()["reports"][:-1]}
    waiting = reply.json()["reports"][-1]["items"][0]["id"]
    await door.until(waiting, "waiting")
    pages: list[list[str]] = []
    after = ""
    while True:
        page = (await door.ask("GET", f"{ITEMS}?state=closed&limit=10{after}")).json()
        pages.append([one["id"] for one in page["items"]])
        assert {one["state"] for one in page["items"]} <= {"closed"}
        if page["next"] is None:
            break
        after = f"&after={page['next']}"
    assert [len(page) for page in pages] == [10, 10, 5]
    read = [item for page in pages for item in page]
    assert set(read) == closed
    assert read == sorted(read)
    everything = (await door.ask("GET", ITEMS)).json()
    assert {one["id"] for one in everything["items"]} == {*closed, waiting}
    assert everything["next"] is None


async def test_a_list_shows_no_url_not_even_defanged(door: Door) -> None:
    await reported(door, f"https://{CANARY}.example/{CANARY}")
    reply = await door.ask("GET", ITEMS)
    assert CANARY not in reply.body.decode()
    assert reply.json()["items"][0]["url"] is None


async def test_an_item_is_found_by_its_url_in_another_spelling(door: Door) -> None:
    item = await reported(door, "https://bücher.example/a%7Eb?q=%2f")
    for spelling in ("https://BÜCHER.example:443/a~b?q=%2F#x", "https://xn--bcher-kva.example./a%7eb?q=%2f"):
        reply = await door.ask("POST", f"{ITEMS}/search", {"url": spelling}, role=Role.READER)
        assert (reply.status, reply.json()) == (200, {"item": item})
    reply = await door.ask("POST", f"{ITEMS}/search", {"url": "https://bücher.example/a~b?q=/"})
    assert reply.json() == {"item": None}
    reply = await door.ask("POST", f"{ITEMS}/search", {"url": f"file:///{CANARY}"})
    assert reply.errors(422, "invalid") == [("url", "unsupported-scheme")]
    reply = await door.ask("POST", f"{ITEMS}/search", {"url": "https://h.example/", "x": CANARY})
    assert reply.errors(422, "invalid") == [("x", "unknown-field")]


DEFANGED = {
    "https://user:word@host.example:8443/path?q#f": "hxxps://host[.]example:8443/…",
    "http://192.0.2.1/": "hxxp://192[.]0[.]2[.]1/",
    "http://[2001:db8::1]/x": "hxxp://[2001[:]db8[:][:]1]/…",
    f"http://{'b' * 56}.onion/x": f"hxxp://{'b' * 56}[.]onion/…",
}


async def test_a_url_is_shown_so_that_nobody_can_follow_it(door: Door) -> None:
    for n, (url, shown) in enumerate(DEFANGED.items()):
        item = await door.item(await reported(door, url, reference=f"R-{n}", channel="own"))
        assert item["url"] == shown
        assert (item["reference"], item["channel"], item["kind"], item["times_seen"]) == (f"R-{n}", "own", "page", 1)


async def test_an_unknown_item_is_not_found(door: Door) -> None:
    unknown = f"{ITEMS}/{uuid4()}"
    assert (await door.ask("GET", unknown)).errors(404, "not-found") == []
    assert (await door.ask("GET", f"{unknown}/proof")).errors(404, "not-found") == []
    reply = await door.ask("PATCH", f"{unknown}/assessment", ILLEGAL)
    assert reply.errors(404, "not-found") == []


async def test_a_waiting_item_qualified_as_illegal_leaves(door: Door) -> None:
    item = await reported(door, f"http://{NL}/x")
    shown = await door.until(item, "waiting")
    assert (shown["hosting_country"], shown["assigned_node"]) == ("NL", None)
    reply = await door.ask("PATCH", assessment(item), ILLEGAL, role=Role.ANALYST)
    assert (reply.status, reply.json()) == (200, {"id": item, "state": "ready"})
    shown = await door.until(item, "sent")
    assert (shown["assigned_country"], shown["assigned_node"]) == ("NL", "nl.hotline.example")
    assert shown["classification"] == "national"


async def test_a_domestic_item_qualified_as_illegal_is_kept(door: Door) -> None:
    item = await reported(door, f"http://{FR}/x")
    await door.until(item, "waiting")
    await door.ask("PATCH", assessment(item), {"classification": "baseline"})
    shown = await door.until(item, "kept")
    assert (shown["reason"], shown["assigned_country"], shown["assigned_node"]) == (
        "own-country",
        "FR",
        "fr.hotline.example",
    )


async def test_not_illegal_closes_an_item_and_illegal_opens_it_again(door: Door) -> None:
    item = await reported(door, f"http://{NL}/x")
    await door.until(item, "waiting")
    reply = await door.ask("PATCH", assessment(item), {"classification": "not-illegal"})
    assert reply.json()["state"] == "closed"
    shown = await door.item(item)
    assert (shown["state"], shown["reason"]) == ("closed", "not-illegal")
    reply = await door.ask("PATCH", assessment(item), {"classification": "national"})
    assert reply.json()["state"] == "locating"
    assert (await door.item(item))["reason"] != "not-illegal"
    await door.until(item, "sent")


async def test_an_item_closed_before_it_was_located_leaves_the_queue(door: Door) -> None:
    item = await reported(door, "https://slow.example/", qualification={"classification": "not-illegal"})
    assert (await door.item(item))["state"] == "closed"
    async with door.node.db.transaction("test.read") as tx:
        assert await tx.value("SELECT count(*) FROM location_queue") == 0


async def test_a_baseline_qualification_is_final_and_may_be_said_again(door: Door) -> None:
    item = await reported(door, f"http://{FR}/x")
    await door.until(item, "waiting")
    baseline = {"classification": "baseline", "age": "infant"}
    assert (await door.ask("PATCH", assessment(item), baseline)).status == 200
    await door.until(item, "kept")
    assert (await door.ask("PATCH", assessment(item), baseline)).status == 200
    for other in ({"classification": "national"}, {"classification": "not-illegal"}, {**baseline, "age": "pubescent"}):
        reply = await door.ask("PATCH", assessment(item), other)
        reply.errors(409, "conflict")
        assert "final" in reply.json()["detail"]
    assert (await door.item(item))["classification"] == "baseline"


async def test_what_was_sent_is_the_receiving_hotlines_to_assess(door: Door) -> None:
    item = await reported(door, f"http://{NL}/x", qualification={"classification": "national"})
    await door.until(item, "sent")
    (await door.ask("PATCH", assessment(item), {"classification": "not-illegal"})).errors(409, "conflict")
    assert (await door.item(item))["classification"] == "national"


async def test_a_duplicate_is_assessed_at_the_item_it_repeats(door: Door) -> None:
    await reported(door, f"http://{NL}/x")
    duplicate = await reported(door, f"http://{NL}/x")
    (await door.ask("PATCH", assessment(duplicate), ILLEGAL)).errors(409, "conflict")


async def test_a_bad_assessment_changes_nothing(door: Door) -> None:
    item = await reported(door, f"http://{NL}/x")
    before = await door.until(item, "waiting")
    cases: list[tuple[object, list[tuple[str, str]]]] = [
        ({}, [("classification", "missing")]),
        ({"classification": CANARY}, [("classification", "unknown-code")]),
        ({"classification": "national", "age": CANARY}, [("age", "unknown-code")]),
        ({"classification": "national", "virtual": CANARY}, [("virtual", "wrong-type")]),
        ({"classification": "national", "url": CANARY}, [("url", "unknown-field")]),
        ({"classification": "national", "by": CANARY * 50}, [("by", "too-long")]),
        ({"classification": "national", "at": "2999-01-01T00:00:00Z"}, [("at", "in-the-future")]),
    ]
    for body, expected in cases:
        assert (await door.ask("PATCH", assessment(item), body)).errors(422, "invalid") == expected
    broken = await door.ask("PATCH", assessment(item), b"\xff")
    assert broken.errors(400, "malformed") == [("", "malformed-json")]
    (await door.ask("PATCH", assessment(item), b" " * 65_537)).errors(413, "too-large")
    assert await door.item(item) == before


async def test_the_proof_of_a_delivered_item_holds_at_both_ends(world: World) -> None:
    await world.create_field_keys()
    async with open_door(world.nodes[0]) as fr, open_door(world.nodes[1]) as nl:
        item = await reported(fr, f"http://{NL}/{CANARY}", qualification={"classification": "national"})
        await fr.until(item, "sent")
        await nl_has(nl, item)
        proofs = []
        for door in (fr, nl):
            reply = await door.ask("GET", f"{ITEMS}/{item}/proof", role=Role.ANALYST)
            while reply.status == 404:  # the receipt is on its way home
                await door.node.signals.wait("test", 0.02)
                reply = await door.ask("GET", f"{ITEMS}/{item}/proof", role=Role.ANALYST)
            assert reply.status == 200
            assert reply.headers["Content-Type"] == "text/plain; charset=utf-8"
            proofs.append(reply.body)
        assert proofs[0] == proofs[1]
        finding = verify_evidence(proofs[0], fr.node.directory())
        assert (finding.item, finding.iss, finding.aud) == (item, "fr.hotline.example", "nl.hotline.example")
        assert set(finding.receiver_algorithms) == {"ed25519", "ml-dsa-44"}
        assert not any(CANARY in line for line in finding.words())
        shown = await nl.item(item)
        assert (shown["state"], shown["channel"]) == ("assigned", "network")


async def nl_has(door: Door, item: str) -> None:
    """Wait until the item has arrived."""
    async with door.node.db.transaction("test.read") as tx:
        found = await tx.value("SELECT 1 FROM items WHERE id = $1", UUID(item))
    if found is None:
        await door.node.signals.wait("test", 0.02)
        await nl_has(door, item)


async def test_without_a_record_or_its_receipt_there_is_nothing_to_prove(door: Door) -> None:
    kept = await reported(door, f"http://{FR}/x", qualification={"classification": "national"})
    sent = await reported(door, f"http://{NL}/x", qualification={"classification": "national"})
    await door.until(kept, "kept")
    await door.until(sent, "sent")
    for item in (kept, sent):
        (await door.ask("GET", f"{ITEMS}/{item}/proof")).errors(404, "not-found")


async def test_an_assigned_item_is_qualified_under_the_receiving_countrys_law(world: World) -> None:
    await world.create_field_keys()
    async with open_door(world.nodes[0]) as fr, open_door(world.nodes[1]) as nl:
        first, second = [
            await reported(fr, f"http://{NL}/{n}", qualification={"classification": "national"}) for n in (1, 2)
        ]
        for item in (first, second):
            await nl_has(nl, item)
        assert (await nl.item(first))["classification"] is None
        assert (await nl.ask("PATCH", assessment(first), ILLEGAL)).json()["state"] == "kept"
        assert (await nl.ask("PATCH", assessment(second), {"classification": "not-illegal"})).json()[
            "state"
        ] == "closed"
