"""The membership directory as this node trusts it: a signed file, pinned authority, never an older version.

The one place that knows where the directory comes from: the TUF repository of a later version stands behind the same
two methods, `current` and `refresh`.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from node.errors import OperatorError
from protocol.directory import Directory, DirectoryInvalid, open_directory
from protocol.errors import ProtocolError
from protocol.keys import SignatureInvalid

#: What `protocol.directory` takes, and room for the signature; 200 nodes with six keys each stay below 3 MB.
DIRECTORY_BYTES_MAX = 4 * 1024 * 1024 + 4096

#: Told a version and the SHA-256 of its file before it is trusted; raises OperatorError when that would be a rollback.
Accept = Callable[[int, bytes], Awaitable[None]]


def read_directory(path: Path, authority: str) -> tuple[Directory, bytes]:
    """Return the verified directory in `path` and the SHA-256 of the file; raises OperatorError, one sentence."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise OperatorError(f"The directory file {path} cannot be read: {error.strerror}.") from None
    if len(raw) > DIRECTORY_BYTES_MAX:
        raise OperatorError(f"The directory file {path} has more than {DIRECTORY_BYTES_MAX} bytes.")
    try:
        return open_directory(raw, authority), hashlib.sha256(raw).digest()
    except SignatureInvalid:
        raise OperatorError(f"The directory file {path} is not signed by the pinned authority.") from None
    except (DirectoryInvalid, ProtocolError) as error:
        raise OperatorError(f"The directory file {path} is not a valid directory: {error}.") from None


class Membership:
    """The directory in use; a file that is worse than the one in use changes nothing and is reported."""

    def __init__(self, path: Path, authority: str, accept: Accept) -> None:
        """Read nothing yet."""
        self._path = path
        self._authority = authority
        self._accept = accept
        self._directory: Directory | None = None
        self._stamp: tuple[int, int, int] | None = None
        self.problem: str | None = None

    def current(self) -> Directory:
        """Return the directory in use."""
        if self._directory is None:
            raise OperatorError("No membership directory has been read.")
        return self._directory

    async def start(self) -> None:
        """Read and accept the file; raises OperatorError when it is missing, unsigned, invalid or rolled back."""
        stamp = self._stat()
        directory, digest = await asyncio.to_thread(read_directory, self._path, self._authority)
        await self._accept(directory.version, digest)
        self._directory, self._stamp = directory, stamp

    async def refresh(self) -> bool:
        """Take a changed file into use; tells whether it did. A bad file leaves the directory and sets `problem`."""
        stamp = self._stat()
        if stamp is None or stamp == self._stamp:
            return False
        try:
            await self.start()
        except OperatorError as error:
            self.problem = error.sentence
            return False
        self.problem = None
        return True

    def _stat(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size
