"""Writes log lines that others can cause, a few a minute of each kind, and says how many it left out.

Counts nothing for the metrics: whoever refuses counts each refusal there.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

#: Lines of one kind in a window; enough to see what goes on, and nothing that fills a disk.
LINES_MAX: Final = 10
WINDOW_S: Final = 60.0

#: A method of a logger, as `log.warning`.
Say = Callable[..., object]
_Kind: TypeAlias = tuple[str, str | None, str, str | None]


@dataclass(slots=True)
class _Window:
    say: Say
    written: int = 0
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Sparing:
    """One for each process; remembers a number for each kind of line of the last minute.

    A kind is an action, a peer (None for strangers), a code and a route (None where it is no request's matter): all of
    them names of ours, so there are few.
    """

    window_s: float = WINDOW_S
    lines_max: int = LINES_MAX
    _windows: dict[_Kind, _Window] = field(default_factory=dict)

    def say(
        self,
        say: Say,
        sentence: str,
        *,
        action: str,
        peer: str | None,
        code: str,
        route: str | None = None,
        **more: object,
    ) -> None:
        """Write the line, or count it when there were many of its kind within `window_s` seconds.

        `more` stands in the line too. Has to be called in a running event loop.
        """
        kind = action, peer, code, route
        window = self._windows.get(kind)
        if window is None:
            window = self._windows[kind] = _Window(say)
            asyncio.get_running_loop().call_later(self.window_s, self._close, kind)
        if window.written < self.lines_max:
            window.written += 1
            say(sentence, action=action, **_named(peer, code, route), **more)
        else:
            window.left_out += 1

    def end(self) -> None:
        """Say what was left out until now: the process ends."""
        for kind in list(self._windows):
            self._close(kind)

    def _close(self, kind: _Kind) -> None:
        window = self._windows.pop(kind, None)
        if window is not None and window.left_out:
            action, peer, code, route = kind
            window.say(
                "more lines like these were left out",
                action="log.spared",
                of=action,
                count=window.left_out,
                **_named(peer, code, route),
            )


def _named(peer: str | None, code: str, route: str | None) -> dict[str, object]:
    """Return the members of a line that name its kind."""
    return {"peer": peer, "code": code} if route is None else {"code": code, "route": route}
