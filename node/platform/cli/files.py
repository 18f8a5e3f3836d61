"""Reads and writes the files commands are given: whole or not at all, one sentence when that fails. Holds no secret."""

import os
import tempfile
from pathlib import Path

from node.errors import OperatorError


def read_bounded(path: Path, bytes_max: int, what: str) -> bytes:
    """Return the content of `path`; OperatorError, which calls it `what`, when it cannot be read or is too large."""
    try:
        with path.open("rb") as file:
            content = file.read(bytes_max + 1)
    except OSError as error:
        raise OperatorError(f"{what} cannot be read ({error.strerror}).") from None
    if len(content) > bytes_max:
        raise OperatorError(f"{what} has more than {bytes_max} bytes.")
    return content


def write_whole(path: Path, content: bytes) -> None:
    """Put `content` in the place of `path` (0644), durably; a crash leaves the old file or the new one, never a part.

    Raises OperatorError.
    """
    path = path.absolute()
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            fresh = Path(file.name)
            try:
                os.fchmod(file.fileno(), 0o644)
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
                fresh.replace(path)
            finally:
                fresh.unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise OperatorError(f"{path} cannot be written ({error.strerror}).") from None
