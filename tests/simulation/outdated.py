"""Tells whether a record holds a receipt that proves nothing by its receiver's directory, newer or older than it."""

from typing import TYPE_CHECKING, Final

from protocol.checkpoint import Checkpoint, StreamId
from protocol.keys import SignatureInvalid
from protocol.receipt import open_receipt
from protocol.record import parse_record
from protocol.steps import TransferBody
from protocol.tlogproof import parse_tlog_proof
from tests.simulation.sql.tables import Row
from tests.simulation.station import Station

if TYPE_CHECKING:
    from tests.simulation.world import World

#: How long before its commit a transaction may have read the receipt that it writes a proof with.
_WRITING_S: Final = 0.1


def is_outdated(world: "World", station: Station, giver: Station, row: Row) -> bool:
    """Tell whether a record holds a receipt that lost its worth, and that its sender could not put anew.

    It wrote the record, or was about to, when it heard of the newer keys, or it has the proof from another node, in a
    transfer. Or the receiver is the one that has not heard of them.
    """
    checks = world.checks
    kept = next(r for r in station.disk.rows("inbox") if (r["stream"], r["idx"]) == (row["stream"], row["idx"]))
    body = parse_record(station.vault.open_record("inbox", row["stream"], row["idx"], kept["record_enc"])).body
    proof = getattr(body, "original", None) or getattr(body, "proof", None)
    if proof is None:
        return False
    note = parse_tlog_proof(proof.encode()).note
    if proves(note.to_bytes(), station):
        return False
    if checks.versions[station.id] < checks.versions[giver.id] and proves(note.to_bytes(), giver):
        return True
    stream = checks.stream(station, "inbound_streams", row["stream"])
    written_s = checks.logs[stream].written_s[row["idx"]]
    if giver.id != StreamId.parse(Checkpoint.parse(note.text).origin).aud or _was_given(giver, proof):
        return True
    return written_s <= checks.heard_s[giver.id] + _WRITING_S or checks.versions[giver.id] < checks.versions[station.id]


def _was_given(station: Station, original: str) -> bool:
    """Tell whether a node got a proof in a transfer: it hands on just that one, though it may hold the record."""
    for row in station.disk.rows("inbox"):
        body = parse_record(station.vault.open_record("inbox", row["stream"], row["idx"], row["record_enc"])).body
        if isinstance(body, TransferBody) and body.original == original:
            return True
    return False


def proves(receipt: bytes, station: Station) -> bool:
    """Tell whether a receipt proves something by the directory that a node has in use."""
    if station.run is None or station.run.assembled is None:
        return False
    try:
        open_receipt(receipt, station.run.assembled.directory())
    except SignatureInvalid:
        return False
    return True
