"""Many requests share one commit, and none of them pays for what is wrong with another."""

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest

from node.hotline.api.groupcommit import GroupCommit, IntakeUnavailable
from node.hotline.domain.intake import check_report
from node.hotline.domain.schema import convert_report
from node.hotline.flows.intake import Intake, ReferenceConflicts, Submission, Taken
from tests.api.door import Door
from tests.patience import stretched


def submission(door: Door, path: str, reference: str) -> Submission:
    report = check_report(
        convert_report({"url": f"https://host.example/{path}", "reference": reference}), door.clock.now()
    )
    return Submission("test", reference, report)


async def test_a_conflict_of_one_request_refuses_that_request_alone(door: Door) -> None:
    commits = GroupCommit(door.node.store.intake(), reports_max=100)
    await commits.submit([submission(door, "known", "K")])
    before = (await door.rows())["cases"]
    first, refused, last = await asyncio.gather(
        commits.submit([submission(door, "a", "A"), submission(door, "b", "B")]),
        commits.submit([submission(door, "c", "C"), submission(door, "other", "K")]),
        commits.submit([submission(door, "d", "D")]),
        return_exceptions=True,
    )
    assert isinstance(first, list)
    assert isinstance(last, list)
    assert isinstance(refused, ReferenceConflicts)
    assert refused.positions == (1,)
    assert (await door.rows())["cases"] == before + 3


async def test_of_two_requests_that_contradict_each_other_the_first_counts(door: Door) -> None:
    commits = GroupCommit(door.node.store.intake(), reports_max=100)
    first, second = await asyncio.gather(
        commits.submit([submission(door, "a", "A")]),
        commits.submit([submission(door, "b", "A")]),
        return_exceptions=True,
    )
    assert isinstance(first, list)
    assert isinstance(second, ReferenceConflicts)


async def test_a_request_refused_in_a_group_does_not_take_its_references_with_it(door: Door) -> None:
    commits = GroupCommit(door.node.store.intake(), reports_max=100)
    await commits.submit([submission(door, "known", "K")])
    refused, taken = await asyncio.gather(
        commits.submit([submission(door, "a", "A"), submission(door, "other", "K")]),
        commits.submit([submission(door, "not-a", "A")]),
        return_exceptions=True,
    )
    assert isinstance(refused, ReferenceConflicts)
    assert isinstance(taken, list)
    assert not taken[0].repeated


async def test_processes_that_take_in_the_same_urls_at_once_neither_block_nor_lose_any(door: Door) -> None:
    """Two doors on one database, the same URLs and references in opposite order."""
    processes = [GroupCommit(door.node.store.intake(), reports_max=10) for _ in range(2)]
    names = [f"n{number}" for number in range(10)]
    rounds = []
    for turn in range(8):
        batch = [submission(door, name, f"{name}-{turn // 2}") for name in names]
        rounds.append(processes[turn % 2].submit(batch if turn % 2 else batch[::-1]))
    answers = await asyncio.gather(*rounds)
    taken = [one for answer in answers for one in answer]
    assert len(taken) == 80
    assert sum(one.repeated for one in taken) == 40
    rows = await door.rows()
    assert (rows["cases"], rows["items"], rows["url_identities"]) == (40, 40, 10)
    async with door.node.db.transaction("test.read") as tx:
        seen = await tx.fetch("SELECT DISTINCT times_seen FROM url_identities")
        assert [row["times_seen"] for row in seen] == [4]
        assert await tx.value("SELECT count(*) FROM items WHERE state = 'duplicate'") == 30


class Stumbling:
    """An intake that fails with an error nobody foresaw the first time, and works then."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self.calls = 0

    async def take_in_whole(self, submissions: Sequence[Submission]) -> list[Taken]:
        self.calls += 1
        if self.calls == 1:
            raise ArithmeticError
        return await self._intake.take_in_whole(submissions)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_an_unforeseen_error_leaves_nobody_waiting(door: Door) -> None:
    heard: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context.get("exception")))
    commits = GroupCommit(cast("Intake", Stumbling(door.node.store.intake())), reports_max=1)
    async with asyncio.timeout(stretched(10)):
        first, second = await asyncio.gather(
            commits.submit([submission(door, "a", "A")]),
            commits.submit([submission(door, "b", "B")]),
            return_exceptions=True,
        )
    assert isinstance(first, IntakeUnavailable)
    assert isinstance(second, list)
