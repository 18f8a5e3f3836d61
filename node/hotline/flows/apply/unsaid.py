"""Tells what others were to hear already, of records that were applied before a restore. Says nothing itself."""

from collections.abc import Sequence

from node.hotline.store import restored
from node.hotline.store.telling import Telling
from node.hotline.store.vault import Vault
from node.platform.database import Transaction
from protocol.codes import StatusKind
from protocol.record import parse_record
from protocol.steps import ActionBody, AssessmentBody, StatusBody, step_type
from protocol.tlogproof import parse_tlog_proof


async def unsaid(tx: Transaction, vault: Vault, told: Sequence[Telling]) -> list[Telling]:
    """Return what no record of ours says to its hotline yet: a restore may have taken one, and left others like it."""
    return [one for one in told if not await _is_said(tx, vault, one)]


async def _is_said(tx: Transaction, vault: Vault, one: Telling) -> bool:
    for stream, idx, sealed in await restored.said_of(tx, one.to.node, one.to.item_id, step_type(one.body)):
        if _is_same(one.body, parse_record(vault.open_record("outbox", stream, idx, sealed)).body):
            return True
    return False


def _is_same(one: object, said: object) -> bool:
    """Tell whether two bodies of one type say the same; of what is made anew each time, what it is about."""
    if isinstance(one, ActionBody | AssessmentBody):
        return one == said
    if isinstance(one, StatusBody) and isinstance(said, StatusBody):
        return _fact(one) == _fact(said)
    return True


def _fact(body: StatusBody) -> tuple[StatusKind, str | None, str | None, bytes | None]:
    """Return what a status says; of a delivery the transfer, whatever receipt proves it."""
    transfer = None
    if body.kind is StatusKind.DELIVERED and body.proof is not None:
        transfer = parse_tlog_proof(body.proof.encode()).extra
    return body.kind, body.node, body.code, transfer
