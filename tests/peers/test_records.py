"""Single records, steps 9 to 13: a bad one is refused by itself, in an outcome, and holds up nothing."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from node.hotline.domain.intake import check_report
from node.hotline.domain.schema import convert_report
from node.hotline.flows.intake import Submission, Taken
from node.platform.ids import new_id
from protocol.bodies import OutcomeBody
from protocol.checkpoint import StreamId
from protocol.problems import REGISTRY
from protocol.record import parse_record
from protocol.strictjson import JSON_BYTES_MAX
from tests.peers.conftest import OpenInbox
from tests.peers.inbox import Inbox
from tests.peers.network import Hub
from tests.peers.simulator import PeerSimulator
from tests.world import ADDRESS

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAST = "2020-01-01T00:00:00.000Z"


@dataclass(frozen=True, slots=True)
class Told:
    """All outcomes a node told about a stream, taken together."""

    accepted: set[int]
    kept: set[int]
    refused: dict[int, tuple[str, str | None]]


def outcomes(inbox: Inbox, stream: StreamId) -> Told:
    """Read the outcomes that a simulated peer got; each record in its inbox must be one about `stream`."""
    told = Told(set(), set(), {})
    for raw in inbox.records:
        body = parse_record(raw).body
        assert isinstance(body, OutcomeBody)
        assert body.stream == stream.origin()
        told.accepted.update(idx for first, last in body.accepted for idx in range(first, last + 1))
        told.kept.update(idx for first, last in body.kept for idx in range(first, last + 1))
        for one in body.refused:
            assert one.code in REGISTRY
            assert one.detail
            told.refused[one.index] = (one.code, one.field)
    return told


async def outcomes_arrived(hub: Hub, peer: PeerSimulator) -> None:
    """Wait until everything the peer sent is applied, and what is said about it is receipted."""
    await hub.applied(peer)
    await hub.until(
        "SELECT c.acked_size = s.next_index AS met FROM outbound_streams s "
        "JOIN delivery_cursors c ON c.stream = s.id WHERE s.peer = $1",
        peer.id,
    )


def duplicate_member(peer: PeerSimulator) -> bytes:
    return peer.report()[:-1] + b',"v":1}'


def with_body(**members: Any) -> Callable[[PeerSimulator], bytes]:
    return lambda peer: peer.spoiled(**{f"body__{name}": value for name, value in members.items()})


def with_envelope(**members: Any) -> Callable[[PeerSimulator], bytes]:
    return lambda peer: peer.spoiled(**members)


BAD: list[tuple[str, Callable[[PeerSimulator], bytes], str, str | None]] = [
    # 9. Size and strict JSON.
    ("no-json", lambda _: b"no json", "malformed", None),
    ("no-object", lambda _: b"[]", "malformed", None),
    ("no-utf-8", lambda peer: peer.report().replace(b"page", b"p\xffge"), "malformed", None),
    ("member-twice", duplicate_member, "malformed", None),
    ("float", with_envelope(extra=1.5), "malformed", None),
    ("integer-too-large", with_envelope(extra=2**53), "malformed", None),
    ("too-deep", with_envelope(extra=[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]), "malformed", None),
    ("lone-surrogate", with_envelope(extra="\ud800"), "malformed", None),
    ("too-large", with_envelope(extra="x" * JSON_BYTES_MAX), "too-large", None),
    # 10. Schema, critical members first.
    ("no-body", with_envelope(body=None), "schema-invalid", "body"),
    ("wrong-type", with_envelope(v="1"), "schema-invalid", "v"),
    ("id-no-uuid7", with_envelope(id="1"), "schema-invalid", "id"),
    ("nul", with_body(referrer="http://a.example/\x00"), "schema-invalid", None),
    ("no-url", with_body(url=""), "schema-invalid", "body.url"),
    ("url-no-url", with_body(url="no url"), "schema-invalid", "body.url"),
    ("url-of-no-place", with_body(url="javascript:1"), "schema-invalid", "body.url"),
    ("unknown-channel", with_body(channel="pigeon"), "schema-invalid", "body.channel"),
    ("unknown-critical", with_envelope(crit=["later"]), "unknown-critical", "crit[0]"),
    ("critical-before-body", with_envelope(crit=["later"], body__url=""), "unknown-critical", "crit[0]"),
    # 11. iss and aud.
    ("another's-record", with_envelope(iss="other.hotline.example"), "schema-invalid", "iss"),
    ("to-another-node", with_envelope(aud="other.hotline.example"), "wrong-audience", "aud"),
    # 12. Handling rules.
    ("unknown-purpose", with_envelope(handling__purpose="advertising"), "handling-violation", "handling.purpose"),
    ("to-be-erased", with_envelope(handling__retain_until=PAST), "handling-violation", "handling.retain_until"),
    # 13. Lifecycle rules.
    ("not-competent", lambda peer: peer.report(country="DE"), "not-competent", "body.hosting.assigned_country"),
]
KEPT: list[Callable[[PeerSimulator], bytes]] = [
    with_envelope(type="note"),
    with_envelope(type="later", body={}),
    with_body(schema=2),
]


async def test_bad_records_among_good_ones_are_refused_one_by_one(hub: Hub, open_inbox: OpenInbox) -> None:
    peer, inbox = await open_inbox(hub)
    records: list[bytes] = []
    expected: dict[int, tuple[str, str | None]] = {}
    for _name, make, code, field in BAD:
        records.append(peer.report())
        expected[len(records)] = (code, field)
        records.append(make(peer))
    kept = set(range(len(records), len(records) + len(KEPT)))
    records += [make(peer) for make in KEPT]
    records.append(peer.report())
    # 50 records fit in a batch here; the order within the stream is what counts.
    await peer.deliver(records[:30])
    await peer.deliver(records[30:])
    await outcomes_arrived(hub, peer)
    told = outcomes(inbox, peer.stream)
    named = {at: BAD[at // 2][0] for at in expected}
    assert {named[at]: found for at, found in told.refused.items()} == {named[at]: one for at, one in expected.items()}
    assert told.kept == kept
    good = set(range(len(records))) - kept - set(expected)
    assert told.accepted == good
    items = await hub.rows(
        "SELECT i.received_idx, i.state FROM items i JOIN inbound_streams s ON s.id = i.received_stream "
        "WHERE s.peer = $1 ORDER BY i.received_idx",
        peer.id,
    )
    assert [(row["received_idx"], row["state"]) for row in items] == [(idx, "assigned") for idx in sorted(good)]
    refusals = await hub.rows(
        "SELECT r.idx, r.code, r.field FROM inbox_refusals r JOIN inbound_streams s ON s.id = r.stream "
        "WHERE s.peer = $1",
        peer.id,
    )
    assert {row["idx"]: (row["code"], row["field"]) for row in refusals} == expected
    # Every record, good or bad, is held as it came and covered by a receipt: what was refused can be proven too.
    assert (await hub.holdings(peer)).size == len(records)


async def test_an_id_that_is_taken_is_a_conflict(hub: Hub, open_inbox: OpenInbox) -> None:
    peer, inbox = await open_inbox(hub)
    other = await hub.peer()
    item, case, again = (str(new_id(hub.clock.now())) for _ in range(3))
    await other.deliver([other.report(case=case)])
    await hub.applied(other)
    await peer.deliver([peer.report(item=item), peer.report(item=item), peer.report(case=again)])
    await hub.applied(peer)
    await peer.deliver([peer.report(item=item), peer.report(case=case), peer.report(case=again)])
    await outcomes_arrived(hub, peer)
    told = outcomes(inbox, peer.stream)
    assert told.accepted == {0, 2, 5}
    assert told.refused == {1: ("id-conflict", "item"), 3: ("id-conflict", "item"), 4: ("id-conflict", "case")}


async def test_a_hundred_and_fifty_refusals_are_told_in_several_outcomes(hub: Hub, open_inbox: OpenInbox) -> None:
    peer, inbox = await open_inbox(hub)
    for _ in range(3):
        await peer.deliver([b"no json"] * 50)
    await outcomes_arrived(hub, peer)
    assert outcomes(inbox, peer.stream).refused == dict.fromkeys(range(150), ("malformed", None))
    assert (await hub.holdings(peer)).size == 150


async def test_a_url_known_already_is_taken_as_a_duplicate(hub: Hub, open_inbox: OpenInbox) -> None:
    peer, inbox = await open_inbox(hub)
    url = f"http://{new_id(hub.clock.now())}.host.example/again"
    await peer.deliver([peer.report(url=url), peer.report(url=url)])
    await outcomes_arrived(hub, peer)
    assert outcomes(inbox, peer.stream).accepted == {0, 1}
    rows = await hub.rows(
        "SELECT i.state FROM items i JOIN inbound_streams s ON s.id = i.received_stream WHERE s.peer = $1 "
        "ORDER BY i.received_idx",
        peer.id,
    )
    assert [row["state"] for row in rows] == ["assigned", "duplicate"]


# What a sender makes of outcomes.


async def sent_items(hub: Hub, inbox: Inbox, count: int, country: str = "NL") -> list[str]:
    """Report URLs hosted in `country`, the peer's, until they are in its inbox; return the items in stream order."""
    before = len(inbox.records)
    for number in range(count):
        report = convert_report(
            {
                "url": f"http://{ADDRESS[country]}/{new_id(hub.clock.now())}/{number}",
                "qualification": {"classification": "national"},
            }
        )
        checked = check_report(report, hub.clock.now())
        (taken,) = await hub.node.store.intake().take_in([Submission("test", checked.reference, checked)])
        assert isinstance(taken, Taken)

    async def there() -> bool:
        return len(inbox.records) >= before + count

    await hub.wait(there)
    return [parse_record(raw).envelope.item for raw in inbox.records[before:]]


async def states(hub: Hub, items: list[str]) -> list[tuple[str, str | None]]:
    rows = await hub.rows("SELECT id, state, reason FROM items WHERE id = ANY($1::uuid[])", items)
    found = {str(row["id"]): (row["state"], row["reason"]) for row in rows}
    return [found[item] for item in items]


async def written(hub: Hub, peer: PeerSimulator) -> int:
    row = await hub.row(
        "SELECT coalesce(max(next_index), 0)::int AS written FROM outbound_streams WHERE peer = $1", peer.id
    )
    count: int = row["written"]
    return count


async def test_a_report_that_its_receiver_keeps_unread_counts_as_refused(sender: Hub, open_inbox: OpenInbox) -> None:
    peer, inbox = await open_inbox(sender, "DE")
    items = await sent_items(sender, inbox, 4, "DE")
    await peer.deliver([peer.outcome(accepted=[(0, 0)], kept=[(1, 2)])])
    # What was spoken of is not spoken of in another way later.
    await peer.deliver([peer.outcome(kept=[(0, 3)])])
    await sender.applied(peer)
    (accepted, _), *others = await states(sender, items)
    assert (accepted, others) == ("sent", [("refused", "unknown-critical")] * 3)


async def test_outcomes_mark_what_was_refused_and_are_never_answered(sender: Hub, open_inbox: OpenInbox) -> None:
    peer, inbox = await open_inbox(sender, "NL")
    items = await sent_items(sender, inbox, 4)
    # Good outcomes.
    await peer.deliver([peer.outcome(accepted=[(0, 0)], refused=[(1, "not-competent")])])
    await peer.deliver([peer.outcome(accepted=[(2, 2)], refused=[(3, "handling-violation")])])
    await sender.applied(peer)
    found = await states(sender, items)
    assert [state for state, _ in found] == ["sent", "refused", "sent", "refused"]
    assert (found[1][1], found[3][1]) == ("not-competent", "handling-violation")
    told = await sender.row(
        "SELECT c.outcome_size FROM outbound_streams s JOIN delivery_cursors c ON c.stream = s.id WHERE s.peer = $1",
        peer.id,
    )
    assert told["outcome_size"] == 4
    # Bad outcomes: refused, and they change nothing.
    others = StreamId(sender.id, "other.hotline.example", 1)
    bad = [
        peer.outcome(refused=[(4, "not-competent")]),
        peer.outcome(refused=[(0, "not-competent")], stream=others),
        peer.outcome(refused=[(0, "not-competent")], stream=StreamId(peer.id, sender.id, 1)),
        peer.outcome(refused=[(0, "not-competent")], stream=StreamId(sender.id, peer.id, 7)),
        altered(peer.outcome(accepted=[(0, 0)]), "body", accepted=[[2, 1]]),
        altered(peer.outcome(accepted=[(0, 0)]), "body", refused="all"),
        altered(peer.outcome(accepted=[(0, 0)]), None, aud="other.hotline.example"),
        altered(peer.outcome(accepted=[(0, 0)]), None, crit=["later"]),
        altered(peer.outcome(accepted=[(0, 0)]), "handling", retain_until=PAST),
    ]
    await peer.deliver(bad[:5])
    await peer.deliver(bad[5:])
    await sender.applied(peer)
    refusals = await sender.rows(
        "SELECT r.code FROM inbox_refusals r JOIN inbound_streams s ON s.id = r.stream WHERE s.peer = $1 "
        "ORDER BY r.idx",
        peer.id,
    )
    assert [row["code"] for row in refusals] == [
        "schema-invalid",
        "handling-violation",
        "handling-violation",
        "schema-invalid",
        "schema-invalid",
        "schema-invalid",
        "wrong-audience",
        "unknown-critical",
        "handling-violation",
    ]
    assert await states(sender, items) == found
    # Not one word back: neither to the good outcomes nor to the bad ones.
    assert await written(sender, peer) == 4
    # A refused record that is no outcome is told, whatever it stands among.
    await peer.deliver([b"no json", peer.outcome(accepted=[(0, 0)])])
    await sender.applied(peer)
    assert await written(sender, peer) == 5


def altered(raw: bytes, where: str | None, **members: Any) -> bytes:
    """Set members of an outcome, or of one of its objects, to what its encoder would not write."""
    tree = json.loads(raw)
    (tree if where is None else tree[where]).update(members)
    return json.dumps(tree, separators=(",", ":")).encode()
