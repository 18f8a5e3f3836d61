"""`hotline import`: the command around `importing`: its arguments, its progress bar and its counts. Reads no row."""

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from node.errors import OperatorError
from node.hotline.cli.importing import ImportResult, import_rows, open_source
from node.hotline.cli.opening import opened_store
from node.hotline.domain.rows import COLUMNS, OWN_COLUMN_PREFIX, Format
from node.platform.cli.command import Context, check_folder

EXIT_REJECTED: Final = 1
_SUFFIX: Final = ".rejects.ndjson"
_SUBMITTER_CHARS_MAX: Final = 64


def add_arguments(parser: ArgumentParser) -> None:
    """Describe the command."""
    parser.description = (
        "Take the reports of a file in. A CSV file names its columns in its first line (below); "
        "an NDJSON file has one report as JSON a line. A row that is wrong goes to the rejects file with its number "
        "and the reason, and disturbs no other. Run it again after an interruption, or by mistake: nothing is added "
        "twice. Exit status 0 when every row was taken, 1 when rows were rejected."
    )
    parser.epilog = f"columns of a CSV file: {', '.join(COLUMNS)}; of your own: any that begin with {OWN_COLUMN_PREFIX}"
    parser.add_argument("file", metavar="FILE", help="the file to read, or - for standard input")
    parser.add_argument("--format", choices=("csv", "ndjson"), help="default: told from the first line")
    parser.add_argument(
        "--source", metavar="NAME", help="name that rows without a reference of their own count under (default: FILE's)"
    )
    parser.add_argument(
        "--submitter", metavar="NAME", default="import", help="who hands the reports in (default: import)"
    )
    parser.add_argument("--rejects", metavar="FILE", help=f"where rejected rows are listed (default: FILE{_SUFFIX})")
    parser.add_argument("--json", action="store_true", help="print the counts as one JSON object")
    parser.add_argument("--no-progress", action="store_true", help="show no progress bar")
    parser.set_defaults(run=run)


def run(arguments: Namespace, context: Context) -> int:
    """Import the file; raises OperatorError."""
    submitter = arguments.submitter
    if not 1 <= len(submitter) <= _SUBMITTER_CHARS_MAX or not submitter.isprintable():
        raise OperatorError(f"The submitter's name has 1 to {_SUBMITTER_CHARS_MAX} printable characters.")
    if arguments.file == "-" and sys.stdin.isatty():
        raise OperatorError("Standard input is the terminal: give a file, or pipe one in.")
    stream, name, size = open_source(arguments.file)
    with stream:
        rejects = _rejects(arguments, name)
        with _bar(size, shown=not arguments.no_progress and sys.stderr.isatty()) as progress:
            result = context.run(
                _import(
                    context,
                    stream,
                    arguments.format,
                    source=arguments.source or name,
                    submitter=submitter,
                    rejects=rejects,
                    progress=progress,
                )
            )
    print(result.as_json() if arguments.json else _words(result))
    return EXIT_REJECTED if result.rejected else 0


def _rejects(arguments: Namespace, name: str) -> Path:
    """Return where rejected rows are listed; never the file that is read, which the list would replace."""
    if arguments.rejects is not None:
        path = Path(arguments.rejects)
    elif arguments.file == "-":
        path = Path(f"import{_SUFFIX}")
    else:
        path = Path(arguments.file).with_name(name + _SUFFIX)
    path = path.absolute()
    if path.is_dir():
        raise OperatorError("The rejects file would be a folder; give --rejects the name of a file.")
    if arguments.file != "-" and path.exists() and path.samefile(arguments.file):
        raise OperatorError("The rejects file would be the file that is read; give --rejects another name.")
    check_folder(path)
    return path


async def _import(
    context: Context,
    stream: BinaryIO,
    fmt: Format | None,
    *,
    source: str,
    submitter: str,
    rejects: Path,
    progress: "_Bar",
) -> ImportResult:
    async with opened_store(context) as store:
        return await import_rows(
            store,
            stream,
            fmt,
            source=source,
            submitter=submitter,
            rejects=rejects,
            rows_per_commit=store.settings.import_rows_per_commit,
            progress=progress,
        )


class _Bar:
    """The progress bar: by bytes where the size is known, since only they tell what is left."""

    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def update(self, rows: int, bytes_read: int) -> None:
        """Show rows committed and bytes read so far."""
        # The first call comes when the store is open and the first rows are read: only from there on it counts.
        self._progress.start_task(self._task)
        elapsed_s = self._progress.tasks[0].elapsed or 0.0
        rate = f"{rows / elapsed_s:,.0f}" if elapsed_s else "-"
        self._progress.update(self._task, completed=bytes_read, rows=f"{rows:,}", rate=rate)


@contextmanager
def _bar(size: int | None, *, shown: bool) -> Iterator[_Bar]:
    columns = (
        TextColumn("import"),
        BarColumn(),
        TextColumn("{task.fields[rows]} rows, {task.fields[rate]} rows/s,"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    # Standard output is for the counts.
    with Progress(*columns, console=Console(file=sys.stderr), disable=not shown) as progress:
        yield _Bar(progress, progress.add_task("import", total=size or None, start=False, rows="0", rate="-"))


def _words(result: ImportResult) -> str:
    lines = [
        f"Rows read: {result.rows:,}",
        f"  reports taken in: {result.reports:,}",
        f"    items in them: {result.items:,} new, {result.duplicates:,} known already",
        f"  reports known already from an earlier import: {result.repeated:,}",
        f"  rejected: {result.rejected:,}" + (f", listed in {result.rejects}" if result.rejects else ""),
    ]
    return "\n".join(lines)
