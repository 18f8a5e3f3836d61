"""Transfers of peers that mean well and of others: each offence has its code, and changes nothing."""

import asyncio
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from node.conformance.speaker import changed
from protocol import custody
from protocol.bodies import Hosting, Qualification
from protocol.codes import Classification, StatusKind, TransferReason
from protocol.evidence import Finding, verify_evidence
from protocol.record import HOPS_MAX, Handling, parse_record
from protocol.steps import StatusBody, TransferBody
from tests.peers.conftest import OpenInbox
from tests.peers.network import Hub
from tests.peers.simulator import PeerSimulator
from tests.peers.test_records import outcomes, outcomes_arrived
from tests.peers.transfers import Chain, at_address, proof

pytestmark = pytest.mark.asyncio(loop_scope="module")

Peers = tuple[PeerSimulator, PeerSimulator, PeerSimulator]


def forged_original(chain: Chain, others: Peers) -> bytes:
    """The reporter's name, but the signatures of somebody else."""
    reporter, stranger, _ = others
    thief = PeerSimulator(reporter.node, reporter.target, reporter.session)
    thief.keys = stranger.keys
    return chain.transfer(original=proof(chain.report, thief, chain.holders[0]))


def altered_original(chain: Chain, others: Peers) -> bytes:
    del others
    return chain.transfer(original=chain.original().replace("index 0", "index 1"))


def foreign_original(chain: Chain, others: Peers) -> bytes:
    """A true report of the same reporter, of another item."""
    del others
    other = Chain(chain.reporter, chain.holders)
    return chain.transfer(original=other.original())


def not_a_report(chain: Chain, others: Peers) -> bytes:
    del others
    transfer = chain.transfer(envelope={"aud": chain.reporter.id})
    return chain.transfer(original=proof(transfer, chain.speaker, chain.reporter))


def trail_without_the_first_custodian(chain: Chain, others: Peers) -> bytes:
    stranger = others[1]
    trail = (chain.steps[0], chain.station(stranger.id, "NL", at_address("192.0.2.9")), chain.steps[-1])
    return chain.transfer(trail=trail)


def trail_of_somebody_else(chain: Chain, others: Peers) -> bytes:
    trail = (*chain.steps, chain.station(others[1].id, "NL", at_address("192.0.2.1")))
    return chain.transfer(trail=trail)


def trail_that_lies_of_the_original(chain: Chain, others: Peers) -> bytes:
    del others
    return chain.transfer(trail=(chain.station(chain.reporter.id, "FR", {}), *chain.steps[1:]))


def trail_that_lies_of_itself(chain: Chain, others: Peers) -> bytes:
    del others
    last = chain.station(chain.speaker.id, "NL", at_address("192.0.2.77"))
    return chain.transfer(trail=(*chain.steps[:-1], last))


def same_evidence_twice(chain: Chain, others: Peers) -> bytes:
    """What the original found is found again: two databases disagree, and nothing moved."""
    del others
    evidence = parse_record(chain.report).envelope.body["hosting"]["evidence"]  # type: ignore[index]
    last = chain.station(chain.speaker.id, "NL", evidence)
    hosting = Hosting(country="NL", assigned_country="NL", confidence=90, reasons=(), evidence=evidence)
    return chain.transfer(trail=(*chain.steps[:-1], last), hosting=hosting)


def joined_elsewhere(chain: Chain, others: Peers) -> bytes:
    """It says that nothing moved, on the evidence of the original, and names another country."""
    return changed(same_evidence_twice(chain, others), body__reason=TransferReason.HOTLINE_JOINED.value)


def hops_left_out(chain: Chain, others: Peers) -> bytes:
    del others
    return chain.transfer(envelope={"hops": []})


def kept_longer(chain: Chain, others: Peers) -> bytes:
    del others
    until = parse_record(chain.report).envelope.handling.retain_until + timedelta(days=1)
    return chain.transfer(envelope={"handling": Handling("takedown", until)})


def for_another_purpose(chain: Chain, others: Peers) -> bytes:
    del others
    until = parse_record(chain.report).envelope.handling.retain_until
    return chain.transfer(envelope={"handling": Handling("statistics", until)})


def not_competent(chain: Chain, others: Peers) -> bytes:
    del others
    evidence = at_address("192.0.2.1")
    hosting = Hosting(country="DE", assigned_country="DE", confidence=90, reasons=(), evidence=evidence)
    last = chain.station(chain.speaker.id, "DE", evidence)
    return chain.transfer(hosting=hosting, trail=(*chain.steps[:-1], last))


def of_nobody_s_item(chain: Chain, others: Peers) -> bytes:
    """An original that is said to be the receiver's own, which it never sent."""
    del others
    us = PeerSimulator(chain.speaker.target, chain.speaker.target, chain.speaker.session)
    ours = Chain(us, chain.holders, us.report(country="DE", aud=chain.holders[0].id))
    return ours.transfer()


OFFENCES: list[tuple[Callable[[Chain, Peers], bytes], str, str]] = [
    (forged_original, "handling-violation", "body.original"),
    (altered_original, "schema-invalid", "body.original"),
    (foreign_original, "handling-violation", "body.original"),
    (not_a_report, "handling-violation", "body.original"),
    (trail_without_the_first_custodian, "handling-violation", "body.trail[0].node"),
    (trail_of_somebody_else, "handling-violation", "body.trail"),
    (trail_that_lies_of_the_original, "handling-violation", "body.trail[0]"),
    (trail_that_lies_of_itself, "handling-violation", "body.trail[1]"),
    (same_evidence_twice, "handling-violation", "body.trail"),
    (joined_elsewhere, "handling-violation", "body.reason"),
    (hops_left_out, "handling-violation", "hops"),
    (kept_longer, "handling-violation", "handling.retain_until"),
    (for_another_purpose, "handling-violation", "handling.purpose"),
    (not_competent, "not-competent", "body.hosting.assigned_country"),
    (of_nobody_s_item, "id-conflict", "body.original"),
]


async def test_each_offence_is_refused_with_its_code_and_changes_nothing(hub: Hub, open_inbox: OpenInbox) -> None:
    reporter, stranger = await hub.peer(), await hub.peer()
    giver, inbox = await open_inbox(hub)
    others = reporter, stranger, giver
    records = [make(Chain(reporter, [giver]), others) for make, _, _ in OFFENCES]
    honest = Chain(reporter, [giver])
    await giver.deliver([*records, honest.transfer()])
    await outcomes_arrived(hub, giver)
    told = outcomes(inbox, giver.stream)
    found = {OFFENCES[idx][0].__name__: what for idx, what in told.refused.items()}
    assert found == {make.__name__: (code, where) for make, code, where in OFFENCES}
    assert told.accepted == {len(records)}
    items = await hub.rows(
        "SELECT i.id FROM items i JOIN inbound_streams s ON s.id = i.received_stream WHERE s.peer = $1", giver.id
    )
    assert [str(row["id"]) for row in items] == [honest.item]
    chains = await hub.rows("SELECT item_id FROM custody WHERE trail->-1->>'node' = $1", giver.id)
    assert [str(row["item_id"]) for row in chains] == [honest.item]


async def test_a_sixth_hop_is_refused(hub: Hub, open_inbox: OpenInbox) -> None:
    reporter, first = await hub.peer(), await hub.peer()
    giver, inbox = await open_inbox(hub)
    fifth = Chain(reporter, [giver, first, giver, first, giver])
    assert len(fifth.steps) - 1 == HOPS_MAX
    sixth = changed(fifth.transfer(), hops=[one.node for one in fifth.steps[1:]] + [first.id])
    await giver.deliver([fifth.transfer(), sixth])
    await outcomes_arrived(hub, giver)
    told = outcomes(inbox, giver.stream)
    assert told.accepted == {0}
    assert told.refused == {1: ("schema-invalid", "hops")}


async def test_an_item_in_custody_is_not_taken_twice(hub: Hub, open_inbox: OpenInbox) -> None:
    reporter = await hub.peer()
    giver, inbox = await open_inbox(hub)
    other, others_inbox = await open_inbox(hub)
    chain = Chain(reporter, [giver])
    await giver.deliver([chain.transfer()])
    await outcomes_arrived(hub, giver)
    again = Chain(reporter, [giver, other], chain.report)
    await giver.deliver([chain.transfer()])
    await other.deliver([again.transfer()])
    await outcomes_arrived(hub, giver)
    await outcomes_arrived(hub, other)
    assert outcomes(inbox, giver.stream).refused == {1: ("id-conflict", "item")}
    assert outcomes(others_inbox, other.stream).refused == {0: ("id-conflict", "item")}


@pytest.mark.parametrize("batches", [1, 2])
async def test_an_item_is_not_put_into_another_reporters_case(hub: Hub, open_inbox: OpenInbox, batches: int) -> None:
    first, second = await hub.peer(), await hub.peer()
    giver, inbox = await open_inbox(hub)
    one = Chain(first, [giver])
    case = parse_record(one.report).envelope.case
    same = Chain(first, [giver], first.report(country="DE", aud=giver.id, case=case))
    other = Chain(second, [giver], second.report(country="DE", aud=giver.id, case=case))
    records = [one.transfer(), other.transfer(), same.transfer()]
    for batch in [records] if batches == 1 else [records[:1], records[1:]]:
        await giver.deliver(batch)
    await outcomes_arrived(hub, giver)
    assert outcomes(inbox, giver.stream).refused == {1: ("id-conflict", "case")}
    items = await hub.rows("SELECT id FROM items WHERE case_id = $1 ORDER BY id", UUID(case))
    assert [str(row["id"]) for row in items] == sorted([one.item, same.item])


async def test_an_item_comes_back_from_a_hotline_that_keeps_its_transfer_unread(
    hub: Hub, open_inbox: OpenInbox
) -> None:
    """A member need not read transfers (section 13); who gave it the item has it, and hands it on to another."""
    reporter = await hub.peer()
    giver, giver_inbox = await open_inbox(hub)
    chain = Chain(reporter, [giver])
    cleared = Qualification(classification=Classification.BASELINE, at=chain.now())
    await giver.deliver([chain.transfer(qualification=cleared)])
    await outcomes_arrived(hub, giver)
    minimal, inbox = await open_inbox(hub, "US")
    await hub.node.store.asker().ask(UUID(chain.item), "US", None)

    async def given() -> bool:
        return bool(inbox.records)

    await hub.wait(given)
    assert isinstance(parse_record(inbox.records[0]).body, TransferBody)
    await minimal.deliver([minimal.outcome(kept=[(0, 0)])])
    await hub.applied(minimal)
    row = await hub.row("SELECT state, reason FROM items WHERE id = $1", UUID(chain.item))
    assert (row["state"], row["reason"]) == ("assigned", "unknown-critical")

    async def told() -> bool:
        bodies = [parse_record(raw).body for raw in giver_inbox.records]
        found = [one for one in bodies if isinstance(one, StatusBody) and one.kind is StatusKind.RELAY_FAILURE]
        return [(one.node, one.code) for one in found] == [(minimal.id, "unknown-critical")]

    await hub.wait(told)


async def test_only_who_got_an_item_of_ours_says_so(hub: Hub, open_inbox: OpenInbox) -> None:
    """The word of a member that it has an item: of another's report, for another node, without a transfer."""
    reporter, giver = await hub.peer(), await hub.peer()
    holder, inbox = await open_inbox(hub)
    given = PeerSimulator(giver.node, holder.node, hub.session)
    chain = Chain(reporter, [given])
    transfer = chain.transfer()
    await holder.deliver(
        [
            chain.delivered(holder, transfer),
            chain.delivered(holder, transfer, node=giver.id),
            chain.delivered(holder, transfer, about="00" * 32),
            chain.delivered(holder, transfer, proof=chain.original()),
            chain.delivered(holder, transfer, proof=proof(transfer, given, reporter)),
        ]
    )
    await outcomes_arrived(hub, holder)
    assert outcomes(inbox, holder.stream).refused == {
        0: ("handling-violation", "body.proof"),
        1: ("handling-violation", "body.node"),
        2: ("handling-violation", "body.about"),
        3: ("handling-violation", "body.proof"),
        4: ("schema-invalid", "body.proof"),
    }


async def test_proofs_are_verified_beside_the_loop_and_under_no_lock(
    hub: Hub, open_inbox: OpenInbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a thread is busy with the original of a transfer, the loop runs and the stream's cursor is free."""
    reporter = await hub.peer()
    giver, inbox = await open_inbox(hub)
    begun, go_on = threading.Event(), threading.Event()
    threads: list[str] = []

    def slowly(*args: Any) -> Finding:
        threads.append(threading.current_thread().name)
        begun.set()
        assert go_on.wait(10)
        return verify_evidence(*args)

    monkeypatch.setattr(custody, "verify_evidence", slowly)
    await giver.deliver([giver.report(), Chain(reporter, [giver]).transfer()])
    try:
        assert await asyncio.to_thread(begun.wait, 10)
        await hub.rows(
            "SELECT 1 FROM apply_cursors c JOIN inbound_streams s ON s.id = c.stream "
            "WHERE s.peer = $1 FOR UPDATE OF c NOWAIT",
            giver.id,
        )
    finally:
        go_on.set()
    await outcomes_arrived(hub, giver)
    assert outcomes(inbox, giver.stream).accepted == {0, 1}
    assert [name.rsplit("_", 1)[0] for name in threads] == ["crypto"]
