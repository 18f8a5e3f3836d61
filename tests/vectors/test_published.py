"""Every published vector against our code: what has to come out comes out, what has to be refused is, with its code."""

import hashlib
import json
from datetime import timedelta
from typing import Any

import pytest

from node.conformance.speaker import changed
from node.hotline.domain.acceptance import Judged, Refused, judge
from node.hotline.domain.urls import HostKind
from protocol.batch import decode_batch
from protocol.bodies import OutcomeBody, ReportBody
from protocol.checkpoint import Checkpoint, StreamId
from protocol.codes import RecordType, StatusKind
from protocol.cosignature import verify_checkpoint
from protocol.custody import evidence_hash
from protocol.desk import encode, open_ruling, parse_equivocation, parse_statement
from protocol.directory import DirectoryInvalid, parse_directory
from protocol.errors import ProtocolError
from protocol.evidence import EvidenceInvalid, verify_evidence
from protocol.hello import Lost, encode_heads, parse_heads
from protocol.keys import KeyUse, PublicKey, SignatureInvalid
from protocol.merkle import Edge, leaf_hash, verify_inclusion
from protocol.note import parse_note
from protocol.problems import REGISTRY, parse_problem
from protocol.profile import Request, verify_request
from protocol.receipt import open_receipt
from protocol.record import UnknownBody
from protocol.steps import StatusBody
from tests.docs.pages import page, rows
from tests.vectors.make import FOLDER, read_stored
from tests.vectors.network import FR, NL, NOW, page_report
from tests.vectors.pure import decision, route, understood, window
from tests.vectors.spoiled import with_change
from tests.vectors.test_examples import DIRECTORY

VECTORS = read_stored()
#: After the receipts, and before anything is to be erased.
_THEN = NOW + timedelta(hours=2)


def by_what(case: dict[str, Any]) -> str:
    return str(case.get("what") or case.get("code") or case["problem"])


def test_the_readme_describes_each_file_and_no_other() -> None:
    described = {cells[0].strip("`") for cells in rows((FOLDER / "README.md").read_text(encoding="utf-8"))}
    assert described == {path.name for path in FOLDER.glob("*.json")}
    listed = page("docs/protocol.md").section("11. Vectors")
    assert all(f"vectors/{name})" in listed for name in described)


@pytest.mark.parametrize("name", list(VECTORS["records"]))
def test_a_record_is_taken_as_it_says(name: str) -> None:
    example = VECTORS["records"][name]
    raw = example["raw"].encode()
    assert (len(raw), leaf_hash(raw).hex()) == (example["bytes"], example["leaf_hash"])
    judged = judge(0, raw, iss=example["iss"], aud=example["aud"], directory=DIRECTORY, now=NOW)
    assert isinstance(judged, Judged), judged
    body = judged.record.body
    unread = isinstance(body, UnknownBody) or (isinstance(body, StatusBody) and body.kind is StatusKind.EPOCH)
    assert unread is (example["becomes"] == "kept")


def test_every_type_and_every_kind_of_status_has_a_record() -> None:
    said = [json.loads(one["raw"]) for one in VECTORS["records"].values()]
    assert {one["type"] for one in said} >= set(RecordType)
    assert {one["body"]["kind"] for one in said if one["type"] == "status"} >= set(StatusKind)


@pytest.mark.parametrize("case", VECTORS["refused"]["records"], ids=by_what)
def test_a_record_that_breaks_one_rule_is_refused(case: dict[str, Any]) -> None:
    iss, aud = case.get("iss", FR), case.get("aud", NL)
    refused = judge(0, case["raw"].encode(), iss=iss, aud=aud, directory=DIRECTORY, now=NOW)
    assert isinstance(refused, Refused)
    assert (refused.code, refused.field) == (case["code"], case["field"])


def _reported(url: str) -> Judged | Refused:
    raw = changed(page_report(), body__url=url)
    return judge(0, raw, iss=FR, aud=NL, directory=DIRECTORY, now=NOW)


@pytest.mark.parametrize("case", VECTORS["urls"]["taken"], ids=by_what)
def test_a_url_is_taken_and_read_as_it_says(case: dict[str, Any]) -> None:
    judged = _reported(case["url"])
    assert isinstance(judged, Judged), judged
    assert judged.url is not None
    found = judged.url
    assert (found.normal, found.host, found.host_kind) == (case["normal"], case["host"], case["kind"])


@pytest.mark.parametrize("case", VECTORS["urls"]["refused"], ids=by_what)
def test_a_report_of_a_url_that_cannot_be_taken_is_refused(case: dict[str, Any]) -> None:
    refused = _reported(case["url"])
    assert isinstance(refused, Refused)
    assert (refused.code, refused.field) == (case["code"], case["field"])


def test_every_kind_of_host_has_a_url() -> None:
    assert {case["kind"] for case in VECTORS["urls"]["taken"]} == set(HostKind)


def test_every_known_type_of_record_is_refused_once_at_least() -> None:
    refused = [json.loads(one["raw"]) for one in VECTORS["refused"]["records"] if one["step"] >= 10]
    assert {one["type"] for one in refused} >= set(RecordType) - {RecordType.OUTCOME}


@pytest.mark.parametrize("name", ["batch", "transfer"])
def test_a_batch_leads_to_its_root_and_its_receipt_proves_it(name: str) -> None:
    batch = VECTORS[name]
    raw, records = decode_batch(batch["body"].encode())
    assert raw.decode() == batch["note"]
    assert [one.decode() for one in records] == [VECTORS["records"][one]["raw"] for one in batch["records"]]
    edge = Edge.EMPTY.extend(map(leaf_hash, records))
    checkpoint = Checkpoint.parse(batch["checkpoint"])
    assert (edge.size, edge.root()) == (checkpoint.size, checkpoint.root)
    keys = DIRECTORY.verification_keys(batch["stream"]["iss"], KeyUse.STREAM, _THEN)
    verify_checkpoint(parse_note(raw), checkpoint, keys)
    covered, stream = open_receipt(batch["receipt"].encode(), DIRECTORY)
    assert (covered, stream.aud) == (checkpoint, batch["stream"]["aud"])


def test_the_transfer_and_what_was_transferred_are_proven() -> None:
    finding = verify_evidence(VECTORS["transfer"]["proof"].encode(), DIRECTORY)
    assert (finding.type, finding.iss) == ("transfer", NL)


@pytest.mark.parametrize("case", VECTORS["receipts"]["refused"], ids=by_what)
def test_a_receipt_that_lacks_one_thing_proves_nothing(case: dict[str, Any]) -> None:
    with pytest.raises(SignatureInvalid):
        open_receipt(case["receipt"].encode(), DIRECTORY)


@pytest.mark.parametrize("case", VECTORS["messages"]["refused"], ids=by_what)
def test_a_request_is_refused_at_its_step(case: dict[str, Any]) -> None:
    said = case["request"]
    request = Request(said["method"], said["target_uri"], said["headers"], said["body"].encode())

    def find_key(keyid: str) -> PublicKey:
        return DIRECTORY.http_key(keyid, NOW)[1]

    with pytest.raises(ProtocolError) as raised:
        verify_request(request, find_key, now=case["now"])
    assert raised.value.code == case["code"]


@pytest.mark.parametrize("case", VECTORS["proof"]["refused"], ids=by_what)
def test_a_proof_fails_at_its_step(case: dict[str, Any]) -> None:
    with pytest.raises(EvidenceInvalid) as raised:
        verify_evidence(case["file"].encode(), DIRECTORY)
    assert raised.value.step == case["step"]


@pytest.mark.parametrize("case", VECTORS["directory"]["refused"], ids=by_what)
def test_a_directory_that_breaks_one_rule_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(DirectoryInvalid) as raised:
        parse_directory(with_change(case["path"], case["value"]))
    assert raised.value.field == case["field"]


def test_trees_have_their_edges_roots_and_paths() -> None:
    trees = VECTORS["trees"]
    leaves = [bytes.fromhex(one) for one in trees["leaf_hashes"]]
    assert leaves == [leaf_hash(one.encode()) for one in trees["records"]]
    roots = {}
    for one in trees["sizes"]:
        edge = Edge.EMPTY.extend(leaves[: one["size"]])
        assert ([each.hex() for each in edge.hashes], edge.root().hex()) == (one["edge"], one["root"])
        roots[one["size"]] = edge.root()
    for one in trees["paths"]:
        path = [bytes.fromhex(each) for each in one["path"]]
        verify_inclusion(leaves[one["index"]], one["index"], one["size"], path, roots[one["size"]])


@pytest.mark.parametrize("case", VECTORS["evidence"]["cases"], ids=by_what)
def test_evidence_is_named_by_the_hash_of_its_text(case: dict[str, Any]) -> None:
    assert evidence_hash(case["evidence"]) == case["sha256"] == hashlib.sha256(case["text"].encode()).hexdigest()


def test_two_cases_of_evidence_have_different_names() -> None:
    assert len({case["sha256"] for case in VECTORS["evidence"]["cases"]}) == len(VECTORS["evidence"]["cases"])


@pytest.mark.parametrize("case", VECTORS["directory"]["windows"], ids=lambda case: f"{case['state']} at {case['at']}")
def test_a_key_counts_as_its_state_and_the_time_say(case: dict[str, Any]) -> None:
    times = ("not_before", "retired_at", "compromised_since")
    key = {name: case[name] for name in ("state", *times) if name in case}
    assert window(key, case["at"]) == {name: case[name] for name in ("counts", "good", "code")}


@pytest.mark.parametrize("case", VECTORS["routing"]["cases"], ids=lambda case: f"{case['what']}, {case['case'][-2:]}")
def test_competence_is_what_every_node_computes(case: dict[str, Any]) -> None:
    assert route(case["nodes"], case["mandated"], case["country"], case["case"]) == case["route"]


def test_competence_is_shared() -> None:
    shared = {one["route"]["node"] for one in VECTORS["routing"]["cases"] if one["what"] == "several by weight"}
    assert len(shared) == 2


@pytest.mark.parametrize("case", VECTORS["delivery"]["cases"], ids=by_what)
def test_a_sender_decides_as_it_says(case: dict[str, Any]) -> None:
    assert decision(case["problem"], case["situation"], case["draw"]) == case["decision"]


def test_every_problem_is_written_and_understood() -> None:
    written = VECTORS["problems"]["written"]
    assert {one["code"] for one in written} == set(REGISTRY)
    for one in written:
        found = parse_problem(json.dumps(one["body"]).encode())
        assert (found.code, found.retryable, found.scope) == (
            one["code"],
            one["body"]["retryable"],
            one["body"]["scope"],
        )


@pytest.mark.parametrize("case", VECTORS["problems"]["read"], ids=by_what)
def test_a_body_that_is_less_than_a_problem_is_survived(case: dict[str, Any]) -> None:
    assert understood(case["body"]) == case["is"]


def test_a_hello_reads_and_writes() -> None:
    hello = VECTORS["hello"]
    heads = parse_heads(hello["body"].encode(), caller=hello["caller"], callee=hello["callee"])
    assert encode_heads(heads).decode() == hello["body"]
    heads = parse_heads(hello["recovering"].encode(), caller=hello["caller"], callee=hello["callee"])
    assert heads.lost == (Lost(1, 1),)
    assert encode_heads(heads).decode() == hello["recovering"]


@pytest.mark.parametrize("case", VECTORS["hello"]["refused"], ids=by_what)
def test_a_hello_that_breaks_one_rule_is_refused(case: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError) as raised:
        parse_heads(case["body"].encode(), caller=VECTORS["hello"]["caller"], callee=VECTORS["hello"]["callee"])
    assert (raised.value.code, raised.value.field) == (case["code"], case["field"])


def test_what_is_handed_in_at_the_desk_and_ruled_is_read() -> None:
    desk = VECTORS["desk"]
    said = parse_statement(desk["dispute"].encode())
    assert encode(said).decode() == desk["dispute"]
    for name in ("contradiction", "contradiction_of_epochs"):
        told, shown = parse_equivocation(desk[name].encode(), DIRECTORY)
        assert encode(told).decode() == desk[name]
        assert shown.stream == StreamId(FR, NL, 1)
        assert shown.proven
    ruling = open_ruling(desk["ruling"].encode(), DIRECTORY)
    assert (ruling.dispute, ruling.item, ruling.custodian) == (said.dispute, said.item, said.other)


@pytest.mark.parametrize(
    "case", [*VECTORS["desk"]["disputes_refused"], *VECTORS["desk"]["contradictions_refused"]], ids=by_what
)
def test_what_the_desk_refuses(case: dict[str, Any]) -> None:
    raw = case["body"].encode()
    with pytest.raises(ProtocolError) as raised:
        parse_equivocation(raw, DIRECTORY) if "held" in json.loads(raw) else parse_statement(raw)
    assert raised.value.code == case["code"]
    assert raised.value.field == case["field"]


@pytest.mark.parametrize("case", VECTORS["desk"]["rulings_refused"], ids=by_what)
def test_a_ruling_that_does_not_count(case: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError) as raised:
        open_ruling(case["ruling"].encode(), DIRECTORY)
    assert raised.value.code == ("malformed" if case["step"] == 1 else "handling-violation")


def test_what_a_report_says_is_read_the_same_with_members_that_nobody_knows() -> None:
    bodies = []
    for name in ("page", "unknown-members"):
        example = VECTORS["records"][name]
        judged = judge(0, example["raw"].encode(), iss=FR, aud=NL, directory=DIRECTORY, now=NOW)
        assert isinstance(judged, Judged)
        assert isinstance(judged.record.body, ReportBody)
        assert not isinstance(judged.record.body, OutcomeBody)
        bodies.append(judged.record.body)
    assert bodies[0] == bodies[1]
