"""Reports in: one or a batch, repeated references, duplicates in any spelling, and what a batch may not half do."""

from uuid import UUID

from tests.api.door import Door
from tests.world import ADDRESS

FR, NL = ADDRESS["FR"], ADDRESS["NL"]
FULL = {
    "url": f"http://{FR}/page",
    "media": [
        f"http://{FR}/1.jpg",
        {"url": f"http://{FR}/2.jpg", "hashes": [{"algorithm": "md5", "value": "D41D8CD98F00B204E9800998ECF8427E"}]},
    ],
    "referrer": "https://search.example/?q=x",
    "note": "Seen on Sunday.\nSecond line.",
    "channel": "professional",
    "reference": "R-1",
    "reporter_email": "someone@reporter.example",
    "reported_at": "2026-01-02T03:04:05+01:00",
    "received_at": "2026-01-02T03:04:05.123Z",
    "site_type": "image-board",
    "commerciality": "non-commercial",
    "payment_methods": ["bitcoin", "visa", "bitcoin"],
    "qualification": {"classification": "national", "age": "prepubescent", "law": "Article 227-23"},
}


async def test_one_report_becomes_a_case_with_its_items(door: Door) -> None:
    reply = await door.report(FULL)
    assert reply.status == 201
    (taken,) = reply.json()["reports"]
    assert (taken["reference"], taken["repeated"], len(taken["items"])) == ("R-1", False, 3)
    ids = [UUID(taken["case"]), *(UUID(item["id"]) for item in taken["items"])]
    assert {one.version for one in ids} == {7}
    assert [item["state"] for item in taken["items"]] == ["locating"] * 3
    assert [item["duplicate_of"] for item in taken["items"]] == [None] * 3
    rows = await door.rows()
    assert (rows["cases"], rows["items"], rows["url_identities"]) == (1, 3, 3)
    page, first, second = [await door.item(item["id"]) for item in taken["items"]]
    assert (page["kind"], first["kind"], second["kind"]) == ("page", "media", "media")
    assert (page["channel"], page["reference"], page["classification"]) == ("professional", "R-1", "national")


async def test_every_field_is_kept_beside_the_case(door: Door) -> None:
    (taken,) = (await door.report(FULL)).json()["reports"]
    case_id = UUID(taken["case"])
    async with door.node.db.transaction("test.read") as tx:
        row = await tx.row("SELECT * FROM cases WHERE id = $1", case_id)
        hashes = await tx.value("SELECT hashes FROM items WHERE id = $1", UUID(taken["items"][2]["id"]))
    assert row is not None

    def opened(column: str) -> str:
        return door.node.store.vault.open("cases", column, case_id, row[column])

    assert opened("referrer_enc") == FULL["referrer"]
    assert opened("note_enc") == FULL["note"]
    assert opened("reporter_enc") == FULL["reporter_email"]
    assert row["received_at"].isoformat() == "2026-01-02T03:04:05.123000+00:00"
    assert row["reported_at"].isoformat() == "2026-01-02T02:04:05+00:00"
    assert (row["site_type"], row["commerciality"], row["payment_methods"]) == (
        "image-board",
        "non-commercial",
        ["bitcoin", "visa"],
    )
    assert hashes == [{"alg": "md5", "value": "d41d8cd98f00b204e9800998ecf8427e"}]


async def test_a_batch_is_answered_in_its_order(door: Door) -> None:
    batch = [{"url": f"http://{NL}/{n}", "reference": f"B-{n}"} for n in range(300)]
    reply = await door.report({"reports": batch})
    assert reply.status == 201
    assert [one["reference"] for one in reply.json()["reports"]] == [one["reference"] for one in batch]
    assert (await door.rows())["items"] == 300
    shown = await door.item(reply.json()["reports"][17]["items"][0]["id"])
    assert shown["reference"] == "B-17"


async def test_a_reference_said_again_adds_nothing_and_is_answered_with_what_is_known(door: Door) -> None:
    first = await door.report(FULL)
    rows = await door.rows()
    again = await door.report({**FULL, "url": f"http://{FR}:80/page#top"})
    assert (first.status, again.status) == (201, 200)
    known, repeated = first.json()["reports"][0], again.json()["reports"][0]
    assert repeated["repeated"] is True
    assert repeated["case"] == known["case"]
    assert [item["id"] for item in repeated["items"]] == [item["id"] for item in known["items"]]
    after = await door.rows()
    assert (after["cases"], after["items"]) == (rows["cases"], rows["items"])
    assert (await door.item(known["items"][0]["id"]))["times_seen"] == 1


async def test_a_batch_may_hold_known_and_new_references_and_one_reference_twice(door: Door) -> None:
    await door.report({"url": f"http://{FR}/a", "reference": "A"})
    batch = [
        {"url": f"http://{FR}/a", "reference": "A"},
        {"url": f"http://{FR}/b", "reference": "B"},
        {"url": f"http://{FR}/b", "reference": "B"},
    ]
    reply = await door.report({"reports": batch})
    assert reply.status == 201
    said = reply.json()["reports"]
    assert [one["repeated"] for one in said] == [True, False, True]
    assert said[1]["case"] == said[2]["case"]
    assert (await door.rows())["cases"] == 2


async def test_a_reference_used_for_other_content_is_a_conflict_that_names_the_field(door: Door) -> None:
    await door.report({"url": f"http://{FR}/a", "reference": "A"})
    rows = await door.rows()
    single = await door.report({"url": f"http://{FR}/canary", "reference": "A"})
    assert single.errors(409, "conflict") == [("reference", "reference-conflict")]
    batch = [{"url": f"http://{FR}/new", "reference": "N"}, {"url": f"http://{FR}/canary", "reference": "A"}]
    several = await door.report({"reports": batch})
    assert several.errors(409, "conflict") == [("reports[1].reference", "reference-conflict")]
    assert await door.rows() == rows, "a batch is taken whole or not at all"


async def test_a_conflict_inside_one_batch_takes_nothing_of_it(door: Door) -> None:
    rows = await door.rows()
    batch = [{"url": f"http://{FR}/{n}", "reference": "same"} for n in range(2)]
    reply = await door.report({"reports": batch})
    assert reply.errors(409, "conflict") == [("reports[1].reference", "reference-conflict")]
    assert await door.rows() == rows


async def test_a_reference_belongs_to_its_submitter(door: Door) -> None:
    from node.platform.apikeys import Role  # noqa: PLC0415

    first = await door.report({"url": f"http://{FR}/a", "reference": "A"}, role=Role.INTAKE)
    other = await door.report({"url": f"http://{FR}/b", "reference": "A"}, role=Role.ANALYST)
    assert (first.status, other.status) == (201, 201)


async def test_a_duplicate_is_linked_and_counted_however_it_is_spelled(door: Door) -> None:
    (first,) = (await door.report({"url": "https://host.example/a%7Eb/?q=1"})).json()["reports"]
    original = first["items"][0]["id"]
    spellings = [
        "https://host.example/a%7Eb/?q=1",
        "HTTPS://HOST.EXAMPLE:443/a~b/?q=1",
        "https://user:word@host.example./a%7eb/./?q=1#part",
        "https:\\\\host.example\\x\\..\\a~b\\?q=1",
    ]
    for seen, spelling in enumerate(spellings, start=2):
        reply = await door.report({"url": spelling})
        assert reply.status == 201
        (item,) = reply.json()["reports"][0]["items"]
        assert (item["state"], item["duplicate_of"]) == ("duplicate", original)
        assert item["id"] != original
        assert (await door.item(original))["times_seen"] == seen
        shown = await door.item(item["id"])
        assert (shown["duplicate_of"], shown["url"]) == (original, "hxxps://host[.]example/…")
    (other,) = (await door.report({"url": "https://host.example/a~b?q=1"})).json()["reports"]
    assert other["items"][0]["duplicate_of"] is None


async def test_duplicates_inside_one_batch_link_to_the_first(door: Door) -> None:
    reply = await door.report({"reports": [{"url": "http://host.example/x"}] * 3})
    first, *others = [one["items"][0] for one in reply.json()["reports"]]
    assert first["duplicate_of"] is None
    assert [one["duplicate_of"] for one in others] == [first["id"]] * 2
    assert (await door.item(first["id"]))["times_seen"] == 3


async def test_a_url_named_twice_in_one_report_is_one_item(door: Door) -> None:
    report = {"url": "http://host.example/x", "media": ["http://host.example/x#1", "http://host.example:80/x"]}
    (taken,) = (await door.report(report)).json()["reports"]
    assert len(taken["items"]) == 1


async def test_a_qualification_that_comes_with_a_duplicate_counts_for_the_item_known(door: Door) -> None:
    url = f"http://{NL}/late"
    (first,) = (await door.report({"url": url})).json()["reports"]
    original = first["items"][0]["id"]
    assert (await door.until(original, "waiting"))["classification"] is None
    await door.report({"url": url, "qualification": {"classification": "national"}})
    sent = await door.until(original, "sent")
    assert (sent["classification"], sent["assigned_node"]) == ("national", "nl.hotline.example")


async def test_a_duplicate_that_says_not_illegal_closes_what_nobody_had_qualified(door: Door) -> None:
    url = f"http://{NL}/harmless"
    (first,) = (await door.report({"url": url})).json()["reports"]
    original = first["items"][0]["id"]
    await door.until(original, "waiting")
    await door.report({"url": url, "qualification": {"classification": "not-illegal"}})
    shown = await door.until(original, "closed")
    assert (shown["reason"], shown["classification"]) == ("not-illegal", "not-illegal")


async def test_a_duplicate_that_says_illegal_opens_a_closed_item_again(door: Door) -> None:
    url = f"http://{NL}/again"
    (first,) = (await door.report({"url": url, "qualification": {"classification": "not-illegal"}})).json()["reports"]
    original = first["items"][0]["id"]
    assert (await door.item(original))["state"] == "closed"
    await door.report({"url": url, "qualification": {"classification": "baseline"}})
    shown = await door.until(original, "sent")
    assert shown["classification"] == "baseline"


async def test_a_lesser_qualification_of_a_duplicate_changes_nothing(door: Door) -> None:
    url = f"http://{FR}/kept"
    report = {"url": url, "qualification": {"classification": "baseline"}}
    (first,) = (await door.report(report)).json()["reports"]
    original = first["items"][0]["id"]
    await door.until(original, "kept")
    await door.report({"url": url, "qualification": {"classification": "not-illegal"}})
    shown = await door.item(original)
    assert (shown["state"], shown["classification"]) == ("kept", "baseline")


async def test_a_graver_qualification_of_a_duplicate_comes_too_late_after_an_action(door: Door) -> None:
    """ICCAM's rule: a national assessment is overruled by nobody once an action is recorded."""
    url = f"http://{FR}/acted-on"
    (first,) = (await door.report({"url": url, "qualification": {"classification": "national"}})).json()["reports"]
    original = first["items"][0]["id"]
    await door.until(original, "kept")
    action = {"action": "hoster-notified"}
    assert (await door.ask("POST", f"/api/v1/items/{original}/actions", action)).status in {200, 201}
    await door.report({"url": url, "qualification": {"classification": "baseline"}})
    shown = await door.item(original)
    assert (shown["state"], shown["classification"]) == ("kept", "national")


async def test_what_was_counted_is_in_the_metrics(door: Door) -> None:
    await door.report({"reports": [{"url": "http://host.example/x"}] * 2})
    await door.report({"url": "javascript:1"})
    text = (await door.ask("GET", "/metrics")).body.decode()
    assert "hotline_reports_received_total 2.0" in text
    assert "hotline_items_received_total 1.0" in text
    assert "hotline_duplicates_total 1.0" in text
    assert 'hotline_intake_rejected_total{reason="unsupported-scheme"} 1.0' in text
