"""A test build that speaks HX 1.1, as a process: members that 1.0 does not know, and a record type `note`.

It changes what a later version would change, in its own process alone: what records it makes and what it understands.
"""

import json
from collections.abc import Sequence
from typing import Any

from msgspec import structs

from node.hotline.api import peer as door
from node.hotline.domain.acceptance import Judged, Refused, judge, ranges
from node.hotline.flows.apply import applier
from protocol import record
from protocol.bodies import OutcomeBody
from tests.faults import dying_serve
from tests.faults.dying_serve import Conditions

#: What every record of 1.1 says besides, in its envelope and in its body.
ENVELOPE_MEMBER = ("urgency", {"level": "high", "words": "enfant en danger — sofort"})
BODY_MEMBER = ("summary", ["a member", "that 1.0 does not know"])
NOTE = "note"


class LaterEncoder:
    """Encodes a record as 1.1 does: with one member more in the envelope and one in the body."""

    def encode(self, wire: object) -> bytes:
        """Return the bytes of a record of 1.1."""
        return later(ENCODER.encode(wire))


ENCODER = record._ENCODER


def later(raw: bytes) -> bytes:
    """Return a record of 1.0 as 1.1 would have made it."""
    tree = json.loads(raw)
    tree[ENVELOPE_MEMBER[0]] = ENVELOPE_MEMBER[1]
    tree["body"][BODY_MEMBER[0]] = BODY_MEMBER[1]
    return json.dumps(tree, ensure_ascii=False, separators=(",", ":")).encode()


def note(raw: bytes, words: str, **members: object) -> bytes:
    """Return a note of 1.1 on the item of a record."""
    tree = {**json.loads(raw), "type": NOTE, "body": {"schema": 1, "words": words}, **members}
    return json.dumps(tree, ensure_ascii=False, separators=(",", ":")).encode()


def _understand() -> None:
    """Read what 1.1 reads: its members may be critical, and notes are accepted."""
    values = vars(record)
    values["_ENCODER"] = LaterEncoder()
    values["_ENVELOPE_MEMBERS"] = record._ENVELOPE_MEMBERS | {ENVELOPE_MEMBER[0]}
    members = {name: known | {f"body.{BODY_MEMBER[0]}"} for name, known in record._BODY_MEMBERS.items()}
    values["_BODY_MEMBERS"] = members
    vars(door)["SPOKEN"] = ("1.0", "1.1")
    notes = set[int]()

    def judging(idx: int, raw: bytes, **known: Any) -> Judged | Refused:
        verdict = judge(idx, raw, **known)
        if isinstance(verdict, Judged) and verdict.record.envelope.type == NOTE:
            notes.add(idx)
        return verdict

    def telling(body: OutcomeBody, **envelope: Any) -> bytes:
        kept, accepted = _indices(body.kept), _indices(body.accepted)
        said = structs.replace(
            body,
            kept=ranges([idx for idx in kept if idx not in notes]),
            accepted=ranges(sorted([*accepted, *(idx for idx in kept if idx in notes)])),
        )
        return record.encode_outcome(said, **envelope)

    vars(applier)["judge"] = judging
    vars(applier)["encode_outcome"] = telling


def _indices(ranges: Sequence[tuple[int, int]]) -> list[int]:
    return [idx for first, last in ranges for idx in range(first, last + 1)]


def run(under: Conditions) -> None:
    """Be a node of version 1.1 until SIGTERM."""
    _understand()
    dying_serve.run(under)
