"""Records of a member that get round a rule: they keep nobody's records waiting, and what is sound goes on."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest

from node.clock import rfc3339
from node.conformance.speaker import changed
from node.platform.database import Transaction
from protocol.checkpoint import EPOCH_MAX, StreamId
from protocol.codes import StatusKind, WithdrawalReason
from protocol.merkle import leaf_hash
from protocol.note import Note, NoteSignature, parse_note
from protocol.record import parse_record
from protocol.steps import StatusBody, TransferBody, WithdrawalBody
from tests.peers.conftest import OpenInbox
from tests.peers.network import Hub
from tests.peers.simulator import PeerSimulator
from tests.peers.test_records import outcomes, outcomes_arrived
from tests.peers.transfers import Chain

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def others_go_on(hub: Hub) -> None:
    """Show that what an honest member sends now is applied."""
    honest = await hub.peer()
    await honest.deliver(3)
    await hub.applied(honest)


async def test_an_outcome_of_an_epoch_that_no_stream_can_have_is_refused(hub: Hub) -> None:
    peer = await hub.peer()
    stream = StreamId(peer.target_id, peer.id, EPOCH_MAX)
    beyond = peer.outcome(accepted=[(0, 0)], stream=stream).replace(b"/2147483647", b"/2147483648")
    await peer.deliver([peer.outcome(accepted=[(0, 0)], stream=stream), beyond])
    await hub.applied(peer)
    assert await refusals(hub, peer) == {0: "schema-invalid", 1: "schema-invalid"}
    await others_go_on(hub)


@pytest.mark.parametrize(
    "lines",
    [
        [NoteSignature("é", b"abcd", b"x" * 8)],
        [NoteSignature(f"stranger-{number}", b"abcd", b"x" * 8000) for number in range(5)],
    ],
    ids=["a name that no proof can hold", "more bytes than a proof can hold"],
)
async def test_the_lines_of_strangers_on_a_checkpoint_are_not_in_the_receipt(
    hub: Hub, open_inbox: OpenInbox, lines: list[NoteSignature]
) -> None:
    """A transfer under such a checkpoint is proven to its reporter all the same."""
    reporter, inbox = await open_inbox(hub)
    giver = await hub.peer()
    batch = giver.batch([Chain(reporter, [giver]).transfer()])
    note = parse_note(batch.note)
    # Also one of the sender's own name.
    more = NoteSignature(note.signatures[0].name, b"efgh", b"y" * 64)
    await giver.deliver(replace(batch, note=Note(note.text, (*note.signatures, *lines, more)).to_bytes()))
    await hub.applied(giver)
    names = [one.name for one in parse_note(giver.receipts[-1]).signatures]
    assert names == [giver.stream.origin()] * 2 + [giver.stream.receipt_name()] * 2

    async def told() -> bool:
        bodies = [parse_record(raw).body for raw in inbox.records]
        return any(isinstance(one, StatusBody) and one.kind is StatusKind.DELIVERED for one in bodies)

    await hub.wait(told)
    await others_go_on(hub)


async def test_a_withdrawal_that_could_not_be_proven_in_turn_is_refused_and_a_shorter_one_is_handed_on(
    hub: Hub, open_inbox: OpenInbox
) -> None:
    reporter, holder = await open_inbox(hub), await open_inbox(hub, "ZW")
    item, report = await handed_on(hub, reporter[0], holder[1].records)
    # Whatever its reporter adds as a proof is not what the next hotline gets.
    body = WithdrawalBody(
        withdraws=leaf_hash(report).hex(), reason=WithdrawalReason.REPORTED_IN_ERROR, proof="a word\n" * 1000
    )
    short = reporter[0].step(body, about=report)
    await reporter[0].deliver([short[:-2] + b',"later":"' + b"a" * 30_000 + b'"}}', short])
    await outcomes_arrived(hub, reporter[0])
    assert outcomes(reporter[1], reporter[0].stream).refused == {1: ("too-large", None)}

    def heard() -> list[WithdrawalBody]:
        found = [parse_record(raw).body for raw in holder[1].records]
        return [one for one in found if isinstance(one, WithdrawalBody)]

    async def told() -> bool:
        return bool(heard())

    await hub.wait(told)
    (withdrawal,) = heard()
    assert withdrawal.proof is not None
    assert withdrawal.proof.startswith("c2sp.org/tlog-proof@v1\n")
    assert (await hub.row("SELECT state FROM items WHERE id = $1", item))["state"] == "withdrawn"
    await others_go_on(hub)


async def test_a_record_whose_consequence_the_store_refuses_is_refused_and_those_beside_it_are_taken(
    hub: Hub, open_inbox: OpenInbox
) -> None:
    peer, inbox = await open_inbox(hub)
    records = peer.reports(5)
    bad = parse_record(records[2]).envelope.item
    async with hub.node.db.transaction("test.trigger") as tx:
        await tx.execute(
            "CREATE FUNCTION unfit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"IF NEW.id = '{bad}' THEN RAISE EXCEPTION 'unfit' USING ERRCODE = '22003'; END IF; RETURN NEW; END $$"
        )
        await tx.execute("CREATE TRIGGER unfit BEFORE INSERT ON items FOR EACH ROW EXECUTE FUNCTION unfit()")
    try:
        await peer.deliver(records)
        await outcomes_arrived(hub, peer)
    finally:
        async with hub.node.db.transaction("test.trigger") as tx:
            await tx.execute("DROP TRIGGER unfit ON items")
            await tx.execute("DROP FUNCTION unfit")
    told = outcomes(inbox, peer.stream)
    assert (told.accepted, told.refused) == ({0, 1, 3, 4}, {2: ("schema-invalid", None)})
    (line,) = hub.logged(action="apply.unfit", peer=peer.id)
    assert (line["level"], line["index"]) == ("error", 2)


async def test_a_stream_that_meets_an_unforeseen_error_rests_while_others_are_applied(hub: Hub) -> None:
    peer = await hub.peer()
    async with hub.applying_paused(peer):
        await peer.deliver(1)
        async with hub.node.db.transaction("test.damage") as other:
            await other.execute(
                "UPDATE inbox SET record_enc = set_byte(record_enc, 40, get_byte(record_enc, 40) # 1) WHERE stream = "
                "(SELECT id FROM inbound_streams WHERE peer = $1)",
                peer.id,
            )
    for _ in range(2):
        await others_go_on(hub)
    assert hub.logged(action="apply.failed")
    # Mended by hand, it goes on by itself.
    async with hub.node.db.transaction("test.damage") as other:
        await other.execute(
            "UPDATE inbox SET record_enc = set_byte(record_enc, 40, get_byte(record_enc, 40) # 1) WHERE stream = "
            "(SELECT id FROM inbound_streams WHERE peer = $1)",
            peer.id,
        )
    await hub.applied(peer)


async def test_a_record_is_judged_by_a_time_at_which_it_was_there(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for the store takes time, in which records come that were not there when it began."""
    peer, real = await hub.peer(), hub.node.db.transaction

    @asynccontextmanager
    async def late(name: str) -> AsyncIterator[Transaction]:
        async with real(name) as tx:
            hub.clock.offset_s = 120.0 if name == "apply.store" else hub.clock.offset_s
            try:
                yield tx
            finally:
                hub.clock.offset_s = 0.0

    until = hub.clock.now() + timedelta(seconds=60)
    record = changed(peer.report(), handling__retain_until=rfc3339(until))
    monkeypatch.setattr(hub.node.db, "transaction", late)
    await peer.deliver([record])
    await hub.applied(peer)
    monkeypatch.undo()
    assert await refusals(hub, peer) == {0: "handling-violation"}


async def handed_on(hub: Hub, reporter: PeerSimulator, received: list[bytes]) -> tuple[UUID, bytes]:
    """Report an item to the node and have it handed on to the country ZW; return the item and its report."""
    report = reporter.report()
    await reporter.deliver([report])
    await hub.applied(reporter)
    item = UUID(parse_record(report).envelope.item)
    await hub.node.store.asker().ask(item, "ZW", None)

    async def left() -> bool:
        return any(isinstance(parse_record(raw).body, TransferBody) for raw in received)

    await hub.wait(left)
    await hub.until("SELECT state = 'transferred' AS met FROM items WHERE id = $1", item)
    return item, report


async def refusals(hub: Hub, peer: PeerSimulator) -> dict[int, str]:
    """Return the codes of what was refused of a peer, by index."""
    rows = await hub.rows(
        "SELECT r.idx, r.code FROM inbox_refusals r JOIN inbound_streams s ON s.id = r.stream WHERE s.peer = $1",
        peer.id,
    )
    return {row["idx"]: row["code"] for row in rows}
