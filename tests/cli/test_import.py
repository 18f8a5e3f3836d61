"""`hotline import` and `hotline assess`: rows in, once; what is wrong listed; what an analyst says stored."""

import json
from pathlib import Path

import pytest

from node.settings import load_settings
from tests.cli.conftest import Home, Hotline, NewHome, program
from tests.cli.test_init import sql

GOOD = "url,classification,law\nhttps://192.0.2.1/a,national,Art. 1\nhttps://198.51.100.1/b,,\n"
BAD = "javascript:alert(1),,\nnot a url at all,,\n"


@pytest.fixture
def home(new_home: NewHome) -> Home:
    """A node without a directory: enough to take reports in."""
    return new_home()


def counts(hotline: Hotline, home: Home) -> dict[str, int]:
    status = json.loads(hotline("--settings", home.settings, "status", "--json").out)
    return {row["state"]: row["items"] for row in status["items"]}


def test_twice_adds_nothing(hotline: Hotline, home: Home, tmp_path: Path) -> None:
    file = tmp_path / "reports.csv"
    file.write_text(GOOD)
    said = hotline("--settings", home.settings, "import", file)
    assert (said.status, said.err) == (0, "")
    assert "Rows read: 2\n  reports taken in: 2\n    items in them: 2 new, 0 known already\n" in said.out
    again = hotline("--settings", home.settings, "import", file, "--json")
    assert (again.status, again.err) == (0, "")
    assert json.loads(again.out) == {
        "rows": 2, "reports": 0, "repeated": 2, "items": 0, "duplicates": 0, "rejected": 0, "rejects": ""
    }  # fmt: skip
    assert counts(hotline, home) == {"locating": 2}
    # Under another source they are other reports, of the same items.
    other = json.loads(hotline("--settings", home.settings, "import", file, "--json", "--source", "other").out)
    assert (other["reports"], other["items"], other["duplicates"]) == (2, 0, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["country.mmdb", "fr", "reports.csv"]


def test_rejected_rows_are_listed_and_disturb_no_other(hotline: Hotline, home: Home, tmp_path: Path) -> None:
    file = tmp_path / "reports.csv"
    file.write_text(GOOD + BAD)
    said = hotline("--settings", home.settings, "import", file)
    assert said.status == 1
    listed = tmp_path / "reports.csv.rejects.ndjson"
    assert f"rejected: 2, listed in {listed}" in said.out
    rows = [json.loads(line) for line in listed.read_text().splitlines()]
    assert [(row["row"], row["line"], row["field"]) for row in rows] == [(3, 4, "url"), (4, 5, "url")]
    assert "alert" not in listed.read_text() + said.out + said.err
    assert listed.stat().st_mode & 0o077 == 0
    assert counts(hotline, home) == {"locating": 2}
    elsewhere = tmp_path / "list"
    assert hotline("--settings", home.settings, "import", file, "--rejects", elsewhere).status == 1
    assert elsewhere.read_text() == listed.read_text()


def test_a_file_that_cannot_be_read_changes_nothing(hotline: Hotline, home: Home, tmp_path: Path) -> None:
    file = tmp_path / "reports.csv"
    call = ("--settings", home.settings, "import")

    def refused(sentence: str, *words: object) -> None:
        said = hotline(*call, *words)
        assert said.status == 2
        assert sentence in said.err
        assert said.err.count("\n") == 1

    refused("The file cannot be read: No such file or directory.", file)
    refused("The file cannot be read: Is a directory.", tmp_path)
    file.write_bytes(b"")
    refused("The file was refused: the file is empty.", file)
    file.write_text("a,b\n1,2\n")
    refused("`url` has to be among them", file)
    file.write_text("url,classifcation\n")
    refused("column `classifcation` is not known", file)
    file.write_text(GOOD)
    refused("The rejects file would be the file that is read", file, "--rejects", file)
    refused("The rejects file would be a folder", file, "--rejects", tmp_path)
    refused("There is no folder", file, "--rejects", tmp_path / "no" / "list")
    refused("The submitter's name has 1 to 64", file, "--submitter", "")
    assert file.read_text() == GOOD
    assert counts(hotline, home) == {}


def test_standard_input_of_a_program(home: Home, hotline: Hotline) -> None:
    line = json.dumps({"url": "https://192.0.2.7/x", "reference": "r-1"})
    said = program(
        "--settings",
        home.settings,
        "import",
        "-",
        "--submitter",
        "partner",
        "--json",
        stdin=f"{line}\n{{}}\n",
        cwd=home.folder,
    )
    assert (said.status, said.err) == (1, "")
    result = json.loads(said.out)
    assert (result["rows"], result["reports"], result["rejected"]) == (2, 1, 1)
    assert Path(result["rejects"]) == home.folder / "import.rejects.ndjson"
    assert counts(hotline, home) == {"locating": 1}


def test_an_analyst_sets_a_qualification(hotline: Hotline, home: Home, tmp_path: Path) -> None:
    file = tmp_path / "reports.csv"
    file.write_text("url\nhttps://192.0.2.1/a\n")
    assert hotline("--settings", home.settings, "import", file).status == 0
    url = load_settings(home.settings, {}).database_url
    item = sql(url, "SELECT id FROM items")

    def assess(*words: object) -> tuple[int, str]:
        said = hotline("--settings", home.settings, "assess", *words)
        return said.status, said.out + said.err

    assert assess(item, "--classification", "not-illegal") == (0, f"Item {item} is closed now.\n")
    words = ("--classification", "baseline", "--law", "Art. 2", "--age", "pubescent", "--virtual", "no", "--by", "AB")
    assert assess(item, *words, "--at", "2026-11-01T10:00:00Z") == (0, f"Item {item} is locating now.\n")
    stored = json.loads(str(sql(url, "SELECT qualification::text FROM items")))
    assert stored["at"].startswith("2026-11-01T10:00:00")
    assert (stored["law"], stored["age"], stored["virtual"], stored["by"]) == ("Art. 2", "pubescent", False, "AB")
    status, text = assess(item, "--classification", "not-illegal")
    assert status == 2
    assert "a baseline qualification is final" in text
    status, text = assess(item, "--classification", "national", "--at", "yesterday")
    assert (status, text.startswith("hotline: Option --at: ")) == (2, True)
    status, text = assess("0192f7a0-0000-7000-8000-000000000001", "--classification", "national")
    assert (status, text) == (2, "hotline: There is no item 0192f7a0-0000-7000-8000-000000000001.\n")
    said = hotline("--settings", home.settings, "prove", item)
    assert said.err == f"hotline: Nothing can be proven of item {item}: no record of this item was sent or received.\n"


def test_what_is_done_about_an_item_is_said_on_the_line(hotline: Hotline, home: Home, tmp_path: Path) -> None:
    file = tmp_path / "reports.csv"
    file.write_text("url\nhttps://192.0.2.1/a\n")
    assert hotline("--settings", home.settings, "import", file).status == 0
    url = load_settings(home.settings, {}).database_url
    item = sql(url, "SELECT id FROM items")

    def say(command: str, *words: object) -> tuple[int, str]:
        said = hotline("--settings", home.settings, command, item, *words)
        return said.status, said.out + said.err

    status, text = say("act", "removed")
    assert (status, text) == (
        2,
        "hotline: The action is refused: no hotline has been assigned an item that is locating.\n",
    )
    status, text = say("act", "removed", "--reason", "other")
    assert (status, text) == (2, "hotline: Option --reason: this action has no reason.\n")
    referrer = tmp_path / "referrer"
    referrer.write_text("https://board.example/thread/1\n")
    words = ("--site-type", "forum", "--hash", f"md5:{'f' * 32}", "--referrer-file", referrer, "--reference", "R-2")
    assert say("correct", *words) == (0, f"The report of item {item} is corrected; the item is locating.\n")
    assert sql(url, "SELECT site_type FROM cases") == "forum"
    status, text = say("correct")
    assert (status, text) == (2, "hotline: The correction: nothing is corrected.\n")
    status, text = say("correct", "--hash", "md5:1")
    assert status == 2
    assert text.startswith("hotline: hashes[0].value: ")
    # The node's own reason, and no person's.
    status, text = say("withdraw", "--reason", "rerouted")
    assert status == 2
    assert "--reason" in text
    assert "'rerouted'" in text
    for _ in range(2):
        assert say("withdraw", "--reason", "other") == (0, f"Item {item} is withdrawn now.\n")
    status, text = say("correct", "--site-type", "blog")
    assert status == 2
    assert "withdrawn" in text
