"""`hotline directory`: several signers, files carried between them, and everything that is not signed or published."""

import base64
import json
import shutil
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from node.clock import rfc3339
from node.coordinator import room
from node.platform.membership import read_directory
from protocol.keys import Algorithm, PublicKey
from tests.cli.conftest import Home, Hotline, NewHome, Said, Signers
from tests.protocol.sample_network import desk_member


@pytest.fixture
def members(new_home: NewHome) -> tuple[Home, Home]:
    return new_home("FR"), new_home("NL")


def descriptor(home: Home) -> Path:
    return home.data / "descriptor.json"


def desk_descriptor_of(desk: "Desk") -> Path:
    """Return the file in which a coordinator describes its desk."""
    path = desk.folder / "desk.json"
    path.write_text(json.dumps(desk_member()))
    return path


class Desk:
    """The machines of a ceremony: a folder of keys, and proposals carried between them."""

    def __init__(self, hotline: Hotline, folder: Path) -> None:
        self._hotline = hotline
        self.folder = folder
        self.repository = folder / "repository"

    def key(self, name: str) -> Path:
        path = self.folder / f"{name}.key"
        if not path.exists():
            assert self("new-key", path).status == 0
        return path

    def pub(self, name: str) -> Path:
        key = self.key(name)
        return key.with_name(key.name + ".pub")

    def __call__(self, *words: object) -> Said:
        return self._hotline("directory", *words)

    def says(self, *words: object) -> str:
        said = self(*words)
        assert (said.status, said.err) == (0, ""), said
        return said.out

    def refuses(self, sentence: str, *words: object) -> None:
        said = self(*words)
        assert said.status == 2, said
        assert sentence in said.err
        assert said.err.count("\n") == 1

    def init(self, folder: Path) -> str:
        roots = [self.pub(name) for name in ("ada", "ben", "cyd")]
        people = (
            "--root-key",
            *roots,
            "--root-threshold",
            2,
            "--directory-key",
            *roots[:2],
            "--directory-threshold",
            2,
        )
        machine = ("--snapshot-key", self.pub("snapshot"), "--timestamp-key", self.pub("timestamp"))
        return self.says("init", folder, *people, *machine).split()[-1]

    def publish(self, *folders: Path) -> str:
        return self.says("publish", *folders, "--to", self.repository, *self.online())

    def online(self) -> tuple[object, ...]:
        return "--snapshot-key", self.key("snapshot"), "--timestamp-key", self.key("timestamp")


@pytest.fixture
def desk(hotline: Hotline, tmp_path: Path) -> Desk:
    folder = tmp_path / "desk"
    folder.mkdir()
    return Desk(hotline, folder)


def test_members_that_only_fetch_are_told_to_be_out_of_each_other_s_reach(
    hotline: Hotline, desk: Desk, members: tuple[Home, Home]
) -> None:
    proposal = desk.folder / "first"
    desk.init(proposal)

    def fetches_only(home: Home) -> None:
        said = hotline("--settings", home.settings, "descriptor", "--delivery", "pull")
        assert said.status == 0, said.err

    fetches_only(members[0])
    assert "WARNING" not in desk.says("propose", proposal, "--member", *map(descriptor, members))
    fetches_only(members[1])
    warning = "WARNING: fr.hotline.example, nl.hotline.example only fetch, and no two of them can exchange anything."
    for words in (("propose", proposal, "--member", *map(descriptor, members)), ("show", proposal)):
        assert warning in desk.says(*words).splitlines()
    for name in ("ada", "ben"):
        assert warning in desk.says("sign", proposal, "--key", desk.key(name)).splitlines()
    desk.publish(proposal)
    assert warning in desk.says("show", desk.repository).splitlines()
    # Who has left needs nobody.
    left = ("propose", desk.folder / "second", "--published", desk.repository, "--state", "nl.hotline.example=left")
    assert "WARNING" not in desk.says(*left)


def test_a_directory_that_fills_its_limits_is_told_and_one_beyond_them_is_not_proposed(
    desk: Desk, members: tuple[Home, Home], monkeypatch: pytest.MonkeyPatch
) -> None:
    proposal = desk.folder / "first"
    pin = desk.init(proposal)
    propose = ("propose", proposal, "--member", *map(descriptor, members))
    assert "WARNING" not in desk.says(*propose)
    size = (proposal / "directory.json").stat().st_size
    monkeypatch.setattr(room, "DIRECTORY_BYTES_MAX", 2 * size)
    monkeypatch.setattr(room, "KEYS_MAX", 10)
    monkeypatch.setattr(room, "NODES_MAX", 4)
    warnings = [
        f"WARNING: the directory has {size} of at most {2 * size} bytes, and no key ever leaves it.",
        "WARNING: the directory has 2 of at most 4 nodes, and none ever leaves it.",
        *(f"WARNING: {home.id} has 5 of at most 10 keys, and none ever leaves the directory." for home in members),
    ]
    for said in (desk.says("propose", proposal, "--days", 90), desk.says("show", proposal)):
        assert [line for line in said.splitlines() if line.startswith("WARNING")] == warnings
    for name in ("ada", "ben"):
        desk.says("sign", proposal, "--key", desk.key(name))
    assert pin in desk.publish(proposal)
    said = desk.says("show", desk.repository)
    assert [line for line in said.splitlines() if line.startswith("WARNING")] == warnings

    monkeypatch.setattr(room, "DIRECTORY_BYTES_MAX", size - 1)
    follow = ("--published", desk.repository, "--days", 90)
    desk.refuses(
        f"would have {size} bytes, and no node takes more than {size - 1}", "propose", desk.folder / "x", *follow
    )
    assert not (desk.folder / "x").exists()


def test_a_key_is_readable_by_its_owner_and_never_overwritten(desk: Desk) -> None:
    key = desk.key("ada")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert "seed" not in desk.pub("ada").read_text()
    before = key.read_bytes()
    desk.refuses("exists already", "new-key", key)
    assert key.read_bytes() == before


def test_from_several_signers_keys_to_a_directory_that_nodes_take(desk: Desk, members: tuple[Home, Home]) -> None:
    fr, nl = members
    proposal = desk.folder / "first"
    pin = desk.init(proposal)
    out = desk.says(
        "propose",
        proposal,
        "--member",
        descriptor(fr),
        descriptor(nl),
        "--mandated",
        fr.id,
        "--desk",
        desk_descriptor_of(desk),
    )
    assert "Not yet: root has 0 of 2 signatures" in out
    # Whoever signs compares these with what the hotline read to them.
    assert f"The mandated hotlines: none → {fr.id}." in out
    assert f"{nl.id}: countries NL, weight 1." in out
    for key in json.loads(descriptor(nl).read_bytes())["keys"]:
        raw = PublicKey(Algorithm(key["algorithm"]), base64.b64decode(key["public"]))
        assert f"{nl.id}: {key['use']} key {raw.thumbprint()[:12]} ({key['algorithm']}) is new, active from" in out
    # One carries a copy, another signs the original.
    copied = desk.folder / "stick"
    shutil.copytree(proposal, copied)
    assert "Signed: root and directory." in desk.says("sign", copied, "--key", desk.key("ada"))
    assert f"{fr.id} joins as active:" in desk.says("sign", proposal, "--key", desk.key("ben"))
    desk.refuses("is not signed enough: root has 1 of 2", "publish", proposal, "--to", desk.repository, *desk.online())
    assert not desk.repository.exists()
    assert pin in desk.publish(proposal, copied)
    use = read_directory(desk.repository, pin)
    assert (use.directory.version, list(use.directory.nodes)) == (1, [fr.id, nl.id])
    assert use.directory.mandated == (fr.id,)
    assert use.directory.desk is not None
    assert use.directory.desk.id == "coordinator.example"
    assert timedelta(hours=71) < use.fresh_until - datetime.now(UTC) <= timedelta(hours=72)
    shown = desk.says("show", desk.repository)
    assert pin in shown
    assert f"Mandated where there is no hotline: {fr.id}." in shown
    assert "://" not in shown

    # Without a proposal the timestamp is renewed.
    desk.publish()
    assert read_directory(desk.repository, pin).timestamp.version > use.timestamp.version
    assert read_directory(desk.repository, pin).snapshot.version == use.snapshot.version


def test_a_signer_is_replaced_and_the_pin_stays(desk: Desk, members: tuple[Home, Home]) -> None:
    first = desk.folder / "first"
    pin = desk.init(first)
    desk.says("propose", first, "--member", descriptor(members[0]))
    for name in ("ada", "ben"):
        desk.says("sign", first, "--key", desk.key(name))
    desk.publish(first)

    second = desk.folder / "second"
    swap = ("--remove-root-key", desk.pub("ben"), "--add-root-key", desk.pub("dan"))
    moved = ("--remove-directory-key", desk.pub("ben"), "--add-directory-key", desk.pub("dan"))
    desk.says("propose", second, "--published", desk.repository, *swap, *moved)
    for name in ("ada", "dan"):
        desk.says("sign", second, "--key", desk.key(name))
    # The old root's keys have to agree too, and the directory needs those who sign it now.
    desk.refuses(
        "root has 1 of 2 signatures by the keys of root 1", "publish", second, "--to", desk.repository, *desk.online()
    )
    desk.says("sign", second, "--key", desk.key("cyd"))
    desk.refuses("targets has 1 of 2 signatures", "publish", second, "--to", desk.repository, *desk.online())
    desk.says("propose", second, "--state", f"{members[0].id}=active")
    for name in ("ada", "dan"):
        desk.says("sign", second, "--key", desk.key(name))
    desk.publish(second)
    use = read_directory(desk.repository, pin)
    assert (use.root_version, use.directory.version) == (2, 2)
    desk.refuses("This key signs nothing", "sign", second, "--key", desk.key("eve"))


def test_a_lost_online_key_is_replaced_by_the_root_alone(desk: Desk, members: tuple[Home, Home]) -> None:
    first, second = desk.folder / "first", desk.folder / "second"
    pin = desk.init(first)
    desk.says("propose", first, "--member", descriptor(members[0]))
    for name in ("ada", "ben"):
        desk.says("sign", first, "--key", desk.key(name))
    desk.publish(first)
    desk.says("propose", second, "--published", desk.repository, "--timestamp-key", desk.pub("new-timestamp"))
    for name in ("ada", "cyd"):
        desk.says("sign", second, "--key", desk.key(name))
    desk.refuses(
        "timestamp key of this machine is not the one", "publish", second, "--to", desk.repository, *desk.online()
    )
    online = ("--snapshot-key", desk.key("snapshot"), "--timestamp-key", desk.key("new-timestamp"))
    desk.says("publish", second, "--to", desk.repository, *online)
    use = read_directory(desk.repository, pin)
    assert (use.root_version, use.directory.version, use.superseded) == (2, 1, False)


def test_what_is_wrong_is_not_proposed_and_is_named(
    desk: Desk, signers: Signers, members: tuple[Home, Home], tmp_path: Path
) -> None:
    fr, nl = members
    signers.begin(descriptor(fr))
    spoiled = tmp_path / "spoiled.json"
    entry = json.loads(descriptor(nl).read_bytes())
    number = 0

    def refused(sentence: str, *words: object) -> None:
        nonlocal number
        number += 1
        out = desk.folder / str(number)
        desk.refuses(sentence, "propose", out, "--published", signers.repository, *words)
        assert not out.exists()

    spoiled.write_text(json.dumps({**entry, "countries": ["ZZ"]}))
    refused(f"{nl.id}, countries[0]: ", "--member", spoiled)
    spoiled.write_text(json.dumps({**entry, "keys": entry["keys"][:1]}))
    refused(f"{nl.id}, keys: ", "--member", spoiled)
    refused("routing.mandated[0]: there is no such node", "--mandated", nl.id)
    refused("routing.desk.keys[1].use: whoever this is", "--desk", descriptor(fr))
    refused("cannot be read (No such file or directory)", "--desk", nl.id)
    refused(f"There is no node {nl.id}", "--state", f"{nl.id}=left")
    refused("state", "--state", f"{fr.id}=asleep")
    spoiled.write_text("[]")
    refused("is not a descriptor", "--member", spoiled)
    refused("cannot be read (No such file or directory)", "--member", tmp_path / "absent.json")
    refused("Nothing is proposed")
    refused("The threshold of root is from 1", "--root-threshold", 5)
    refused("is not a public key", "--add-root-key", signers.key)
    refused("is one of the role's already", "--add-root-key", signers.pub("signer"))
    refused("is not one of the role's", "--remove-root-key", desk.pub("stranger"))
    desk.refuses("There is no proposal in the folder", "propose", desk.folder / "new", "--member", descriptor(nl))
    node_key = next((fr.data / "keys").glob("http-*.key"))
    proposal = desk.folder / "good"
    desk.says("propose", proposal, "--published", signers.repository, "--member", descriptor(nl))
    desk.refuses("`hotline directory new-key` makes one", "sign", proposal, "--key", node_key)
    signers.key.chmod(0o644)
    desk.refuses("chmod 600", "sign", proposal, "--key", signers.key)
    (proposal / "directory.json").write_bytes((proposal / "directory.json").read_bytes() + b" ")
    desk.refuses("is not the one that its targets describe", "show", proposal)


def rewritten(home: Home, folder: Path, **keys: Any) -> Path:
    """Write a descriptor whose http keys are as given."""
    entry = json.loads(descriptor(home).read_bytes())
    entry["keys"] = [*(key for key in entry["keys"] if key["use"] != "http"), *keys["http"]]
    path = folder / f"{home.id}.json"
    path.write_text(json.dumps(entry))
    return path


def test_keys_change_step_by_step_with_notice(
    desk: Desk, signers: Signers, members: tuple[Home, Home], tmp_path: Path
) -> None:
    fr, nl = members
    signers.begin(descriptor(fr), descriptor(nl))
    http = next(key for key in json.loads(descriptor(fr).read_bytes())["keys"] if key["use"] == "http")
    now = datetime.now(UTC)
    new = {**http, "public": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}
    number = 0

    def refused(sentence: str, *keys: dict[str, Any]) -> None:
        nonlocal number
        number += 1
        words = ("--published", signers.repository, "--member", rewritten(fr, tmp_path, http=list(keys)))
        desk.refuses(sentence, "propose", desk.folder / str(number), *words)

    soon, later = rfc3339(now + timedelta(hours=47)), rfc3339(now + timedelta(hours=49))
    new["public"] = json.loads((tmp_path / "nl" / "data" / "descriptor.json").read_bytes())["keys"][0]["public"]
    refused("serves another use or another node already", http, {**new, "state": "next", "not_before": later})
    fresh = fresh_public(desk)
    refused("less than 48 h from now", http, {**http, "public": fresh, "state": "next", "not_before": soon})
    refused("without having been announced", {**http, "public": fresh, "not_before": later}, http)
    refused("would vanish", {**http, "public": fresh, "not_before": later})
    announced = {**http, "public": fresh, "state": "next", "not_before": later}
    signers.change("--member", rewritten(fr, tmp_path, http=[http, announced]))
    retired = {**http, "state": "retired", "retired_at": soon}
    refused("cannot count before", retired, {**announced, "state": "active", "not_before": soon})
    signers.change("--member", rewritten(fr, tmp_path, http=[retired, {**announced, "state": "active"}]))
    refused("would go from retired to active", http, {**announced, "state": "active"})
    # After a compromise nobody waits.
    gone = {**announced, "state": "compromised", "compromised_since": later}
    urgent = {**http, "public": fresh_public(desk), "not_before": rfc3339(now)}
    refused("without having been announced", retired, gone, urgent)
    signers.change("--urgent", "--member", rewritten(fr, tmp_path, http=[retired, gone, urgent]))


def fresh_public(desk: Desk) -> str:
    """Return the public part of a new key."""
    name = f"node-{len(list(desk.folder.iterdir()))}"
    return desk.pub(name).read_text().split()[1]


def test_a_node_does_not_take_back_its_own_suspension(signers: Signers, members: tuple[Home, Home]) -> None:
    fr, _ = members
    pin = signers.begin(descriptor(fr))
    signers.change("--state", f"{fr.id}=suspended")
    signers.change("--member", descriptor(fr))
    assert read_directory(signers.repository, pin).directory.nodes[fr.id].state == "suspended"
    signers.change("--state", f"{fr.id}=active")
    assert read_directory(signers.repository, pin).directory.nodes[fr.id].state == "active"


def test_a_node_describes_itself_anew_and_the_keys_stay(hotline: Hotline, signers: Signers, new_home: NewHome) -> None:
    home = new_home()
    pin = signers.begin(descriptor(home))

    def describe(*words: object) -> Said:
        return hotline("--settings", home.settings, "descriptor", *words)

    before = descriptor(home).read_bytes()
    said = describe()
    assert (said.status, said.out.encode(), said.err) == (0, before, "")
    for words, field in (
        (("--weight", -1), "weight"),
        (("--country", "fr"), "countries"),
        (("--base-url", "x://y"), "base_url"),
    ):
        said = describe(*words)
        assert (said.status, said.out) == (2, "")
        assert f"The directory would not take this: {field}" in said.err
    assert descriptor(home).read_bytes() == before
    said = describe("--weight", 3, "--base-url", "https://new.example", "--delivery", "pull", "--name", "Ligne")
    assert said.status == 0
    assert said.out.encode() == descriptor(home).read_bytes()
    assert describe("--no-country", "--contact", "duty@hotline.example").status == 0
    signers.change("--member", descriptor(home))
    entry = read_directory(signers.repository, pin).directory.nodes[home.id]
    assert (entry.countries, entry.base_url, entry.weight) == ((), "https://new.example", 3)
    assert (entry.delivery, entry.name, entry.contact) == ("pull", "Ligne", "duty@hotline.example")
    assert json.loads(descriptor(home).read_bytes())["keys"] == json.loads(before)["keys"]


def test_a_directory_and_its_root_are_renewed_as_they_are(desk: Desk, members: tuple[Home, Home]) -> None:
    first, second = desk.folder / "first", desk.folder / "second"
    pin = desk.init(first)
    desk.refuses("no directory yet that --days could renew", "propose", first, "--days", 30)
    desk.says("propose", first, "--member", descriptor(members[0]), "--days", 30)
    for name in ("ada", "ben"):
        desk.says("sign", first, "--key", desk.key(name))
    desk.publish(first)
    before = read_directory(desk.repository, pin)
    desk.refuses("--days to renew", "propose", second, "--published", desk.repository)
    desk.says("propose", second, "--published", desk.repository, "--days", 300, "--root-days", 400)
    for name in ("ada", "ben"):
        desk.says("sign", second, "--key", desk.key(name))
    desk.publish(second)
    after = read_directory(desk.repository, pin)
    assert (after.directory.version, after.root_version) == (2, 2)
    assert after.directory.nodes == before.directory.nodes
    assert (after.targets.expires - before.targets.expires).days in {269, 270}
