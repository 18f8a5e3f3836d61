"""The parts of the documents that are made from the code: `python -m tests.docs.generated` writes them anew.

A part stands between `<!-- generated: NAME -->` and `<!-- end -->`. Everything else is written by hand.
"""

import ast
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, cast
from unittest.mock import MagicMock

import node.settings
from node.hotline.domain.lifecycle import mermaid
from node.hotline.serve import api_routes, peer_api
from node.platform.routes import Auth, Route
from protocol.problems import REGISTRY
from tests.docs.pages import ROOT, every_page
from tests.vectors.make import read_stored

_PART: Final = re.compile(r"<!-- generated: ([a-z-]+) -->\n(.*?)<!-- end -->\n", re.DOTALL)
_FOLDERS: Final = (
    "protocol",
    "geo",
    "node",
    "node/platform",
    "node/hotline",
    "node/hotline/domain",
    "node/hotline/store",
    "node/hotline/gateways",
    "node/hotline/flows",
    "node/hotline/api",
    "node/hotline/cli",
    "node/demo",
)
#: A line of base64 of an ML-DSA-44 signature has more than 3,000 characters; a reader needs none of them.
_SHOWN_CHARS: Final = 120
_CUT: Final = "…"
#: Before these members of an example record a line is broken.
_LINE_ENDS: Final = re.compile(
    ',"(?=(?:id|iss|parent|handling|body|url|referrer|hashes|site_type|channel|qualification|hosting|evidence|dns'
    '|addresses|databases|accepted|refused)":)'
)
_BROKEN: Final = ',\n"'


def served(*, door: str) -> tuple[Route, ...]:
    """Return the routes of a door, `api` or `peer`; their handlers lead nowhere."""
    stand_in = cast("Any", MagicMock())
    if door == "peer":
        return tuple(peer_api(stand_in).routes())
    return tuple(api_routes(stand_in, stand_in))


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table."""
    names = list(head)
    lines = [names, ["---"] * len(names), *rows]
    return "".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |\n" for line in lines)


def _settings() -> str:
    options = node.settings._OPTIONS

    def limits(name: str) -> str:
        option = options[name]
        if option.choices:
            return ", ".join(f"`{choice}`" for choice in option.choices)
        return "" if option.low is None else f"{option.low:,} to {option.high:,}"

    def default(text: str) -> str:
        return text if text in {"required", "empty"} else f"`{text}`"

    rows = (
        (f"`{row.name}`", row.kind, default(row.default), limits(row.name), row.doc)
        for row in node.settings.documented()
    )
    return table(("setting", "kind", "default", "limits", "what it says"), rows)


def _registry() -> str:
    return table(
        ("code", "status", "retryable", "scope", "title"),
        (
            (f"`{one.code}`", str(one.status), "yes" if one.retryable else "no", one.scope.value, one.title)
            for one in REGISTRY.values()
        ),
    )


def _routes(door: str) -> str:
    def who(route: Route) -> str:
        if route.auth is Auth.HTTP_SIGNATURE:
            return "signed request"
        return ", ".join(f"`{role}`" for role in sorted(route.roles)) or "everybody"

    head = ("operation", "who", "what it does") if door == "peer" else ("operation", "roles", "what it does")
    return table(head, ((f"`{one.method} {one.path}`", who(one), one.summary) for one in served(door=door)))


def _modules() -> str:
    """Return every module with the first line of its docstring, a table a folder."""
    parts = []
    for folder in _FOLDERS:
        rows = []
        for path in sorted((ROOT / folder).glob("*.py")):
            if path.name == "__init__.py":
                continue
            said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
            assert said is not None, path
            rows.append((f"`{path.name}`", said.split("\n\n")[0].replace("\n", " ")))
        parts.append(f"### `{folder}/`\n\n{table(('module', 'what it is for'), rows)}")
    return "\n" + "\n".join(parts) + "\n"


def _block(text: str, language: str = "") -> str:
    """Return a block of code; long lines are cut, and the cut is shown."""
    lines = [line if len(line) <= _SHOWN_CHARS else line[:_SHOWN_CHARS] + _CUT for line in text.splitlines()]
    return f"```{language}\n" + "\n".join(lines) + "\n```\n"


def _record(name: str) -> str:
    """Return an example record, a member a line as far as that helps: on the wire it is one line."""
    example = read_stored()["records"][name]
    raw: str = example["raw"]
    shown = f"```json\n{_LINE_ENDS.sub(_BROKEN, raw)}\n```\n"
    return f"{shown}\nOn one line it has {example['bytes']:,} bytes and the leaf hash `{example['leaf_hash']}`.\n"


def _headers(name: str, side: str) -> str:
    said = read_stored()["messages"][name][side]
    first = f"{said['method']} {said['target_uri']}" if side == "request" else str(said["status"])
    lines = [first, *(f"{field}: {value}" for field, value in said["headers"].items())]
    return "```\n" + "\n".join(lines) + "\n```\n"


def _whole(name: str, side: str) -> str:
    return f"```\n{read_stored()['messages'][name][side]['signature_base']}\n```\n"


PARTS: Final[Mapping[str, Callable[[], str]]] = {
    "settings": _settings,
    "registry": _registry,
    "lifecycle": lambda: f"```mermaid\n{mermaid()}```\n",
    "modules": _modules,
    "routes": lambda: _routes("api"),
    "peer-routes": lambda: _routes("peer"),
    "record-page": lambda: _record("page"),
    "record-media": lambda: _record("media"),
    "record-outcome": lambda: _record("outcome"),
    "note": lambda: _block(read_stored()["batch"]["note"]),
    "receipt": lambda: _block(read_stored()["batch"]["receipt"]),
    "request": lambda: _headers("batch", "request"),
    "request-base": lambda: _whole("batch", "request"),
    "response": lambda: _headers("batch", "response"),
    "response-base": lambda: _whole("batch", "response"),
    "refusal": lambda: f"```json\n{read_stored()['messages']['refusal']['response']['body']}\n```\n",
    "proof": lambda: _block(read_stored()["proof"]["file"]),
    "words": lambda: "```\n" + "\n".join(read_stored()["proof"]["words"]) + "\n```\n",
}


def filled(text: str) -> str:
    """Return a document with every part made anew; KeyError for a part nobody makes."""
    return _PART.sub(lambda part: f"<!-- generated: {part[1]} -->\n{PARTS[part[1]]()}<!-- end -->\n", text)


def main() -> None:
    """Write the parts of every document anew."""
    for one in every_page():
        text = filled(one.text)
        if text != one.text:
            one.path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
