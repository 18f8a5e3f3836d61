"""A test build that speaks HX 1.1, as a process: members that 1.0 does not know, and a record type `note`.

It changes what a later version would change, in its own process alone: what records it makes and what it understands.
"""

import json

from protocol.versions import Dialect, speak
from tests.faults import dying_serve
from tests.faults.dying_serve import Conditions

#: What every record of 1.1 says besides, in its envelope and in its body.
ENVELOPE_MEMBER = ("urgency", {"level": "high", "words": "enfant en danger — sofort"})
BODY_MEMBER = ("summary", ["a member", "that 1.0 does not know"])
NOTE = "note"


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


#: What the test build speaks; a later version of the program would have it in place of that of 1.0.
HX_1_1 = Dialect(
    spoken=("1.0", "1.1"),
    members=frozenset({ENVELOPE_MEMBER[0]}),
    body_members=frozenset({BODY_MEMBER[0]}),
    types=frozenset({NOTE}),
    say=later,
)


def run(under: Conditions) -> None:
    """Be a node of version 1.1 until SIGTERM."""
    speak(HX_1_1)
    dying_serve.run(under)
