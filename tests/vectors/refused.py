"""What has to be refused, and with which code: framings, checkpoints and records that break one rule each."""

import json
from collections.abc import Iterator
from typing import Any

Case = dict[str, Any]


def refused(good: bytes) -> dict[str, list[Case]]:
    """Return the cases by what is refused, each made from the good record `good` by one change."""
    return {
        "framings": list(_framings(good.decode())),
        "checkpoints": list(_checkpoints()),
        "records": [*_texts(good.decode()), *_members(json.loads(good))],
    }


def _framings(record: str) -> Iterator[Case]:
    note = "hx/1/fr.hotline.example/nl.hotline.example/1\n1\nAAAA\n\n\u2014 name AAAA\n"
    malformed = {"step": 4, "code": "malformed", "field": "body"}
    yield {"what": "no signature lines", "body": f"text\n\n{record}\n", **malformed}
    yield {"what": "a signature line without an em dash", "body": f"text\n\n- name AAAA\n\n{record}\n", **malformed}
    yield {"what": "no record", "body": f"{note}\n", **malformed}
    yield {"what": "an empty record between two", "body": f"{note}\n{record}\n\n{record}\n", **malformed}
    yield {"what": "the last record is cut off", "body": f"{note}\n{record}", **malformed}


def _checkpoints() -> Iterator[Case]:
    origin, root = "hx/1/fr.hotline.example/nl.hotline.example/1", "A" * 43 + "="
    malformed = {"step": 5, "code": "malformed"}
    yield {"what": "an extension line", "text": f"{origin}\n2\n{root}\nmore\n", "field": "checkpoint", **malformed}
    yield {"what": "a size with a leading zero", "text": f"{origin}\n02\n{root}\n", "field": "size", **malformed}
    yield {"what": "a root of 31 bytes", "text": f"{origin}\n2\n{'A' * 42}==\n", "field": "root", **malformed}
    yield {"what": "base64 with stray bits", "text": f"{origin}\n2\n{'A' * 42}B=\n", "field": "root", **malformed}
    yield {"what": "an empty log with another root", "text": f"{origin}\n0\n{root}\n", "field": "root", **malformed}
    yield {
        "what": "an origin of another version",
        "text": f"hx/2/fr.hotline.example/nl.hotline.example/1\n2\n{root}\n",
        "field": "origin",
        **malformed,
    }


def _texts(raw: str) -> Iterator[Case]:
    strict = {"step": 9, "code": "malformed", "field": None}
    yield {"what": "no JSON", "raw": raw[:-1], **strict}
    yield {"what": "a member twice", "raw": raw.replace('{"v":1,', '{"v":1,"v":1,', 1), **strict}
    yield {"what": "a number with a fraction", "raw": raw.replace('"v":1,', '"v":1.0,', 1), **strict}
    yield {"what": "an integer beyond 2^53 - 1", "raw": raw.replace('"v":1,', f'"v":{2**53},', 1), **strict}
    yield {"what": "a lone surrogate", "raw": raw.replace('"purpose":"', '"purpose":"\\ud800', 1), **strict}
    yield {
        "what": "nested deeper than 16",
        "raw": raw.replace('"crit":[]', f'"crit":{"[" * 17}{"]" * 17}', 1),
        **strict,
    }
    yield {"what": "no object", "raw": "[]", **strict}
    yield {
        "what": "U+0000 in a string",
        "raw": raw.replace('"purpose":"', '"purpose":"\\u0000', 1),
        "step": 10,
        "code": "schema-invalid",
        "field": None,
    }


def _members(tree: dict[str, Any]) -> Iterator[Case]:
    def case(what: str, step: int, code: str, field: str, **members: object) -> Case:
        changed = json.loads(json.dumps(tree))
        for path, value in members.items():
            *above, name = path.split("__")
            place = changed
            for part in above:
                place = place[part]
            place[name] = value
        raw = json.dumps(changed, separators=(",", ":"))
        return {"what": what, "raw": raw, "step": step, "code": code, "field": field}

    schema = "schema-invalid"
    yield case("another version of the record", 10, schema, "v", v=2)
    yield case("an id that is no UUIDv7", 10, schema, "id", id="019abc12-0000-4000-8000-000000000001")
    yield case("a node id with a capital", 10, schema, "iss", iss="FR.hotline.example")
    yield case("a time with an offset", 10, schema, "iat", iat="2026-11-22T17:00:00.123+01:00")
    yield case("a time without milliseconds", 10, schema, "iat", iat="2026-11-22T16:00:00Z")
    yield case("more than five hops", 10, schema, "hops", hops=["a.example"] * 6)
    yield case("an unknown code", 10, schema, "body.kind", body__kind="video")
    yield case("a page that names a page", 10, schema, "body.page", body__page=tree["item"])
    yield case("a confidence over 100", 10, schema, "body.hosting.confidence", body__hosting__confidence=101)
    yield case("a URL of another scheme", 13, schema, "body.url", body__url="ftp://host.example/")
    yield case("an unknown critical member", 10, "unknown-critical", "crit[0]", crit=["body.novelty"])
    yield case("addressed to another node", 11, "wrong-audience", "aud", aud="de.hotline.example")
    yield case("said by another node", 11, schema, "iss", iss="de.hotline.example")
    yield case("an unknown purpose", 12, "handling-violation", "handling.purpose", handling__purpose="training")
    yield case(
        "to be erased before it came",
        12,
        "handling-violation",
        "handling.retain_until",
        handling__retain_until="2026-11-22T15:59:59.000Z",
    )
    # Hosted and assigned abroad, at a node that holds no mandate.
    yield case(
        "assigned to another country",
        13,
        "not-competent",
        "body.hosting.assigned_country",
        body__hosting__assigned_country="DE",
    )
