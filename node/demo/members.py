"""The demo's hotlines: their files and addresses, how they are set up and asked. Runs the product's own commands.

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
class Member:
    """One hotline of the demo."""

    node_id: str
    country: str
    name: str
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
    def descriptor(self) -> Path:
        """Its entry for the directory."""
        return self.data / "descriptor.json"

    @property
    def address(self) -> str:
        """Where its API, health, metrics and documentation are."""
        return f"http://{LOOPBACK}:{self.api_port}"


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
        members.append(Member(node_id, country, name, home, ports[2 * at], ports[2 * at + 1]))
    return tuple(members)


@dataclass(frozen=True, slots=True)
class Network:
    """The hotlines together with what they share: the directory and its authority's verifier key."""

    members: tuple[Member, ...]
    directory: Path
    authority: str
    processes: Processes

    def run(self, member: Member | None, *arguments: str, statuses: Sequence[int] = (0,)) -> str:
        """Run one command of the program to its end and return what it printed."""
        process = self.start(member, *arguments)
        return self.processes.finish(process, within_s=_COMMAND_S, statuses=statuses)

    def start(self, member: Member | None, *arguments: str, service: bool = False) -> Process:
        """Start one command of the program, for one of the hotlines or for none."""
        name = f"{arguments[0]} of {member.node_id}" if member is not None else f"command {arguments[0]}"
        where = () if member is None else ("--settings", str(member.settings))
        return self.processes.start(name, PROGRAM, *where, *arguments, service=service)


def make_network(
    folder: Path, members: tuple[Member, ...], processes: Processes, *, dns_port: int, geofiles: tuple[Path, Path]
) -> Network:
    """Set the hotlines up, all at once, and write the directory that lists them; the first is mandated too."""
    authority_key = folder / "authority.key"
    made = processes.start("command directory", PROGRAM, "directory", "new-authority", str(authority_key))
    authority = processes.finish(made, within_s=_COMMAND_S).strip()
    network = Network(members, folder / "directory.note", authority, processes)
    shared = {
        **_SETTINGS,
        "geo_country_databases": str(geofiles[0]),
        "geo_asn_databases": str(geofiles[1]),
    }
    begun = [network.start(member, *_init(network, member, dns_port, shared)) for member in members]
    for process in begun:
        processes.finish(process, within_s=_SETUP_S)
    network.run(
        None,
        *("directory", "write", "--authority-key", str(authority_key), "--version", "1"),
        *("--member", *(str(member.descriptor) for member in members)),
        *("--mandated", members[0].node_id, "--out", str(network.directory)),
    )
    return network


def _init(network: Network, member: Member, dns_port: int, settings: Mapping[str, str]) -> list[str]:
    arguments = [
        *("init", "--node-id", member.node_id, "--country", member.country, "--embedded"),
        *("--base-url", f"http://{LOOPBACK}:{member.peer_port}", "--data-dir", str(member.data)),
        *("--listen-peer", f"{LOOPBACK}:{member.peer_port}", "--listen-api", f"{LOOPBACK}:{member.api_port}"),
        *("--directory-authority", network.authority, "--directory-file", str(network.directory)),
        *("--dns-server", f"{LOOPBACK}:{dns_port}"),
        *("--name", member.name, "--contact", f"operator@{member.node_id}"),
    ]
    for name, value in settings.items():
        arguments += ["--set", f"{name}={value}"]
    return arguments


def serve(network: Network) -> None:
    """Start every hotline and wait until each is ready."""
    begun = [(member, network.start(member, "serve", service=True)) for member in network.members]
    for member, process in begun:
        network.processes.wait_until(partial(_is_ready, member), f"{member.node_id} to be ready", within_s=_SETUP_S)
        process.ready = True


def _is_ready(member: Member) -> bool:
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


def ask(member: Member, path: str, key: str | None = None) -> Any:
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
