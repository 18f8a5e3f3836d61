"""A running node keeps every rule that the client knows, again and again on the same stream."""

import pytest

from node.conformance.checks import Verdict
from node.conformance.receipt_checks import RECEIPT_CHECKS
from tests.conformance.conftest import Subject

# One node, one test member and its log: the tests go on from each other.
pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_every_check_passes_against_a_running_node(tested: Subject) -> None:
    found = await tested.results()
    assert [(one.check.name, one.sentence) for one in found if one.verdict is Verdict.FAILED] == []
    not_run = {one.check.name for one in found if one.verdict is Verdict.NOT_RUN}
    assert not_run == {one.check.name for one in found if one.check.trace}


async def test_the_next_run_goes_on_where_the_node_stands_and_makes_the_destructive_checks_too(tested: Subject) -> None:
    found = await tested.results(destructive=True)
    assert [(one.check.name, one.sentence) for one in found if one.verdict is not Verdict.OK] == []
    again = await tested.results()
    assert [(one.check.name, one.sentence) for one in again if one.verdict is Verdict.FAILED] == []


async def test_a_member_that_fetches_needs_no_address(tested: Subject) -> None:
    fetching = Subject(tested.hub, tested.hub.network.world.folder / "fetching", None)
    found = await fetching.results()
    assert [(one.check.name, one.sentence) for one in found if one.verdict is Verdict.FAILED] == []
    not_run = {one.check.name for one in found if one.verdict is Verdict.NOT_RUN}
    assert not_run == {one.check.name for one in found if one.check.trace}


async def test_a_log_that_was_lost_is_taken_back_from_the_node(tested: Subject) -> None:
    fetching = Subject(tested.hub, tested.hub.network.world.folder / "fetching", None)
    (log,) = (fetching.folder / "streams").iterdir()
    held = log.read_bytes()
    log.unlink()
    found = await fetching.results(checks=RECEIPT_CHECKS)
    assert [(one.check.name, one.sentence) for one in found if one.verdict is not Verdict.OK] == []
    assert log.read_bytes().startswith(held)
