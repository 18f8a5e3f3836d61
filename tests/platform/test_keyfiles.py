"""Files that hold secrets."""

import json
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from node.errors import OperatorError
from node.platform.keyfiles import (
    NODE_KEYS,
    NodeKeys,
    create_key,
    create_master_key,
    create_node_keys,
    descriptor,
    read_key,
    read_master_key,
    read_secret,
    write_secret,
)
from node.settings import Settings, settings_from
from protocol.directory import parse_directory
from protocol.keys import Algorithm, KeyUse

NOW = datetime(2026, 11, 22, 16, 0, 0, 123_000, tzinfo=UTC)


def settings_in(folder: Path, **values: object) -> Settings:
    least = {
        "node_id": "fr.hotline.example",
        "countries": ["FR", "MC"],
        "base_url": "https://fr.hotline.example",
        "embedded_database": True,
    }
    return settings_from({**least, **values}, folder)


def test_every_key_is_made_once_private_and_loads_again(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "keys"
    made = create_node_keys(folder, NOW)
    assert NodeKeys.load(folder) == made
    assert [(each.use, each.key.algorithm) for each in made.stored] == list(NODE_KEYS)
    assert all(each.created == NOW for each in made.stored)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    files = sorted(folder.iterdir())
    assert len(files) == len(NODE_KEYS)
    for path in files:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        stored = read_key(path)
        short = stored.key.public().thumbprint()[:12]
        assert path.name == f"{stored.use}-{stored.key.algorithm}-{short}.key"
    with pytest.raises(OperatorError, match="left as they are"):
        create_node_keys(folder, NOW)


def test_both_algorithms_sign_what_is_to_last(tmp_path: Path) -> None:
    keys = create_node_keys(tmp_path, NOW)
    both = [Algorithm.ED25519, Algorithm.ML_DSA_44]
    assert [key.algorithm for key in keys.signing(KeyUse.STREAM)] == both
    assert [key.algorithm for key in keys.signing(KeyUse.RECEIPT)] == both
    assert keys.signing(KeyUse.HTTP) == (keys.http,)
    assert len({key.seed for use in KeyUse for key in keys.signing(use)}) == 5


def test_a_seed_is_never_printed(tmp_path: Path) -> None:
    keys = create_node_keys(tmp_path, NOW)
    path = next(tmp_path.glob("http-*.key"))
    seed = json.loads(path.read_bytes())["seed"]
    assert seed not in repr(keys)
    path.write_bytes(path.read_bytes().replace(b"http", b"hxtp"))
    with pytest.raises(OperatorError) as caught:
        NodeKeys.load(tmp_path)
    assert seed not in f"{caught.value!r} {caught.value.__cause__!r}"
    assert "does not hold a key" in caught.value.sentence


def test_a_missing_a_second_and_a_foreign_key_are_refused(tmp_path: Path) -> None:
    create_node_keys(tmp_path, NOW)
    create_key(tmp_path, KeyUse.HTTP, Algorithm.ED25519, NOW)
    with pytest.raises(OperatorError, match="two ed25519 keys for http"):
        NodeKeys.load(tmp_path)
    for path in tmp_path.glob("http-*.key"):
        path.unlink()
    with pytest.raises(OperatorError, match="no ed25519 key for http"):
        NodeKeys.load(tmp_path)
    create_key(tmp_path, KeyUse.AUTHORITY, Algorithm.ED25519, NOW)
    with pytest.raises(OperatorError, match="authority with ed25519"):
        NodeKeys.load(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b'{"use":"http","algorithm":"ed25519","seed":"AA==","created":"2026-11-22T16:00:00Z"}',
        b'{"use":"http","algorithm":"ed25519","seed":"*","created":"2026-11-22T16:00:00Z"}',
        b'{"use":"http","algorithm":"rsa","seed":"' + b"A" * 43 + b'=","created":"2026-11-22T16:00:00Z"}',
        b'{"use":"http","algorithm":"ed25519","seed":"' + b"A" * 43 + b'=","created":"today"}',
        b'{"use":"http","algorithm":"ed25519","seed":"' + b"A" * 43 + b'=","created":"2026-11-22T16:00:00Z","x":1}',
    ],
)
def test_a_file_without_a_key_is_refused(tmp_path: Path, content: bytes) -> None:
    write_secret(tmp_path / "some.key", content)
    with pytest.raises(OperatorError, match="does not hold a key"):
        read_key(tmp_path / "some.key")


def test_secrets_are_not_read_through_links_or_from_open_files(tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    write_secret(path, b"secret")
    assert read_secret(path) == b"secret"
    link = tmp_path / "link.key"
    link.symlink_to(path)
    with pytest.raises(OperatorError, match="is a symbolic link"):
        read_secret(link)
    for mode in (0o640, 0o604, 0o620):
        path.chmod(mode)
        with pytest.raises(OperatorError, match="read or written by others"):
            read_secret(path)
    with pytest.raises(OperatorError, match="is missing"):
        read_secret(tmp_path / "absent.key")
    with pytest.raises(OperatorError, match="is not an ordinary file"):
        read_secret(tmp_path)
    write_secret(tmp_path / "big.key", b"x" * 5000)
    with pytest.raises(OperatorError, match="larger than"):
        read_secret(tmp_path / "big.key")


def test_a_secret_never_replaces_a_file(tmp_path: Path) -> None:
    target = tmp_path / "target"
    dangling = tmp_path / "dangling"
    dangling.symlink_to(target)
    for path in (dangling, tmp_path):
        with pytest.raises(OperatorError, match="exists already"):
            write_secret(path, b"secret")
    assert not target.exists()
    with pytest.raises(OperatorError, match="cannot be written"):
        write_secret(tmp_path / "absent" / "x", b"secret")


def test_the_master_key_comes_from_its_file_or_the_environment(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    create_master_key(settings.master_key_file)
    key = read_master_key(settings)
    assert len(key) == 32
    assert read_master_key(settings_in(tmp_path, master_key="A" * 43 + "=")) == bytes(32)
    settings.master_key_file.write_bytes(b"AAAA\n")
    with pytest.raises(OperatorError, match="does not hold 32 bytes"):
        read_master_key(settings)
    settings.master_key_file.write_bytes(b"***")
    with pytest.raises(OperatorError, match="does not hold 32 bytes"):
        read_master_key(settings)


def test_the_descriptor_holds_public_keys_only(tmp_path: Path) -> None:
    keys = create_node_keys(tmp_path, NOW)
    raw = descriptor(settings_in(tmp_path), keys, name="Hotline FR", contact="ops@fr.hotline.example")
    entry = json.loads(raw)
    assert (entry["id"], entry["countries"], entry["weight"]) == ("fr.hotline.example", ["FR", "MC"], 1)
    assert [(key["use"], key["algorithm"]) for key in entry["keys"]] == [(str(a), str(b)) for a, b in NODE_KEYS]
    assert {key["not_before"] for key in entry["keys"]} == {"2026-11-22T16:00:00.000Z"}
    document = {
        "v": 1,
        "version": 1,
        "issued_at": "2026-11-22T16:00:00.000Z",
        "nodes": [entry],
        "routing": {"mandated": [], "desk": None},
    }
    directory = parse_directory(json.dumps(document).encode())
    assert directory.verification_keys("fr.hotline.example", KeyUse.STREAM, NOW) == tuple(
        key.public() for key in keys.signing(KeyUse.STREAM)
    )
    for path in tmp_path.glob("*.key"):
        assert json.loads(path.read_bytes())["seed"].encode() not in raw
