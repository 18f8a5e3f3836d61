"""Offers a peer that fetches what we have to say to it: the batch that a push would have carried. Keeps nothing."""

from dataclasses import dataclass

from node.hotline.framing import Framer
from node.hotline.store import heads, outbound
from node.platform.database import Database
from protocol.errors import ProtocolError


@dataclass(frozen=True, slots=True)
class Offered:
    """The body of a batch and the index after it, or None at the end of the epoch; how far that is written; the newest.

    `epoch` is the newest one, whichever was asked for.
    """

    body: bytes | None
    written: int
    epoch: int
    until: int = 0


@dataclass(frozen=True, slots=True)
class Offerer:
    """What this flow works with; one for each process."""

    db: Database
    framer: Framer
    batch_records_max: int

    async def offer(self, peer: str, epoch: int, first: int, records_max: int) -> Offered:
        """Return what follows index `first`, at most `records_max` records or those of one of our own batches.

        Raises ProtocolError `maintenance` while our streams stand still.
        """
        async with self.db.transaction("offer.read") as tx:
            if (await heads.stops(tx)).stands(peer):
                raise ProtocolError("maintenance", "this node's streams stand still until it is recovered")
            newest = await outbound.newest_epoch(tx, peer)
            cursor = await outbound.cursor_of(tx, peer, epoch)
            written = 0 if cursor is None else cursor.next_index
            if cursor is None or first >= written:
                return Offered(None, written, newest or epoch)
            before = await outbound.edge_at(tx, cursor, first)
        cut = await self.framer.cut(peer, cursor, before, min(records_max, self.batch_records_max))
        if cut is None:
            return Offered(None, written, newest or epoch)
        return Offered(cut.body, written, newest or epoch, cut.after.size)
