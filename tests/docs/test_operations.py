"""The operator's page names every command with its options, every metric, every log line."""

import argparse
import importlib
import re
from collections.abc import Iterator
from typing import Any, Final

import pytest
from prometheus_client.metrics import MetricWrapperBase

from node.__main__ import COMMANDS
from node.hotline.domain.rows import COLUMNS
from node.platform.apikeys import Role
from node.platform.cli.command import Parser
from node.platform.telemetry import _METRICS, Metrics
from tests.docs.pages import PAGES, ROOT, Page, first_code, page, rows

OPERATIONS: Final[Page] = page("docs/operations.md")
#: A call of the program in a page: the command, and what stands behind it.
_CALL: Final = re.compile(r"(?<![\w./-])hotline (?:--settings \S+ )?([a-z][a-z-]*)([^|;&]*)")


def test_every_command_has_its_section_and_no_other_has_one() -> None:
    described = re.findall(r"^### hotline ([a-z-]+)$", OPERATIONS.text, re.MULTILINE)
    assert sorted(described) == sorted(COMMANDS)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_a_command_s_section_names_its_actions_and_options(name: str) -> None:
    parser = Parser(prog=f"hotline {name}")
    importlib.import_module(COMMANDS[name].module).add_arguments(parser)
    section = OPERATIONS.section(f"hotline {name}")
    for words, option in _options(parser, f"hotline {name}"):
        assert words in section, f"{words} is not described"
        assert option == "" or re.search(rf"{re.escape(option)}(?![\w-])", section), f"{words} {option}"


def _options(parser: argparse.ArgumentParser, words: str) -> Iterator[tuple[str, str]]:
    """Yield each action that can be called, and each long option of it."""
    deeper = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for action in deeper:
        for name, inner in action.choices.items():
            yield from _options(inner, f"{words} {name}")
    if not deeper:
        # The heading of the section names the command itself.
        yield (words if words.count(" ") > 1 else "", "")
        for each in parser._actions:
            for option in each.option_strings:
                if option.startswith("--") and option != "--help":
                    yield ("", option)


@pytest.mark.parametrize("one", [Page(path) for path in PAGES], ids=lambda one: str(one.name))
def test_every_call_that_a_page_shows_is_one_of_the_program(one: Page) -> None:
    lines = [line for block in one.code() for line in block.replace("\\\n", " ").splitlines()]
    for line in (*lines, *re.findall(r"`([^`\n]+)`", one.prose)):
        for name, behind in _CALL.findall(line):
            assert name in COMMANDS, line
            parser = Parser(prog=f"hotline {name}")
            importlib.import_module(COMMANDS[name].module).add_arguments(parser)
            known = {option for _, option in _options(parser, f"hotline {name}")} | {"--settings", "--help"}
            assert set(re.findall(r"--[a-z][a-z-]*", behind)) <= known, line
            actions = {words.split()[2] for words, _ in _options(parser, f"hotline {name}") if words.count(" ") > 1}
            action = re.match(r" ([a-z][a-z-]*)", behind)
            assert not actions or action is None or action[1] in actions, line


def test_every_metric_is_described_with_its_type_and_labels() -> None:
    described: dict[str, tuple[str, list[str]]] = {}
    for cells in rows(OPERATIONS.section("Health, metrics, logs")):
        if cells[0].startswith("`hotline_"):
            described[first_code(cells[0])] = (cells[1], re.findall(r"`(\w+)`", cells[2]))
    made = Metrics.create()
    metrics: dict[str, Any] = {name: getattr(made, name) for name in _METRICS}
    assert described == {_exported(one): (one._type, list(one._labelnames)) for one in metrics.values()}


def _exported(metric: MetricWrapperBase) -> str:
    return f"{metric._name}_total" if metric._type == "counter" else metric._name


def test_every_action_of_the_log_is_described() -> None:
    described = set(re.findall(r"`([a-z]+\.[a-z]+)`", OPERATIONS.section("Health, metrics, logs")))
    said: set[str] = set()
    for path in (ROOT / "node").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        said |= set(re.findall(r'action="([a-z]+\.[a-z]+)"', re.sub(r'"""[\s\S]*?"""', "", text)))
        said |= set(re.findall(r'"(web\.[a-z]+)" if', text))
    assert said <= described


def test_every_column_of_an_import_is_named() -> None:
    section = OPERATIONS.section("Import files")
    assert not [column for column in COLUMNS if f"`{column}`" not in section]


def test_every_role_is_explained() -> None:
    assert [first_code(cells[0]) for cells in rows(OPERATIONS.section("API keys"))] == [role.value for role in Role]


def test_every_loop_that_logs_and_counts_is_named() -> None:
    text = (ROOT / "node" / "hotline" / "jobs.py").read_text(encoding="utf-8")
    loops = set(re.findall(r'(?:_survive\(|_loop\(|args=\()"([a-z]+)"', text))
    assert loops
    rounds = (ROOT / "node" / "coordinator" / "serve.py").read_text(encoding="utf-8")
    coordinators = set(re.findall(r'loop="([a-z]+)"', rounds))
    assert coordinators
    named = re.search(r"a hotline's loops are (.*); the coordinator's are (.*)\.$", OPERATIONS.text, re.MULTILINE)
    assert named is not None
    assert [set(re.findall(r"`([a-z]+)`", said)) for said in named.groups()] == [loops, coordinators]
