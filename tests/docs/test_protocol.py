"""The specification counts and names as the code does: the orders of checks, the codes, the limits, the statuses."""

import re
from datetime import timedelta
from typing import Final

import pytest

from node.coordinator import changes
from node.platform import repository, trust
from protocol import batch, bodies, checkpoint, directory, httpsig, profile, record, steps, strictjson
from protocol.desk import open_ruling
from protocol.evidence import verify_evidence
from protocol.problems import REGISTRY
from tests.docs.generated import served
from tests.docs.pages import ROOT, Page, page, rows

SPECIFICATION: Final[Page] = page("docs/protocol.md")
_STEP: Final = re.compile(r"^(\d+)\. \*\*([^*]+?)[.:]?\*\*", re.MULTILINE)
#: Where a numbered comment stands for a step of the checking order.
_CHECKING: Final = (
    "node/platform/peerdoor.py",
    "node/hotline/flows/receive.py",
    "node/hotline/domain/acceptance.py",
)


def _words(text: str) -> str:
    """Return the beginning of a title as it is compared: lower case, letters alone, without its article."""
    return re.sub(r"[^a-z ]", "", text.lower()).strip().removeprefix("the ")


def test_the_checking_order_is_that_of_the_comments_in_the_code() -> None:
    steps = {int(number): _words(title) for number, title in _STEP.findall(SPECIFICATION.section("Checking order"))}
    assert list(steps) == list(range(1, 14))
    numbered: dict[int, set[str]] = {}
    for name in _CHECKING:
        comments = re.findall(r"# (.*)", (ROOT / name).read_text(encoding="utf-8"))
        for comment in comments:
            for number, title in re.findall(r"(?:^|\. )(\d+)\. ([^.]+)", comment):
                numbered.setdefault(int(number), set()).add(_words(title))
    assert set(numbered) == set(steps)
    for number, titles in numbered.items():
        for title in titles:
            shared = min(len(title), len(steps[number]))
            assert title[:shared] == steps[number][:shared], f"step {number}: {title!r}, {steps[number]!r}"


def test_the_steps_of_the_profile_are_those_of_the_code() -> None:
    steps = {int(number): _words(title) for number, title in _STEP.findall(SPECIFICATION.section("4. HTTP profile"))}
    text = (ROOT / "protocol" / "profile.py").read_text(encoding="utf-8")
    numbered = {int(number): _words(title) for number, title in re.findall(r"# \((\d)\) ([A-Za-z ]+)", text)}
    assert set(steps) == set(numbered) == set(range(1, 8))
    for number, title in steps.items():
        assert numbered[number].split()[0] == title.split()[0], f"step {number}"


def test_the_steps_of_a_proof_are_those_of_the_code() -> None:
    said = re.findall(r"^(\d\. .+)$", SPECIFICATION.section("7. Proofs"), re.MULTILINE)
    promised = re.findall(r"^ +(\d\. .+)$", verify_evidence.__doc__ or "", re.MULTILINE)
    assert said == promised


@pytest.mark.parametrize("code", sorted(REGISTRY))
def test_every_code_has_its_place_outside_the_table(code: str) -> None:
    without_table = SPECIFICATION.text.replace(SPECIFICATION.section("8. Errors"), "")
    assert f"`{code}`" in without_table


def test_the_status_beside_a_code_is_that_of_the_registry() -> None:
    for cells in rows(SPECIFICATION.section("5. Endpoints")):
        if not re.fullmatch(r"\d{3}", cells[0]):
            continue
        for code in re.findall(r"`([a-z-]+)`", cells[1]):
            assert str(REGISTRY[code].status) == cells[0], cells


def test_the_steps_of_a_ruling_are_those_of_the_code() -> None:
    said = re.findall(r"^(\d\. .+)$", SPECIFICATION.section("Disputes"), re.MULTILINE)
    promised = re.findall(r"^ +(\d\. .+)$", open_ruling.__doc__ or "", re.MULTILINE)
    assert said == promised


def test_every_endpoint_has_a_section() -> None:
    routes = [*served(door="peer"), *served(door="desk")]
    for route in routes:
        SPECIFICATION.section(f"{route.method} {route.path}")
    described = re.findall(r"^### ((?:GET|PUT|POST) \S+)$", SPECIFICATION.text, re.MULTILINE)
    routes += served(door="recovery")
    assert sorted(described) == sorted({f"{route.method} {route.path}" for route in routes})


@pytest.mark.parametrize(
    ("section", "said", "meant"),
    [
        ("1. Identities and keys", "1 to 100 characters", checkpoint.NODE_ID_BYTES_MAX == 100),
        ("2. Directory", "at most 1,000", directory.NODES_MAX == 1000),
        ("2. Directory", "at most 256", directory.KEYS_MAX == 256),
        ("2. Directory", "0 to 1,000,000", directory.WEIGHT_MAX == 1_000_000),
        ("2. Directory", "at most 32 MiB", directory.DIRECTORY_BYTES_MAX == 32 << 20),
        ("Disputes", "8,192 bytes", steps.RULING_BYTES_MAX == 8192),
        ("2. Directory", "72 h", timedelta(hours=72) == repository.TIMESTAMP_VALID),
        ("2. Directory", "11 days", timedelta(days=11) == trust.STALE_FOR),
        ("1. Identities and keys", "48 h", timedelta(hours=48) == changes.NOTICE),
        ("3. Record", "61,440 bytes", strictjson.JSON_BYTES_MAX == 61_440),
        ("3. Record", "at most 16 containers", strictjson.JSON_DEPTH_MAX == 16),
        ("Envelope", "at most 5", record.HOPS_MAX == 5),
        ("Envelope", "at most 32 names", record.CRIT_MAX == 32),
        ("`report`", "8,192 bytes", bodies.URL_BYTES_MAX == 8192),
        ("`report`", "at most 800 bytes", bodies.SHORT_TEXT_BYTES_MAX == 800),
        ("`outcome`", "at most 256 bytes", bodies.TEXT_BYTES_MAX == 256),
        ("`report`", "at most 64 of", bodies.HASHES_MAX == 64),
        ("`report`", "at most 32 tokens", bodies.REASONS_MAX == 32),
        ("`outcome`", "at most 100 of", bodies.REFUSALS_MAX == 100),
        ("`outcome`", "at most 400", bodies.RANGES_MAX == 400),
        ("4. HTTP profile", "within 300 s", profile.WINDOW_S == 300),
        ("4. HTTP profile", "1 to 60 s later", profile.LIFETIME_S_MAX == 60),
        ("4. HTTP profile", "16 random bytes", profile.NONCE_BYTES == 16),
        ("4. HTTP profile", "at most 24 components", profile.COMPONENTS_MAX == 24),
        ("4. HTTP profile", "at most 2,048 bytes", profile.SIGNATURE_INPUT_BYTES_MAX == 2048),
        ("4. HTTP profile", "at most 4,096 bytes", profile.SIGNATURE_BYTES_MAX == 4096),
        ("5. Endpoints", "1 to 1,000 records", batch.BATCH_RECORDS_MAX == 1000),
        ("5. Endpoints", "1,048,576 bytes", batch.BATCH_BYTES_MAX == 1_048_576),
        ("5. Endpoints", f"`{batch.MEDIA_TYPE}`", True),
    ],
)
def test_limits_are_those_of_the_code(section: str, said: str, *, meant: bool) -> None:
    assert said in SPECIFICATION.section(section)
    assert meant


def test_members_of_records_are_those_of_the_code() -> None:
    for section, members in (
        ("Envelope", record.Envelope.__struct_fields__),
        ("`report`", bodies.ReportBody.__struct_fields__),
        ("`outcome`", bodies.OutcomeBody.__struct_fields__),
        *((f"`{name}`", body.__struct_fields__) for name, body in steps.STEP_TYPES.items()),
        ("`transfer`", steps.Custody.__struct_fields__),
        ("`correction`", steps.Corrected.__struct_fields__),
    ):
        text = SPECIFICATION.section(section)
        assert not [name for name in members if not re.search(rf"[`{{ ]{name}[`.,}}]", text)], section
    report = SPECIFICATION.section("`report`")
    for struct in (bodies.Qualification, bodies.Hosting, bodies.Flags):
        assert not [name for name in struct.__struct_fields__ if not re.search(rf"[`.]{name}`", report)], struct


def test_what_canonical_means_is_said_where_it_is_done() -> None:
    assert "RFC 9651, section 4.1" in (httpsig.__doc__ or "")
    assert "RFC 9651 section 4.1" in SPECIFICATION.section("4. HTTP profile")
