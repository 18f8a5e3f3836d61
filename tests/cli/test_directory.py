"""`hotline directory`: the authority's key, a signed file that nodes take, and everything it refuses to sign."""

import json
import stat
from pathlib import Path

import pytest

from node.platform.membership import read_directory
from tests.cli.conftest import Home, Hotline, NewHome


@pytest.fixture
def members(new_home: NewHome) -> tuple[Home, Home]:
    return new_home("FR"), new_home("NL")


def descriptor(home: Home) -> Path:
    return home.data / "descriptor.json"


def test_from_the_authoritys_key_to_a_directory_that_nodes_take(
    hotline: Hotline, members: tuple[Home, Home], tmp_path: Path
) -> None:
    key, out = tmp_path / "authority.key", tmp_path / "directory.note"
    made = hotline("directory", "new-authority", key)
    vkey = made.out.strip()
    assert (made.status, made.err) == (0, "")
    assert vkey.startswith("hx/1/directory+")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    before = key.read_bytes()
    assert "exists already" in hotline("directory", "new-authority", key).err
    assert key.read_bytes() == before

    fr, nl = members
    words = ("directory", "write", "--authority-key", key, "--out", out, "--mandated", fr.id, "--desk", nl.id)
    both = ("--member", descriptor(fr), "--member", descriptor(nl))
    said = hotline(*words, *both, "--version", 3)
    assert (said.status, said.err) == (0, "")
    assert vkey in said.out
    directory, _ = read_directory(out, vkey)
    assert (directory.version, list(directory.nodes)) == (3, [fr.id, nl.id])
    assert (directory.mandated, directory.desk) == ((fr.id,), nl.id)

    signed = out.read_bytes()
    for version in (3, 2, 0):
        said = hotline(*words, *both, "--version", version)
        assert (said.status, said.out) == (2, "")
        assert "has version 3 already: give a higher --version" in said.err
    assert out.read_bytes() == signed
    assert hotline(*words, *both, "--version", 4).status == 0
    assert read_directory(out, vkey)[0].version == 4

    shown = hotline("directory", "show", out, "--authority", vkey).out
    assert "Version 4" in shown
    assert "Signature: valid" in shown
    assert f"Mandated where there is no hotline: {fr.id}." in shown
    assert "://" not in shown
    unverified = hotline("directory", "show", out).out
    assert "NOT CHECKED" in unverified
    assert nl.id in unverified


def test_what_is_wrong_is_not_signed_and_is_named(hotline: Hotline, members: tuple[Home, Home], tmp_path: Path) -> None:
    key, out, (fr, nl) = tmp_path / "authority.key", tmp_path / "directory.note", members
    assert hotline("directory", "new-authority", key).status == 0
    spoiled = tmp_path / "spoiled.json"

    def refused(sentence: str, *words: object, key_file: Path = key) -> None:
        call = ("directory", "write", "--authority-key", key_file, "--out", out, "--version", 1)
        said = hotline(*call, *words)
        assert said.status == 2
        assert sentence in said.err
        assert said.err.count("\n") == 1
        assert not out.exists()

    entry = json.loads(descriptor(nl).read_bytes())
    spoiled.write_text(json.dumps({**entry, "countries": ["ZZ"]}))
    refused(f"{spoiled}, countries[0]: ", "--member", descriptor(fr), spoiled)
    spoiled.write_text(json.dumps({**entry, "keys": entry["keys"][:1]}))
    refused(f"{spoiled}, keys: ", "--member", descriptor(fr), spoiled)
    refused("another node has this id", "--member", descriptor(fr), descriptor(fr))
    refused("routing.mandated[0]: there is no such node", "--member", descriptor(fr), "--mandated", nl.id)
    refused("routing.desk: there is no such node", "--member", descriptor(fr), "--desk", nl.id)
    spoiled.write_text("[]")
    refused("is not a descriptor", "--member", spoiled)
    refused("cannot be read (No such file or directory)", "--member", tmp_path / "absent.json")
    refused("The key file", "--member", descriptor(fr), key_file=tmp_path / "absent.key")
    node_key = next((fr.data / "keys").glob("http-*.key"))
    refused("`hotline directory new-authority` makes an authority's", "--member", descriptor(fr), key_file=node_key)
    key.chmod(0o644)
    refused("chmod 600", "--member", descriptor(fr))


def test_a_file_of_another_authority_is_not_replaced(
    hotline: Hotline, members: tuple[Home, Home], tmp_path: Path
) -> None:
    one, other, out = tmp_path / "one.key", tmp_path / "other.key", tmp_path / "directory.note"
    vkeys = [hotline("directory", "new-authority", key).out.strip() for key in (one, other)]
    words = ("--member", descriptor(members[0]), "--out", out)
    assert hotline("directory", "write", "--authority-key", one, *words, "--version", 1).status == 0
    said = hotline("directory", "write", "--authority-key", other, *words, "--version", 2)
    assert said.status == 2
    assert "is not signed by the pinned authority" in said.err
    assert "is not signed" in hotline("directory", "show", out, "--authority", vkeys[1]).err
    assert "Option --authority is not a verifier key" in hotline("directory", "show", out, "--authority", "cut").err
    out.write_text("no note")
    assert "The file is not a directory" in hotline("directory", "show", out).err
    assert "cannot be read" in hotline("directory", "show", tmp_path / "absent").err
