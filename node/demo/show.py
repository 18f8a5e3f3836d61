"""What the demo shows: progress bars, the table, the checks, the proof, the addresses. Never a reported URL."""

import sys
from collections.abc import Mapping, Sequence
from typing import Final, Self

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from node.demo.accounting import Account, Rank, Status, fates, settled, stream
from node.demo.members import Member
from node.demo.reports import Expected

#: A pipe has no width of its own.
_PIPE_COLUMNS: Final = 110
_NOT_LOCATED_YET: Final = frozenset({"locating", "duplicate", "closed"})


def console() -> Console:
    """Return the console of standard output; what is shown is never read as markup."""
    width = None if sys.stdout.isatty() else _PIPE_COLUMNS
    return Console(file=sys.stdout, width=width, markup=False, emoji=False, highlight=False)


class Bars:
    """The bars for import, location and delivery. Their ends are known beforehand, from how the file was made."""

    def __init__(self, out: Console, expected: Expected, sender_id: str) -> None:
        """Show nothing yet."""
        self._sender_id = sender_id
        self._progress = Progress(
            TextColumn("  {task.description:24}"),
            BarColumn(40),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeElapsedColumn(),
            console=out,
        )
        self._import = self._add("import", expected.items, "items")
        self._locate = self._add("location", expected.located(), "items")
        self._deliver = self._add("delivery, receipts home", expected.sent(), "records")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, statuses: Mapping[str, Status]) -> tuple[object, ...]:
        """Show how far it is and return the numbers behind it: when they stay the same, nothing moves."""
        sender = statuses[self._sender_id]
        found = fates(sender)
        located = sum(count for fate, count in found.items() if fate.state not in _NOT_LOCATED_YET)
        streams = [
            stream(sender, self._sender_id, peer, peer_id)
            for peer_id, peer in statuses.items()
            if peer_id != self._sender_id
        ]
        self._move(self._import, found.total())
        self._move(self._locate, located)
        self._move(self._deliver, sum(one.receipted for one in streams))
        return (*sorted(found.items()), *streams, settled(statuses, self._sender_id))

    def _add(self, name: str, total: int, unit: str) -> TaskID:
        return self._progress.add_task(name, total=total, unit=unit)

    def _move(self, task: TaskID, completed: int) -> None:
        self._progress.update(task, completed=completed)


def account_table(account: Account, title: str) -> Table:
    """Return the table of what became of every item."""
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("what")
    table.add_column("count", justify="right")
    table.add_column("of which", justify="right")
    for line in account.lines:
        if line.rank is Rank.PART:
            table.add_row(f"    {line.label}", "", f"{line.count:,}", style="dim")
        else:
            style = {Rank.TOTAL: "bold", Rank.VIEW: "italic"}.get(line.rank, "")
            table.add_row(line.label, f"{line.count:,}", "", style=style)
    return table


def check_lines(account: Account) -> list[str]:
    """Return what the accounting says: one line when it is right, one for each difference when it is not."""
    wrong = [check for check in account.checks if not check.holds]
    if not wrong:
        return [f"Every item is accounted for: {len(account.checks)} checks, sender, receivers and file agree."]
    lines = [f"NOT every item is accounted for: {len(wrong)} of {len(account.checks)} checks fail."]
    return lines + [f"  {check.label}: {check.found:,}, should be {check.wanted:,}" for check in wrong]


def address_table(members: Sequence[Member], keys: Mapping[str, str]) -> Table:
    """Return where the hotlines can be looked at, and the key that opens them."""
    table = Table(title="Look at the nodes", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("node")
    table.add_column("page")
    table.add_column("address", no_wrap=True)
    for member in members:
        table.add_row(member.node_id, "health, open", f"{member.address}/healthz")
        table.add_row("", "metrics", f"{member.address}/metrics")
        table.add_row("", "API documentation", f"{member.address}/api/docs")
        table.add_row("", "status", f"{member.address}/api/v1/status")
        table.add_row("", "API key", keys[member.node_id], style="dim", end_section=True)
    return table
