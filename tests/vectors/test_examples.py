"""The examples of the specification are what the code makes, and the code takes or refuses them as they say."""

import ipaddress
import json
from datetime import timedelta
from typing import Any

import pytest

from node.hotline.domain.acceptance import Judged, Refused, judge
from node.platform.trust import Roots, read_set
from protocol.batch import decode_batch
from protocol.bodies import OutcomeBody
from protocol.checkpoint import Checkpoint, StreamId
from protocol.cosignature import verify_checkpoint, verify_cosignature
from protocol.directory import Directory
from protocol.errors import ProtocolError
from protocol.evidence import verify_evidence
from protocol.keys import KeyUse, PublicKey
from protocol.merkle import Edge, leaf_hash, verify_inclusion
from protocol.note import parse_note
from protocol.profile import Request, Response, verify_request, verify_response
from protocol.record import parse_record
from tests.vectors.make import FOLDER, build, dumped, read_stored
from tests.vectors.network import FR, NL, NOW, NOW_S, RECEIPT_S

EXAMPLES = read_stored()
FILES = {name: text.encode() for name, text in EXAMPLES["directory"]["files"].items()}
ROOTS = Roots.pinned(1, FILES["1.root.json"], EXAMPLES["directory"]["root_fingerprint"])
IN_USE = read_set(lambda wanted: FILES.get(wanted.file), ROOTS).use
assert IN_USE is not None
DIRECTORY: Directory = IN_USE.directory
_LATER = NOW + timedelta(seconds=2)


def test_the_stored_examples_are_what_the_code_makes() -> None:
    made = build(EXAMPLES)
    assert {f"{name}.json" for name in made} == {path.name for path in FOLDER.glob("*.json")}
    for name, example in made.items():
        assert (FOLDER / f"{name}.json").read_bytes() == dumped(example), f"{name}: run python -m tests.vectors.make"


def test_a_signature_that_cannot_be_made_again_is_made_anew_when_the_stored_one_is_gone() -> None:
    fresh = build({})["batch"]
    stored = EXAMPLES["batch"]
    assert fresh["checkpoint"] == stored["checkpoint"]
    assert fresh["note"] != stored["note"], "ML-DSA-44 is hedged"


@pytest.mark.parametrize("name", ["page", "media", "outcome"])
def test_a_record_reads_and_has_its_leaf_hash(name: str) -> None:
    example = EXAMPLES["records"][name]
    record = parse_record(example["raw"].encode())
    assert record.leaf_hash.hex() == example["leaf_hash"]
    assert len(record.raw) == example["bytes"]


def test_the_batch_leads_from_the_empty_edge_to_the_signed_root() -> None:
    batch = EXAMPLES["batch"]
    note, records = decode_batch(batch["body"].encode())
    assert note.decode() == batch["note"]
    assert [record.decode() for record in records] == [EXAMPLES["records"][name]["raw"] for name in batch["records"]]
    checkpoint = Checkpoint.parse(parse_note(note).text)
    assert StreamId.parse(checkpoint.origin) == StreamId(FR, NL, 1)
    edge = Edge.EMPTY.extend([leaf_hash(record) for record in records])
    assert (edge.size, edge.root()) == (checkpoint.size, checkpoint.root)
    assert [one.hex() for one in edge.hashes] == batch["edge_after"]
    verify_checkpoint(parse_note(note), checkpoint, DIRECTORY.verification_keys(FR, KeyUse.STREAM, NOW))


def test_the_receipt_is_the_senders_note_with_the_receivers_lines_behind() -> None:
    batch = EXAMPLES["batch"]
    assert batch["receipt"].startswith(batch["note"])
    receipt = parse_note(batch["receipt"].encode())
    checkpoint = Checkpoint.parse(batch["checkpoint"])
    keys = DIRECTORY.verification_keys(NL, KeyUse.RECEIPT, NOW)
    assert verify_cosignature(receipt, checkpoint, f"{NL}/receipt", keys) == RECEIPT_S == batch["receipt_time"]


@pytest.mark.parametrize("name", ["batch", "receipt", "fetch", "refusal"])
def test_request_and_answer_verify_and_belong_together(name: str) -> None:
    said, answered = EXAMPLES["messages"][name]["request"], EXAMPLES["messages"][name]["response"]
    request = Request(said["method"], said["target_uri"], said["headers"], said["body"].encode())
    response = Response(answered["status"], answered["headers"], answered["body"].encode())
    verify_request(request, lambda keyid: _http_key(keyid, FR), now=NOW_S)
    verify_response(response, request, lambda keyid: _http_key(keyid, NL), now=RECEIPT_S)


def _http_key(keyid: str, node: str) -> PublicKey:
    found, key = DIRECTORY.http_key(keyid, _LATER)
    assert found == node
    return key


def test_the_answer_to_one_request_is_none_to_another() -> None:
    said, answered = EXAMPLES["messages"]["receipt"]["request"], EXAMPLES["messages"]["batch"]["response"]
    request = Request(said["method"], said["target_uri"], said["headers"], said["body"].encode())
    response = Response(answered["status"], answered["headers"], answered["body"].encode())
    with pytest.raises(ProtocolError, match="bad-signature"):
        verify_response(response, request, lambda keyid: _http_key(keyid, NL), now=RECEIPT_S)


def test_the_proof_proves_the_record_to_somebody_who_has_the_directory_alone() -> None:
    example = EXAMPLES["proof"]
    assert verify_evidence(example["file"].encode(), DIRECTORY).words() == example["words"]
    leaf = leaf_hash(EXAMPLES["records"][example["record"]]["raw"].encode())
    checkpoint = Checkpoint.parse(EXAMPLES["batch"]["checkpoint"])
    path = [bytes.fromhex(one) for one in example["path"]]
    verify_inclusion(leaf, example["index"], checkpoint.size, path, checkpoint.root)


def _judged(raw: str, iss: str = FR, aud: str = NL) -> Judged | Refused:
    return judge(0, raw.encode(), iss=iss, aud=aud, directory=DIRECTORY, now=NOW)


def test_the_good_records_are_accepted() -> None:
    for name in ("page", "media"):
        assert isinstance(_judged(EXAMPLES["records"][name]["raw"]), Judged)
    said = _judged(EXAMPLES["records"]["outcome"]["raw"], iss=NL, aud=FR)
    assert isinstance(said, Judged)
    assert isinstance(said.record.body, OutcomeBody)


@pytest.mark.parametrize("case", EXAMPLES["refused"]["framings"], ids=lambda case: str(case["what"]))
def test_a_framing_that_breaks_one_rule_is_refused_with_its_code(case: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError) as raised:
        decode_batch(case["body"].encode())
    assert (raised.value.code, raised.value.field) == (case["code"], case["field"])


@pytest.mark.parametrize("case", EXAMPLES["refused"]["checkpoints"], ids=lambda case: str(case["what"]))
def test_a_checkpoint_that_breaks_one_rule_is_refused_with_its_code(case: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError) as raised:
        StreamId.parse(Checkpoint.parse(case["text"]).origin)
    assert (raised.value.code, raised.value.field) == (case["code"], case["field"])


def test_no_example_names_a_host_that_is_not_reserved() -> None:
    # Among URLs, how a host can be written is what they are about; those that are taken are held below.
    for example in (example for name, example in EXAMPLES.items() if name != "urls"):
        for part in json.dumps(example).split("://")[1:]:
            host = part.split("/")[0].split('"')[0].split("\\")[0]
            assert host.endswith((".example", ".test", ".invalid")), host


def test_no_url_that_is_taken_leads_to_anybody() -> None:
    for case in EXAMPLES["urls"]["taken"]:
        if case["kind"] in {"ipv4", "ipv6"}:
            assert ipaddress.ip_address(case["host"]).is_private, case["host"]
        elif case["kind"] == "name":
            assert case["host"].endswith((".example", "localhost")), case["host"]
