"""What two nodes hold of the streams between them: audited as an operator would, and read record by record."""

from collections.abc import Sequence

from node.clock import SystemClock
from node.hotline.cli.audit_network import audit_nodes
from protocol.bodies import OutcomeBody
from protocol.record import Record, parse_record
from tests.faults.station import Station


async def check_streams(stations: Sequence[Station]) -> None:
    """Check that nothing is lost, doubled, altered, unproven or under way between these nodes."""
    accounts = await audit_nodes([station.settings for station in stations], SystemClock())
    differences = [each.words() for account in accounts for each in account.found.named]
    assert not differences, differences
    under_way = {account.found.stream: account.under_way for account in accounts if account.under_way}
    assert not under_way, under_way


async def received(station: Station, peer: str) -> list[Record]:
    """Return the records that a node holds of a peer's stream, in order."""
    vault = await station.vault()
    async with station.db.transaction("test.received") as tx:
        rows = await tx.fetch(
            "SELECT i.stream, i.idx, i.record_enc FROM inbox i JOIN inbound_streams s ON s.id = i.stream "
            "WHERE s.peer = $1 ORDER BY i.idx",
            peer,
        )
    return [parse_record(vault.open_record("inbox", row["stream"], row["idx"], row["record_enc"])) for row in rows]


def check_outcomes(records: Sequence[Record], size: int) -> None:
    """Check that the outcomes accept every record of a stream of `size` once and refuse none."""
    accepted: list[int] = []
    for record in records:
        assert isinstance(record.body, OutcomeBody)
        assert not record.body.refused
        assert not record.body.kept
        for first, last in record.body.accepted:
            accepted += range(first, last + 1)
    assert sorted(accepted) == list(range(size))
