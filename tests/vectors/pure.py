"""Vectors of what a node computes from what it knows: trees, competence, decisions of a sender, problems, heads."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from node.hotline.domain.delivery import KEY_PROBLEMS, KEY_PROBLEMS_QUIET, BackOff, Problem, Rewind, Shrink, decide
from node.hotline.domain.routing import Keep, Send, competent
from protocol.custody import evidence_text
from protocol.directory import parse_directory
from protocol.errors import ProtocolError
from protocol.hello import Heads, Held, Written, encode_heads
from protocol.keys import KeyUse
from protocol.merkle import Edge, inclusion_proof, leaf_hash
from protocol.problems import REGISTRY, parse_problem, problem_body
from protocol.timestamps import parse_time
from tests.vectors.network import DE, FR, NL, directory_document

Case = dict[str, Any]

_BASE_S: Final = 2.0
_CAP_S: Final = 900.0


def trees() -> Case:
    """Return edges, roots and inclusion paths of small logs (RFC 6962, section 2.1)."""
    records = [f"record {number}" for number in range(9)]
    leaves = [leaf_hash(record.encode()) for record in records]
    sizes = []
    for size in range(len(leaves) + 1):
        edge = Edge.EMPTY.extend(leaves[:size])
        sizes.append({"size": size, "root": edge.root().hex(), "edge": [one.hex() for one in edge.hashes]})
    paths = [
        {"size": size, "index": index, "path": [one.hex() for one in inclusion_proof(index, leaves[:size])]}
        for size in (1, 2, 3, 7, 9)
        for index in range(size)
    ]
    return {"records": records, "leaf_hashes": [one.hex() for one in leaves], "sizes": sizes, "paths": paths}


def evidence() -> list[Case]:
    """Return what was found of where an item is hosted, the bytes that are hashed of it, and their SHA-256."""
    addresses = [{"ip": "203.0.113.9"}, {"ip": "2001:db8::7"}, {"ip": "203.0.113.10"}, {"ip": "203.0.113.9"}]
    said: list[tuple[str, Case]] = [
        ("one address", {"at": "2026-11-22T15:59:58.000Z", "addresses": [{"ip": "203.0.113.9", "kind": "other"}]}),
        ("several, one of them twice, compared as text", {"addresses": addresses}),
        ("no address: the object, but when", {"at": "2026-11-22T15:59:58.000Z", "dns": {"outcome": "none"}}),
        ("members sorted at every depth", {"z": {"b": 1, "a": [True, None, "x"]}, "a": -5, "Z": {}}),
        ("escapes, and what needs none", {"word": 'é/"\\\n\u007f\U0001f600', "é": "\b\f\r\t\u0001"}),
        ("an address that is none counts for nothing", {"addresses": [{"ip": 7}, "203.0.113.9"]}),
        ("nothing was found", {}),
    ]
    return [{"what": what, "evidence": found, **_named(found)} for what, found in said]


def _named(found: Case) -> Case:
    text = evidence_text(found)
    return {"text": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def windows() -> list[Case]:
    """Return in which states and at which times a key counts, was good, and what a request under it is answered."""
    begin, end, theft = "2026-11-01T00:00:00.000Z", "2026-11-20T00:00:00.000Z", "2026-11-10T00:00:00.000Z"
    keys: list[Case] = [
        {"state": "next", "not_before": begin},
        {"state": "active", "not_before": begin},
        {"state": "retired", "not_before": begin, "retired_at": end},
        {"state": "compromised", "not_before": begin, "compromised_since": theft},
        {"state": "compromised", "not_before": begin, "retired_at": end, "compromised_since": theft},
        {"state": "compromised", "not_before": begin, "retired_at": theft, "compromised_since": end},
    ]
    times = ["2026-10-31T23:59:59.999Z", begin, "2026-11-09T23:59:59.999Z", theft, "2026-11-19T23:59:59.999Z", end]
    return [{**key, "at": at, **window(key, at)} for key in keys for at in times]


def window(key: Case, at: str) -> Case:
    """Return what the directory says of a key of this state at a time."""
    document = json.loads(directory_document())
    node = next(one for one in document["nodes"] if one["id"] == FR)
    node["state"] = "maintenance"
    http = next(one for one in node["keys"] if one["use"] == "http")
    stream = next(one for one in node["keys"] if (one["use"], one["algorithm"]) == ("stream", "ed25519"))
    node["keys"] = [{**one, "retired_at": None, "compromised_since": None, **key} for one in (http, stream)]
    directory, when = parse_directory(json.dumps(document).encode()), parse_time(at, field="at")
    code = None
    try:
        directory.http_key(directory.nodes[FR].keys[0].public.thumbprint(), when)
    except ProtocolError as error:
        code = error.code
    return {
        "counts": bool(directory.verification_keys(FR, KeyUse.STREAM, when)),
        "good": bool(directory.keys_good_at(FR, KeyUse.STREAM, when)),
        "code": code,
    }


def _members(**weights: tuple[list[str], int, str]) -> list[Case]:
    return [
        {"id": f"{name}.hotline.example", "countries": countries, "weight": weight, "state": state}
        for name, (countries, weight, state) in weights.items()
    ]


def routing_directory(nodes: list[Case], mandated: list[str]) -> bytes:
    """Return a directory of members as a routing case lists them; what routing does not look at is made up."""
    document = json.loads(directory_document())
    spare = document["nodes"][0]
    document["nodes"] = [
        # Keys are none of routing's business, and a member in maintenance needs none.
        {**spare, **one, "keys": [], "state": "maintenance" if one["state"] == "active" else one["state"]}
        for one in nodes
    ]
    document["routing"] = {"mandated": mandated, "desk": None}
    return json.dumps(document).encode()


def routing() -> list[Case]:
    """Return cases of competence: members, hosting country and case in; who acts, for which country, out."""
    two = _members(fr=(["FR", "MC"], 1, "active"), nl=(["NL"], 1, "active"))
    shared = _members(
        fr=(["FR"], 1, "active"), de1=(["DE"], 1, "active"), de2=(["DE"], 3, "active"), de3=(["DE"], 0, "active")
    )
    idle = _members(fr=(["FR"], 1, "active"), de1=(["DE"], 0, "active"), de2=(["DE"], 0, "active"))
    away = _members(fr=(["FR"], 1, "active"), nl=(["NL"], 1, "suspended"), de=(["DE", "AT"], 1, "active"))
    resting = _members(fr=(["FR"], 1, "active"), nl=(["NL"], 1, "maintenance"))
    cases = [f"019abc11-0000-7000-8000-0000000000{number:02}" for number in range(1, 7)]
    said = [
        ("our own country", two, [], "FR", cases[0]),
        ("our own second country", two, [], "MC", cases[0]),
        ("another member's country", two, [], "NL", cases[0]),
        ("a country without a hotline", two, [], "US", cases[0]),
        ("a country without a hotline, one mandated", two, [NL], "US", cases[0]),
        ("a country without a hotline, we are mandated", two, [FR], "US", cases[0]),
        ("the member is in maintenance", resting, [], "NL", cases[0]),
        ("the member is suspended, nobody mandated", away, [], "NL", cases[0]),
        ("the member is suspended, another mandated", away, [DE], "NL", cases[0]),
        *(("several by weight", shared, [], "DE", case) for case in cases),
        *(("several without weight", idle, [], "DE", case) for case in cases),
        *(("several mandated", two, [FR, NL], "US", case) for case in cases),
    ]
    return [
        {
            "what": what,
            "own": FR,
            "nodes": nodes,
            "mandated": mandated,
            "country": country,
            "case": case,
            "route": route(nodes, mandated, country, case),
        }
        for what, nodes, mandated, country, case in said
    ]


def route(nodes: list[Case], mandated: list[str], country: str, case: str) -> Case:
    """Return what the rule says: who acts, and for which country; null where nobody is competent."""
    found = competent(parse_directory(routing_directory(nodes, mandated)), country, UUID(case), FR)
    if isinstance(found, Keep):
        return {"node": FR, "assigned_country": found.assigned_country}
    if isinstance(found, Send):
        return {"node": found.node_id, "assigned_country": found.assigned_country}
    return {"node": None, "assigned_country": None}


_OTHERWISE: Case = {
    "failures": 0,
    "first_index": 100,
    "batch_records": 1000,
    "rewound": False,
    "key_problems": 0,
}


def delivery() -> Case:
    """Return what a sender does after each refusal of a batch of 1,000 records from index 100; the draw is given."""
    problems: list[tuple[Case, Case]] = [
        ({"code": "stream-gap", "expected": 40}, {}),
        ({"code": "stream-gap", "expected": 40}, {"failures": 12}),
        ({"code": "stream-gap", "expected": 40}, {"rewound": True}),
        ({"code": "stream-gap", "expected": 100}, {}),
        ({"code": "stream-gap", "expected": 5000}, {}),
        ({"code": "stream-gap"}, {}),
        ({"code": "too-large"}, {}),
        ({"code": "too-large"}, {"batch_records": 1}),
        ({"code": "too-large", "credit": 50}, {}),
        ({"code": "over-quota", "credit": 0}, {}),
        ({"code": "over-quota", "retry_after_s": 30}, {}),
        ({"code": "over-quota", "retry_after_s": 30, "credit": 7}, {}),
        ({"code": "maintenance"}, {"failures": 5}),
        ({"code": "maintenance", "credit": 7}, {}),
        ({"code": "maintenance", "retry_after_s": 5000}, {}),
        *(({"code": code}, {}) for code in REGISTRY if code not in {"stream-gap", "too-large", "over-quota"}),
        ({"code": "unknown-key"}, {"failures": 12, "key_problems": 3}),
        *(({"code": code}, {"key_problems": KEY_PROBLEMS_QUIET}) for code in sorted(KEY_PROBLEMS)),
        ({"code": "unrecognised"}, {"failures": 40}),
    ]
    cases = [
        {"problem": problem, "situation": situation, "draw": 0.5, "decision": decision(problem, situation, 0.5)}
        for problem, situation in problems
    ]
    return {
        "base_s": _BASE_S,
        "cap_s": _CAP_S,
        "otherwise": _OTHERWISE,
        "cases": cases,
    }


def decision(problem: Mapping[str, Any], situation: Mapping[str, Any], draw: float) -> Case:
    """Return the decision as a vector has it."""
    known: dict[str, Any] = {**_OTHERWISE, **situation}
    retry_after_s = problem.get("retry_after_s")
    asked = Problem(**{**problem, "retry_after_s": None if retry_after_s is None else float(retry_after_s)})
    made = decide(asked, base_s=_BASE_S, cap_s=_CAP_S, draw=lambda: draw, **known)
    if isinstance(made, Rewind):
        return {"do": "rewind", "index": made.index}
    if isinstance(made, Shrink):
        return {"do": "shrink", "records": made.records}
    if not isinstance(made, BackOff):
        raise TypeError("there are three decisions")
    return {"do": "wait", "seconds": made.seconds, "alarm": made.alarm}


def problems() -> Case:
    """Return every problem as it is written, and what a caller makes of bodies that are less than that."""
    extra: dict[str, Case] = {
        "stream-gap": {"expected": 3},
        "over-quota": {"credit": 0},
        "too-large": {"credit": 50},
        "equivocation": {"size": 4},
        "clock-skew": {"server_time": "2026-11-22T16:00:00.000Z"},
    }
    written = [
        {"code": code, "body": problem_body(ProtocolError(code, "why, in a few words", extra=extra.get(code, {})))}
        for code in REGISTRY
    ]
    gap = {**problem_body(ProtocolError("stream-gap", "why")), "expected": 3}
    read = [
        ("no JSON", "<html>"),
        ("no object", "[]"),
        ("no code", json.dumps({"title": "Not Found", "status": 404})),
        ("a code nobody knows", json.dumps({**gap, "code": "novelty"})),
        ("a member besides", json.dumps({**gap, "novelty": 1})),
        ("expected is no number", json.dumps({**gap, "expected": "3"})),
        ("expected is negative", json.dumps({**gap, "expected": -1})),
        ("a scope nobody knows", json.dumps({**gap, "scope": "galaxy"})),
        ("more than 16 KiB", json.dumps({**gap, "padding": "x" * 16_384})),
        ("a detail that may hold a URL", json.dumps({**gap, "detail": "http://host.example/"})),
    ]
    return {"written": written, "read": [{"what": what, "body": body, "is": understood(body)} for what, body in read]}


def understood(body: str) -> Case:
    """Return what a caller makes of a problem's body."""
    found = parse_problem(body.encode())
    return {
        "code": found.code,
        "retryable": found.retryable,
        "scope": found.scope.value,
        "detail": found.detail,
        "extra": dict(found.extra),
    }


def hello() -> Case:
    """Return a hello that holds together, and some that do not."""
    roots = [Edge.EMPTY.extend([leaf_hash(b"record 0")][:size]).root() for size in (0, 1)]
    good = encode_heads(Heads((Written(1, 4, 1, roots[1]), Written(2, 1, 0, roots[0])), (Held(1, 1, roots[1]),)))
    tree = json.loads(good)

    def spoiled(what: str, code: str, field: str, **members: object) -> Case:
        return {"what": what, "body": json.dumps({**tree, **members}), "code": code, "field": field}

    first = tree["written"][0]
    return {
        "caller": FR,
        "callee": NL,
        "body": good.decode(),
        "recovering": json.dumps({**tree, "lost": [{"epoch": 1, "first": 1}]}, separators=(",", ":")),
        "refused": [
            spoiled("another version", "schema-invalid", "v", v=2),
            spoiled("no list", "schema-invalid", "held", held=None),
            spoiled("more receipted than written", "malformed", "written", written=[{**first, "receipted": 5}]),
            spoiled("epochs that do not ascend", "malformed", "written", written=[first, first]),
            spoiled("a root that is none", "malformed", "root", written=[{**first, "root": "AA=="}]),
            spoiled("an epoch lost that none is", "malformed", "lost", lost=[{"epoch": 0, "first": 0}]),
        ],
    }
