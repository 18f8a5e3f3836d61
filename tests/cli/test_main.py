"""The frame of the command line: help, exit statuses, and what it never says."""

import asyncio
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest

from node import __main__ as program_module
from node.__main__ import COMMANDS
from node.clock import SystemClock
from node.platform.cli.command import Context
from tests.cli.conftest import Hotline, program

URL = "https://host.example/secret-path"


def test_it_explains_itself(hotline: Hotline) -> None:
    said = hotline("--help")
    assert said.status == 0
    for name, entry in COMMANDS.items():
        assert f"  {name} " in said.out
        assert entry.summary in said.out
    for name in COMMANDS:
        help_of = hotline(name, "--help")
        assert help_of.status == 0
        assert help_of.out.startswith(f"usage: hotline {name}")
    assert hotline("directory", "propose", "--help").status == 0
    assert hotline("keys", "api", "new", "--help").status == 0
    assert hotline("--version").out.startswith("hotline ")


def test_a_wrong_call_ends_with_2(hotline: Hotline) -> None:
    for call in ((), ("frobnicate",), ("import",), ("status", "--jso"), ("keys",), ("keys", "api"), ("geo", "fetch")):
        said = hotline(*call)
        assert (said.status, said.out) == (2, "")
        assert "usage: hotline" in said.err


def test_the_settings_may_stand_anywhere(hotline: Hotline, tmp_path: Path) -> None:
    for call in (
        ("--settings", "elsewhere.toml", "status"),
        ("status", "--settings", "elsewhere.toml"),
        ("keys", "api", "list", "--settings=elsewhere.toml"),
    ):
        said = hotline(*call)
        assert said.status == 2
        assert said.err == "hotline: There is no settings file elsewhere.toml; `hotline init` writes one.\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "call",
    [
        ("assess", URL, "--classification", "national"),
        ("assess", "x", "--classification", URL),
        ("prove", URL),
        ("import", URL),
        ("verify", URL, "--directory", "x", "--root-fingerprint", "y"),
        ("keys", "api", "revoke", "x", URL),
        (URL,),
        ("geo", "status", f"--into={URL}"),
    ],
)
def test_a_url_that_was_pasted_is_not_repeated(hotline: Hotline, call: tuple[str, ...]) -> None:
    said = hotline(*call)
    assert said.status == 2
    assert "secret-path" not in said.out + said.err


def test_an_interruption_is_no_error(hotline: Hotline, monkeypatch: pytest.MonkeyPatch) -> None:
    async def interrupted() -> None:
        raise KeyboardInterrupt

    def run(_arguments: Namespace, context: Context) -> int:
        context.run(interrupted())
        return 0

    def add_arguments(parser: ArgumentParser) -> None:
        parser.set_defaults(run=run)

    monkeypatch.setitem(sys.modules, "interrupted", SimpleNamespace(add_arguments=add_arguments))
    monkeypatch.setattr(program_module, "COMMANDS", {"import": COMMANDS["import"]._replace(module="interrupted")})
    said = hotline("import")
    assert (said.status, said.err) == (130, "hotline: interrupted.\n")


def test_an_unforeseen_error_tells_its_place_and_not_its_words(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="secret-path") as raised:
        int(URL)
    program_module._say_place_only(raised.type, raised.value, raised.tb)
    said = capsys.readouterr().err
    assert said.startswith("hotline: unforeseen error ValueError at test_main.py:")
    assert "secret-path" not in said


def test_as_a_program_it_runs_without_a_folder_of_settings(tmp_path: Path) -> None:
    assert program("--version", cwd=tmp_path).out.startswith("hotline ")
    said = program("status", cwd=tmp_path)
    assert (said.status, said.out) == (2, "")
    assert said.err == (
        "hotline: Setting node_id: is required and not set; "
        f"there is no settings file {tmp_path}/hotline.toml, `hotline init` writes one.\n"
    )


def test_commands_run_on_a_fast_loop_where_there_is_one() -> None:
    async def loop_module() -> str:
        return type(asyncio.get_running_loop()).__module__

    expected = "uvloop" if sys.platform != "win32" else "asyncio"
    context = Context({}, None, SystemClock())
    assert context.run(loop_module()).startswith(expected)
