"""A member of the network that has gone bad, as a process of its own: it really signs, and does what it should not.

Bounded in rate and in what it holds open, so that what it shows is what the nodes do about it, not a contest of speed.
"""

import asyncio
import json
import os
import random
import ssl
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from node.conformance.speaker import Batch, Speaker, changed, with_body, with_headers
from node.platform.keyfiles import NodeKeys
from protocol.profile import Request

#: What a call may take; slow bodies are held open for longer, a few at a time.
_CALL_S: Final = 15.0
_SLOW_MAX: Final = 6
_FLOOD: Final = 40
_PAUSE_S: Final = 0.4
_LOOPS: Final = 3


@dataclass(frozen=True, slots=True)
class Target:
    """A node to be bothered."""

    id: str
    url: str
    country: str


@dataclass(frozen=True, slots=True)
class Hostile:
    """What the process needs: who it is, whom it bothers, where it is called, and where it says what it did."""

    id: str
    keys: Path
    port: int
    trusted: Path
    certificate: Path
    key: Path
    targets: tuple[Target, ...]
    seed: int
    said: Path


@dataclass(slots=True)
class _Line:
    """Our stream to one target; `pending` was sent and not receipted, so it is sent again before anything new."""

    speaker: Speaker
    pending: Batch | None = None
    last: Request | None = None


@dataclass(slots=True)
class _Attacker:
    lines: Sequence[_Line]
    session: aiohttp.ClientSession
    tls: ssl.SSLContext
    draw: random.Random
    done: Counter[str] = field(default_factory=Counter)
    slow: set["asyncio.Task[None]"] = field(default_factory=set)

    async def run(self, said: Path) -> None:
        kinds: dict[str, tuple[int, Callable[[_Line], Awaitable[object]]]] = {
            "good batch": (6, self._good),
            "records that break rules": (4, self._rules),
            "replayed request": (3, self._replay),
            "garbage body": (2, self._garbage),
            "another story": (2, self._equivocate),
            "flood of bad signatures": (1, self._flood),
            "huge header": (1, self._huge_header),
            "huge body": (1, self._huge_body),
            "slow body": (1, self._slow),
            "no HTTP": (1, self._no_http),
            "no TLS": (1, self._no_tls),
            "outcomes of nothing": (1, self._outcomes),
        }
        names = list(kinds)
        weights = [kinds[name][0] for name in names]
        while True:
            name = self.draw.choices(names, weights)[0]
            with suppress(aiohttp.ClientError, OSError, TimeoutError, asyncio.IncompleteReadError):
                await kinds[name][1](self.draw.choice(self.lines))
            self.done[name] += 1
            _tell(said, self.done)
            await asyncio.sleep(_PAUSE_S * self.draw.uniform(0.2, 2))

    async def _call(self, request: Request) -> tuple[int, bytes]:
        async with self.session.request(
            request.method,
            URL(request.target_uri, encoded=True),
            headers=request.headers,
            data=request.body or None,
            allow_redirects=False,
        ) as answer:
            return answer.status, await answer.content.read(100_000)

    async def _good(self, line: _Line) -> None:
        await self._deliver(line, line.speaker.reports(self.draw.randint(1, 5)))

    async def _deliver(self, line: _Line, records: list[bytes]) -> None:
        """Send as an honest peer does: what was not receipted first, and the same again until it is."""
        speaker = line.speaker
        batch = line.pending or speaker.batch(records)
        line.pending = batch
        line.last = speaker.signed("PUT", speaker.inbox_path(batch.first), batch.body)
        status, _ = await self._call(line.last)
        if status == 200:
            speaker.taken = [*speaker.taken[: batch.first], *batch.records]
            line.pending = None

    async def _rules(self, line: _Line) -> None:
        """Records that are each refused, and block nothing: to others, from others, expired, doubled, no JSON."""
        speaker = line.speaker
        good = speaker.report()
        bad = [
            speaker.report(country="US"),
            changed(speaker.report(), aud="nobody.hotline.example"),
            changed(speaker.report(), iss="nobody.hotline.example"),
            changed(speaker.report(), handling={"purpose": "resale", "retain_until": "2030-01-01T00:00:00.000Z"}),
            changed(speaker.report(), handling={"purpose": "takedown", "retain_until": "2020-01-01T00:00:00.000Z"}),
            changed(speaker.report(), crit=["body.never_heard_of"]),
            changed(speaker.report(), type="never-heard-of"),
            changed(speaker.report(), id="no-uuid"),
            changed(speaker.report(), deliver_by="tomorrow"),
            good,
            good,
            b"{",
            b'{"v":1,"v":1}',
            b"[" * 500,
            b'"' + os.urandom(20).hex().encode() + b'"',
        ]
        self.draw.shuffle(bad)
        await self._deliver(line, bad[: self.draw.randint(1, len(bad))])

    async def _outcomes(self, line: _Line) -> None:
        speaker = line.speaker
        await self._deliver(
            line,
            [
                speaker.outcome(accepted=((0, 10**12),)),
                speaker.outcome(refused=((10**9, "not-competent"),)),
                speaker.outcome(stream=replace(speaker.stream, epoch=7)),
            ],
        )

    async def _replay(self, line: _Line) -> None:
        if line.last is not None:
            await self._call(line.last)
            await self._call(line.last)

    async def _garbage(self, line: _Line) -> None:
        speaker = line.speaker
        body = self.draw.choice([b"", b"\0" * 2000, b"x\n\nx\n", speaker.batch(1).body[:-3], os.urandom(5000)])
        await self._call(speaker.signed("PUT", speaker.inbox_path(len(speaker.taken)), body or b"\n"))
        batch = speaker.batch(1)
        request = speaker.signed("PUT", speaker.inbox_path(batch.first), batch.body, after=with_body(b"other"))
        await self._call(request)

    async def _equivocate(self, line: _Line) -> None:
        speaker = line.speaker
        if not speaker.taken:
            return
        at = self.draw.randrange(len(speaker.taken))
        other = speaker.batch(1, first=at)
        await self._call(speaker.signed("PUT", speaker.inbox_path(at), other.body))
        size = len(speaker.taken)
        root = speaker.batch([speaker.taken[-1]], first=size - 1, root=bytes(32))
        await self._call(speaker.signed("PUT", speaker.inbox_path(size - 1), root.body))

    async def _flood(self, line: _Line) -> None:
        speaker = line.speaker
        batch = speaker.batch(1)
        spoil = with_headers(signature=f"hx=:{'A' * 86}==:")
        requests = [
            speaker.signed("PUT", speaker.inbox_path(batch.first), batch.body, after=spoil) for _ in range(_FLOOD)
        ]
        await asyncio.gather(*(self._call(one) for one in requests), return_exceptions=True)

    async def _open(self, line: _Line, *, tls: bool = True) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        parts = urlsplit(line.speaker.target_url)
        return await asyncio.open_connection(
            parts.hostname, parts.port, ssl=self.tls if tls else None, server_hostname=parts.hostname if tls else None
        )

    async def _raw(self, line: _Line, sent: bytes, *, tls: bool = True) -> None:
        reader, writer = await self._open(line, tls=tls)
        try:
            writer.write(sent)
            await writer.drain()
            async with asyncio.timeout(2):
                await reader.read(10_000)
        finally:
            writer.transport.abort()

    async def _huge_header(self, line: _Line) -> None:
        await self._raw(line, b"GET /.well-known/hx-node HTTP/1.1\r\nhost: x\r\nx: " + b"y" * 200_000 + b"\r\n\r\n")

    async def _huge_body(self, line: _Line) -> None:
        head = f"PUT {line.speaker.inbox_path(0)} HTTP/1.1\r\nhost: x\r\n"
        kind = "content-type: application/vnd.hx.batch\r\n"
        await self._raw(line, f"{head}{kind}content-length: 9000000000\r\n\r\n".encode() + b"z" * 500_000)
        chunk = b"10000\r\n" + b"z" * 65_536 + b"\r\n"
        await self._raw(line, f"{head}{kind}transfer-encoding: chunked\r\n\r\n".encode() + chunk * 90)

    async def _no_http(self, line: _Line) -> None:
        await self._raw(line, os.urandom(3000))

    async def _no_tls(self, line: _Line) -> None:
        await self._raw(line, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", tls=False)

    async def _slow(self, line: _Line) -> None:
        if len(self.slow) < _SLOW_MAX:
            task = asyncio.create_task(self._trickle(line))
            self.slow.add(task)
            task.add_done_callback(self.slow.discard)

    async def _trickle(self, line: _Line) -> None:
        """Hold a connection with a body that hardly comes, or with a handshake that never does."""
        speaker = line.speaker
        with suppress(OSError, TimeoutError):
            if self.draw.random() < 0.3:
                _, writer = await self._open(line, tls=False)
            else:
                _, writer = await self._open(line)
                head = f"PUT {speaker.inbox_path(0)} HTTP/1.1\r\nhost: x\r\ncontent-length: 5000\r\n"
                writer.write(f"{head}content-type: application/vnd.hx.batch\r\n\r\n".encode())
            try:
                for _ in range(40):
                    await asyncio.sleep(1)
                    writer.write(b"z")
                    await writer.drain()
            finally:
                writer.transport.abort()


class _Door(asyncio.Protocol):
    """Our own door: says nothing, garbage, or hangs up, one after the other."""

    turn = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Behave badly from the first moment."""
        assert isinstance(transport, asyncio.Transport)
        _Door.turn += 1
        match _Door.turn % 3:
            case 0:
                transport.write(b"\x00garbage\r\n\r\n" * 500)
                transport.close()
            case 1:
                transport.abort()
            case _:
                asyncio.get_running_loop().call_later(20, transport.abort)


def _tell(said: Path, done: Counter[str]) -> None:
    said.write_text(json.dumps(done), encoding="ascii")


async def _run(told: Hostile) -> None:
    keys = NodeKeys.load(told.keys)
    tls = ssl.create_default_context(cafile=told.trusted)
    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(told.certificate, told.key)
    lines = [_Line(Speaker(told.id, keys, one.id, one.url, one.country)) for one in told.targets]
    door = await asyncio.get_running_loop().create_server(_Door, "127.0.0.1", told.port, ssl=own)
    connector = aiohttp.TCPConnector(ssl=tls, limit=0)
    timeout = aiohttp.ClientTimeout(total=_CALL_S)
    done: Counter[str] = Counter()
    async with (
        door,
        aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
        asyncio.TaskGroup() as group,
    ):
        for number in range(_LOOPS):
            draw = random.Random(told.seed + number)  # noqa: S311 - replayable, no secret
            # Each loop has targets of its own: two would tell two stories without meaning to.
            mine = lines[number::_LOOPS]
            if mine:
                group.create_task(_Attacker(mine, session, tls, draw, done).run(told.said))


def run(told: Hostile) -> None:
    """Be hostile until killed."""
    with told.said.with_suffix(".log").open("ab") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    asyncio.run(_run(told))
