"""The page on how the program is built names every transaction and what it is built of."""

import re
from typing import Final

from tests.docs.generated import _FOLDERS
from tests.docs.pages import ROOT, Page, page, rows
from tests.faults.steps import named_transactions

ARCHITECTURE: Final[Page] = page("docs/architecture.md")


def test_the_crash_table_has_every_transaction_once() -> None:
    said = [
        name
        for cells in rows(ARCHITECTURE.section("If we crash here"))
        for name in re.findall(r"`([a-z]+\.[a-z-]+)`", cells[0])
    ]
    assert len(said) == len(set(said))
    assert set(said) == named_transactions()


def test_every_transaction_that_writes_says_what_a_crash_does() -> None:
    for cells in rows(ARCHITECTURE.section("If we crash here")):
        reads = cells[1] == "nothing: they read"
        assert reads or all(cells), cells[0]


def test_every_folder_of_the_program_is_in_the_list_of_modules() -> None:
    folders = {
        str(path.parent.relative_to(ROOT))
        for top in ("protocol", "geo", "node")
        for path in (ROOT / top).rglob("*.py")
        if path.name != "__init__.py"
    }
    assert folders == set(_FOLDERS)


def test_modules_and_folders_that_are_named_exist() -> None:
    text = ARCHITECTURE.section("The way of a report")
    for cells in rows(text):
        for name in re.findall(r"`([a-z]+/[a-z_]+)`", cells[1]):
            if not name.startswith(("geo/", "protocol/")):
                name = f"node/hotline/{name}"  # noqa: PLW2901 -- the table leaves the common part out
            assert (ROOT / f"{name}.py").exists() or (ROOT / name).is_dir(), name
    for one in [ARCHITECTURE, *(Page(path) for path in sorted((ROOT / "docs" / "adr").glob("*.md")))]:
        for name in re.findall(r"`((?:node|geo|protocol)/[\w/.]+\.(?:py|toml))`", one.text):
            assert (ROOT / name).exists(), f"{one.name}: {name}"
