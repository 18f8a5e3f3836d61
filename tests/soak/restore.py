"""A node's database is lost and restored from a copy taken earlier; then `hotline recover` puts it right."""

import random
import re
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.soak.commands import Commands
from tests.soak.faults import LIMIT_S, Faults
from tests.soak.intake import Feed
from tests.soak.node import SoakNode
from tests.soak.process import pause
from tests.soak.site import copy_database, restore_database

_TRIES: Final = 30
#: How long a recovery waits for the node that only fetches.
_WAIT_S: Final = "60"
_LEFT: Final = re.compile(r"^(\d+) own records were not done again: (.*)$", re.MULTILINE)
_ROW: Final = re.compile(r"^\s*[a-z]{2}\.hotline\.example\s+([\d,]+)\s+([\d,]+)", re.MULTILINE)


@dataclass(slots=True)
class Restored:
    """What a restore came to: `again` reports were handed in again, since nobody had been told of them."""

    node: str
    recoveries: int = 0
    killed: int = 0
    own: int = 0
    received: int = 0
    again: int = 0
    left: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class Restore:
    """The backup of one node, and what was acknowledged when it was taken."""

    feed: Feed
    others: Sequence[SoakNode]
    #: Whoever cannot be asked, since it never answers.
    without: str
    faults: Faults
    commands: Commands
    draw: random.Random
    known: frozenset[str] = frozenset()

    @property
    def node(self) -> SoakNode:
        """The node that it is about."""
        return self.feed.node

    async def back_up(self) -> None:
        """Stop the node, copy its database, start it again."""
        async with self.faults.holding({self.node.id}):
            await self.node.end(signal.SIGTERM, LIMIT_S)
            # Nobody answers now: what is acknowledged is in the copy.
            await copy_database(self.node.settings.database_url)
            self.known = frozenset(self.feed.acknowledged)
            self.node.start()
            await self.node.serving(LIMIT_S)

    async def restore(self) -> Restored:
        """Lose the database, restore the copy, recover, serve; what had not left by then is handed in again."""
        done = Restored(self.node.id)
        everybody = {one.id for one in (*self.others, self.node)}
        # A recovery asks everybody, and its operator waits until everybody answers.
        async with self.faults.holding(everybody):
            await self.node.end(signal.SIGKILL, LIMIT_S)
            await restore_database(self.node.settings.database_url)
            await self.node.db.engine.dispose()
            await self._recover(done)
            self.node.start()
            await self.node.serving(LIMIT_S)
        lost = sorted(self.feed.acknowledged.keys() - self.known)
        done.again = await self.feed.hand_in_again(lost)
        return done

    async def _recover(self, done: Restored) -> None:
        """Recover, killed once on the way, until it has ended; what each attempt brought back is added up."""
        words = ("recover", "--without", self.without, "--wait", _WAIT_S)
        process, output = self.commands.begin(self.node.file, *words)
        await pause(None, self.draw.uniform(0.3, 4))
        if process.exitcode is None:
            process.kill()
            done.killed += 1
        await self.commands.finish(process, output)
        for _ in range(_TRIES):
            ended = await self.commands.attempt(self.node.file, *words)
            done.recoveries += 1
            if ended.status == 0:
                break
            await pause(None, 1)
        else:
            raise AssertionError(f"{self.node.id} is not recovered\n{ended.text}")
        for row in _ROW.finditer(ended.text):
            done.own += int(row[1].replace(",", ""))
            done.received += int(row[2].replace(",", ""))
        left = Counter({row[2]: int(row[1]) for row in _LEFT.finditer(ended.text)})
        done.left = dict(left)
