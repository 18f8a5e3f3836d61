"""The documents hold together: links lead somewhere, commands exist, no host or path is named that should not be."""

import re
from pathlib import Path
from typing import Final

import pytest

import bench.__main__
from node.__main__ import COMMANDS
from tests.docs.pages import ROOT, Page, every_page, page

EVERY: Final = every_page()
#: Sources that documents name; everything else has to be a reserved name (RFC 2606) or this machine.
_SOURCES: Final = frozenset({"c2sp.org"})
_HOST: Final = re.compile(r"\b[a-z][a-z0-9+.-]*://([^/\s\"'`)<>\\]+)")
_RESERVED: Final = re.compile(
    r"(.*@)?([a-z0-9.-]+\.)?(example|test|invalid|localhost)(:\d+)?|127\.0\.0\.1(:\d+)?|localhost"
)
#: Names inside one deployment, and what stands for a name.
_INSIDE: Final = re.compile(r"(hotline@)?(\$\{\w+\}|…;?|fr-database|nl-database)?(:\d+)?")
_PERSONAL: Final = re.compile(r"(?<![\w.])/(work|home|root|tmp|Users)/")
_NUMBER: Final = re.compile(r"^\s*\d+\. ")
_PROSE_WITH_TWO_SENTENCES: Final = re.compile(r"[a-z0-9`)][.!?] [A-Z]")


@pytest.mark.parametrize("one", EVERY, ids=lambda one: str(one.name))
def test_links_lead_to_files_and_headings_that_are_there(one: Page) -> None:
    for link in one.links():
        if "://" in link:
            assert re.match(r"https://([^/]+)", link)[1] in _SOURCES, link  # type: ignore[index]
            continue
        target, _, anchor = link.partition("#")
        path = (one.path.parent / target).resolve() if target else one.path
        assert path.is_relative_to(ROOT), link
        assert path.exists(), f"{one.name} links to {link}"
        if anchor:
            assert anchor in Page(path).anchors(), f"{one.name} links to {link}"


def test_every_document_is_reached_from_the_first_one() -> None:
    reached: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        path = waiting.pop()
        if path in reached or path.suffix != ".md":
            continue
        reached.add(path)
        waiting += [(path.parent / link.split("#")[0]).resolve() for link in Page(path).links() if "://" not in link]
    assert {one.path for one in EVERY} <= reached


@pytest.mark.parametrize("one", EVERY, ids=lambda one: str(one.name))
def test_no_host_is_named_that_is_not_reserved_and_no_path_of_a_person(one: Page) -> None:
    for host in _HOST.findall(one.text):
        assert _RESERVED.fullmatch(host) or _INSIDE.fullmatch(host) or host in _SOURCES, host
    assert _PERSONAL.search(one.text) is None


@pytest.mark.parametrize("one", EVERY, ids=lambda one: str(one.name))
def test_prose_has_one_sentence_a_line(one: Page) -> None:
    for line in one.prose.splitlines():
        if line.lstrip().startswith(("|", "- ", "#")):
            continue
        assert _PROSE_WITH_TWO_SENTENCES.search(_NUMBER.sub("", line)) is None, line


def test_the_readme_s_commands_are_targets_of_make() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for one in EVERY:
        for called in re.findall(
            r"\bmake ([a-z]+)\b", "\n".join([*one.code("sh"), *re.findall(r"`[^`]+`", one.prose)])
        ):
            assert called in targets, f"{one.name}: make {called}"
    first = page("README.md").code("sh")
    assert [block.strip() for block in first] == ["make demo", "make test"]
    assert (ROOT / ".ci" / "run").read_text(encoding="utf-8").rstrip().endswith("make test")


def test_variables_of_make_that_are_named_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for one in EVERY:
        for variable in re.findall(r"make [a-z]+ ([A-Z]+)=", one.text):
            assert f"$({variable})" in makefile, variable


def test_every_command_of_the_program_that_is_named_exists() -> None:
    for one in EVERY:
        named = [*one.code("sh"), *re.findall(r"`[^`]+`", one.prose)]
        for command in re.findall(r"(?:^|`|/)hotline ([a-z][a-z-]*)\b", "\n".join(named), re.MULTILINE):
            assert command in COMMANDS, f"{one.name}: hotline {command}"


def test_every_module_that_is_called_exists() -> None:
    for one in EVERY:
        for module in re.findall(r"python -m ((?:tests|bench|geo|node)[\w.]*)", one.text):
            path = ROOT / Path(*module.split("."))
            assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module


def test_every_benchmark_is_described() -> None:
    described = set(re.findall(r"`python -m (bench\.\w+)", page("bench/README.md").text))
    assert described == set(bench.__main__.BENCHMARKS)


def test_every_decision_is_listed() -> None:
    listing = page("docs/adr/README.md")
    numbered = sorted(path for path in (ROOT / "docs" / "adr").glob("[0-9]*.md"))
    assert [link for link in listing.links() if re.match(r"\d{4}-", link)] == [path.name for path in numbered]
    for at, path in enumerate(numbered, start=1):
        title = Page(path).text.splitlines()[0]
        assert title.startswith(f"# {at:04} ")
        assert title.removeprefix("# ") in listing.text.replace(f"[{at:04}]({path.name})", f"{at:04}")
        assert [heading for heading in ("Question", "Decision", "What follows") if Page(path).section(heading)]


def test_the_changelog_speaks_of_this_version() -> None:
    version = re.search(r'^version = "([^"]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    assert version is not None
    assert f"\n## {version[1]}\n" in page("CHANGELOG.md").text
