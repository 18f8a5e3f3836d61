"""Where the directory's metadata is fetched from: a folder, or a node or coordinator over HTTP. Believes nothing."""

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import aiohttp
from yarl import URL

#: Where every node and the coordinator serve it.
MIRROR_PATH: Final = "/peer/v1/directory"
#: A line that gives less than that is too slow for a large directory (1 Mbit/s).
LINE_BYTES_PER_S_MIN: Final = 131_072
#: The names that exist (TUF consistent snapshots).
FILE: Final = re.compile(
    r"timestamp\.json|[1-9][0-9]{0,15}\.(?:root|snapshot|targets)\.json|[0-9a-f]{64}\.directory\.json"
)
_OK: Final = 200
_NOT_FOUND: Final = 404


class SourceFailed(Exception):  # noqa: N818 -- names the fact
    """A source did not give a file that may be there; the sentence names the source and no address."""


class Source(Protocol):
    """A place with metadata files."""

    @property
    def name(self) -> str:
        """How it is called in sentences."""

    @property
    def local(self) -> bool:
        """Whether looking there costs nobody anything."""

    async def fetch(self, file: str, bytes_max: int) -> bytes | None:
        """Return a file, at most one byte more than `bytes_max` of it, or None where there is none; SourceFailed."""


@dataclass(frozen=True, slots=True)
class FolderSource:
    """A folder that somebody fills: networks without a way out, the demo, tests."""

    folder: Path

    @property
    def name(self) -> str:
        """Its path."""
        return str(self.folder)

    @property
    def local(self) -> bool:
        """It is read from the disk."""
        return True

    async def fetch(self, file: str, bytes_max: int) -> bytes | None:
        """Read the file."""
        return await asyncio.to_thread(read_file, self.folder, file, bytes_max)


def read_file(folder: Path, file: str, bytes_max: int) -> bytes | None:
    """Return a metadata file of a folder, at most one byte more than `bytes_max`; None where it is not there."""
    if FILE.fullmatch(file) is None:
        raise SourceFailed(f"{file} is no name of a metadata file")
    try:
        with (folder / file).open("rb") as opened:
            return opened.read(bytes_max + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise SourceFailed(f"{folder / file} cannot be read ({error.strerror})") from None


@dataclass(frozen=True, slots=True)
class HttpSource:
    """The mirror of a node, or the coordinator. `name` is a node id or what the operator called it."""

    session: aiohttp.ClientSession
    base_url: str
    name: str

    @property
    def local(self) -> bool:
        """It is somebody else's."""
        return False

    async def fetch(self, file: str, bytes_max: int) -> bytes | None:
        """GET the file; an answer that goes on and on, or takes longer than over a slow line, is cut off."""
        whole = self.session.timeout
        longer_s = bytes_max / LINE_BYTES_PER_S_MIN
        timeout = aiohttp.ClientTimeout(
            total=None if whole.total is None else whole.total + longer_s, connect=whole.connect, sock_read=whole.total
        )
        url = URL(f"{self.base_url.rstrip('/')}{MIRROR_PATH}/{file}", encoded=True)
        try:
            async with self.session.get(url, allow_redirects=False, timeout=timeout) as answer:
                if answer.status == _NOT_FOUND:
                    return None
                if answer.status != _OK:
                    raise SourceFailed(f"{self.name} answered {answer.status}")
                parts: list[bytes] = []
                size = 0
                async for part in answer.content.iter_any():
                    parts.append(part[: bytes_max + 1 - size])
                    size += len(parts[-1])
                    if size > bytes_max:
                        # The connection cannot be used again with the rest of this answer in it.
                        answer.close()
                        break
                return b"".join(parts)
        except (aiohttp.ClientError, OSError) as error:
            # The cause is dropped: its text holds the address.
            raise SourceFailed(f"{self.name} did not answer ({type(error).__name__})") from None


def make_source(text: str, session: aiohttp.ClientSession) -> Source:
    """Return the source that a setting names: an address or a folder."""
    return HttpSource(session, text, "the coordinator") if "://" in text else FolderSource(Path(text))
