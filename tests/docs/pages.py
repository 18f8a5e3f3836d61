"""The documents as the tests read them: their text, headings, links, tables and blocks of code. Writes nothing."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
PAGES: Final = (
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "bench/README.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "deploy").rglob("*.md")),
)
_FENCE: Final = re.compile(r"^( *)```([a-z]*)\n(.*?)^ *```$", re.DOTALL | re.MULTILINE)
_HEADING: Final = re.compile(r"^(#{1,6}) (.+)$", re.MULTILINE)
_LINK: Final = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_CODE: Final = re.compile(r"`[^`\n]+`")


@dataclass(frozen=True)
class Page:
    """One document."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path.relative_to(ROOT))

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def prose(self) -> str:
        """The text without blocks of code."""
        return _FENCE.sub("", self.text)

    def code(self, *languages: str) -> list[str]:
        """The blocks of code, of these languages or of all."""
        return [found[3] for found in _FENCE.finditer(self.text) if not languages or found[2] in languages]

    def links(self) -> list[str]:
        return _LINK.findall(_CODE.sub("", self.prose))

    def anchors(self) -> set[str]:
        """What a link may point at behind `#`, as forges make it from headings."""
        return {_anchor(found[2]) for found in _HEADING.finditer(self.prose)}

    def section(self, title: str) -> str:
        """The text below the heading `title`, up to the next heading of its level or above, code included."""
        found = re.search(rf"^(#{{1,6}}) {re.escape(title)}$", self.text, re.MULTILINE)
        assert found is not None, f"{self.name} has no section {title!r}"
        after = self.text[found.end() :]
        end = re.search(rf"^#{{1,{len(found[1])}}} ", after, re.MULTILINE)
        return after if end is None else after[: end.start()]


def page(name: str) -> Page:
    """Return the document of this name, from the top of the project."""
    return Page(ROOT / name)


def every_page() -> list[Page]:
    return [Page(path) for path in PAGES if path.exists()]


def rows(text: str) -> Iterator[list[str]]:
    """Yield the cells of each row of the tables in `text`, heads and rules left out."""
    lines = text.splitlines()
    for at, line in enumerate(lines):
        if not line.startswith("|") or set(line) <= set("|-: "):
            continue
        following = lines[at + 1] if at + 1 < len(lines) else ""
        if following.startswith("|") and set(following) <= set("|-: "):
            continue
        # A bar inside a cell is written `\|`.
        yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def first_code(cell: str) -> str:
    """Return what stands between the first pair of backquotes of a cell."""
    found = re.match(r"`([^`]+)`", cell)
    assert found is not None, cell
    return found[1]


def _anchor(heading: str) -> str:
    plain = re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower())
    return plain.replace(" ", "-")
