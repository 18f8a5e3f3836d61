"""The directory: each broken member is named, and keys count in their windows."""

import base64
import copy
import json
from datetime import datetime, timedelta
from typing import Any

import pytest

from protocol.codes import COUNTRIES, NodeState
from protocol.directory import (
    Directory,
    DirectoryInvalid,
    parse_directory,
)
from protocol.errors import ProtocolError
from protocol.keys import Algorithm, KeyState, KeyUse, SigningKey
from protocol.timestamps import format_time
from tests.protocol.sample_network import (
    BEFORE,
    DESK,
    FR,
    NL,
    NOW,
    desk_member,
    directory_of,
    document,
    key_member,
    signing_key,
    signing_keys,
)

SECOND = timedelta(seconds=1)
MISSING = object()


def raw_of(members: dict[str, Any]) -> bytes:
    return json.dumps(members, separators=(",", ":")).encode()


def changed(path: str, value: object) -> dict[str, Any]:
    members = document()
    node: Any = members
    keys = [int(key) if key.isdigit() else key for key in path.replace("[", ".").replace("]", "").split(".")]
    for key in keys[:-1]:
        node = node[key]
    if value is MISSING:
        del node[keys[-1]]
    else:
        node[keys[-1]] = value
    return members


def fault(members: dict[str, Any]) -> DirectoryInvalid:
    with pytest.raises(DirectoryInvalid) as caught:
        directory_of(members)
    return caught.value


def with_keys(*keys: tuple[SigningKey, KeyUse, dict[str, str]]) -> dict[str, Any]:
    """Return a document in which the Dutch node has these keys beside its own."""
    members = document()
    members["nodes"][1]["keys"] += [key_member(key, use, **changes) for key, use, changes in keys]
    return members


def test_document_is_read_as_it_was_written() -> None:
    directory = directory_of(document())
    assert (directory.version, directory.issued_at) == (7, NOW)
    assert list(directory.nodes) == [FR, NL]
    assert (directory.mandated, directory.desk) == ((NL,), None)
    node = directory.nodes[NL]
    assert (node.id, node.countries, node.base_url, node.contact) == (
        NL,
        ("NL", "CW"),
        f"https://{NL}:8443",
        f"duty@{NL}",
    )
    assert (node.versions, node.state, node.weight) == (("1.0",), NodeState.ACTIVE, 100)
    assert node.limits == {"records_per_batch": 1000}
    assert [(key.use, key.algorithm, key.state, key.not_before) for key in node.keys[:2]] == [
        (KeyUse.HTTP, Algorithm.ED25519, KeyState.ACTIVE, BEFORE),
        (KeyUse.STREAM, Algorithm.ED25519, KeyState.ACTIVE, BEFORE),
    ]


def test_unknown_members_are_passed_over() -> None:
    members = document()
    members["later"] = members["nodes"][0]["later"] = members["nodes"][0]["keys"][0]["later"] = [1]
    directory_of(members)


def test_directory_and_its_parts_do_not_change() -> None:
    directory = directory_of(document())
    for mapping in (directory.nodes, directory.nodes[FR].limits):
        with pytest.raises(TypeError):
            mapping["x"] = 1  # type: ignore[index]  # the mistake under test
    assert len({directory.nodes[FR], directory.nodes[NL]}) == 2


ED_25519_KEY = document()["nodes"][0]["keys"][0]["public"]
NODE, KEY = "nodes[0]", "nodes[0].keys[0]"
FAULTS: list[tuple[str, object, str]] = [
    ("v", 2, "v"),
    ("v", "1", "v"),
    ("version", 0, "version"),
    ("version", None, "version"),
    ("issued_at", "2026-11-22T16:00:00Z", "issued_at"),
    ("issued_at", MISSING, "issued_at"),
    ("nodes", {}, "nodes"),
    ("routing", MISSING, "routing"),
    ("routing.mandated", ["de.hotline.example"], "routing.mandated[0]"),
    ("routing.mandated", [NL, NL], "routing.mandated"),
    ("routing.mandated", MISSING, "routing.mandated"),
    ("routing.desk", FR, "routing.desk"),
    ("routing.desk", 1, "routing.desk"),
    *(
        ("routing.desk", {**desk_member(), name: value}, f"routing.desk.{name}")
        for name, value in (("id", FR), ("id", "A"), ("base_url", "https://x/y"), ("base_url", None), ("keys", []))
    ),
    ("routing.desk", {**desk_member(), "keys": desk_member()["keys"][:2]}, "routing.desk.keys"),
    (
        "routing.desk",
        {**desk_member(), "keys": [*desk_member()["keys"], document()["nodes"][0]["keys"][1]]},
        "routing.desk.keys[3].use",
    ),
    (
        "routing.desk",
        {**desk_member(), "keys": [*desk_member()["keys"], document()["nodes"][0]["keys"][0]]},
        "routing.desk.keys[3].public",
    ),
    (f"{NODE}.keys[0].use", "desk", f"{NODE}.keys[0].use"),
    ("nodes[1].id", FR, "nodes[1].id"),
    *((f"{NODE}.id", value, f"{NODE}.id") for value in ("", "FR", "a b", "-", "a" * 101, 1)),
    *((f"{NODE}.countries", ["FR", value], f"{NODE}.countries[1]") for value in ("fr", "XK", "EU", "UK", "", 1)),
    (f"{NODE}.countries", ["FR", "FR"], f"{NODE}.countries"),
    *((f"{NODE}.name", value, f"{NODE}.name") for value in ("", "a\nb", "a" * 201, None)),
    *((f"{NODE}.contact", value, f"{NODE}.contact") for value in ("", "a\x00", MISSING)),
    *(
        (f"{NODE}.base_url", value, f"{NODE}.base_url")
        for value in (
            "ftp://fr.example",
            "fr.example",
            "//fr.example",
            "https://",
            "https://fr.example/",
            "https://fr.example/path",
            "https://fr.example?q",
            "https://fr.example#f",
            "https://user@fr.example",
            "https://FR.example",
            "https://fr.example:",
            "https://fr.example:0",
            "https://fr.example:65536",
            "https://fr.example:443:443",
            "https://fr example",
            "https://fr.example\n",
            "https://[::1",
            "https://::1",
            None,
        )
    ),
    *((f"{NODE}.versions", value, f"{NODE}.versions") for value in ([], ["1"], ["1.0", "x"], ["1.0.0"])),
    (f"{NODE}.versions", None, f"{NODE}.versions"),
    (f"{NODE}.limits", {"records": -1}, f"{NODE}.limits"),
    (f"{NODE}.limits", {"Records": 1}, f"{NODE}.limits"),
    (f"{NODE}.limits", {"records": "1"}, f"{NODE}.limits[...]"),
    (f"{NODE}.state", "gone", f"{NODE}.state"),
    *((f"{NODE}.weight", value, f"{NODE}.weight") for value in (-1, 1_000_001, "1", True)),
    (f"{NODE}.keys", [], f"{NODE}.keys"),
    (f"{KEY}.use", "sign", f"{KEY}.use"),
    (f"{KEY}.use", "enc", f"{KEY}.use"),
    (f"{KEY}.use", "authority", f"{KEY}.use"),
    (f"{KEY}.use", MISSING, f"{KEY}.use"),
    # An active node without a key to sign requests with.
    (f"{KEY}.use", "witness", f"{NODE}.keys"),
    (f"{KEY}.state", "next", f"{NODE}.keys"),
    (f"{KEY}.state", "lost", f"{KEY}.state"),
    (f"{KEY}.algorithm", "rsa", f"{KEY}.algorithm"),
    (f"{KEY}.algorithm", "ml-dsa-44", f"{KEY}.public"),
    *((f"{KEY}.public", value, f"{KEY}.public") for value in ("", "!", ED_25519_KEY[:-1], ED_25519_KEY[:-4], None)),
    (f"{KEY}.public", base64.b64encode(b"\x01" + bytes(31)).decode(), f"{KEY}.public"),
    (f"{KEY}.not_before", "yesterday", f"{KEY}.not_before"),
    (f"{KEY}.retired_at", format_time(NOW), f"{KEY}.retired_at"),
    (f"{KEY}.retired_at", "soon", f"{KEY}.retired_at"),
    (f"{KEY}.state", "retired", f"{KEY}.retired_at"),
    (f"{KEY}.compromised_since", format_time(NOW), f"{KEY}.compromised_since"),
    (f"{KEY}.state", "compromised", f"{KEY}.compromised_since"),
    # One key never serves two uses, nor two nodes.
    ("nodes[0].keys[1].public", ED_25519_KEY, "nodes[0].keys[1].public"),
    ("nodes[1].keys[0].public", ED_25519_KEY, "nodes[1].keys[0].public"),
]


@pytest.mark.parametrize(("path", "value", "field"), FAULTS)
def test_member_at_fault_is_named(path: str, value: object, field: str) -> None:
    error = fault(changed(path, value))
    assert error.field == field
    assert str(error).startswith(f"{field}: ")


def test_retired_key_was_active_before() -> None:
    changes = {"state": "retired", "retired_at": format_time(BEFORE - SECOND)}
    error = fault(with_keys((signing_key(NL, "old"), KeyUse.HTTP, changes)))
    assert error.field == "nodes[1].keys[5].retired_at"


def test_same_key_twice_is_refused_even_for_one_use() -> None:
    error = fault(with_keys((signing_key(NL, KeyUse.HTTP), KeyUse.HTTP, {})))
    assert error.field == "nodes[1].keys[5].public"


def test_too_many_nodes_or_keys_are_refused() -> None:
    members = document()
    template = {**members["nodes"][0], "state": "left", "keys": []}
    members["nodes"] += [{**template, "id": f"n{number}.example"} for number in range(999)]
    assert fault(members).field == "nodes"
    members = with_keys(*((signing_key(NL, "http", generation=n), KeyUse.HTTP, {}) for n in range(1, 253)))
    assert fault(members).field == "nodes[1].keys"


@pytest.mark.parametrize("raw", [b"", b"[]", b"null", b'{"v":1,"v":1}', b'{"v":1.0}', b"\xff"])
def test_document_that_is_no_object_is_refused(raw: bytes) -> None:
    with pytest.raises(DirectoryInvalid):
        parse_directory(raw)


@pytest.mark.parametrize(
    "base_url",
    [
        "http://127.0.0.1:8080",
        "https://hotline.example",
        "http://[::1]:9",
        "https://[2001:db8::1]",
        "http://localhost:1",
    ],
)
def test_addresses_that_a_node_may_have(base_url: str) -> None:
    assert directory_of(changed("nodes[0].base_url", base_url)).nodes[FR].base_url == base_url


def test_nodes_that_are_not_active_may_lack_keys_and_a_country() -> None:
    members = changed("nodes[0].keys", [])
    members["nodes"][0].update(state="left", countries=[], weight=0)
    assert directory_of(members).verification_keys(FR, KeyUse.STREAM, NOW) == ()


def test_a_desk_is_no_member_and_its_keys_are_found() -> None:
    directory = directory_of(changed("routing.desk", desk_member()))
    assert directory.desk is not None
    assert (directory.desk.id, directory.desk.base_url) == (DESK, f"https://{DESK}")
    assert DESK not in directory.nodes
    assert [key.algorithm for key in directory.verification_keys(DESK, KeyUse.DESK, NOW)] == list(Algorithm)
    key = signing_key(DESK, KeyUse.HTTP).public()
    assert directory.http_key(key.thumbprint(), NOW) == (DESK, key)


def test_country_list_is_of_assigned_codes() -> None:
    assert len(COUNTRIES) == 249
    assert {"FR", "NL", "DE", "GB", "SS", "ZW"} <= COUNTRIES
    assert not {"UK", "EU", "XK", "AN", "CS", "SU", "ZZ"} & COUNTRIES


# Keys and times.


def public_of(node: str, use: KeyUse, generation: int = 0) -> list[Any]:
    return [key.public() for key in signing_keys(node, use, generation)]


def test_every_active_key_of_the_use_counts() -> None:
    directory = directory_of(document())
    assert list(directory.verification_keys(NL, KeyUse.STREAM, NOW)) == public_of(NL, KeyUse.STREAM)
    assert list(directory.verification_keys(NL, KeyUse.RECEIPT, NOW)) == public_of(NL, KeyUse.RECEIPT)
    assert directory.verification_keys(NL, KeyUse.WITNESS, NOW) == ()
    assert directory.verification_keys("de.hotline.example", KeyUse.STREAM, NOW) == ()


def test_active_key_counts_from_its_first_moment_on() -> None:
    directory = directory_of(document())
    assert directory.verification_keys(NL, KeyUse.STREAM, BEFORE - SECOND) == ()
    assert len(directory.verification_keys(NL, KeyUse.STREAM, BEFORE)) == 2


def rotated(switch: datetime) -> Directory:
    """Return a directory in which the Dutch stream keys were replaced at `switch`."""
    members = document()
    keys = members["nodes"][1]["keys"]
    for old in keys:
        if old["use"] == "stream":
            old.update(state="retired", retired_at=format_time(switch))
    keys += [
        key_member(new, KeyUse.STREAM, not_before=format_time(switch)) for new in signing_keys(NL, KeyUse.STREAM, 1)
    ]
    return directory_of(members)


def test_retired_key_counts_for_what_was_received_before_and_its_successor_after() -> None:
    directory = rotated(NOW)
    before = directory.verification_keys(NL, KeyUse.STREAM, NOW - SECOND)
    assert list(before) == public_of(NL, KeyUse.STREAM)
    assert list(directory.verification_keys(NL, KeyUse.STREAM, NOW)) == public_of(NL, KeyUse.STREAM, 1)


def test_next_key_does_not_count_whatever_its_date() -> None:
    upcoming = signing_keys(NL, KeyUse.STREAM, 1)[0]
    directory = directory_of(with_keys((upcoming, KeyUse.STREAM, {"state": "next"})))
    assert list(directory.verification_keys(NL, KeyUse.STREAM, NOW)) == public_of(NL, KeyUse.STREAM)


def test_compromised_key_never_counts_but_was_good_before() -> None:
    members = document()
    members["nodes"][1]["keys"][1].update(state="compromised", compromised_since=format_time(NOW))
    members["nodes"][1]["keys"].append(
        key_member(signing_keys(NL, KeyUse.STREAM, 1)[0], KeyUse.STREAM, not_before=format_time(NOW))
    )
    directory = directory_of(members)
    stolen = signing_key(NL, KeyUse.STREAM).public()
    for when in (BEFORE, NOW - SECOND, NOW):
        assert stolen not in directory.verification_keys(NL, KeyUse.STREAM, when)
    assert stolen in [key.public for key in directory.keys_good_at(NL, KeyUse.STREAM, NOW - SECOND)]
    assert stolen not in [key.public for key in directory.keys_good_at(NL, KeyUse.STREAM, NOW)]


@pytest.mark.parametrize("use", [KeyUse.STREAM, KeyUse.RECEIPT])
def test_two_keys_of_one_algorithm_never_count_at_once(use: KeyUse) -> None:
    second = signing_keys(NL, use, 1)[0]
    assert fault(with_keys((second, use, {"not_before": format_time(NOW)}))).field == "nodes[1].keys[5].not_before"
    # The one listed first may be the one that begins later.
    members = with_keys((second, use, {"not_before": format_time(BEFORE - SECOND)}))
    assert fault(members).field.endswith(".not_before")
    # Requests carry the name of their key, so any number may sign them.
    directory_of(with_keys((signing_key(NL, "http", generation=1), KeyUse.HTTP, {})))


def keyid(node: str, generation: int = 0) -> str:
    return signing_key(node, KeyUse.HTTP, generation=generation).public().thumbprint()


def test_request_key_is_found_by_its_thumbprint() -> None:
    directory = directory_of(document())
    assert directory.http_key(keyid(NL), NOW) == (NL, signing_key(NL, KeyUse.HTTP).public())


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"state": "next"}, "unknown-key"),
        ({"not_before": format_time(NOW + SECOND)}, "unknown-key"),
        ({"state": "retired", "retired_at": format_time(NOW)}, "key-revoked"),
        ({"state": "compromised", "compromised_since": format_time(NOW + SECOND)}, "key-revoked"),
        ({"state": "retired", "retired_at": format_time(NOW + SECOND)}, None),
        ({}, None),
    ],
)
def test_request_key_counts_only_in_its_window(changes: dict[str, str], code: str | None) -> None:
    key = signing_key(NL, KeyUse.HTTP, generation=1)
    directory = directory_of(with_keys((key, KeyUse.HTTP, changes)))
    if code is None:
        assert directory.http_key(keyid(NL, 1), NOW) == (NL, key.public())
        return
    with pytest.raises(ProtocolError) as caught:
        directory.http_key(keyid(NL, 1), NOW)
    assert (caught.value.code, caught.value.field) == (code, "keyid")


@pytest.mark.parametrize("state", ["left", "suspended"])
def test_request_key_of_a_node_that_is_no_member_is_revoked(state: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        directory_of(changed("nodes[1].state", state)).http_key(keyid(NL), NOW)
    assert caught.value.code == "key-revoked"


def test_only_keys_for_requests_are_found_by_thumbprint() -> None:
    directory = directory_of(document())
    for name in (signing_key(NL, KeyUse.STREAM).public().thumbprint(), "x", ""):
        with pytest.raises(ProtocolError) as caught:
            directory.http_key(name, NOW)
        assert caught.value.code == "unknown-key"


def test_directory_of_a_whole_network_opens() -> None:
    members = document()
    template = members["nodes"][0]
    members["nodes"] = [copy.deepcopy(template) for _ in range(60)]
    for number, node in enumerate(members["nodes"]):
        node["id"] = f"n{number}.example"
        node["keys"] = [
            key_member(signing_key(node["id"], key["use"], Algorithm(key["algorithm"])), KeyUse(key["use"]))
            for key in template["keys"]
        ]
    members["routing"]["mandated"] = []
    directory = parse_directory(raw_of(members))
    assert directory.http_key(keyid("n59.example"), NOW)[0] == "n59.example"
