"""What JSON is taken as a report, and that an error names field and reason but never the content."""

import contextlib
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.hotline.domain.schema import (
    AssessmentIn,
    BatchIn,
    IntakeRefused,
    ReportIn,
    convert_report,
    decode_assessment,
    decode_batch,
    decode_report,
    decode_submission,
)

CANARY = "canary.example"
URL = f"http://{CANARY}/"

FULL: dict[str, object] = {
    "url": URL,
    "hashes": [{"algorithm": "md5", "value": "0" * 32}],
    "media": [f"{URL}1", {"url": f"{URL}2", "hashes": [{"algorithm": "sha256", "value": "0" * 64}]}],
    "referrer": f"{URL}r",
    "note": "two\nlines",
    "channel": "professional",
    "reference": "A-1",
    "reporter_email": "someone@mail.example",
    "reported_at": "2026-01-01T01:00:00+02:00",
    "received_at": "2026-01-02T00:00:00.123Z",
    "site_type": "image-host",
    "commerciality": "commercial",
    "payment_methods": ["visa", "bitcoin"],
    "qualification": {
        "classification": "national",
        "age": "infant",
        "gender": "both",
        "virtual": False,
        "user_generated": True,
        "child_modelling": None,
        "law": "art. 1",
        "at": "2026-01-02T00:00:00Z",
        "by": "analyst 7",
    },
}


def _errors(raw: bytes | str) -> list[tuple[str, str]]:
    with pytest.raises(IntakeRefused) as refused:
        decode_submission(raw.encode() if isinstance(raw, str) else raw)
    assert CANARY not in str(refused.value)
    assert all(CANARY not in f"{error.field}{error.detail}" for error in refused.value.errors)
    return [(error.field, error.reason) for error in refused.value.errors]


def test_a_whole_report_is_decoded() -> None:
    report = decode_report(json.dumps(FULL).encode())
    assert report == convert_report(FULL)
    assert report.url == URL
    assert len(report.media) == 2
    assert report.qualification is not None
    assert report.qualification.child_modelling is None


def test_only_the_url_is_required() -> None:
    report = decode_report(json.dumps({"url": URL}).encode())
    assert (report.channel, report.media, report.reference) == ("public", [], None)


@pytest.mark.parametrize(
    ("members", "field", "reason"),
    [
        ({"url": 5}, "url", "wrong-type"),
        ({"url": None}, "url", "wrong-type"),
        ({"url": ""}, "url", "empty"),
        ({"media": URL}, "media", "wrong-type"),
        ({"media": [5]}, "media[0]", "wrong-type"),
        ({"media": [URL, ""]}, "media[1]", "empty"),
        ({"media": [{}]}, "media[0].url", "missing"),
        ({"media": [{"url": 5}]}, "media[0].url", "wrong-type"),
        ({"media": [{"url": URL, "hashes": [{"algorithm": CANARY, "value": "0"}]}]}, "media[0].hashes[0].algorithm",
         "unknown-code"),
        ({"media": [URL] * 1001}, "media", "too-many"),
        ({"note": "x" * 4001}, "note", "too-long"),
        ({"channel": CANARY}, "channel", "unknown-code"),
        ({"channel": f"{CANARY} - at `$.url`"}, "channel", "unknown-code"),
        ({"channel": 5}, "channel", "wrong-type"),
        ({"reference": "x" * 201}, "reference", "too-long"),
        ({"reference": ""}, "reference", "empty"),
        ({"reported_at": "yesterday"}, "reported_at", "bad-time"),
        ({"reported_at": "2026-01-01"}, "reported_at", "bad-time"),
        ({"reported_at": "2026-01-01T00:00:00"}, "reported_at", "bad-time"),
        ({"reported_at": "2026-02-30T00:00:00Z"}, "reported_at", "bad-time"),
        ({"reported_at": 1767225600}, "reported_at", "wrong-type"),
        ({"payment_methods": ["visa", CANARY]}, "payment_methods[1]", "unknown-code"),
        ({"qualification": {}}, "qualification.classification", "missing"),
        ({"qualification": {"classification": CANARY}}, "qualification.classification", "unknown-code"),
        ({"qualification": {"classification": "national", "virtual": 1}}, "qualification.virtual", "wrong-type"),
        ({"refrence": "A"}, "refrence", "unknown-field"),
        ({"qualification": {"classification": "national", "ages": 1}}, "qualification.ages", "unknown-field"),
        ({URL: 1}, "", "unknown-field"),
        ({CANARY: 1}, "", "unknown-field"),
        ({f"x - at `$.{CANARY}": 1}, "x", "unknown-field"),
        ({"media": [{URL: 1}]}, "media[0]", "unknown-field"),
    ],
)  # fmt: skip
def test_a_wrong_member_is_named_with_its_path(members: dict[str, object], field: str, reason: str) -> None:
    assert _errors(json.dumps({"url": URL, **members})) == [(field, reason)]
    assert _errors(json.dumps({"reports": [{"url": URL}, {"url": URL, **members}]})) == [
        (f"reports[1].{field}" if field else "reports[1]", reason)
    ]


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "malformed-json"),
        (b"{", "malformed-json"),
        (b'{"url":"a",}', "malformed-json"),
        (b'{"url":"a"} x', "malformed-json"),
        (b"\xef\xbb\xbf{}", "malformed-json"),
        (b'{"url":"a\x00"}', "malformed-json"),
        (b'{"url":"\\ud800"}', "malformed-json"),
        (b'{"url":' * 100_000, "malformed-json"),
        (b'{"x":' + b"[" * 100_000, "malformed-json"),
        (b'{"reports":' + b"[" * 100_000, "malformed-json"),
        (b'{"url":"\xff"}', "broken-utf8"),
        (b'{"\xff":"a"}', "broken-utf8"),
        (b'{"url":"\xed\xa0\x80"}', "broken-utf8"),
        (b"[]", "wrong-type"),
        (b"5", "wrong-type"),
    ],
)
def test_what_is_no_json_object_is_refused_whole(raw: bytes, reason: str) -> None:
    assert _errors(raw) == [("", reason)]


def test_a_batch_says_what_is_wrong_with_each_of_its_reports() -> None:
    raw = b'{"reports":[{"url":"x"},{"url":"\xff"},{"url":5},{"media":[]},"x"]}'
    assert _errors(raw) == [
        ("reports[1]", "broken-utf8"),
        ("reports[2].url", "wrong-type"),
        ("reports[3].url", "missing"),
        ("reports[4]", "wrong-type"),
    ]


def test_a_batch_has_bounds() -> None:
    assert _errors(b'{"reports":[]}') == [("reports", "empty")]
    assert _errors(b'{"reports":5}') == [("reports", "wrong-type")]
    assert _errors(b'{"reports":[],"url":"x"}') == [("url", "unknown-field")]
    one = json.dumps({"url": URL})
    assert len(decode_batch(f'{{"reports":[{one},{one}]}}'.encode(), max_reports=2)) == 2
    with pytest.raises(IntakeRefused) as refused:
        decode_batch(f'{{"reports":[{one},{one},{one}]}}'.encode(), max_reports=2)
    assert refused.value.errors[0].reason == "too-many"


def test_the_errors_of_a_batch_are_bounded() -> None:
    assert len(_errors('{"reports":[' + ",".join(["5"] * 1000) + "]}")) == 100


def test_a_submission_is_one_report_or_a_batch() -> None:
    one = json.dumps({"url": URL})
    assert decode_submission(one.encode()) == ([ReportIn(url=URL)], False)
    assert decode_submission(f'{{"reports":[{one}]}}'.encode()) == ([ReportIn(url=URL)], True)


def test_an_assessment_needs_a_classification() -> None:
    assert decode_assessment(b'{"classification":"baseline"}').classification == "baseline"
    with pytest.raises(IntakeRefused) as refused:
        decode_assessment(b'{"age":"infant"}')
    assert [(error.field, error.reason) for error in refused.value.errors] == [("classification", "missing")]


def test_what_is_decoded_does_not_print_its_content() -> None:
    assert CANARY not in repr(decode_report(json.dumps(FULL).encode()))


def test_a_report_said_again_says_only_what_was_said() -> None:
    assert msgspec.json.encode(decode_report(b'{ "channel":"public", "url":"a" }')) == b'{"url":"a"}'


def test_the_schema_documents_itself() -> None:
    _, components = msgspec.json.schema_components([ReportIn, BatchIn, AssessmentIn])
    report = components["ReportIn"]
    assert report["required"] == ["url"]
    assert report["additionalProperties"] is False
    assert report["properties"]["url"]["maxLength"] == 8192
    assert "classification" in components["AssessmentIn"]["required"]


@given(st.binary(max_size=60))
def test_any_bytes_are_decoded_or_refused(raw: bytes) -> None:
    for candidate in (raw, b'{"url":"' + raw + b'"}', b'{"url":"a","' + raw + b'":1}', b'{"reports":[' + raw + b"]}"):
        with contextlib.suppress(IntakeRefused):
            decode_submission(candidate)
