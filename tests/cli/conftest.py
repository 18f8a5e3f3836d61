"""Calls the command line in this process or as a program, in a folder of the test's own, on a database of its own."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from node.__main__ import main
from node.platform.embedded import EmbeddedPostgres
from tests.patience import stretched
from tests.ports import free_port
from tests.world import write_country_file

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Said:
    """What a call of the command line ended with and said."""

    status: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Home:
    """The folder of one node that `hotline init` set up."""

    folder: Path
    id: str

    @property
    def settings(self) -> Path:
        return self.folder / "hotline.toml"

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def add(self, line: str) -> None:
        """Append a line to the settings file."""
        with self.settings.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")


Hotline = Callable[..., Said]
NewHome = Callable[..., Home]


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No settings of the machine, a folder of the test's own, and logging as it was afterwards."""
    for name in os.environ:
        if name.startswith(("HOTLINE_", "GEOIPUPDATE_")):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)


@pytest.fixture
def hotline(capsys: pytest.CaptureFixture[str]) -> Hotline:
    """Return a function that calls the command line in this process."""

    def call(*arguments: object) -> Said:
        capsys.readouterr()
        try:
            status = main([str(each) for each in arguments])
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else 1
        said = capsys.readouterr()
        return Said(status, said.out, said.err)

    return call


def program(*arguments: object, stdin: str = "", cwd: Path | None = None) -> Said:
    """Run `python -m node` as a program of its own and wait for its end."""
    done = subprocess.run(
        command(*arguments),
        check=False,
        capture_output=True,
        text=True,
        input=stdin,
        timeout=stretched(60),
        cwd=cwd,
        env=environment(),
    )
    return Said(done.returncode, done.stdout, done.stderr)


def command(*arguments: object) -> list[str]:
    """Return the words that start the command line as a program."""
    return [sys.executable, "-m", "node", *(str(each) for each in arguments)]


def environment() -> dict[str, str]:
    """Return an environment in which the program is found from any folder."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("HOTLINE_")}
    return {**kept, "PYTHONPATH": str(ROOT)}


def init_arguments(country: str, database_url: str, folder: Path) -> list[str]:
    """Return what `hotline init` is called with for a node on the loopback that hosts documentation addresses."""
    port = free_port()
    file = folder / "country.mmdb"
    if not file.exists():
        write_country_file(file)
    options = {
        "--node-id": f"{country.lower()}.hotline.example",
        "--country": country,
        "--base-url": f"http://127.0.0.1:{port}",
        "--listen-peer": f"127.0.0.1:{port}",
        "--listen-api": f"127.0.0.1:{free_port()}",
        "--database-url": database_url,
        "--dns-server": "127.0.0.1:9",
        "--contact": "ops@hotline.example",
    }
    words = [word for pair in options.items() for word in pair]
    for pair in (f"geo_country_databases={file}", "geo_allow_reserved=true", "database_pool_size=2", "poll_s=0.1"):
        words += ["--set", pair]
    return words


@dataclass(frozen=True, slots=True)
class Signers:
    """The keys of a directory for tests: one for all that people sign, two for the machine; and where it is."""

    folder: Path
    hotline: Hotline

    @property
    def repository(self) -> Path:
        return self.folder / "repository"

    @property
    def key(self) -> Path:
        return self.folder / "signer.key"

    def pub(self, name: str) -> Path:
        return self.folder / f"{name}.key.pub"

    def online(self) -> list[object]:
        return ["--snapshot-key", self.folder / "snapshot.key", "--timestamp-key", self.folder / "timestamp.key"]

    def begin(self, *members: Path, mandated: str | None = None) -> str:
        """Make keys and the first directory, publish it, and return the root's fingerprint."""
        self.folder.mkdir()
        for name in ("signer", "snapshot", "timestamp"):
            self.say("new-key", self.folder / f"{name}.key")
        proposal = self.folder / "1"
        people = ("--root-key", self.pub("signer"), "--directory-key", self.pub("signer"))
        machine = ("--snapshot-key", self.pub("snapshot"), "--timestamp-key", self.pub("timestamp"))
        said = self.say("init", proposal, *people, *machine)
        self.say("propose", proposal, "--member", *members, *([] if mandated is None else ["--mandated", mandated]))
        self.publish(proposal)
        return said.out.split()[-1]

    def change(self, *words: object) -> None:
        """Propose a change, sign and publish it."""
        proposal = self.folder / str(len(list(self.folder.iterdir())))
        self.say("propose", proposal, "--published", self.repository, *words)
        self.publish(proposal)

    def publish(self, proposal: Path) -> None:
        self.say("sign", proposal, "--key", self.key)
        self.say("publish", proposal, "--to", self.repository, *self.online())

    def say(self, *words: object) -> Said:
        said = self.hotline("directory", *words)
        assert said.status == 0, said.err
        return said


@pytest.fixture
def signers(hotline: Hotline, tmp_path: Path) -> Signers:
    """Keys that sign a directory; `begin` makes them."""
    return Signers(tmp_path / "signers", hotline)


@pytest.fixture
def new_home(hotline: Hotline, new_database: Callable[[], str], tmp_path: Path) -> NewHome:
    """Return a function that sets a node of a country up and returns its folder."""

    def make(country: str = "FR") -> Home:
        home = Home(tmp_path / country.lower(), f"{country.lower()}.hotline.example")
        home.folder.mkdir()
        arguments = init_arguments(country, new_database(), tmp_path)
        said = hotline("--settings", home.settings, "init", *arguments)
        assert said.status == 0, said.err
        return home

    return make


@pytest.fixture
def empty_database(postgres: EmbeddedPostgres) -> str:
    name = f"e_{uuid4().hex[:12]}"
    postgres.create_database(name)
    return postgres.url(name)


@pytest.fixture
def coordinator(tmp_path: Path, hotline: Hotline, empty_database: str) -> Home:
    """A coordinator that `hotline init` set up."""
    home = Home(tmp_path / "c", "coordinator.example")
    home.folder.mkdir()
    said = hotline("--settings", home.settings, "init", *init_words(empty_database))
    assert said.status == 0, said.err
    assert "hotline directory init" in said.out
    return home


def init_words(database: str) -> list[str]:
    """Return what `hotline init` is called with for a coordinator."""
    port = free_port()
    return [
        *("--role", "coordinator", "--node-id", "coordinator.example", "--base-url", f"http://127.0.0.1:{port}"),
        *("--listen-peer", f"127.0.0.1:{port}", "--listen-api", f"127.0.0.1:{free_port()}"),
        *("--database-url", database),
    ]


def published(coordinator: Home, hotline: Hotline, members: list[Home]) -> str:
    """Hold the ceremonies, publish into the coordinator's database, and return the root's fingerprint."""

    def says(*words: object) -> Said:
        said = hotline("--settings", coordinator.settings, *words)
        assert (said.status, said.err) == (0, ""), said
        return said

    online, folder = coordinator.data / "directory-keys", coordinator.folder
    says("directory", "new-key", folder / "ada.key")
    people = ("--root-key", folder / "ada.key.pub", "--directory-key", folder / "ada.key.pub")
    machine = ("--snapshot-key", online / "snapshot.key.pub", "--timestamp-key", online / "timestamp.key.pub")
    pin = says("directory", "init", folder / "first", *people, *machine).out.split()[-1]
    descriptors = [home.data / "descriptor.json" for home in members]
    out = says(
        "directory", "propose", folder / "first", "--member", *descriptors, "--desk", coordinator.data / "desk.json"
    ).out
    assert "The desk: none → coordinator.example." in out
    says("directory", "sign", folder / "first", "--key", folder / "ada.key")
    says("directory", "publish", folder / "first")
    return pin
