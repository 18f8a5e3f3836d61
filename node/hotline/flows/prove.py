"""Writes the proof of one record: its bytes, its place in the stream and the receipt. Reads only."""

from dataclasses import dataclass
from uuid import UUID

from node.hotline.store import evidence
from node.hotline.store.proofs import Proofs
from node.hotline.store.vault import Vault
from node.platform.database import Database


class NothingToProve(LookupError):  # noqa: N818 - names the fact
    """The item is not known here, has no record, or its record has no receipt yet; the text says which."""


@dataclass(frozen=True, slots=True)
class Prover:
    """What this flow works with."""

    db: Database
    vault: Vault

    async def prove(self, item_id: UUID) -> bytes:
        """Return the C2SP tlog-proof of the item's `report` record, as sent or as received.

        Raises NothingToProve.
        """
        async with self.db.transaction("prove.read") as tx:
            place = await evidence.place_of_item(tx, item_id)
            if place is None:
                raise NothingToProve("no record of this item was sent or received")
            proof = await Proofs(tx, self.vault).proof(place)
            if proof is None:
                raise NothingToProve("the record has no receipt yet")
        return proof
