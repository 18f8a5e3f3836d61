"""`hotline demo`: three hotlines and a coordinator on one machine, a file of reports, and the account of every item.

It is a user of the program: it calls the product's own commands and HTTP interface, and imports nothing of it.
"""

import json
import tempfile
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from node.demo.accounting import Status, account, settled
from node.demo.geofiles import write_geofiles
from node.demo.internet import known_relay, make_internet
from node.demo.members import (
    Member,
    Network,
    Node,
    NotAnswering,
    ask,
    make_coordinator,
    make_keys,
    make_members,
    make_network,
    serve,
)
from node.demo.processes import POLL_S, Interrupted, Process, Processes, ProcessFailed, StopRequest, end_database
from node.demo.reports import Expected, Rules, write_reports
from node.demo.show import Bars, account_table, address_table, check_lines, console
from node.errors import OperatorError

SEED: Final = 20_250_602
COUNTRIES: Final = {"FR": "Demo hotline France", "NL": "Demo hotline Netherlands", "DE": "Demo hotline Germany"}
EXIT_FAILED: Final = 1
EXIT_INTERRUPTED: Final = 130
_REPORTS_MIN: Final = 50
_REPORTS_MAX: Final = 100_000
_HOSTS_MIN: Final = 60
_HOSTS_MAX: Final = 2000
_REPORTS_PER_HOST: Final = 7
_NAME_SERVER_S: Final = 20.0
_STALLED_S: Final = 60.0
_ROUND_S: Final = 0.25
_PAGE: Final = 200
_REJECTED: Final = 1  # exit status of `hotline import` when rows were rejected, as some of the file have to be


def add_arguments(parser: ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Run three hotlines (France, the Netherlands, Germany), a coordinator, their databases and a name server on "
        "this machine, import a generated file of reports on reserved names at the French one, and show what became "
        "of every item. "
        "It stays up until Ctrl-C. Exit status 0 when every item is accounted for and every process ended cleanly."
    )
    parser.add_argument("--once", action="store_true", help="end when the account is shown")
    parser.add_argument(
        "--reports",
        type=_reports,
        default=3000,
        metavar="N",
        help=f"reports in the file, {_REPORTS_MIN} to {_REPORTS_MAX} (default 3000)",
    )
    parser.add_argument("--dir", metavar="DIR", help="keep everything in this new folder (default: a temporary one)")
    parser.set_defaults(run=run)


def run(arguments: Namespace, _context: object = None) -> int:
    """Run the demo and return its exit status; raises OperatorError when it cannot begin or a process fails."""
    out = console()
    with StopRequest() as stop, _folder(arguments.dir) as folder:
        demo = _Demo(out, folder, stop, reports=arguments.reports, once=arguments.once)
        try:
            status = demo.run()
        except Interrupted:
            status = EXIT_INTERRUPTED
        except OperatorError as error:
            out.print(f"The demo failed: {error.sentence}", style="bold red", soft_wrap=True)
            status = EXIT_FAILED
        finally:
            problems = demo.end()
        for problem in problems:
            out.print(problem, style="bold red", soft_wrap=True)
        if arguments.dir is not None:
            out.print(f"Files and logs are in {folder}.")
    return status or (EXIT_FAILED if problems else 0)


def _reports(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not _REPORTS_MIN <= int(text) <= _REPORTS_MAX:
        raise ArgumentTypeError(f"is a number from {_REPORTS_MIN} to {_REPORTS_MAX}")
    return int(text)


@contextmanager
def _folder(chosen: str | None) -> Iterator[Path]:
    """Yield the demo's folder: the one chosen, new or empty, or a temporary one that is removed at the end."""
    if chosen is None:
        with tempfile.TemporaryDirectory(prefix="hotline-demo-", ignore_cleanup_errors=True) as temporary:
            yield Path(temporary)
        return
    folder = Path(chosen).expanduser().absolute()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        occupied = any(folder.iterdir())
    except OSError as error:
        raise OperatorError(f"The folder {folder} cannot be used ({error.strerror}).") from None
    if occupied:
        raise OperatorError(f"The folder {folder} is not empty; give --dir a new one.")
    yield folder


@dataclass(frozen=True, slots=True)
class _Ready:
    """The network, running, with the file that is about to be imported."""

    network: Network
    keys: dict[str, str]
    reports: Path
    expected: Expected

    @property
    def sender(self) -> Member:
        """The hotline that takes the reports in."""
        return self.network.members[0]


class _Demo:
    """One run, from an empty folder to the account."""

    def __init__(self, out: Console, folder: Path, stop: StopRequest, *, reports: int, once: bool) -> None:
        logs = folder / "logs"
        logs.mkdir(mode=0o700)
        self._out = out
        self._folder = folder
        self._reports = reports
        self._once = once
        self._processes = Processes(logs, stop)
        self._members: tuple[Member, ...] = ()
        self._nodes: tuple[Node, ...] = ()
        self._begun_s = time.monotonic()

    def run(self) -> int:
        """Do everything and return the exit status; raises OperatorError and Interrupted."""
        ready = self._set_up()
        imported, statuses, complete = self._follow(ready)
        found = account(ready.expected, imported, statuses, ready.sender.node_id)
        self._out.print()
        self._out.print(
            account_table(found, f"What became of {ready.expected.items:,} items at {ready.sender.node_id}")
        )
        for line in check_lines(found):
            self._out.print(line, style="green" if found.holds else "bold red")
        self._prove(ready)
        self._out.print()
        self._say("shown", since_s=self._begun_s)
        self._out.print(address_table(ready.network.members, ready.keys))
        self._out.print(
            "The key opens them: as bearer token, or as the password that a browser asks for, with any name."
        )
        if not self._once:
            self._stay()
        return 0 if found.holds and complete else EXIT_FAILED

    def end(self) -> list[str]:
        """End every process and every database; returns a sentence for each that did not end cleanly."""
        # Whoever reads the output may be gone; the nodes are ended all the same.
        with suppress(OSError):
            self._out.print("Ending the nodes …")
        problems = self._processes.end()
        for node in self._nodes:
            if end_database(node.database):
                problems.append(f"The private database of {node.node_id} was left running; it is ended now.")
        return problems

    def _set_up(self) -> _Ready:
        hosts = min(_HOSTS_MAX, max(_HOSTS_MIN, self._reports // _REPORTS_PER_HOST))
        internet = make_internet(SEED, hosts, known_relay())
        geofiles = write_geofiles(self._folder, internet.networks)
        dns_port = self._start_name_server(internet.zone())
        self._say(f"name server on the loopback, {sum(1 for _ in internet.every_host()):,} made-up hosts")
        self._members = make_members(self._folder, COUNTRIES)
        coordinator = make_coordinator(self._folder)
        self._nodes = (*self._members, coordinator)
        sender, *peers = self._members
        reports = self._folder / "reports.csv"
        rules = Rules(sender.country, {peer.country: peer.node_id for peer in peers})
        expected = write_reports(reports, internet, rules, seed=SEED, rows=self._reports)
        self._say(f"file of {expected.rows:,} reports with {expected.items:,} URLs on reserved names")
        with self._out.status("setting up the hotlines: keys, databases, directory"):
            network = make_network(
                self._folder, self._members, coordinator, self._processes, dns_port=dns_port, geofiles=geofiles
            )
        self._say(f"{len(self._members)} hotlines and a coordinator set up: keys, private databases, signed directory")
        with self._out.status("starting the coordinator and the hotlines"):
            serve(network)
            keys = make_keys(network)
        self._say(f"{len(self._members)} hotlines running; they have the directory from the coordinator")
        return _Ready(network, keys, reports, expected)

    def _start_name_server(self, zone: dict[str, list[str]]) -> int:
        zone_file, ready_file = self._folder / "zone.json", self._folder / "name-server.port"
        zone_file.write_text(json.dumps(zone, indent=1), encoding="utf-8")
        server = self._processes.start("name server", "node.demo.dns", str(zone_file), str(ready_file), service=True)
        self._processes.wait_until(ready_file.exists, "the name server", within_s=_NAME_SERVER_S)
        server.ready = True
        return int(ready_file.read_text(encoding="utf-8"))

    def _follow(self, ready: _Ready) -> tuple[dict[str, Any], dict[str, Status], bool]:
        """Import the file and watch until all is settled, or nothing moves any more (the last answer: False)."""
        network, sender = ready.network, ready.sender
        rejects = self._folder / "rejected.ndjson"
        importing = network.start(
            sender, "import", str(ready.reports), "--json", "--no-progress", "--rejects", str(rejects)
        )
        imported: dict[str, Any] | None = None
        statuses: dict[str, Status] = {}
        moved: tuple[object, ...] = ()
        moved_s = time.monotonic()
        with Bars(self._out, ready.expected, sender.node_id) as bars:
            while True:
                if imported is None and importing.running.poll() is not None:
                    imported = self._imported(importing)
                answered = _statuses(ready)
                if answered is not None:
                    statuses = answered
                    now_s = time.monotonic()
                    standing = bars.update(statuses)
                    if standing != moved:
                        moved, moved_s = standing, now_s
                    if imported is not None and settled(statuses, sender.node_id):
                        return imported, statuses, True
                if time.monotonic() - moved_s > _STALLED_S:
                    break
                self._pause(_ROUND_S)
        if imported is None or not statuses:
            raise ProcessFailed(f"Nothing has moved for {_STALLED_S:.0f} s.\n{importing.last_lines()}")
        self._out.print(f"Nothing has moved for {_STALLED_S:.0f} s; this is where it stands.", style="bold red")
        return imported, statuses, False

    def _imported(self, importing: Process) -> dict[str, Any]:
        said = self._processes.finish(importing, within_s=_NAME_SERVER_S, statuses=(0, _REJECTED))
        try:
            counts: dict[str, Any] = json.loads(said)
        except ValueError:
            raise ProcessFailed(f"{importing.name} told no counts:\n{importing.last_lines()}") from None
        return counts

    def _prove(self, ready: _Ready) -> None:
        """Prove one record that was delivered, with the commands that anybody would use."""
        item = _item_to_prove(ready)
        if item is None:
            self._out.print("No record was delivered, so none can be proven.", style="bold red")
            return
        proof = self._folder / f"{item}.tlog-proof"
        network = ready.network
        network.run(ready.sender, "prove", item, "--out", str(proof))
        words = network.run(
            None,
            *("verify", str(proof), "--directory", str(ready.sender.directory)),
            *("--root-fingerprint", network.fingerprint),
        )
        self._out.print()
        self._out.print("One record, proven (hotline prove, then hotline verify, offline)", style="bold")
        for line in words.splitlines():
            self._out.print(f"  {line}", soft_wrap=True)

    def _stay(self) -> None:
        self._out.print("Ctrl-C ends the demo.", style="bold")
        try:
            while True:
                self._pause(_ROUND_S)
        except Interrupted:
            return

    def _pause(self, seconds: float) -> None:
        """Let time pass, looking whether somebody asks for the end or a node has died."""
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            self._processes.check()
            time.sleep(POLL_S)

    def _say(self, what: str, *, since_s: float | None = None) -> None:
        elapsed = f"{time.monotonic() - self._begun_s:5.1f} s"
        self._out.print(f"{elapsed}  {what}" if since_s is None else f"{elapsed} from the start to here.")


def _statuses(ready: _Ready) -> dict[str, Status] | None:
    """Return what every node says of itself, the sender first (`settled` relies on it); None when one is too busy."""
    try:
        return {
            member.node_id: ask(member, "/api/v1/status", ready.keys[member.node_id])
            for member in ready.network.members
        }
    except NotAnswering:
        return None


def _item_to_prove(ready: _Ready) -> str | None:
    """Return the id of an item that was sent, if there is one: a page that is illegal everywhere, if there is one."""
    path = f"/api/v1/items?state=sent&limit={_PAGE}"
    try:
        listed = ask(ready.sender, path, ready.keys[ready.sender.node_id])["items"]
    except NotAnswering as failed:
        raise ProcessFailed(f"The list of items was not answered: {failed}.") from None
    best = [one for one in listed if one["kind"] == "page" and one["classification"] == "baseline"]
    chosen = (best or listed or [None])[0]
    return None if chosen is None else str(chosen["id"])
