"""What a decoded report is checked for, and what it becomes."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.hotline.domain.intake import Report, check_assessment, check_batch, check_report
from node.hotline.domain.schema import AssessmentIn, IntakeRefused, ReportIn, convert_report
from protocol.codes import Classification, Kind, PaymentMethod

NOW = datetime(2026, 11, 22, 16, 0, tzinfo=UTC)
CANARY = "canary.example"
URL = f"http://{CANARY}/"


def _check(**members: Any) -> Report:
    return check_report(convert_report({"url": URL, **members}), NOW)


def _errors(**members: Any) -> list[tuple[str, str]]:
    with pytest.raises(IntakeRefused) as refused:
        _check(**members)
    assert all(CANARY not in f"{error.field}{error.detail}" for error in refused.value.errors)
    return [(error.field, error.reason) for error in refused.value.errors]


def test_a_page_alone_is_one_item() -> None:
    report = _check()
    (item,) = report.items
    assert (item.kind, item.url.normal, item.assessment, item.hashes) == (Kind.PAGE, URL, None, ())
    assert (report.received_at, report.reported_at, report.repeated) == (NOW, NOW, 0)


def test_media_follow_the_page_each_url_once() -> None:
    report = _check(media=[f"{URL}1", {"url": f"{URL}2"}, f"{URL}1#again", URL, f"{URL}2"])
    assert [(item.kind, item.url.normal) for item in report.items] == [
        (Kind.PAGE, URL),
        (Kind.MEDIA, f"{URL}1"),
        (Kind.MEDIA, f"{URL}2"),
    ]
    assert report.repeated == 3


def test_hashes_of_a_url_named_twice_come_together() -> None:
    md5 = {"algorithm": "md5", "value": "AB" * 16}
    sha1 = {"algorithm": "sha1", "value": "cd" * 20}
    report = _check(
        media=[{"url": f"{URL}1", "hashes": [md5, md5]}, {"url": f"{URL}1", "hashes": [sha1, md5]}, f"{URL}1"]
    )
    assert [(one.algorithm.value, one.value) for one in report.items[1].hashes] == [
        ("md5", "ab" * 16),
        ("sha1", "cd" * 20),
    ]


def test_hashes_of_a_url_are_bounded_however_often_it_is_named() -> None:
    lists = [[{"algorithm": "md5", "value": f"{start + at:032x}"} for at in range(16)] for start in (0, 16)]
    media = [{"url": f"{URL}1", "hashes": hashes} for hashes in lists]
    assert len(_check(media=[media[0], media[0]]).items[1].hashes) == 16
    assert _errors(media=media) == [("media[1].hashes", "too-many")]


def test_the_qualification_counts_for_media_without_their_own() -> None:
    report = _check(
        qualification={"classification": "national", "law": "art. 1"},
        media=[f"{URL}1", {"url": f"{URL}2", "qualification": {"classification": "not-illegal"}}],
    )
    said = [item.assessment for item in report.items]
    assert [one.classification for one in said if one] == ["national", "national", "not-illegal"]
    assert said[0] is not None
    assert said[0].at == NOW


def test_the_graver_qualification_of_a_url_named_twice_counts() -> None:
    report = _check(media=[{"url": URL, "qualification": {"classification": "baseline"}}])
    assert report.items[0].assessment is not None
    assert report.items[0].assessment.classification is Classification.BASELINE


def test_times_become_utc() -> None:
    report = _check(reported_at="2026-01-01T01:00:00+02:00", received_at="2026-01-02T00:00:00.5Z")
    assert report.reported_at == datetime(2025, 12, 31, 23, 0, tzinfo=UTC)
    assert report.reported_at.tzinfo is UTC
    assert report.received_at == datetime(2026, 1, 2, 0, 0, 0, 500_000, tzinfo=UTC)


def test_reported_when_received_if_not_said() -> None:
    assert _check(received_at="2026-01-02T00:00:00Z").reported_at == datetime(2026, 1, 2, tzinfo=UTC)


def test_a_clock_may_be_five_minutes_ahead() -> None:
    ahead = NOW + timedelta(minutes=5)
    assert _check(received_at=ahead.isoformat()).received_at == ahead
    assert _errors(received_at=(ahead + timedelta(seconds=1)).isoformat()) == [("received_at", "in-the-future")]


def test_payment_methods_are_named_once() -> None:
    assert _check(payment_methods=["visa", "bitcoin", "visa"]).payment_methods == (
        PaymentMethod.VISA,
        PaymentMethod.BITCOIN,
    )


def test_an_empty_note_is_no_note() -> None:
    assert _check(note="").note is None
    assert _check(note="two\r\n\tlines").note == "two\r\n\tlines"


@pytest.mark.parametrize(
    ("members", "field", "reason"),
    [
        ({"url": "ftp://canary.example/"}, "url", "unsupported-scheme"),
        ({"url": "canary.example"}, "url", "not-a-url"),
        ({"media": [URL, "canary.example"]}, "media[1]", "not-a-url"),
        ({"media": [{"url": "canary.example"}]}, "media[0].url", "not-a-url"),
        ({"referrer": "canary.example"}, "referrer", "not-a-url"),
        ({"note": "canary.example\x00"}, "note", "control-character"),
        ({"note": "\ud800"}, "note", "control-character"),
        ({"reference": URL}, "reference", "url-as-reference"),
        ({"reference": "a\nb"}, "reference", "control-character"),
        ({"reference": "a\udc80"}, "reference", "control-character"),
        ({"reporter_email": CANARY}, "reporter_email", "bad-email"),
        ({"reporter_email": "a b@canary.example"}, "reporter_email", "bad-email"),
        ({"reporter_email": "a@b@canary.example"}, "reporter_email", "bad-email"),
        ({"reporter_email": "a@\x01canary.example"}, "reporter_email", "bad-email"),
        ({"reporter_email": ""}, "reporter_email", "bad-email"),
        ({"received_at": "9999-12-31T23:59:59-14:00"}, "received_at", "in-the-future"),
        ({"reported_at": "0001-01-01T00:00:00+14:00"}, "reported_at", "bad-time"),
        ({"hashes": [{"algorithm": "md5", "value": "0" * 31}]}, "hashes[0].value", "bad-hash"),
        ({"hashes": [{"algorithm": "md5", "value": "g" * 32}]}, "hashes[0].value", "bad-hash"),
        ({"media": [{"url": URL, "hashes": [{"algorithm": "sha256", "value": "0"}]}]}, "media[0].hashes[0].value",
         "bad-hash"),
        ({"qualification": {"classification": "national", "law": "a\x07"}}, "qualification.law", "control-character"),
        ({"qualification": {"classification": "national", "by": "a\n"}}, "qualification.by", "control-character"),
        ({"qualification": {"classification": "national", "at": "2027-01-01T00:00:00Z"}}, "qualification.at",
         "in-the-future"),
        ({"media": [{"url": URL, "qualification": {"classification": "national", "law": "\n"}}]},
         "media[0].qualification.law", "control-character"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named(members: dict[str, object], field: str, reason: str) -> None:
    assert _errors(**members) == [(field, reason)]


def test_everything_wrong_is_said_at_once() -> None:
    assert _errors(url="x", referrer="y", reference="http://z", media=["w"]) == [
        ("url", "not-a-url"),
        ("media[0]", "not-a-url"),
        ("referrer", "not-a-url"),
        ("reference", "url-as-reference"),
    ]


def test_a_batch_is_checked_whole() -> None:
    good, bad = ReportIn(url=URL), ReportIn(url="x", media=["y"])
    assert len(check_batch([good, good], NOW)) == 2
    with pytest.raises(IntakeRefused) as refused:
        check_batch([good, bad, bad], NOW)
    assert [error.field for error in refused.value.errors] == [
        "reports[1].url",
        "reports[1].media[0]",
        "reports[2].url",
        "reports[2].media[0]",
    ]


def test_a_time_without_offset_is_refused_even_when_it_was_not_decoded() -> None:
    with pytest.raises(IntakeRefused) as refused:
        check_report(ReportIn(url=URL, received_at=NOW.replace(tzinfo=None)), NOW)
    assert refused.value.errors[0].reason == "bad-time"


def test_an_assessment_is_checked_by_the_same_rules() -> None:
    given_at = datetime(2026, 1, 1, tzinfo=UTC)
    assert check_assessment(AssessmentIn(classification=Classification.BASELINE, at=given_at), NOW).at == given_at
    assert check_assessment(AssessmentIn(classification=Classification.BASELINE), NOW).at == NOW
    with pytest.raises(IntakeRefused) as refused:
        check_assessment(AssessmentIn(classification=Classification.BASELINE, by="\n"), NOW)
    assert refused.value.errors[0].field == "by"


def test_a_checked_report_does_not_print_its_content() -> None:
    report = _check(note="secret", media=[f"{URL}1"])
    assert CANARY not in repr(report)
    assert CANARY not in repr(report.items)


@given(st.lists(st.sampled_from([URL, f"{URL}#x", f"{URL}1", f"{URL}1#y", f"{URL}2", "https://canary.example/2"])))
def test_every_url_named_is_an_item_or_counted_as_repeated(media: list[str]) -> None:
    report = _check(media=media)
    assert len(report.items) + report.repeated == 1 + len(media)
    assert len({item.url.normal for item in report.items}) == len(report.items)
    assert report.items[0].kind is Kind.PAGE
