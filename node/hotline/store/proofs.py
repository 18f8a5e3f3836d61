"""Makes the tlog-proof of a record from its place in a stream; opens the record, and verifies nothing."""

from dataclasses import dataclass

from node.hotline.store import evidence
from node.hotline.store.evidence import Place
from node.hotline.store.trees import INBOX, Tree
from node.hotline.store.vault import Vault
from node.platform.database import Transaction
from protocol.evidence import make_proof


class NoReceipt(LookupError):  # noqa: N818 - names the fact
    """No receipt that counts covers what was received: its sender sends it again, and then one does."""


@dataclass(frozen=True, slots=True)
class Proofs:
    """Proofs made in one transaction."""

    tx: Transaction
    vault: Vault

    async def proof(self, place: Place) -> bytes | None:
        """Return the `.tlog-proof` file of a record, or None while no receipt that counts covers it."""
        covering = await evidence.receipt_covering(self.tx, place)
        if covering is None:
            return None
        return await self._made(place, *covering)

    async def proof_of_first(self, stream: int, size: int, receipt: bytes) -> bytes:
        """Return the proof of the first record of a peer's stream in the tree of `size` that this receipt is of.

        Also where the receipt does not count any more: a contradiction rests on the sender's signature.
        """
        return await self._made(await self.received(stream, 0), size, receipt)

    async def _made(self, place: Place, size: int, receipt: bytes) -> bytes:
        path = await Tree(self.tx, place.table, place.stream).path(place.idx, size)
        record = self.vault.open_record(place.table, place.stream, place.idx, place.sealed)
        return make_proof(record, place.idx, path, receipt)

    async def proof_of_received(self, stream: int, idx: int) -> bytes:
        """Return the proof of a record of a peer's stream that is held; raises NoReceipt."""
        proof = await self.proof(await self.received(stream, idx))
        if proof is None:
            raise NoReceipt("the record is to be receipted again")
        return proof

    async def received(self, stream: int, idx: int) -> Place:
        """Return the place of a record of a peer's stream that is held."""
        row = await self.tx.row("SELECT record_enc FROM inbox WHERE stream = $1 AND idx = $2", stream, idx)
        if row is None:
            raise LookupError("a received item's record is held")
        return Place(INBOX, stream, idx, row["record_enc"])
