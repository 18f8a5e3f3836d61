"""Takes a receipt that a peer brings for what it fetched: verified as one that answers a push. Sends nothing."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from datetime import datetime

from node.hotline.domain.comparison import Direction
from node.hotline.judging import Judge
from node.hotline.store import contacts, outbound
from node.platform.database import Database
from protocol.directory import Directory
from protocol.errors import ProtocolError
from protocol.keys import SignatureInvalid
from protocol.receipt import open_receipt


@dataclass(frozen=True, slots=True)
class Settler:
    """What this flow works with; one for each process. `receipted` is told a peer and how many records were new."""

    node_id: str
    db: Database
    judge: Judge
    pool: Executor
    clock_now: Callable[[], datetime]
    receipted: Callable[[str, int], None]

    async def settle(self, peer: str, epoch: int, size: int, raw: bytes, directory: Directory) -> int:
        """Keep the receipt and return how far the stream is receipted now; raises ProtocolError and keeps nothing.

        The receipt first kept for a size stays, whatever comes later, for as long as it proves something; bringing one
        again changes nothing.
        """
        try:
            covered, stream = await asyncio.get_running_loop().run_in_executor(self.pool, open_receipt, raw, directory)
        except SignatureInvalid:
            raise ProtocolError(
                "bad-signature", "the receipt is not signed by every key of both sides that counted at its time"
            ) from None
        except ValueError:
            raise ProtocolError("malformed", "this is no receipt", field="body") from None
        if (stream.iss, stream.aud) != (self.node_id, peer):
            raise ProtocolError("wrong-audience", "the receipt is not of our stream to its bearer", field="origin")
        if (stream.epoch, covered.size) != (epoch, size):
            raise ProtocolError("malformed", "the receipt covers another epoch or size than the path", field="size")
        now = self.clock_now()
        async with self.db.transaction("settle.receipt") as tx:
            await self.judge.hold(tx, Direction.OUT, peer, directory)
            cursor = await outbound.cursor_of(tx, peer, epoch)
            written = 0 if cursor is None else cursor.next_index
            if cursor is None or size > written:
                raise ProtocolError(
                    "stream-gap", "so much of this stream was never written here", extra={"expected": written}
                )
            edge = await outbound.edge_at(tx, cursor, size)
            if edge.root() != covered.root:
                raise ProtocolError("root-mismatch", "our stream has another root at this size", field="root")
            await outbound.store_receipt(tx, cursor.stream, size, raw, edge, now)
            await contacts.reached(tx, peer, now)
        gained = max(0, size - cursor.edge.size)
        if gained:
            self.receipted(peer, gained)
        return max(size, cursor.edge.size)
