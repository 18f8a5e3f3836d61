"""Lets many requests share one commit: while one transaction runs, the next collects. Never answers before a commit."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from node.hotline.flows.intake import Intake, ReferenceConflict, Submission, Taken
from node.platform.database import DATABASE_ERRORS


class IntakeUnavailable(Exception):  # noqa: N818 - says what is the case, for the answer 503
    """The store did not take the reports; nothing was written and the caller may send them again."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    submissions: Sequence[Submission]
    taken: "asyncio.Future[list[Taken | ReferenceConflict]]"


class GroupCommit:
    """The queue in front of the intake flow; bounded, so that a flood waits at the door and not in memory."""

    def __init__(self, intake: Intake, *, reports_max: int, waiting_max: int = 10_000) -> None:
        """Take the flow; `reports_max` reports share a transaction at most."""
        self._intake = intake
        self._reports_max = reports_max
        self._waiting: deque[_Waiting] = deque()
        self._places = asyncio.Semaphore(waiting_max)
        self._task: asyncio.Task[None] | None = None

    async def submit(self, submissions: Sequence[Submission]) -> list[Taken | ReferenceConflict]:
        """Return what became of each report, once it is committed; raises IntakeUnavailable."""
        async with self._places:
            taken: asyncio.Future[list[Taken | ReferenceConflict]] = asyncio.get_running_loop().create_future()
            self._waiting.append(_Waiting(submissions, taken))
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._drain())
            return await taken

    async def finish(self) -> None:
        """Wait until everything submitted is committed or refused."""
        while self._task is not None and not self._task.done():
            await asyncio.wait([self._task])

    async def _drain(self) -> None:
        while self._waiting:
            group: list[_Waiting] = []
            reports = 0
            while self._waiting and (not group or reports + len(self._waiting[0].submissions) <= self._reports_max):
                group.append(self._waiting.popleft())
                reports += len(group[-1].submissions)
            await self._commit(group)

    async def _commit(self, group: Sequence[_Waiting]) -> None:
        try:
            results = await self._intake.take_in([one for waiting in group for one in waiting.submissions])
        except DATABASE_ERRORS as error:
            if len(group) > 1:
                # Whatever was wrong with one must not refuse the others.
                for waiting in group:
                    await self._commit([waiting])
                return
            _refuse(group, error)
            return
        at = 0
        for waiting in group:
            if not waiting.taken.done():
                waiting.taken.set_result(results[at : at + len(waiting.submissions)])
            at += len(waiting.submissions)


def _refuse(group: Sequence[_Waiting], error: BaseException) -> None:
    for waiting in group:
        if not waiting.taken.done():
            waiting.taken.set_exception(IntakeUnavailable(type(error).__name__))
