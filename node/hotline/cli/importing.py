"""`hotline import`: reads a file of reports into the node, with progress; running it twice adds nothing.

Holds at most three chunks of rows in memory. What is refused goes to the rejects file with row number and reason.
"""

import asyncio
import json
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import BinaryIO, Protocol

from node.clock import Clock
from node.errors import OperatorError
from node.hotline.assembly import Store
from node.hotline.domain.rows import FileRefused, Format, Row, RowRejected, derived_reference, read_rows, reject_line
from node.hotline.flows.intake import Intake, ReferenceConflict, Submission, Taken
from node.platform.collector import settle
from node.platform.database import DATABASE_ERRORS

#: About two milliseconds of reading.
_SLICE_ROWS = 50


@dataclass(slots=True)
class ImportResult:
    """What an import did: rows read, reports new and repeated, items new and duplicate, rows refused."""

    rows: int = 0
    reports: int = 0
    repeated: int = 0
    items: int = 0
    duplicates: int = 0
    rejected: int = 0
    rejects: Path | None = field(default=None)

    def as_json(self) -> str:
        """Return the counts as one line of JSON, for scripts."""
        counts = {name: getattr(self, name) for name in ("rows", "reports", "repeated", "items", "duplicates")}
        return json.dumps({**counts, "rejected": self.rejected, "rejects": str(self.rejects or "")})


class Progress(Protocol):
    """Shown how far the import is."""

    def update(self, rows: int, bytes_read: int) -> None:
        """Rows committed and bytes of the file read so far."""


class _Counted:
    """A binary stream that counts what was read of it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.bytes_read = 0

    def read(self, size: int = -1) -> bytes:
        part = self._stream.read(size)
        self.bytes_read += len(part)
        return part

    def readline(self, size: int = -1) -> bytes:
        part = self._stream.readline(size)
        self.bytes_read += len(part)
        return part


class _Rejects:
    """The rejects file: written beside its final name, and put there when the import is through."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._part = path.with_name(path.name + ".part")
        self._file: BinaryIO | None = None

    def write(self, rejected: RowRejected) -> None:
        try:
            if self._file is None:
                self._file = os.fdopen(os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")
            self._file.write(reject_line(rejected))
        except OSError as error:
            raise OperatorError(f"The rejects file {self._part} cannot be written: {error.strerror}.") from None

    def close(self) -> Path | None:
        """Put the file in its place; None when nothing was rejected."""
        if self._file is None:
            self._path.unlink(missing_ok=True)
            return None
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._part.replace(self._path)
        return self._path


async def import_rows(
    store: Store,
    stream: BinaryIO,
    fmt: Format | None,
    *,
    source: str,
    submitter: str,
    rejects: Path,
    rows_per_commit: int,
    progress: Progress,
) -> ImportResult:
    """Import every row of `stream`; raises OperatorError when the file as a whole or the database refuses.

    Chunks are committed in order while the next one is read; an import cut off at any point is resumed by running
    it again, since every row has a reference.
    """
    settle()
    counted = _Counted(stream)
    result = ImportResult()
    refused = _Rejects(rejects)
    clock: Clock = store.clock
    try:
        rows = await asyncio.to_thread(read_rows, counted, fmt, now=clock.now())  # type: ignore[arg-type]
    except FileRefused as error:
        raise OperatorError(f"The file was refused: {error.sentence}.") from None
    intake = store.intake()
    writing: asyncio.Task[None] | None = None
    try:
        while chunk := await _chunk(rows, rows_per_commit, in_thread=not _is_file(stream)):
            if writing is not None:
                await writing
            writing = asyncio.create_task(_write(store, intake, chunk, source, submitter, result, refused))
            progress.update(result.rows, counted.bytes_read)
        if writing is not None:
            await writing
            writing = None
    except DATABASE_ERRORS as error:
        raise OperatorError(
            f"The database went away after {result.rows} rows ({type(error).__name__}); run the import again to go on."
        ) from None
    finally:
        if writing is not None:
            # Interrupted: what is being written is finished or rolled back before the process ends.
            await asyncio.gather(writing, return_exceptions=True)
    progress.update(result.rows, counted.bytes_read)
    result.rejects = refused.close()
    return result


async def _chunk(rows: Iterator[Row | RowRejected], size: int, *, in_thread: bool) -> list[Row | RowRejected]:
    """Return the next `size` rows.

    A pipe may keep us waiting, so it is read in a thread. A file is not: two threads that both compute would wait for
    the interpreter's lock at every answer of the database; so its rows are read a few at a time in between.
    """
    if in_thread:
        return await asyncio.to_thread(lambda: list(islice(rows, size)))
    chunk: list[Row | RowRejected] = []
    while len(chunk) < size and (slice_ := list(islice(rows, min(_SLICE_ROWS, size - len(chunk))))):
        chunk += slice_
        await asyncio.sleep(0)
    return chunk


def _is_file(stream: BinaryIO) -> bool:
    try:
        return stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except (OSError, ValueError):
        return False


async def _write(
    store: Store,
    intake: Intake,
    chunk: list[Row | RowRejected],
    source: str,
    submitter: str,
    result: ImportResult,
    refused: _Rejects,
) -> None:
    good = [row for row in chunk if isinstance(row, Row)]
    for row in chunk:
        if isinstance(row, RowRejected):
            refused.write(row)
            result.rejected += 1
    submissions = [Submission(submitter, _reference(store, source, row), row.report) for row in good]
    taken = await intake.take_in(submissions) if submissions else []
    for row, outcome in zip(good, taken, strict=True):
        _count(row, outcome, result, refused)
    result.rows += len(chunk)


def _count(row: Row, outcome: Taken | ReferenceConflict, result: ImportResult, refused: _Rejects) -> None:
    if isinstance(outcome, ReferenceConflict):
        sentence = "this reference was used before for another report"
        refused.write(RowRejected(row.number, row.line, "reference", "reference-conflict", sentence))
        result.rejected += 1
    elif outcome.repeated:
        result.repeated += 1
    else:
        result.reports += 1
        duplicates = sum(item.duplicate_of is not None for item in outcome.items)
        result.duplicates += duplicates
        result.items += len(outcome.items) - duplicates


def _reference(store: Store, source: str, row: Row) -> str:
    """The submitter's reference, or one derived from the row; keyed, so that a dump does not tell guessed rows."""
    if row.report.reference is not None:
        return row.report.reference
    derived = derived_reference(source, row.number, row.digest_basis)
    return "row:" + store.vault.digest_key.digest("row", derived).hex()


def open_source(path: str) -> tuple[BinaryIO, str, int | None]:
    """Return (stream, source name, size in bytes) of a file, or of standard input for `-`; raises OperatorError."""
    if path == "-":
        return sys.stdin.buffer, "-", None
    try:
        stream = Path(path).open("rb")  # noqa: SIM115 - the caller closes it
    except OSError as error:
        raise OperatorError(f"The file cannot be read: {error.strerror}.") from None
    return stream, Path(path).name, Path(path).stat().st_size
