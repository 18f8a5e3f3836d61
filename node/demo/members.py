"""The demo's hotlines and coordinator: their files and addresses, how they are set up and asked, by its own commands.

Nothing of `node.hotline` is imported: the demo is a user of the program, like the person who reads its output.
"""

import http.client
import json
import socket
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from node.demo.processes import Process, Processes

PROGRAM: Final = "node"
LOOPBACK: Final = "127.0.0.1"
_SETUP_S: Final = 120.0
_COMMAND_S: Final = 60.0
_HTTP_S: Final = 5.0
_OK: Final = 200
_SETTINGS: Final[Mapping[str, str]] = {
    "geo_allow_reserved": "true",
    # A name server that fails gets a second chance, and is then believed: the demo shall end.
    "locate_attempts_max": "2",
    "locate_retry_base_s": "0.5",
    "poll_s": "0.2",
    "backoff_base_s": "0.2",
    "shutdown_s": "15",
}


@dataclass(frozen=True, slots=True)
class Node:
    """One process of the demo that has settings and a database: a hotline or the coordinator."""

    node_id: str
    home: Path
    peer_port: int
    api_port: int

    @property
    def settings(self) -> Path:
        """Its settings file."""
        return self.home / "hotline.toml"

    @property
    def data(self) -> Path:
        """Its folder of files."""
        return self.home / "data"

    @property
    def database(self) -> Path:
        """Where its private PostgreSQL keeps its files."""
        return self.data / "db"

    @property
    def peer_address(self) -> str:
        """Where the others call it."""
        return f"http://{LOOPBACK}:{self.peer_port}"

    @property
    def address(self) -> str:
        """Where its API, health, metrics and documentation are."""
        return f"http://{LOOPBACK}:{self.api_port}"


@dataclass(frozen=True, slots=True)
class Member(Node):
    """One hotline of the demo."""

    country: str
    name: str

    @property
    def descriptor(self) -> Path:
        """Its entry for the directory."""
        return self.data / "descriptor.json"

    @property
    def directory(self) -> Path:
        """The directory as it trusts it."""
        return self.data / "directory"


@dataclass(frozen=True, slots=True)
class Coordinator(Node):
    """The coordinator of the demo, which publishes the directory and has the desk."""

    @property
    def descriptor(self) -> Path:
        """The desk's entry for the directory."""
        return self.data / "desk.json"

    def public_key(self, name: str) -> Path:
        """Return the file of the public part of a key that signs online."""
        return self.data / "directory-keys" / f"{name}.key.pub"


class NotAnswering(Exception):  # noqa: N818 - names the fact
    """The node did not answer, or not with what was asked for."""


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback that nobody has at this moment, each another one."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((LOOPBACK, 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def make_members(folder: Path, countries: Mapping[str, str]) -> tuple[Member, ...]:
    """Return the hotlines of these countries (code to name), with free ports; nothing is written but their folders."""
    ports = free_ports(2 * len(countries))
    members = []
    for at, (country, name) in enumerate(countries.items()):
        home = folder / country.lower()
        home.mkdir(mode=0o700)
        node_id = f"{country.lower()}.hotline.example"
        members.append(Member(node_id, home, ports[2 * at], ports[2 * at + 1], country, name))
    return tuple(members)


def make_coordinator(folder: Path) -> Coordinator:
    """Return the coordinator, with free ports; nothing is written but its folder."""
    home = folder / "coordinator"
    home.mkdir(mode=0o700)
    return Coordinator("coordinator.example", home, *free_ports(2))


@dataclass(frozen=True, slots=True)
class Network:
    """The hotlines together with what they share: the coordinator and the fingerprint of its directory's root."""

    members: tuple[Member, ...]
    coordinator: Coordinator
    fingerprint: str
    processes: Processes

    def run(self, member: Node | None, *arguments: str, statuses: Sequence[int] = (0,)) -> str:
        """Run one command of the program to its end and return what it printed."""
        process = self.start(member, *arguments)
        return self.processes.finish(process, within_s=_COMMAND_S, statuses=statuses)

    def start(self, member: Node | None, *arguments: str, service: bool = False) -> Process:
        """Start one command of the program, for one of the hotlines, the coordinator or nobody."""
        return _start(self.processes, member, *arguments, service=service)


def _start(processes: Processes, node: Node | None, *arguments: str, service: bool = False) -> Process:
    name = f"{arguments[0]} of {node.node_id}" if node is not None else f"command {arguments[0]}"
    where = () if node is None else ("--settings", str(node.settings))
    return processes.start(name, PROGRAM, *where, *arguments, service=service)


def make_network(
    folder: Path,
    members: tuple[Member, ...],
    coordinator: Coordinator,
    processes: Processes,
    *,
    dns_port: int,
    geofiles: tuple[Path, Path],
) -> Network:
    """Set all of them up at once, and publish the directory that lists them; the first is mandated too."""
    shared = {
        **_SETTINGS,
        "geo_country_databases": str(geofiles[0]),
        "geo_asn_databases": str(geofiles[1]),
    }
    signers = folder / "signers"
    signers.mkdir(mode=0o700)
    key, proposal = str(signers / "people.key"), str(signers / "proposal")

    def finish(*made: Process) -> str:
        return [processes.finish(process, within_s=_SETUP_S) for process in made][-1]

    def directory(*words: str) -> Process:
        return _start(processes, coordinator, "directory", *words)

    # All at once; the first root is proposed while databases are still being made.
    own = _start(processes, coordinator, "init", "--role", "coordinator", *_common(coordinator))
    others = [_start(processes, member, *_init(member, dns_port, shared)) for member in members]
    finish(_start(processes, None, "directory", "new-key", key), own)
    people = ("--root-key", f"{key}.pub", "--directory-key", f"{key}.pub")
    machine = [word for name in ("snapshot", "timestamp") for word in (f"--{name}-key", coordinator.public_key(name))]
    begun = finish(directory("init", proposal, *people, *map(str, machine)))
    finish(*others)
    listed = [str(member.descriptor) for member in members]
    routing = ("--mandated", members[0].node_id, "--desk", str(coordinator.descriptor))
    finish(directory("propose", proposal, *routing, "--member", *listed))
    finish(directory("sign", proposal, "--key", key))
    finish(directory("publish", proposal))
    return Network(members, coordinator, begun.split()[-1], processes)


def _common(node: Node) -> list[str]:
    """Return what every role's set-up is given."""
    return [
        *("--node-id", node.node_id, "--embedded", "--base-url", node.peer_address, "--data-dir", str(node.data)),
        *("--listen-peer", f"{LOOPBACK}:{node.peer_port}", "--listen-api", f"{LOOPBACK}:{node.api_port}"),
    ]


def _init(member: Member, dns_port: int, settings: Mapping[str, str]) -> list[str]:
    arguments = [
        *("init", "--country", member.country, *_common(member)),
        *("--dns-server", f"{LOOPBACK}:{dns_port}"),
        *("--name", member.name, "--contact", f"operator@{member.node_id}"),
    ]
    for name, value in settings.items():
        arguments += ["--set", f"{name}={value}"]
    return arguments


def serve(network: Network) -> None:
    """Start the coordinator, let every hotline join, start them, and wait until each is ready."""
    _serve(network, (network.coordinator,))
    joining = [
        network.start(member, "join", network.coordinator.peer_address, "--root-fingerprint", network.fingerprint)
        for member in network.members
    ]
    for process in joining:
        network.processes.finish(process, within_s=_COMMAND_S)
    _serve(network, network.members)


def _serve(network: Network, nodes: Sequence[Node]) -> None:
    begun = [(node, network.start(node, "serve", service=True)) for node in nodes]
    for node, process in begun:
        network.processes.wait_until(partial(_is_ready, node), f"{node.node_id} to be ready", within_s=_SETUP_S)
        process.ready = True


def _is_ready(member: Node) -> bool:
    try:
        ask(member, "/readyz")
    except NotAnswering:
        return False
    return True


def make_keys(network: Network) -> dict[str, str]:
    """Return an API key for each hotline, by node id, that may see items, metrics and status."""
    begun = {
        member.node_id: network.start(
            member, "keys", "api", "new", "--name", "demo", "--role", "reader", "--role", "monitor"
        )
        for member in network.members
    }
    return {
        node_id: network.processes.finish(process, within_s=_COMMAND_S).strip() for node_id, process in begun.items()
    }


def ask(member: Node, path: str, key: str | None = None) -> Any:
    """Return what the hotline's API answers, decoded from JSON; raises NotAnswering."""
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    connection = http.client.HTTPConnection(LOOPBACK, member.api_port, timeout=_HTTP_S)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        raise NotAnswering(f"{member.node_id}: {type(error).__name__}") from None
    finally:
        connection.close()
    if response.status != _OK:
        raise NotAnswering(f"{member.node_id}: status {response.status}")
    return json.loads(body)
