"""A coordinator from its set-up to a ruling, by its commands: init, publish, serve, status, desk."""

import asyncio
import json
import signal
import stat
import subprocess
from pathlib import Path

import aiohttp
import pytest

from node.clock import SystemClock
from node.coordinator import room
from node.platform.httpclient import PeerAnswer, PeerClient, make_session
from node.platform.keyfiles import DESK_KEYS, NodeKeys
from node.platform.membership import read_directory
from node.settings import load_settings
from protocol.desk import open_ruling
from protocol.problems import parse_problem
from tests.cli.conftest import Home, Hotline, NewHome, Said, command, environment, init_words, published
from tests.cli.test_network import serving as running
from tests.cli.test_network import wait_for
from tests.hotline.network import eventually
from tests.patience import stretched

DISPUTE = "0193a5f0-0000-7000-8000-000000000009"
AT = "2026-11-22T16:00:00.123Z"


def statement(members: list[Home]) -> bytes:
    holder, other = members
    return json.dumps(
        {
            "v": 1,
            "dispute": DISPUTE,
            "case": "0193a5f0-0000-7000-8000-000000000002",
            "item": "0193a5f0-0000-7000-8000-000000000003",
            "holder": holder.id,
            "other": other.id,
            "code": "same-evidence",
            "received": "0" * 64,
            "trail": [{"node": holder.id, "country": "FR", "evidence": "1" * 64, "at": AT}],
            "databases": [{"type": "Example-Country", "built": "2026-11-01"}],
            "at": AT,
        }
    ).encode()


def test_a_coordinator_of_before_there_was_a_desk_gets_its_keys(coordinator: Home, hotline: Hotline) -> None:
    def new_keys() -> Said:
        return hotline("--settings", coordinator.settings, "desk", "new-keys")

    keys, descriptor = coordinator.data / "keys", coordinator.data / "desk.json"
    assert "The desk is here already" in new_keys().err
    descriptor.unlink()
    for key in keys.iterdir():
        key.unlink()
    made = new_keys()
    assert (made.status, made.err) == (0, "")
    entry = json.loads(descriptor.read_bytes())
    assert [(key["use"], key["algorithm"]) for key in entry["keys"]] == [(str(use), str(one)) for use, one in DESK_KEYS]
    # Cut off between the two, it goes on with the keys that were made; keys that are lost in part it does not guess.
    descriptor.unlink()
    assert new_keys().status == 0
    assert json.loads(descriptor.read_bytes()) == entry
    descriptor.unlink()
    next(keys.glob("desk-*.key")).unlink()
    assert new_keys().status == 2
    assert not descriptor.exists()


class Serving:
    """The coordinator as a process, and a member that calls it."""

    def __init__(self, coordinator: Home, member: Home) -> None:
        self.settings = load_settings(coordinator.settings, {})
        self.member = load_settings(member.settings, {})
        self.key = NodeKeys.load(self.member.keys_dir).http
        self.desk = NodeKeys.load(self.settings.keys_dir, DESK_KEYS).http.public()
        self.process = subprocess.Popen(
            command("--settings", coordinator.settings, "serve"), env=environment(), stderr=subprocess.DEVNULL
        )

    def call(self, method: str, path: str, body: bytes = b"") -> PeerAnswer:
        """Call the peer door as the member does; the answer is verified."""

        async def run() -> PeerAnswer:
            async with make_session(timeout_s=10) as session:
                client = PeerClient(session, lambda: self.key, SystemClock(), window_s=300)
                headers = {"content-type": "application/json"} if body else {}
                url = f"{self.settings.base_url}/peer/v1/{path}"
                return await client.call(method, url, lambda _: self.desk, headers=headers, body=body)

        return asyncio.run(run())

    def wait(self) -> None:
        """Wait until it answers."""
        self._until("readyz", "true")

    def shows(self, metric: str) -> bool:
        """Wait until its metrics have this line."""
        self._until("metrics", metric)
        return True

    def _until(self, path: str, text: str) -> None:
        async def wait() -> None:
            async with aiohttp.ClientSession() as session:

                async def says() -> bool:
                    try:
                        async with session.get(f"http://{self.settings.listen_api}/{path}") as answer:
                            return answer.status == 200 and text in await answer.text()
                    except aiohttp.ClientError:
                        return False

                await eventually(says, limit_s=60)

        asyncio.run(wait())

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=stretched(30))


def test_from_its_set_up_to_a_ruling(
    coordinator: Home, new_home: NewHome, hotline: Hotline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def says(*words: object) -> str:
        said = hotline("--settings", coordinator.settings, *words)
        assert (said.status, said.err) == (0, ""), said
        return said.out

    for key in [*(coordinator.data / "keys").iterdir(), *(coordinator.data / "directory-keys").glob("*.key")]:
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert "WARNING: no directory is published yet" in says("status")
    members = [new_home("FR"), new_home("NL")]
    pin = published(coordinator, hotline, members)
    status = json.loads(says("status", "--json"))
    assert (status["directory"]["version"], status["directory"]["desk"], status["warnings"]) == (1, coordinator.id, [])
    with monkeypatch.context() as patched:
        patched.setattr(room, "DIRECTORY_BYTES_MAX", status["directory"]["bytes"])
        assert "WARNING: the directory has" in says("status")
    serving = Serving(coordinator, members[0])
    try:
        serving.wait()
        # There is no such dispute yet, and a stranger's is not told of.
        assert serving.call("GET", f"disputes/{DISPUTE}").body == b'{"ruling":null,"held":false}'
        for _ in range(2):
            assert serving.call("POST", "disputes", statement(members)).status == 200
        other = statement(members).replace(b"same-evidence", b"too-many-moves")
        assert parse_problem(serving.call("POST", "disputes", other).body).code == "id-conflict"
        whole = json.loads(statement(members))
        whole["trail"][0]["url"] = "https://gallery.host.example/view?id=7"
        assert parse_problem(serving.call("POST", "disputes", json.dumps(whole).encode()).body).code == "schema-invalid"
        assert serving.call("GET", f"disputes/{DISPUTE}").body == b'{"ruling":null,"held":true}'

        assert serving.shows('hotline_desk_cases{kind="dispute"} 1.0')
        assert "Desk: 1 disputes and 0 contradictions" in says("status")
        assert DISPUTE in says("desk", "list")
        shown = says("desk", "show", DISPUTE)
        assert members[1].id in shown
        assert "1" * 64 in shown
        refused = hotline(
            "--settings", coordinator.settings, "desk", "decide", DISPUTE, "--custodian", "x.example", "--country", "FR"
        )
        assert refused.err == "hotline: The ruling is refused: this node has nothing to do with the dispute.\n"
        says("desk", "decide", DISPUTE, "--custodian", members[1].id, "--country", "NL")
        answer = serving.call("GET", f"disputes/{DISPUTE}")
        export = coordinator.folder / "export"
        says("directory", "export", export)
        ruling = open_ruling(answer.body, read_directory(export, pin).directory)
        assert (ruling.dispute, ruling.custodian, ruling.country) == (DISPUTE, members[1].id, "NL")
        assert "No disputes" in says("desk", "list") or DISPUTE not in says("desk", "list")
        assert members[1].id in says("desk", "list", "--all")
    finally:
        assert serving.end() == 0
    again = hotline(
        "--settings", coordinator.settings, "desk", "decide", DISPUTE, "--custodian", members[0].id, "--country", "FR"
    )
    assert "decided already, for ever" in again.err


def test_a_change_goes_from_a_descriptor_to_a_running_node(
    coordinator: Home, new_home: NewHome, hotline: Hotline
) -> None:
    """Every step a command, while the coordinator serves and the node serves."""

    def says(home: Home, *words: object) -> str:
        said = hotline("--settings", home.settings, *words)
        assert said.status == 0, said
        return said.out

    member = new_home("FR")
    member.add("directory_refresh_s = 1")
    pin, folder = published(coordinator, hotline, [member]), coordinator.folder
    serving = Serving(coordinator, member)
    try:
        serving.wait()
        address = serving.settings.base_url
        assert "version 1" in says(member, "join", address, "--root-fingerprint", pin)
        with running(member) as process:
            wait_for(process, "serve.start")
            says(member, "descriptor", "--name", "Ligne", "--weight", 3, "--country", "FR", "--country", "BE")
            says(coordinator, "directory", "export", folder / "export")
            second, changed = folder / "second", member.data / "descriptor.json"
            says(coordinator, "directory", "propose", second, "--published", folder / "export", "--member", changed)
            says(coordinator, "directory", "sign", second, "--key", folder / "ada.key")
            says(coordinator, "directory", "publish", second)
            wait_for(process, "directory.changed")
            listed = read_directory(load_settings(member.settings, {}).directory_dir, pin).directory
            shown = json.loads(says(member, "status", "--json"))
    finally:
        assert serving.end() == 0
    entry = listed.nodes[member.id]
    assert (entry.name, entry.weight, entry.countries) == ("Ligne", 3, ("FR", "BE"))
    assert (shown["directory"]["version"], shown["directory"]["state"]) == (2, "fresh")


def test_what_makes_no_sense_is_refused(coordinator: Home, new_home: NewHome, hotline: Hotline, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in coordinator.folder.rglob("*") if path.is_file()}
    again = hotline("--settings", coordinator.settings, "init", *init_words("postgresql://127.0.0.1:1/none"))
    assert "a node is here already" in again.err
    assert {path: path.read_bytes() for path in before} == before
    new = tmp_path / "new.toml"
    for words, sentence in (
        (("--country", "FR"), "Setting countries: is no setting of role coordinator"),
        (("--name", "x"), "Option --name is for a hotline"),
    ):
        said = hotline("--settings", new, "init", *init_words("postgresql://127.0.0.1:1/none"), *words)
        assert (said.status, new.exists()) == (2, False)
        assert sentence in said.err
    hotline_desk = hotline("--settings", new_home("FR").settings, "desk", "list")
    assert "This is for the coordinator" in hotline_desk.err
    assert "There is no case" in hotline("--settings", coordinator.settings, "desk", "show", DISPUTE).err
    assert (
        "There is no dispute"
        in hotline(
            "--settings", coordinator.settings, "desk", "decide", DISPUTE, "--custodian", "x", "--country", "FR"
        ).err
    )
    next((coordinator.data / "keys").glob("desk-ml-dsa-44-*.key")).chmod(0o644)
    said = hotline("--settings", coordinator.settings, "serve")
    assert (said.status, said.out) == (2, "")
    assert "chmod 600" in said.err


def test_the_desk_s_keys_change_in_announced_steps(coordinator: Home, new_home: NewHome, hotline: Hotline) -> None:
    def says(*words: object) -> str:
        said = hotline("--settings", coordinator.settings, *words)
        assert (said.status, said.err) == (0, ""), said
        return said.out

    assert says("keys", "show").count("\n desk ") == 2
    published(coordinator, hotline, [new_home("FR")])
    refused = hotline("--settings", coordinator.settings, "keys", "rotate-signing", "announce", "--use", "stream")
    assert "there is no stream key in role coordinator" in refused.err
    says("keys", "rotate-signing", "announce", "--use", "desk")
    listed = json.loads((coordinator.data / "desk.json").read_bytes())["keys"]
    assert [key["state"] for key in listed if key["use"] == "desk"] == ["active", "active", "next", "next"]
    folder = coordinator.folder
    says("directory", "export", folder / "export")
    second, desk = folder / "second", coordinator.data / "desk.json"
    out = says("directory", "propose", second, "--published", folder / "export", "--desk", desk)
    assert out.count("is new, next from") == 2
    says("directory", "sign", second, "--key", folder / "ada.key")
    says("directory", "publish", second)
    # What is published counts: the keys of before sign, until the moment of the switch.
    assert json.loads(says("status", "--json"))["warnings"] == []
    says("keys", "rotate-signing", "switch")
    # Keys that others verify with do not vanish.
    entry = json.loads(desk.read_bytes())
    entry["keys"] = [key for key in entry["keys"] if key["state"] != "retired"]
    short = folder / "short.json"
    short.write_text(json.dumps(entry))
    says("directory", "export", folder / "again")
    gone = hotline("directory", "propose", folder / "third", "--published", folder / "again", "--desk", short)
    assert "would vanish" in gone.err
    says("directory", "propose", folder / "third", "--published", folder / "again", "--desk", desk)
