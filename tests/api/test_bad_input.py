"""Every kind of bad input gets a problem that names field and reason and never the value; nothing is half-written."""

import json
from typing import Any

import pytest

from node.platform.apikeys import Role
from tests.api.door import CANARY, REPORTS, Door, bearer
from tests.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")

GOOD = {"url": f"https://{CANARY}.example/{CANARY}"}
BODY_BYTES_MAX = 65_536


@pytest.fixture(scope="module")
def door(limited_world: World, shared_door: Door) -> Door:
    """One node for all of these: none of them changes anything."""
    assert limited_world.nodes
    return shared_door


@pytest.fixture(scope="module")
def limited_world(shared_world: World) -> World:
    shared_world.add("FR", api_body_bytes_max=BODY_BYTES_MAX, api_reports_max=20)
    shared_world.sign_directory()
    return shared_world


def with_url(url: object) -> dict[str, object]:
    return {"url": url}


def with_field(**fields: object) -> dict[str, object]:
    return {**GOOD, **fields}


CASES: dict[str, tuple[object, list[tuple[str, str]]]] = {
    # Not a URL.
    "plain text": (with_url(f"{CANARY} text"), [("url", "not-a-url")]),
    "a host alone": (with_url(f"{CANARY}.example/x"), [("url", "not-a-url")]),
    "a scheme alone": (with_url("https://"), [("url", "not-a-url")]),
    "spaces in the host": (with_url(f"https://{CANARY} x.example/"), [("url", "not-a-url")]),
    "an impossible address": (with_url("http://256.1.1.1/"), [("url", "not-a-url")]),
    "an impossible port": (with_url(f"http://{CANARY}.example:99999/"), [("url", "not-a-url")]),
    "empty": (with_url(""), [("url", "empty")]),
    "blanks": (with_url("   "), [("url", "empty")]),
    "a label too long": (with_url(f"https://{CANARY * 12}.example/"), [("url", "bad-host")]),
    "defanged": (with_url(f"hxxps://{CANARY}.example/"), [("url", "unsupported-scheme")]),
    # A scheme that is not reported.
    "javascript": (with_url(f"javascript:alert('{CANARY}')"), [("url", "unsupported-scheme")]),
    "javascript in disguise": (with_url(f"JaVaScRiPt://{CANARY}.example/%0aalert(1)"), [("url", "unsupported-scheme")]),
    "file": (with_url(f"file:///etc/{CANARY}"), [("url", "unsupported-scheme")]),
    "data": (with_url(f"data:text/html,{CANARY}"), [("url", "unsupported-scheme")]),
    "ftp": (with_url(f"ftp://{CANARY}.example/"), [("url", "unsupported-scheme")]),
    "mailto": (with_url(f"mailto:x@{CANARY}.example"), [("url", "unsupported-scheme")]),
    # Too long, as written and once percent-encoded.
    "over 8 KiB": (with_url(f"https://{CANARY}.example/" + "a" * 8192), [("url", "too-long")]),
    "over 8 KiB encoded": (with_url(f"https://{CANARY}.example/" + "é" * 4000), [("url", "too-long")]),
    # Control characters.
    "a line end": (with_url(f"https://{CANARY}.example/\r\nHost: x"), [("url", "control-character")]),
    "NUL": (with_url(f"https://{CANARY}.example/\x00"), [("url", "control-character")]),
    "a C1 control": (with_url(f"https://{CANARY}.example/\x85"), [("url", "control-character")]),
    "NUL in the note": (with_field(note=f"{CANARY}\x00"), [("note", "control-character")]),
    "a tab in the reference": (with_field(reference=f"{CANARY}\t1"), [("reference", "control-character")]),
    "a control in the law": (
        with_field(qualification={"classification": "national", "law": f"{CANARY}\x07"}),
        [("qualification.law", "control-character")],
    ),
    # Wrong types.
    "url is a number": (with_url(7), [("url", "wrong-type")]),
    "url is null": (with_url(None), [("url", "wrong-type")]),
    "url is a list": (with_url([GOOD["url"]]), [("url", "wrong-type")]),
    "media is text": (with_field(media=GOOD["url"]), [("media", "wrong-type")]),
    "media holds a number": (with_field(media=[GOOD["url"], 3]), [("media[1]", "wrong-type")]),
    "note is an object": (with_field(note={"text": CANARY}), [("note", "wrong-type")]),
    "a mark is text": (
        with_field(qualification={"classification": "national", "virtual": CANARY}),
        [("qualification.virtual", "wrong-type")],
    ),
    "the report is text": (CANARY, [("", "wrong-type")]),
    "the report is a list": ([GOOD], [("", "wrong-type")]),
    "reports is an object": ({"reports": GOOD}, [("reports", "wrong-type")]),
    "a report is text": ({"reports": [GOOD, CANARY]}, [("reports[1]", "wrong-type")]),
    # Unknown and missing fields, codes and limits.
    "an unknown field": (with_field(colour="blue"), [("colour", "unknown-field")]),
    "an unknown field with an odd name": (with_field(**{f"https://{CANARY}.example/": 1}), [("", "unknown-field")]),
    "an unknown field of a media": (
        with_field(media=[{"url": GOOD["url"], "colour": 1}]),
        [("media[0].colour", "unknown-field")],
    ),
    "an unknown field beside a batch": ({"reports": [GOOD], "colour": 1}, [("colour", "unknown-field")]),
    "no url": ({"note": CANARY}, [("url", "missing")]),
    "no url in a media": (with_field(media=[{}]), [("media[0].url", "missing")]),
    "no classification": (with_field(qualification={"law": CANARY}), [("qualification.classification", "missing")]),
    "an unknown channel": (with_field(channel=CANARY), [("channel", "unknown-code")]),
    "an unknown payment": (with_field(payment_methods=["visa", CANARY]), [("payment_methods[1]", "unknown-code")]),
    "an unknown class": (
        with_field(qualification={"classification": CANARY}),
        [("qualification.classification", "unknown-code")],
    ),
    "an empty batch": ({"reports": []}, [("reports", "empty")]),
    "a batch over the limit": ({"reports": [GOOD] * 21}, [("reports", "too-many")]),
    "a note over the limit": (with_field(note=CANARY * 1000), [("note", "too-long")]),
    "a reference over the limit": (with_field(reference=CANARY * 50), [("reference", "too-long")]),
    "a URL as reference": (with_field(reference=GOOD["url"]), [("reference", "url-as-reference")]),
    "no address": (with_field(reporter_email=CANARY), [("reporter_email", "bad-email")]),
    "a time without zone": (with_field(received_at="2026-01-01T00:00:00"), [("received_at", "bad-time")]),
    "no time": (with_field(received_at=CANARY), [("received_at", "bad-time")]),
    "the future": (with_field(reported_at="2999-01-01T00:00:00Z"), [("reported_at", "in-the-future")]),
    "a hash of the wrong length": (
        with_field(hashes=[{"algorithm": "sha1", "value": CANARY}]),
        [("hashes[0].value", "bad-hash")],
    ),
    # More than one thing wrong.
    "several at once": (
        {"url": "file:///x", "media": [GOOD["url"], "data:,x"], "referrer": "x", "note": "\x01"},
        [
            ("url", "unsupported-scheme"),
            ("media[1]", "unsupported-scheme"),
            ("referrer", "not-a-url"),
            ("note", "control-character"),
        ],
    ),
    "two of a batch": (
        {"reports": [GOOD, with_url("file:///x"), GOOD, with_field(referrer="data:,x")]},
        [("reports[1].url", "unsupported-scheme"), ("reports[3].referrer", "unsupported-scheme")],
    ),
}


@pytest.mark.parametrize("name", CASES)
async def test_a_field_is_refused_with_its_reason_and_nothing_is_written(door: Door, name: str) -> None:
    sent, expected = CASES[name]
    before = await door.rows()
    assert (await door.report(sent)).errors(422, "invalid") == expected
    assert await door.rows() == before


@pytest.mark.parametrize("name", ["plain text", "javascript", "an unknown field", "a hash of the wrong length"])
async def test_one_bad_report_takes_its_whole_batch_with_it(door: Door, name: str) -> None:
    bad, expected = CASES[name]
    before = await door.rows()
    reply = await door.report({"reports": [GOOD, {"url": "https://other.example/"}, bad]})
    assert reply.errors(422, "invalid") == [(f"reports[2].{field}", reason) for field, reason in expected]
    assert await door.rows() == before


BROKEN: dict[str, tuple[bytes, str]] = {
    "UTF-8": (b'{"url":"https://canary.example/\xff"}', "broken-utf8"),
    "UTF-8 cut short": (b'{"url":"https://canary.example/\xc3"}', "broken-utf8"),
    "Latin-1": ('{"url":"https://canary.example/é"}'.encode("latin-1"), "broken-utf8"),
    "a lone surrogate": (b'{"url":"https://canary.example/\\ud800"}', "malformed-json"),
    "half an object": (b'{"url":"https://canary.example/', "malformed-json"),
    "nothing": (b"", "malformed-json"),
    "two values": (b"{}{}", "malformed-json"),
    "a byte order mark": (b'\xef\xbb\xbf{"url":"https://canary.example/"}', "malformed-json"),
    "UTF-16": ('{"url":"https://canary.example/"}'.encode("utf-16"), "malformed-json"),
    "a deep nest": (b'{"reports":' + b"[" * 60_000, "malformed-json"),
    "no number": (b'{"url":NaN}', "malformed-json"),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_what_is_no_json_is_refused_as_that(door: Door, name: str) -> None:
    sent, reason = BROKEN[name]
    before = await door.rows()
    assert (await door.report(sent)).errors(400, "malformed") == [("", reason)]
    assert await door.rows() == before


async def test_broken_utf8_in_one_report_of_a_batch_is_refused(door: Door) -> None:
    before = await door.rows()
    sent = b'{"reports":[{"url":"https://canary.example/"},{"url":"https://canary.example/\xff"}]}'
    ((field, reason),) = (await door.report(sent)).errors(400, "malformed")
    assert (field in {"", "reports[1]"}, reason) == (True, "broken-utf8")
    assert await door.rows() == before


async def test_a_duplicate_member_is_no_way_around_a_check(door: Door) -> None:
    """Which of two members counts differs between parsers; whatever it is, the one that counts is the one checked."""
    before = await door.rows()
    sent = b'{"url":"https://canary.example/","url":"javascript:canary"}'
    assert (await door.report(sent)).errors(422, "invalid") == [("url", "unsupported-scheme")]
    assert await door.rows() == before


async def test_another_media_type_is_refused(door: Door) -> None:
    for kind in ("text/plain", "application/xml", "application/x-www-form-urlencoded"):
        reply = await door.report(json.dumps(GOOD).encode(), headers={"Content-Type": kind})
        assert reply.errors(415, "unsupported-media-type") == []
    reply = await door.report(json.dumps(GOOD).encode(), headers={"Content-Encoding": "gzip"})
    assert reply.errors(415, "unsupported-media-type") == []


def head(door: Door, *lines: str, path: str = REPORTS, method: str = "POST") -> bytes:
    said = [
        f"{method} {path} HTTP/1.1",
        "Host: node.example",
        f"Authorization: {bearer(door.keys[Role.INTAKE])}",
        "Content-Type: application/json",
        *lines,
    ]
    return ("\r\n".join(said) + "\r\n\r\n").encode()


def said(answer: bytes) -> tuple[int, dict[str, Any]]:
    """Status and body of the first answer in these bytes."""
    first, _, body = answer.partition(b"\r\n\r\n")
    return int(first.split(b" ")[1]), json.loads(body)


async def test_ten_gigabytes_announced_are_refused_before_a_byte_of_them_comes(door: Door) -> None:
    status, problem = said(await door.raw(head(door, "Content-Length: 10000000000")))
    assert (status, problem["code"]) == (413, "too-large")
    assert str(BODY_BYTES_MAX) in problem["detail"]


async def test_who_asks_first_is_told_not_to_send_so_much(door: Door) -> None:
    answer = await door.raw(head(door, "Content-Length: 10000000000", "Expect: 100-continue"))
    assert said(answer)[0] == 413
    assert b"100 Continue" not in answer


async def test_a_body_in_chunks_is_cut_off_at_the_limit(door: Door) -> None:
    chunk = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
    answer = await door.raw(head(door, "Transfer-Encoding: chunked") + chunk * (BODY_BYTES_MAX // 0x4000 + 1))
    status, problem = said(answer)
    assert (status, problem["code"]) == (413, "too-large")


async def test_a_body_of_exactly_the_limit_is_read(door: Door) -> None:
    body = json.dumps(GOOD).encode().ljust(BODY_BYTES_MAX)
    assert (await door.report(body, role=Role.READER)).errors(403, "forbidden") == []
    before = await door.rows()
    assert (await door.report(body + b" ")).errors(413, "too-large") == []
    assert await door.rows() == before
    assert (await door.report(body)).status == 201


async def test_what_is_no_http_is_answered_without_quoting_it(door: Door) -> None:
    for request in (
        f"GET https://{CANARY}.example/ HTTP/9.9\r\n\r\n".encode(),
        f"{CANARY}\r\n\r\n".encode(),
        head(door, f"{CANARY} {CANARY}"),
        head(door, "Content-Length: -1"),
        head(door, "Content-Length: 3", "Transfer-Encoding: chunked"),
        head(door, f"X-Long: {CANARY * 4000}"),
    ):
        answer = await door.raw(request)
        status, problem = said(answer)
        assert (status, problem["code"]) == (400, "malformed")
        assert CANARY not in answer.decode()
        assert b"aiohttp" not in answer


async def test_an_unknown_path_method_or_parameter_is_not_quoted(door: Door) -> None:
    assert (await door.ask("GET", f"/{CANARY}")).errors(404, "not-found") == []
    assert (await door.ask("GET", f"/api/v1/items/{CANARY}")).errors(422, "invalid") == [("item", "bad-format")]
    reply = await door.ask("DELETE", REPORTS)
    assert reply.errors(405, "method-not-allowed") == []
    assert reply.headers["Allow"] == "POST"
    unknown = await door.ask("GET", f"/api/v1/items?{CANARY}={CANARY}")
    assert unknown.errors(422, "invalid") == [("query", "unknown-field")]
    wrong = await door.ask("GET", f"/api/v1/items?state={CANARY}")
    assert [field for field, _ in wrong.errors(422, "invalid")] == ["state"]
    for limit in ("0", "201", "-1", "x", "1.5", ""):
        reply = await door.ask("GET", f"/api/v1/items?limit={limit}")
        assert [field for field, _ in reply.errors(422, "invalid")] == ["limit"]
