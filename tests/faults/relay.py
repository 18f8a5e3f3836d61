"""A TCP relay in front of a node's peer door: cuts answers off, takes connections in turn, or lets nobody through."""

import asyncio
from collections import deque
from itertools import count


class Relay:
    """Listens on `port` and hands each new connection to the next of `backends` (ports of the loopback)."""

    def __init__(self, port: int, backends: list[int]) -> None:
        """Listen to nobody yet; `cuts` says how many bytes of each of the next answers come through."""
        self.port = port
        self.backends = backends
        self.cuts: deque[int] = deque()
        self.open = True
        self._turn = count()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        """Begin to listen."""
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)

    async def close(self) -> None:
        """Cut every connection and stop listening."""
        assert self._server is not None
        self._server.close()
        self.drop()
        await self._server.wait_closed()

    def drop(self) -> None:
        """Cut every connection."""
        for writer in self._writers:
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            if self.open:
                await self._join(reader, writer)
        except OSError:
            # The node is down, or one end was cut.
            return
        finally:
            self._writers.discard(writer)
            writer.transport.abort()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = self.backends[next(self._turn) % len(self.backends)]
        behind, to_node = await asyncio.open_connection("127.0.0.1", port)
        self._writers.add(to_node)
        try:
            ends = {asyncio.create_task(_pump(reader, to_node)), asyncio.create_task(self._answers(behind, writer))}
            done, rest = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for one in rest:
                one.cancel()
            await asyncio.gather(*done, *rest, return_exceptions=True)
        finally:
            self._writers.discard(to_node)
            to_node.transport.abort()

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while part := await reader.read(65_536):
            if self.cuts:
                writer.write(part[: self.cuts.popleft()])
                await writer.drain()
                return
            writer.write(part)
            await writer.drain()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while part := await reader.read(65_536):
        writer.write(part)
        await writer.drain()
