"""Tables on the terminal, and durations in words. Markup in what is shown stays text; never shows a URL."""

import sys
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

#: A pipe has no width of its own; lines cut to 80 columns would lose the ends of ids.
_PIPE_COLUMNS = 160
_STEPS = ((60, "s"), (60, "min"), (24, "h"))


def show_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; a column whose name ends in ` #` is one of numbers, and None is shown as a dash."""
    shown = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, show_edge=False)
    for name in columns:
        number = name.endswith(" #")
        shown.add_column(name.removesuffix(" #"), justify="right" if number else "left", overflow="fold")
    for row in rows:
        shown.add_row(*("-" if cell is None else _text(cell) for cell in row))
    width = None if sys.stdout.isatty() else _PIPE_COLUMNS
    console = Console(file=sys.stdout, width=width, markup=False, emoji=False, highlight=False)
    console.print(shown)
    console.print()


def duration(seconds: float | None) -> str | None:
    """Return a duration in its largest whole unit: `45 s`, `12 min`, `3 h`, `2 d`."""
    if seconds is None:
        return None
    value = int(seconds)
    for step, unit in _STEPS:
        if abs(value) < step:
            return f"{value} {unit}"
        value = int(value / step)
    return f"{value} d"


def _text(cell: object) -> str:
    return f"{cell:,}" if isinstance(cell, int) and not isinstance(cell, bool) else str(cell)
