"""The parts of the documents that are made from the code: `python -m tests.docs.generated` writes them anew.

A part stands between `<!-- generated: NAME -->` and `<!-- end -->`. Everything else is written by hand.
"""

import ast
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, cast
from unittest.mock import MagicMock

import node.settings
from node.conformance.checks import Check
from node.conformance.table import CHECKS, CHECKS_OF_DESK
from node.coordinator.deskdoor import DeskApi
from node.hotline.api.recovery import RecoveryApi
from node.hotline.domain.lifecycle import MARKS, RECORDS, UNKNOWN, Code, Said, Speaker, State
from node.hotline.serve import api_routes, peer_door, peer_routes
from node.platform.routes import Auth, Route
from protocol.problems import REGISTRY
from tests.docs.diagrams import is_anybodys, mermaid, records_mermaid, voices
from tests.docs.pages import ROOT, every_page
from tests.vectors.make import read_stored

_PART: Final = re.compile(r"<!-- generated: ([a-z-]+) -->\n(.*?)<!-- end -->\n", re.DOTALL)
_FOLDERS: Final = (
    "protocol",
    "geo",
    "node",
    "node/platform",
    "node/platform/cli",
    "node/hotline",
    "node/hotline/domain",
    "node/hotline/store",
    "node/hotline/gateways",
    "node/hotline/flows",
    "node/hotline/flows/apply",
    "node/hotline/flows/transfer",
    "node/hotline/api",
    "node/hotline/cli",
    "node/conformance",
    "node/coordinator",
    "node/coordinator/cli",
    "node/demo",
)
#: A line of base64 of an ML-DSA-44 signature has more than 3,000 characters; a reader needs none of them.
_SHOWN_CHARS: Final = 120
_CUT: Final = "…"
#: Before these members of an example record a line is broken.
_LINE_ENDS: Final = re.compile(
    ',"(?=(?:id|iss|parent|handling|body|url|referrer|hashes|site_type|channel|qualification|hosting|evidence|dns'
    '|addresses|databases|accepted|refused|original|trail)":)'
)
_PROOF: Final = re.compile(r'("original":"[^"]{60})[^"]*')
_BROKEN: Final = ',\n"'


def served(*, door: str) -> tuple[Route, ...]:
    """Return the routes of a door, `api`, `peer`, `desk` or `recovery`; their handlers lead nowhere."""
    stand_in = cast("Any", MagicMock())
    if door == "recovery":
        return tuple(RecoveryApi(stand_in, stand_in, stand_in, stand_in).routes())
    if door == "desk":
        return tuple(DeskApi(stand_in, stand_in).routes())
    if door == "peer":
        return peer_routes(stand_in, peer_door(stand_in, stand_in), stand_in)
    return tuple(api_routes(stand_in, stand_in))


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table."""
    names = list(head)
    lines = [names, ["---"] * len(names), *rows]
    return "".join("| " + " | ".join(cell.replace("|", r"\|") for cell in line) + " |\n" for line in lines)


def _settings() -> str:
    options = node.settings.OPTIONS

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


def _record_table() -> str:
    """Return what every record does in every state, the states with one result together."""
    rows: dict[tuple[Said, str, str], list[str]] = {}
    order = [(said, who, speaker) for said in Said for who, speaker in voices(said).items()]
    for said, who, speaker in order:
        for state in State:
            rows.setdefault((said, who, _then(state, said, speaker)), []).append(f"`{state}`")
        # What is in no row of the table is refused in one way.
        other = (said, who, f"refused: `{Code.NOT_COMPETENT}`")
        if other in rows:
            rows[other] = rows.pop(other)
        for then in [then for one, name, then in rows if (one, name) == (said, who)]:
            if len(rows[said, who, then]) == len(State):
                rows[said, who, then] = ["every state"]
            elif then == other[2]:
                rows[other] = ["every other state"]
    told = [said for said in Said if not is_anybodys(said)]
    assert {RECORDS[state, said, Speaker.STRANGER] for state in State for said in told} == {Code.NOT_COMPETENT}
    cells = [(f"`{said}`", who, ", ".join(states), then) for (said, who, then), states in rows.items()]
    cells.append(("any other", "stranger", "every state", f"refused: `{Code.NOT_COMPETENT}`"))
    return table(("record", "said by the item's", "in state", "then"), cells)


def _then(state: State, said: Said, speaker: Speaker) -> str:
    result = RECORDS[state, said, speaker]
    if isinstance(result, Code):
        return f"refused: `{result}`"
    mark = MARKS.get((state, said)) if speaker is Speaker.CUSTODIAN else None
    return ("stays" if result is state else f"`{result}`") + ("" if mark is None else f", marked `{mark}`")


def _unknown_table() -> str:
    """Return what every record does where no item of its id is here, the records with one result together."""
    rows: dict[str, list[str]] = {}
    for said in Said:
        result = UNKNOWN[said]
        then = "is kept" if result is None else f"refused: `{result}`" if isinstance(result, Code) else f"`{result}`"
        rows.setdefault(then, []).append(f"`{said}`")
    return table(("records", "then"), ((", ".join(saids), then) for then, saids in rows.items()))


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
    # A proof within a record is a long line, of which a reader needs the beginning.
    lines = [_PROOF.sub(rf"\1{_CUT}", line) for line in _LINE_ENDS.sub(_BROKEN, raw).splitlines()]
    shown = "```json\n" + "\n".join(lines) + "\n```\n"
    return f"{shown}\nOn one line it has {example['bytes']:,} bytes and the leaf hash `{example['leaf_hash']}`.\n"


def _headers(name: str, side: str) -> str:
    said = read_stored()["messages"][name][side]
    first = f"{said['method']} {said['target_uri']}" if side == "request" else str(said["status"])
    lines = [first, *(f"{field}: {value}" for field, value in said["headers"].items())]
    return "```\n" + "\n".join(lines) + "\n```\n"


def _whole(name: str, side: str) -> str:
    return f"```\n{read_stored()['messages'][name][side]['signature_base']}\n```\n"


def _checks(checks: Iterable[Check]) -> str:
    return table(
        ("number", "check", "section", "what is sent", "what is awaited"),
        (
            (
                str(number),
                f"`{one.name}`",
                one.section,
                one.sends,
                one.expects + (" (destructive)" if one.trace else ""),
            )
            for number, one in enumerate(checks, start=1)
        ),
    )


PARTS: Final[Mapping[str, Callable[[], str]]] = {
    "settings": _settings,
    "registry": _registry,
    "checks": lambda: _checks(CHECKS),
    "desk-checks": lambda: _checks(CHECKS_OF_DESK),
    "lifecycle": lambda: f"```mermaid\n{mermaid()}```\n",
    "record-table": _record_table,
    "record-unknown": _unknown_table,
    "record-states": lambda: f"```mermaid\n{records_mermaid()}```\n",
    "modules": _modules,
    "routes": lambda: _routes("api"),
    "peer-routes": lambda: _routes("peer"),
    "desk-routes": lambda: _routes("desk"),
    "recovery-routes": lambda: _routes("recovery"),
    "record-page": lambda: _record("page"),
    "record-media": lambda: _record("media"),
    "record-outcome": lambda: _record("outcome"),
    "record-assessment": lambda: _record("assessment"),
    "record-action": lambda: _record("action"),
    "record-transfer": lambda: _record("transfer"),
    "record-correction": lambda: _record("correction"),
    "record-withdrawal": lambda: _record("withdrawal"),
    "record-status": lambda: _record("status-final"),
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
