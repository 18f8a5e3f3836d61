"""A node that takes anything fails every check that awaits a refusal, one that takes nothing those that await a yes.

Together with the nodes that break one rule they fail every check that there is.
"""

import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest

from node.conformance.checks import Check, Verdict, make
from node.conformance.door_checks import WELL_KNOWN
from node.conformance.outcomes import Told
from node.conformance.record_checks import RECORD_CHECKS
from node.conformance.table import CHECKS
from protocol.batch import decode_batch
from protocol.checkpoint import Checkpoint
from protocol.cosignature import cosign
from protocol.errors import ProtocolError
from protocol.keys import KeyUse
from protocol.note import Note, parse_note
from protocol.profile import Request, Response
from tests.conformance.broken import Defect, Door, broken
from tests.conformance.conftest import Subject
from tests.conformance.test_broken_nodes import DEFECTS

#: Where a door keeps what it shows as held.
HELD: Final = "held"

_RUNNING: Final = pytest.mark.asyncio(loop_scope="module")

#: A check that awaits a refusal says so by its status; those of records await an outcome that says it.
REFUSALS: Final = {one.name for one in CHECKS if re.match(r"4\d\d ", one.expects)} | {
    one.name for one in RECORD_CHECKS if not one.expects.endswith(" accepted")
}
#: What else a node fails that says yes to everything: it counts what it should not, and has nothing to show.
WITH_EMPTY_HANDS: Final = {
    "bring-receipt",
    "directory-mirror",
    "hello",
    "newest",
    "nonce-of-a-refused-request",
    "nothing-stored",
    "own-records",
    "receipt-by-index",
    "repeat",
    "repeat-at-once",
    "repeat-larger",
    "repeat-smaller",
    "repeat-with-new",
    "second-story-not-stored",
}
#: What a node fails that refuses everything, besides the refusals that are others; the rest cannot be tried then.
AWAITED: Final = {
    "bring-receipt",
    "directory-mirror",
    "goes-on",
    "hello",
    "receipt",
    "receipt-of-anything",
    "repeat-at-once",
    "swapped",
    "well-known-signed",
}
#: What a node fails that refuses every record.
NOT_MALFORMED: Final = {one.name for one in RECORD_CHECKS if not one.expects.endswith(" malformed")}
#: Checks that no node fails here, and why.
EXCEPTIONS: Final = {
    "answers-stay": "an answer that verifies covers its request's signature, so it verifies for no other; one that "
    "covers less fails answers-bound, and this check is not made then"
}


@dataclass(frozen=True, slots=True)
class Always:
    """Outcomes that say one thing of every record."""

    verdict: str

    async def about(self, _origin: str, _index: int) -> Told | None:
        return Told(self.verdict)

    async def known(self, _origin: str, _index: int) -> Told | None:
        return Told(self.verdict)


async def takes_anything(door: Door, request: Request) -> Response:
    """Give a receipt for whatever can be read as a batch, and say yes to all else; nothing is checked."""
    if request.target_uri.endswith(WELL_KNOWN):
        return door.sign(await door.forward(Request("GET", request.target_uri, {}, b"")), request)
    if _is_outbox(door, request):
        return await door.forward(request)
    if request.method == "PUT" and "/inbox/" in request.target_uri:
        headers = {"content-type": "text/plain", "hx-credit": "1"}
        return door.sign(Response(200, headers, _receipt(door, request)), request)
    if "/streams/" in request.target_uri and HELD in door.seen:
        return door.sign(door.seen[HELD], request)
    return door.members(request, 200, {})


async def takes_nothing(door: Door, request: Request) -> Response:
    """Refuse whatever comes, but what other checks need to have something to send."""
    if (request.target_uri.endswith(WELL_KNOWN) and "signature" not in request.headers) or _is_outbox(door, request):
        return await door.forward(request)
    return door.problem(request, ProtocolError("malformed", "no"))


def _is_outbox(door: Door, request: Request) -> bool:
    return f"/outbox/{door.member.id}/1?from=0" in request.target_uri


def _receipt(door: Door, request: Request) -> bytes:
    """Return a receipt of what a batch says, true or not, and count its records as held; nothing if it says nothing."""
    try:
        raw, records = decode_batch(request.body)
        note = parse_note(raw)
        covered = Checkpoint.parse(note.text)
    except ProtocolError:
        return b""
    name, keys = f"{door.node.id}/receipt", door.node.keys.signing(KeyUse.RECEIPT)
    before = Checkpoint.parse(parse_note(door.seen[HELD].body).text).size if HELD in door.seen else 0
    held = replace(covered, size=before + len(records))
    shown = cosign(Note(held.text(), note.signatures), held, name, keys, now_s=int(door.now_s()))
    door.seen[HELD] = Response(200, {"content-type": "text/plain"}, shown.to_bytes())
    return cosign(note, covered, name, keys, now_s=int(door.now_s())).to_bytes()


async def _failed(
    tested: Subject, defect: Defect, verdict: str, folder: Path, checks: tuple[Check, ...] = CHECKS
) -> set[str]:
    """Make all checks as the test member, whose log of what was never stored is a copy; return those that fail."""
    # An outcome, so that there is something to fetch.
    (spoken,) = (one for one in RECORD_CHECKS if one.name == "unknown-type")
    assert [one.verdict for one in await tested.results(checks=(spoken,))] == [Verdict.OK]
    shutil.copytree(tested.folder, folder, ignore=shutil.ignore_patterns("streams"))
    node, member = tested.hub.network.tested, tested.hub.network.world.nodes[-1]
    async with (
        broken(node, member, tested.hub.session, defect) as address,
        Subject(tested.hub, folder, None).opened(address) as run,
    ):
        run.outcomes = Always(verdict)
        found = [await make(number, check, run, destructive=True) for number, check in enumerate(checks, start=1)]
    return {one.check.name for one in found if one.verdict is Verdict.FAILED}


@_RUNNING
async def test_a_node_that_takes_anything_fails_every_check_that_awaits_a_refusal(
    tested: Subject, tmp_path: Path
) -> None:
    assert await _failed(tested, takes_anything, "accepted", tmp_path / "member") == REFUSALS | WITH_EMPTY_HANDS


@_RUNNING
async def test_a_node_that_takes_nothing_fails_every_check_that_awaits_a_yes(tested: Subject, tmp_path: Path) -> None:
    assert await _failed(tested, takes_nothing, "malformed", tmp_path / "member") - REFUSALS == AWAITED


@_RUNNING
async def test_a_node_that_refuses_every_record_fails_the_checks_of_other_outcomes(
    tested: Subject, tmp_path: Path
) -> None:
    found = await _failed(tested, takes_anything, "malformed", tmp_path / "member", RECORD_CHECKS)
    assert found == NOT_MALFORMED


def test_every_check_has_a_node_that_fails_it() -> None:
    failed = REFUSALS | WITH_EMPTY_HANDS | AWAITED | NOT_MALFORMED
    failed |= set().union(*(failing for _, _, failing in DEFECTS))
    assert failed.isdisjoint(EXCEPTIONS)
    assert failed | EXCEPTIONS.keys() == {one.name for one in CHECKS}
