"""Lets many requests share one commit: while one transaction runs, the next collects. Never answers before a commit."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from node.hotline.flows.intake import Intake, ReferenceConflicts, Submission, Taken
from node.platform.database import DATABASE_ERRORS, REFUSED_VALUES


class IntakeUnavailable(Exception):  # noqa: N818 - says what is the case, for the answer 503
    """The store did not take the reports; nothing was written and the caller may send them again."""


#: While one commit waits for the disk, the next is prepared; more would only make the groups smaller.
_COMMITS_MAX = 3


@dataclass(frozen=True, slots=True)
class _Waiting:
    submissions: Sequence[Submission]
    taken: "asyncio.Future[list[Taken]]"


class GroupCommit:
    """The queue in front of the intake flow; bounded, so that a flood waits at the door and not in memory."""

    def __init__(self, intake: Intake, *, reports_max: int, waiting_max: int = 10_000) -> None:
        """Take the flow; `reports_max` reports share a transaction at most."""
        self._intake = intake
        self._reports_max = reports_max
        self._waiting: deque[_Waiting] = deque()
        self._places = asyncio.Semaphore(waiting_max)
        self._tasks: set[asyncio.Task[None]] = set()

    async def submit(self, submissions: Sequence[Submission]) -> list[Taken]:
        """Return what became of each report, once all of them are committed.

        Raises ReferenceConflicts or IntakeUnavailable; then none of them is written.
        """
        async with self._places:
            taken: asyncio.Future[list[Taken]] = asyncio.get_running_loop().create_future()
            self._waiting.append(_Waiting(submissions, taken))
            self._start()
            return await taken

    async def finish(self) -> None:
        """Wait until everything submitted is committed or refused."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _start(self) -> None:
        if self._waiting and len(self._tasks) < _COMMITS_MAX:
            task = asyncio.create_task(self._drain())
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        # After an unforeseen error, those who came behind it must not wait for the next request to be served.
        self._start()

    async def _drain(self) -> None:
        while self._waiting:
            group: list[_Waiting] = []
            reports = 0
            while self._waiting and (not group or reports + len(self._waiting[0].submissions) <= self._reports_max):
                group.append(self._waiting.popleft())
                reports += len(group[-1].submissions)
            try:
                await self._commit(group)
            finally:
                # After an unforeseen error nobody may be left waiting for an answer; what was committed is answered.
                _refuse(group, IntakeUnavailable("unforeseen"))

    async def _commit(self, group: Sequence[_Waiting]) -> None:
        try:
            results = await self._intake.take_in_whole([one for waiting in group for one in waiting.submissions])
        except ReferenceConflicts as conflicts:
            await self._settle(group, conflicts)
            return
        except DATABASE_ERRORS as error:
            if len(group) > 1 and isinstance(error, REFUSED_VALUES):
                # Whatever was wrong with one must not refuse the others. After any other error the commit may have
                # happened all the same, and only who has a reference may safely send again.
                for waiting in group:
                    await self._commit([waiting])
                return
            _refuse(group, IntakeUnavailable(type(error).__name__))
            return
        at = 0
        for waiting in group:
            if not waiting.taken.done():
                waiting.taken.set_result(results[at : at + len(waiting.submissions)])
            at += len(waiting.submissions)

    async def _settle(self, group: Sequence[_Waiting], conflicts: ReferenceConflicts) -> None:
        """Commit the requests without a conflict together, and ask again for each of the others alone."""
        if len(group) == 1:
            _refuse(group, conflicts)
            return
        clean: list[_Waiting] = []
        doubtful: list[_Waiting] = []
        first = 0
        for waiting in group:
            after = first + len(waiting.submissions)
            # Its conflict may have been with a request of this very group that is refused itself.
            hit = any(first <= at < after for at in conflicts.positions)
            (doubtful if hit else clean).append(waiting)
            first = after
        for part in (clean, *([waiting] for waiting in doubtful)):
            if part:
                await self._commit(part)


def _refuse(group: Sequence[_Waiting], error: BaseException) -> None:
    for waiting in group:
        if not waiting.taken.done():
            waiting.taken.set_exception(error)
