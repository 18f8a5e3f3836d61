"""`hotline conformance` from a new test member to the list of what a running node fails: every step a command."""

import json
from pathlib import Path

from node.conformance.table import CHECKS, CHECKS_OF_DESK
from tests.cli.conftest import Hotline, NewHome, Signers, program
from tests.cli.test_network import serving, wait_for


def test_a_new_member_is_listed_and_checks_a_running_node(
    hotline: Hotline, new_home: NewHome, signers: Signers, tmp_path: Path
) -> None:
    nl, tester = new_home("NL"), tmp_path / "tester"
    made = hotline("conformance", "--new-member", tester, "--id", "tester.hotline.example")
    assert made.status == 0, made.err
    assert (tester / "keys").stat().st_mode & 0o777 == 0o700
    assert all(one.stat().st_mode & 0o777 == 0o600 for one in tester.rglob("*.key"))
    members = (nl.data / "descriptor.json", tester / "descriptor.json")
    pin = signers.begin(*members)
    said = hotline("--settings", nl.settings, "join", signers.repository, "--root-fingerprint", pin)
    assert said.status == 0, said.err
    address = json.loads(members[0].read_text())["base_url"]
    directory = nl.data / "directory"
    call = ("conformance", address, "--member", tester, "--directory", directory, "--root-fingerprint", pin)
    with serving(nl) as process:
        wait_for(process, "serve.start")
        said = program(*call, "--json")
        shown = program(*call)
    assert said.status == 0, said.out
    document = json.loads(said.out)
    assert (document["node"], document["failed"]) == (nl.id, 0)
    assert [one["number"] for one in document["checks"]] == list(range(1, len(CHECKS) + 1))
    assert {one["result"] for one in document["checks"]} == {"ok", "not run"}
    assert shown.status == 0
    assert "  1  ok       well-known  [5. GET /.well-known/hx-node]" in shown.out
    assert shown.out.splitlines()[-1].startswith(f"{nl.id}: ")
    # Nothing answers any more.
    gone = hotline(*call)
    assert gone.status == 2
    assert "cannot be asked" in gone.err


def test_the_checks_are_listed_without_a_node(hotline: Hotline) -> None:
    said = hotline("conformance", "--list")
    assert said.status == 0
    assert len(said.out.splitlines()) == len(CHECKS) + len(CHECKS_OF_DESK)


def test_what_is_missing_or_wrong_is_said_and_nothing_is_written(hotline: Hotline, tmp_path: Path) -> None:
    assert "ADDRESS is missing" in hotline("conformance").err
    assert "--id is missing" in hotline("conformance", "--new-member", tmp_path / "one").err
    bad = hotline("conformance", "--new-member", tmp_path / "one", "--id", "Not An Id")
    assert bad.status == 2
    assert "No directory could list this member" in bad.err
    assert not (tmp_path / "one").exists()
    held = tmp_path / "held"
    held.mkdir()
    (held / "file").write_text("kept")
    assert "is not empty" in hotline("conformance", "--new-member", held, "--id", "tester.test").err
    assert [one.name for one in held.iterdir()] == ["file"]


def test_every_check_has_its_own_name_and_a_section_that_exists() -> None:
    names = [check.name for check in CHECKS]
    assert len(names) == len(set(names))
    text = (Path(__file__).resolve().parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
    headings = {line.lstrip("#").strip().replace("`", "") for line in text.splitlines() if line.startswith("#")}
    numbers = {heading.partition(".")[0]: heading for heading in headings if heading[:1].isdigit()}
    for check in CHECKS:
        number, _, rest = check.section.partition(". ")
        title = rest.partition(", step")[0]
        assert number in numbers, check.name
        assert title in headings or f"{number}. {title}" in headings, f"{check.name}: {check.section}"
