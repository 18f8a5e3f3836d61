"""An event loop on virtual time: the clock jumps to the next thing that happens; it has no thread and no socket.

Its turns are those of asyncio's own loop, without what that one does for sockets, signals, threads and debugging.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from contextvars import Context, copy_context
from heapq import heappop, heappush
from typing import Any, Final, TypeVar

T = TypeVar("T")

#: Timers less apart than this are due together, as in asyncio's loop.
_RESOLUTION_S: Final = 1e-9
#: After so many new tasks, those that are done are forgotten.
_TASKS_LOOK: Final = 100


class Stuck(Exception):  # noqa: N818 - names the fact
    """Nothing will ever happen again, and the history is not over."""


#: Who only ends a wait needs no context of a caller's.
_NOBODY: Final = Context()


def _end(wait: "asyncio.Future[None]") -> None:
    if not wait.done():
        wait.set_result(None)


class _Call:
    """Something to be called once, unless it is cancelled before; stands where asyncio's handles stand."""

    __slots__ = ("_when", "args", "callback", "context")

    def __init__(
        self, callback: Callable[..., object] | None, args: tuple[Any, ...], context: Context, when: float = 0.0
    ) -> None:
        self.callback = callback
        self.args = args
        self.context = context
        self._when = when

    def cancel(self) -> None:
        """Call nothing, and hold nothing."""
        self.callback = None
        self.args = ()

    def cancelled(self) -> bool:
        """Tell whether it was cancelled."""
        return self.callback is None

    def when(self) -> float:
        """Return the second at which a timer is due."""
        return self._when


class VirtualLoop(asyncio.BaseEventLoop):
    """Seconds since the history began are `now_s`; tasks run in the order in which they became ready."""

    def __init__(self) -> None:
        """Begin at zero."""
        super().__init__()
        self.now_s = 0.0
        self._due: deque[_Call] = deque()
        #: Due first, and of those due together the one made first.
        self._timers: list[tuple[float, int, _Call]] = []
        self._made = 0
        self._tasks: list[asyncio.Task[Any]] = []
        self._look_at = _TASKS_LOOK
        # Asked by every future and task: a builtin answers soonest, and bool() is False.
        self.get_debug = bool  # type: ignore[method-assign]

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self.now_s

    def call_soon(  # type: ignore[override] # a handle of its own
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> _Call:
        """Call it in the next turn."""
        call = _Call(callback, args, copy_context() if context is None else context)
        self._due.append(call)
        return call

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> _Call:
        """Call it in `delay` virtual seconds."""
        return self.call_at(self.now_s + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> _Call:
        """Call it at a virtual time."""
        call = _Call(callback, args, copy_context() if context is None else context, when)
        self._made += 1
        heappush(self._timers, (when, self._made, call))
        return call

    def passes(self, seconds: float) -> bool:
        """Let `seconds` pass at once if nothing else would happen in them; whoever asks goes on where it is.

        It is as if it had slept: nobody else would have had a turn.
        """
        if self._due:
            return False
        when = self.now_s + seconds
        timers = self._timers
        while timers and timers[0][2].callback is None:
            heappop(timers)
        if timers and timers[0][0] <= when + 2 * _RESOLUTION_S:
            return False
        self.now_s = when
        return True

    def pause(self, seconds: float) -> "asyncio.Future[None]":
        """Return what is done in `seconds`: a shorter way to sleep."""
        done: asyncio.Future[None] = asyncio.Future(loop=self)
        when = self.now_s + seconds
        self._made += 1
        heappush(self._timers, (when, self._made, _Call(_end, (done,), _NOBODY, when)))
        return done

    def own(self, task: "asyncio.Task[Any]") -> None:
        """Note a task of this loop; asyncio's own list is that of every loop there ever was, and slow to read."""
        self._tasks.append(task)
        if len(self._tasks) >= self._look_at:
            self._tasks = self.running()
            self._look_at = len(self._tasks) + _TASKS_LOOK

    def running(self) -> "list[asyncio.Task[Any]]":
        """Return the tasks that are not done, in the order of their making."""
        return [task for task in self._tasks if not task.done()]

    def call_soon_threadsafe(  # type: ignore[override] # no thread calls it
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> _Call:
        """Call it soon."""
        return self.call_soon(callback, *args, context=context)

    def run_until_complete(self, future: "asyncio.Future[T] | Coroutine[Any, Any, T]") -> T:  # type: ignore[override]
        """Take turn after turn until it is done; raises Stuck when nothing is left to happen."""
        task = asyncio.ensure_future(future, loop=self)
        asyncio._set_running_loop(self)
        try:
            while not task.done():
                self._turn()
        finally:
            asyncio._set_running_loop(None)
        return task.result()

    def _turn(self) -> None:
        """Set the clock forward if nothing is due, and call what is due by now; what that makes due has to wait."""
        due, timers = self._due, self._timers
        if not due:
            while timers and timers[0][2].callback is None:
                heappop(timers)
            if not timers:
                raise Stuck("no task can go on and no timer runs")
            self.now_s = max(self.now_s, timers[0][0])
        if timers:
            until_s = self.now_s + _RESOLUTION_S
            while timers and timers[0][0] < until_s:
                due.append(heappop(timers)[2])
        for _ in range(len(due)):
            call = due.popleft()
            callback = call.callback
            if callback is None:
                continue
            try:
                call.context.run(callback, *call.args)
            except Exception as error:  # noqa: BLE001 - as asyncio's loop tells it
                self.call_exception_handler({"message": f"error in {callback!r}", "exception": error})

    def run_in_executor(  # type: ignore[override] # a future that is done already
        self,
        executor: Executor | None,  # noqa: ARG002 - no thread is used
        func: Callable[..., T],
        *args: Any,
    ) -> "asyncio.Future[T]":
        """Do the work at once."""
        done: asyncio.Future[T] = self.create_future()
        try:
            done.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - as a thread would hand it over
            done.set_exception(error)
        return done
