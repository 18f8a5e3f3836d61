"""Records: what is made can be read, what breaks a rule is refused with the member's name and nothing of its value."""

import json
import traceback
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.codes import Channel, Classification, HashAlgorithm, Kind
from protocol.errors import ProtocolError
from protocol.merkle import leaf_hash
from protocol.problems import REGISTRY
from protocol.record import (
    Handling,
    Hash,
    Hosting,
    Qualification,
    ReportBody,
    UnknownBody,
    check_addressing,
    parse_record,
)
from protocol.strictjson import JSON_BYTES_MAX
from tests.protocol.sample_network import (
    CASE,
    FR,
    HANDLING,
    ITEM,
    NL,
    NOW,
    PAGE,
    RECORD_ID,
    URL,
    report,
    report_body,
)

RAW = report()
SECRET = "https://secret.example/x"
LONG_URL = "https://host.example/" + "a" * (8192 - len("https://host.example/"))


def members() -> dict[str, Any]:
    """Return the sample report as a decoded object, to be changed at will."""
    tree: dict[str, Any] = json.loads(RAW)
    return tree


def at(tree: dict[str, Any], path: str) -> tuple[Any, Any]:
    """Return the container and key that a path as `body.hashes[0].alg` names."""
    node: Any = tree
    keys = [int(key) if key.isdigit() else key for key in path.replace("[", ".").replace("]", "").split(".")]
    for key in keys[:-1]:
        node = node[key]
    return node, keys[-1]


def changed(path: str, value: object) -> bytes:
    tree = members()
    node, key = at(tree, path)
    node[key] = value
    return json.dumps(tree, separators=(",", ":")).encode()


def without(path: str) -> bytes:
    tree = members()
    node, key = at(tree, path)
    del node[key]
    return json.dumps(tree, separators=(",", ":")).encode()


def refusal(raw: bytes) -> ProtocolError:
    with pytest.raises(ProtocolError) as caught:
        parse_record(raw)
    assert caught.value.code in REGISTRY
    assert "secret" not in "".join(traceback.format_exception(caught.value))
    return caught.value


def test_report_is_read_as_it_was_made() -> None:
    record = parse_record(RAW)
    envelope = record.envelope
    assert record.raw == RAW
    assert record.leaf_hash == leaf_hash(RAW)
    assert record.body == report_body()
    assert (envelope.v, envelope.type, envelope.id, envelope.case, envelope.item) == (
        1,
        "report",
        RECORD_ID,
        CASE,
        ITEM,
    )
    assert (envelope.iss, envelope.aud, envelope.iat, envelope.deliver_by) == (FR, NL, NOW, NOW + timedelta(days=7))
    assert (envelope.parent, envelope.hops, envelope.crit, envelope.handling) == (None, (), (), HANDLING)


def test_wire_form_is_compact_and_in_the_order_of_the_specification() -> None:
    tree = json.loads(RAW)
    order = "v type id case item iss aud iat parent hops deliver_by handling crit body"
    assert list(tree) == order.split()
    assert json.dumps(tree, separators=(",", ":"), ensure_ascii=False).encode() == RAW
    body = (
        "schema url kind page referrer hashes site_type channel reference received_at reported_at qualification hosting"
    )
    assert list(tree["body"]) == body.split()
    assert tree["iat"] == "2026-11-22T16:00:00.123Z"
    assert tree["body"]["qualification"]["flags"] == {"virtual": False}


def test_smallest_report_is_read_as_it_was_made() -> None:
    hosting = Hosting(country=None, assigned_country="NL", confidence=0, reasons=(), evidence={})
    body = ReportBody(url="http://a.example", kind=Kind.PAGE, channel=Channel.OWN, received_at=NOW, hosting=hosting)
    raw = report(body, deliver_by=None)
    assert parse_record(raw).body == body
    assert json.loads(raw)["body"]["hosting"]["country"] is None
    assert set(json.loads(raw)["body"]) == {"schema", "url", "kind", "hashes", "channel", "received_at", "hosting"}


TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40)
TIMES = st.datetimes(datetime(1970, 1, 1), datetime(9998, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 -- bounds
EVIDENCE = st.dictionaries(TEXT, st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | TEXT, max_size=4)


@given(TEXT, TEXT, TIMES, EVIDENCE, st.sampled_from(Channel), st.sampled_from(Classification))
def test_what_may_be_made_can_be_read(
    url: str,
    reference: str,
    when: datetime,
    evidence: dict[str, object],
    channel: Channel,
    classification: Classification,
) -> None:
    when = when.replace(microsecond=when.microsecond // 1000 * 1000)
    body = report_body(
        url=url,
        channel=channel,
        reference=reference,
        received_at=when,
        qualification=Qualification(classification=classification, at=when, law=reference),
        hosting=Hosting(country="XK", assigned_country="NL", confidence=100, reasons=("a", "b-2"), evidence=evidence),
    )
    record = parse_record(report(body, iat=when))
    assert (record.body, record.envelope.iat) == (body, when)


def test_times_are_cut_to_the_millisecond_and_turned_to_utc() -> None:
    zone = timezone(timedelta(hours=2))
    envelope = parse_record(report(iat=datetime(2026, 1, 1, 1, 0, 0, 999_999, tzinfo=zone))).envelope
    assert envelope.iat == datetime(2025, 12, 31, 23, 0, 0, 999_000, tzinfo=UTC)


def test_time_without_a_zone_is_not_sent() -> None:
    with pytest.raises(ValueError, match="zone"):
        report(iat=datetime(2026, 1, 1))  # noqa: DTZ001 -- the mistake under test


def test_unknown_members_are_kept_and_passed_over() -> None:
    tree = members()
    tree["later"] = {"a": [1]}
    tree["body"]["later"] = None
    tree["body"]["hosting"]["later"] = "x"
    tree["handling"]["later"] = True
    raw = json.dumps(tree).encode()
    record = parse_record(raw)
    assert record.raw == raw
    assert record.body == report_body()
    assert record.envelope.body["later"] is None


def test_neither_record_nor_parts_show_a_url() -> None:
    record = parse_record(RAW)
    assert isinstance(record.body, ReportBody)
    for part in (record, record.envelope, record.body, record.body.hosting):
        assert URL not in f"{part!r} {part}"
        assert "192.0.2.10" not in repr(part)


UUID_PATHS = ("id", "case", "item", "body.page")
BAD_UUIDS = (
    RECORD_ID.upper(),
    "{" + RECORD_ID + "}",
    RECORD_ID.replace("-", ""),
    "0193a5f0-0000-4000-8000-000000000001",
    "0193a5f0-0000-7000-c000-000000000001",
    RECORD_ID + "\n",
    "",
    SECRET,
    7,
)
BAD_TIMES = (
    "2026-11-22T16:00:00Z",
    "2026-11-22T16:00:00.12Z",
    "2026-11-22T16:00:00.123456Z",
    "2026-11-22T16:00:00.123+00:00",
    "2026-11-22 16:00:00.123Z",
    "2026-11-22t16:00:00.123z",
    "2026-02-30T16:00:00.123Z",
    "2026-11-22T24:00:00.000Z",
    "2026-11-22T23:59:60.000Z",
    "2026-W47-7T16:00:00.000Z",
    "2026-11-22T16:00:00.123Z ",
    1_795_363_200,
    SECRET,
)
TIME_PATHS = (
    "iat",
    "deliver_by",
    "handling.retain_until",
    "body.received_at",
    "body.reported_at",
    "body.qualification.at",
)
FAULTS: list[tuple[str, object]] = [
    *((path, value) for path in UUID_PATHS for value in BAD_UUIDS),
    *((path, value) for path in TIME_PATHS for value in BAD_TIMES),
    *(("v", value) for value in (2, 0, "1", True, None)),
    *(("type", value) for value in ("", "Report", "re port", SECRET, None, 1)),
    *((path, value) for path in ("iss", "aud") for value in ("", "FR.example", "..", SECRET, None, "a" * 101)),
    *(("parent", value) for value in ("ab" * 31, "AB" * 32, SECRET, 1)),
    *(("hops", value) for value in (["a"] * 6, [1], None, "a", [None])),
    ("handling", None),
    ("handling.purpose", SECRET),
    ("handling.purpose", ""),
    *(("crit", value) for value in (None, ["a"] * 33, [""], [SECRET], [1])),
    ("body", None),
    ("body", []),
    *(("body.schema", value) for value in (0, -1, "1", True, None)),
    *(("body.url", value) for value in ("", 1, None, "a\tb", "a\x7f", "secret\n", LONG_URL + "a", "\u20ac" * 2731)),
    *(("body.referrer", value) for value in ("", "a\x01", LONG_URL + "a")),
    *(("body.kind", value) for value in (SECRET, None, "Page")),
    ("body.hashes", None),
    ("body.hashes", [{"alg": "md5", "value": "ab" * 16}] * 65),
    ("body.hashes[0].alg", SECRET),
    *(("body.hashes[1].value", value) for value in ("", "AB" * 16, "ab" * 15, "zz" * 16, SECRET)),
    ("body.site_type", SECRET),
    ("body.commerciality", SECRET),
    ("body.payment_methods", ["visa", "visa"]),
    ("body.channel", SECRET),
    *(("body.reference", value) for value in ("", "a" * 801, "secret\r", 7)),
    ("body.qualification", {}),
    ("body.qualification.classification", SECRET),
    ("body.qualification.age", SECRET),
    ("body.qualification.gender", SECRET),
    ("body.qualification.flags", {"virtual": 1}),
    ("body.qualification.law", ""),
    ("body.qualification.by", "secret\x1b"),
    ("body.hosting", None),
    *(("body.hosting.country", value) for value in ("nl", "NLD", "", 5, SECRET)),
    ("body.hosting.registered_country", "n1"),
    *(("body.hosting.assigned_country", value) for value in (None, "nl")),
    *(("body.hosting.confidence", value) for value in (-1, 101, "90", True, None)),
    *(("body.hosting.reasons", value) for value in (None, [SECRET], ["a"] * 33, [""])),
    *(("body.hosting.evidence", value) for value in (None, [1], SECRET)),
]


@pytest.mark.parametrize(("path", "value"), FAULTS)
def test_member_that_breaks_its_schema_is_named(path: str, value: object) -> None:
    error = refusal(changed(path, value))
    assert error.code == "schema-invalid"
    # The fault lies at the path, or inside what was put there.
    assert (error.field or "").startswith(path)


REQUIRED = (
    *"v type id case item iss aud iat parent hops deliver_by handling crit body".split(),  # noqa: SIM905 -- as specified
    *("handling.purpose", "handling.retain_until", "body.schema", "body.url", "body.kind", "body.channel"),
    *("body.received_at", "body.hosting", "body.hosting.country", "body.hosting.assigned_country"),
    *("body.hosting.confidence", "body.hosting.reasons", "body.hosting.evidence"),
    *("body.qualification.classification", "body.qualification.at", "body.hashes[0].alg", "body.hashes[0].value"),
)


@pytest.mark.parametrize("path", REQUIRED)
def test_missing_member_is_named(path: str) -> None:
    error = refusal(without(path))
    assert (error.code, error.field) == ("schema-invalid", path)


def test_media_names_its_page_and_a_page_names_none() -> None:
    assert refusal(changed("body.page", None)).field == "body.page"
    assert refusal(changed("body.kind", "page")).field == "body.page"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("body.url", LONG_URL),
        ("body.url", "\u20ac" * 2730),
        ("body.reference", "a" * 256),
        ("hops", ["a"] * 5),
        ("parent", "0f" * 32),
        ("body.hosting.country", None),
        ("body.hosting.country", "XK"),
        ("body.qualification.flags", {}),
        ("deliver_by", None),
        ("handling.purpose", "a-purpose-of-later"),
    ],
)
def test_limits_themselves_are_allowed(path: str, value: object) -> None:
    parse_record(changed(path, value))


def test_string_with_nul_is_refused_wherever_it_stands() -> None:
    assert refusal(changed("body.hosting.evidence", {"a": ["x\x00"]})).code == "schema-invalid"
    assert refusal(changed("later", "\\\x00")).code == "schema-invalid"
    # A backslash before the text `u0000` is no NUL.
    parse_record(changed("later", "\\u0000"))


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "malformed"),
        (b"[]", "malformed"),
        (b"null", "malformed"),
        (b'"report"', "malformed"),
        (RAW[:-1], "malformed"),
        (RAW + b" x", "malformed"),
        (RAW[:-1] + b',"v":1}', "malformed"),
        (RAW.replace(b',"hops"', b',\n"hops"'), "malformed"),
        (RAW.replace(b'"confidence":90', b'"confidence":90.0'), "malformed"),
        (RAW + b" " * (JSON_BYTES_MAX - len(RAW) + 1), "too-large"),
    ],
)
def test_what_is_no_record_at_all(raw: bytes, code: str) -> None:
    assert refusal(raw).code == code


def test_record_of_exactly_the_limit_is_read() -> None:
    parse_record(RAW + b" " * (JSON_BYTES_MAX - len(RAW)))


def test_unknown_type_and_later_schema_are_kept() -> None:
    assert parse_record(changed("type", "note")).body == UnknownBody(1)
    tree = members()
    tree["type"], tree["body"] = "note", {"anything": 1}
    assert parse_record(json.dumps(tree).encode()).body == UnknownBody(None)
    tree = members()
    tree["body"] = {"schema": 2, "link": "x"}
    assert parse_record(json.dumps(tree).encode()).body == UnknownBody(2)


def test_unknown_type_still_needs_its_envelope() -> None:
    tree = members()
    tree["type"], tree["id"] = "note", "x"
    assert refusal(json.dumps(tree).encode()).field == "id"


@pytest.mark.parametrize("names", [["hops"], ["body"], ["deliver_by", "body.hashes"], ["body.qualification"]])
def test_critical_members_that_are_understood(names: list[str]) -> None:
    assert parse_record(changed("crit", names)).envelope.crit == tuple(names)


@pytest.mark.parametrize(("names", "field"), [(["hops", "embargo"], "crit[1]"), (["body.embargo"], "crit[0]")])
def test_critical_member_that_is_not_understood_is_refused_for_good(names: list[str], field: str) -> None:
    error = refusal(changed("crit", names))
    assert (error.code, error.field) == ("unknown-critical", field)
    assert not REGISTRY[error.code].retryable


def test_critical_member_is_judged_before_the_body() -> None:
    tree = members()
    tree["crit"], tree["body"]["url"] = ["body.link"], None
    assert refusal(json.dumps(tree).encode()).code == "unknown-critical"
    # No member of a body that is not read is understood.
    tree = members()
    tree["type"], tree["crit"] = "assessment", ["body.url"]
    assert refusal(json.dumps(tree).encode()).code == "unknown-critical"


def test_record_belongs_into_the_stream_of_its_issuer_to_its_audience() -> None:
    envelope = parse_record(RAW).envelope
    check_addressing(envelope, iss=FR, aud=NL)
    with pytest.raises(ProtocolError) as caught:
        check_addressing(envelope, iss=FR, aud="de.hotline.example")
    assert (caught.value.code, caught.value.field) == ("wrong-audience", "aud")
    with pytest.raises(ProtocolError) as caught:
        check_addressing(envelope, iss="de.hotline.example", aud=NL)
    assert (caught.value.code, caught.value.field) == ("schema-invalid", "iss")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"url": ""}, "body.url"),
        ({"url": "secret\ud800"}, "body.url"),
        ({"page": None}, "body.page"),
        ({"page": PAGE.upper()}, "body.page"),
        ({"hashes": (Hash(HashAlgorithm.PDQ, "ab"),)}, "body.hashes[0].value"),
        ({"reference": "a" * 801}, "body.reference"),
        ({"schema": 2}, "body.schema"),
    ],
)
def test_body_that_a_peer_would_refuse_is_not_made(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        report(report_body(**changes))
    assert (caught.value.code, caught.value.field) == ("schema-invalid", field)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"record_id": "x"}, "id"),
        ({"case": "x"}, "case"),
        ({"item": "x"}, "item"),
        ({"iss": "X"}, "iss"),
        ({"aud": "."}, "aud"),
        ({"parent": "x"}, "parent"),
        ({"hops": ["a"] * 6}, "hops"),
        ({"hops": ["a", "B"]}, "hops[1]"),
        ({"handling": Handling("Take Down", NOW)}, "handling.purpose"),
        ({"crit": ["embargo"]}, "crit[0]"),
    ],
)
def test_envelope_that_a_peer_would_refuse_is_not_made(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        report(**changes)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("evidence", "code"),
    [
        ({"a": 1.5}, "malformed"),
        ({"a": {1: 2}}, "malformed"),
        ({"a": 2**53}, "malformed"),
        ({"a": "\ud800"}, "schema-invalid"),
        ({"a": "\x00"}, "schema-invalid"),
        ({"a": "x" * JSON_BYTES_MAX}, "too-large"),
    ],
)
def test_evidence_that_a_peer_would_refuse_is_not_sent(evidence: dict[str, object], code: str) -> None:
    hosting = Hosting(country="NL", assigned_country="NL", confidence=1, reasons=(), evidence=evidence)
    with pytest.raises(ProtocolError) as caught:
        report(report_body(hosting=hosting))
    assert caught.value.code == code


def test_evidence_may_be_as_deep_as_a_record_may_be() -> None:
    def nested(levels: int) -> dict[str, object]:
        evidence: dict[str, object] = {}
        for _ in range(levels - 1):
            evidence = {"a": evidence}
        return evidence

    def sent(levels: int) -> bytes:
        hosting = Hosting(country=None, assigned_country="NL", confidence=1, reasons=(), evidence=nested(levels))
        return report(report_body(hosting=hosting))

    parse_record(sent(13))
    with pytest.raises(ProtocolError, match="deeper"):
        sent(14)


def test_same_report_makes_the_same_bytes() -> None:
    assert report() == RAW
