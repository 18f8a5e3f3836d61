"""What a peer says of items after the report: taken where the rules allow it, refused with its code where not."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
import pytest_asyncio

from node.hotline.domain.acts import ActionAsked
from node.hotline.domain.assessment import Assessment
from node.hotline.domain.intake import check_report
from node.hotline.domain.lifecycle import RecordRefused
from node.hotline.domain.schema import convert_report
from node.hotline.flows.intake import Submission, Taken
from node.hotline.store.proofs import Proofs
from node.platform.database import Row
from node.platform.ids import new_id
from protocol.bodies import Hash, OutcomeBody, Qualification
from protocol.codes import (
    Action,
    ActionReason,
    Classification,
    Commerciality,
    HashAlgorithm,
    PaymentMethod,
    SiteType,
    StatusKind,
    WithdrawalReason,
)
from protocol.record import parse_record
from protocol.steps import (
    ActionBody,
    AssessmentBody,
    Corrected,
    CorrectionBody,
    StatusBody,
    Step,
    WithdrawalBody,
)
from tests.peers.conftest import OpenInbox
from tests.peers.inbox import Inbox
from tests.peers.network import Hub
from tests.peers.simulator import PeerSimulator
from tests.peers.test_records import outcomes_arrived
from tests.world import ADDRESS

pytestmark = pytest.mark.asyncio(loop_scope="module")

AT = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
ILLEGAL = Classification.NATIONAL
BASELINE = Classification.BASELINE
NOT_ILLEGAL = Classification.NOT_ILLEGAL


def assessed(classification: Classification, **said: object) -> AssessmentBody:
    return AssessmentBody(qualification=Qualification(classification=classification, at=AT, **said))  # type: ignore[arg-type]


def acted(action: Action, *, at: datetime = AT, reason: ActionReason | None = None) -> ActionBody:
    return ActionBody(action=action, at=at, reason=reason)


async def everything(hub: Hub, item: str) -> list[list[Row]]:
    """All that is held of an item, for a comparison before and after."""
    return [
        await hub.rows("SELECT * FROM items WHERE id = $1::uuid", item),
        await hub.rows("SELECT * FROM assessments WHERE item_id = $1::uuid ORDER BY id", item),
        await hub.rows("SELECT * FROM actions WHERE item_id = $1::uuid ORDER BY id", item),
    ]


async def state(hub: Hub, item: str) -> tuple[str, str | None]:
    row = await hub.row("SELECT state, reason FROM items WHERE id = $1::uuid", item)
    return row["state"], row["reason"]


async def answered(hub: Hub, peer: PeerSimulator, records: Sequence[bytes]) -> list[tuple[str, str | None] | None]:
    """Deliver records and return what became of each: None where it was taken, else code and field of the refusal."""
    first = len(peer.taken)
    await peer.deliver(records)
    await hub.applied(peer)
    rows = await hub.rows(
        "SELECT r.idx, r.code, r.field FROM inbox_refusals r JOIN inbound_streams s ON s.id = r.stream "
        "WHERE s.peer = $1 AND r.idx >= $2",
        peer.id,
        first,
    )
    refused = {row["idx"]: (row["code"], row["field"]) for row in rows}
    return [refused.get(first + at) for at in range(len(records))]


# The custodian's records at the node that sent the item.

Custodian = tuple[PeerSimulator, Inbox]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def custodian(sender: Hub) -> AsyncIterator[Custodian]:
    """The simulated hotline of the country where everything is hosted, and its inbox."""
    peer = await sender.peer("NL")
    inbox = Inbox(peer.node, sender.network.tested, peer.now)
    await inbox.listen()
    yield peer, inbox
    await inbox.close()


async def sent(hub: Hub, inbox: Inbox) -> tuple[str, bytes]:
    """Report a URL until its record is in the custodian's inbox; return the item and the record."""
    report = convert_report(
        {"url": f"http://{ADDRESS['NL']}/{new_id(hub.clock.now())}", "qualification": {"classification": "national"}}
    )
    checked = check_report(report, hub.clock.now())
    (taken,) = await hub.node.store.intake().take_in([Submission("test", checked.reference, checked)])
    assert isinstance(taken, Taken)
    item = str(taken.items[0].id)

    def arrived() -> list[bytes]:
        return [raw for raw in inbox.records if parse_record(raw).envelope.item == item]

    async def there() -> bool:
        return bool(arrived())

    await hub.wait(there)
    return item, arrived()[0]


async def test_the_steps_of_the_custodian_are_taken_in_their_order(sender: Hub, custodian: Custodian) -> None:
    peer, inbox = custodian
    item, about = await sent(sender, inbox)
    steps: list[Step] = [
        assessed(ILLEGAL, by="analyst-7"),
        acted(Action.AUTHORITIES_INFORMED),
        acted(Action.HOSTER_NOTIFIED),
        acted(Action.UNAVAILABLE, reason=ActionReason.LINK_EXPIRED),
        StatusBody(kind=StatusKind.FINAL, at=AT, about=parse_record(about).leaf_hash.hex(), code="unavailable"),
    ]
    records = [peer.step(step, about=about) for step in steps]
    assert await answered(sender, peer, records[:3]) == [None] * 3
    assert await state(sender, item) == ("sent", "hosting-country")
    assert await answered(sender, peer, records[3:]) == [None] * 2
    assert await state(sender, item) == ("done", "unavailable")
    _, assessments, actions = await everything(sender, item)
    assert [(row["node"], row["qualification"]["classification"]) for row in assessments] == [(peer.id, "national")]
    assert [row["action"] for row in actions] == ["authorities-informed", "hoster-notified", "unavailable"]
    assert [row["reason"] for row in actions] == [None, None, "link-expired"]
    assert [row["record_hash"] for row in actions] == [parse_record(records[at]).leaf_hash for at in (1, 2, 3)]
    # Said again, in the same record or in another: taken, and nothing comes of it.
    before = await everything(sender, item)
    again = [*records[1:4], *(peer.step(step, about=about) for step in steps[1:4])]
    assert await answered(sender, peer, again) == [None] * 6
    assert (await everything(sender, item))[1:] == before[1:]
    await outcomes_arrived(sender, peer)


OFFENCES: list[tuple[str, list[Step], Step, str]] = [
    (
        "an action twice",
        [acted(Action.HOSTER_NOTIFIED)],
        acted(Action.HOSTER_NOTIFIED, at=AT + timedelta(days=1)),
        "handling-violation",
    ),
    ("an action after a final one", [acted(Action.REMOVED)], acted(Action.HOSTER_NOTIFIED), "handling-violation"),
    ("another final action", [acted(Action.REMOVED)], acted(Action.UNAVAILABLE), "handling-violation"),
    ("an assessment after a final action", [acted(Action.REMOVED)], assessed(ILLEGAL), "handling-violation"),
    (
        "overruled after an action",
        [assessed(ILLEGAL), acted(Action.HOSTER_NOTIFIED)],
        assessed(NOT_ILLEGAL),
        "handling-violation",
    ),
    ("baseline overruled", [assessed(BASELINE)], assessed(ILLEGAL), "handling-violation"),
    ("baseline found not illegal", [assessed(BASELINE)], acted(Action.NOT_ILLEGAL), "handling-violation"),
    ("baseline edited", [assessed(BASELINE)], assessed(BASELINE, law="another"), "handling-violation"),
    ("told of what is not illegal", [assessed(NOT_ILLEGAL)], acted(Action.AUTHORITIES_INFORMED), "handling-violation"),
]


@pytest.mark.parametrize(("before", "offence", "code"), [one[1:] for one in OFFENCES], ids=[one[0] for one in OFFENCES])
async def test_an_offence_of_the_custodian_is_refused_and_changes_nothing(
    sender: Hub, custodian: Custodian, before: list[Step], offence: Step, code: str
) -> None:
    peer, inbox = custodian
    item, about = await sent(sender, inbox)
    assert await answered(sender, peer, [peer.step(step, about=about) for step in before]) == [None] * len(before)
    held = await everything(sender, item)
    assert await answered(sender, peer, [peer.step(offence, about=about)]) == [(code, None)]
    assert await everything(sender, item) == held


async def test_the_offender_is_told(sender: Hub, custodian: Custodian) -> None:
    peer, inbox = custodian
    _, about = await sent(sender, inbox)
    first = len(peer.taken)
    records = [peer.step(acted(action), about=about) for action in (Action.REMOVED, Action.UNAVAILABLE)]
    assert await answered(sender, peer, records) == [None, ("handling-violation", None)]
    await outcomes_arrived(sender, peer)
    bodies = [body for body in (parse_record(raw).body for raw in inbox.records) if isinstance(body, OutcomeBody)]
    assert (first, first) in bodies[-1].accepted
    assert [(one.index, one.code, one.id) for one in bodies[-1].refused] == [
        (first + 1, "handling-violation", parse_record(records[1]).envelope.id)
    ]
    assert "done" in bodies[-1].refused[0].detail


async def test_an_item_found_not_illegal_may_be_found_otherwise(sender: Hub, custodian: Custodian) -> None:
    peer, inbox = custodian
    item, about = await sent(sender, inbox)
    assert await answered(sender, peer, [peer.step(assessed(NOT_ILLEGAL), about=about)]) == [None]
    assert await state(sender, item) == ("declined", "not-illegal")
    assert await answered(sender, peer, [peer.step(assessed(ILLEGAL), about=about)]) == [None]
    assert await state(sender, item) == ("sent", None)


async def test_what_the_reporter_says_late_does_not_stand_against_the_custodian(
    sender: Hub, custodian: Custodian
) -> None:
    # It crosses the custodian's own qualification, which decides: the custodian refuses ours, and ours is not final.
    peer, inbox = custodian
    item, about = await sent(sender, inbox)
    await sender.node.store.assessor().assess(UUID(item), Assessment(BASELINE, AT))
    assert await answered(sender, peer, [peer.step(assessed(NOT_ILLEGAL), about=about)]) == [None]
    assert await state(sender, item) == ("declined", "not-illegal")


async def test_strangers_and_wrong_ids_are_refused(sender: Hub, custodian: Custodian) -> None:
    peer, inbox = custodian
    stranger = await sender.peer()
    item, about = await sent(sender, inbox)
    held = await everything(sender, item)
    step = acted(Action.REMOVED)
    unknown = str(new_id(sender.clock.now()))
    not_competent = ("not-competent", "item")
    assert await answered(sender, stranger, [stranger.step(step, about=about)]) == [not_competent]
    assert await answered(sender, stranger, [stranger.step(assessed(ILLEGAL), about=about)]) == [not_competent]
    assert await answered(
        sender,
        peer,
        [
            peer.step(step, about=about, item=unknown),
            peer.step(step, about=about, case=unknown),
            peer.step(step, about=about, parent=None),
            peer.step(step, about=about, parent="0" * 64),
            peer.step(StatusBody(kind=StatusKind.FINAL, at=AT, about="0" * 64, code="removed"), about=about),
        ],
    ) == [not_competent, ("id-conflict", "case"), *[("id-conflict", "parent")] * 2, ("id-conflict", "body.about")]
    assert await everything(sender, item) == held


# The reporter's records at the node that received the item.


async def received(hub: Hub, peer: PeerSimulator, *, assess: Classification | None = None) -> tuple[str, bytes]:
    """Let a peer report an item, and qualify it here if asked."""
    report = peer.report()
    assert await answered(hub, peer, [report]) == [None]
    item = parse_record(report).envelope.item
    if assess is not None:
        await hub.node.store.assessor().assess(UUID(item), Assessment(assess, AT))
    return item, report


async def test_the_reporter_may_say_otherwise_until_the_item_is_taken_up(hub: Hub, open_inbox: OpenInbox) -> None:
    peer, _ = await open_inbox(hub)
    item, report = await received(hub, peer)
    assert await answered(hub, peer, [peer.step(assessed(ILLEGAL, law="article 9"), about=report)]) == [None]
    row = await hub.row("SELECT state, peer_qualification FROM items WHERE id = $1::uuid", item)
    assert (row["state"], row["peer_qualification"]["law"]) == ("assigned", "article 9")
    # What is not illegal is withdrawn.
    assert await answered(hub, peer, [peer.step(assessed(NOT_ILLEGAL), about=report)]) == [("handling-violation", None)]
    # Baseline is final, for the one who said so and for us.
    assert await answered(hub, peer, [peer.step(assessed(BASELINE), about=report)]) == [None]
    assert await answered(hub, peer, [peer.step(assessed(ILLEGAL), about=report)]) == [("handling-violation", None)]
    held = await everything(hub, item)
    assert [row["record_hash"] is not None for row in held[1]] == [True, True]


@pytest.mark.parametrize(
    "taken_up",
    [
        lambda hub, item: hub.node.store.assessor().assess(item, Assessment(ILLEGAL, AT)),
        lambda hub, item: hub.node.store.actor().act(item, ActionAsked(Action.HOSTER_NOTIFIED)),
        lambda hub, item: hub.node.store.actor().act(item, ActionAsked(Action.REMOVED)),
    ],
    ids=["assessed", "acted", "done"],
)
async def test_once_it_is_taken_up_it_is_the_assigned_hotlines(
    hub: Hub, open_inbox: OpenInbox, taken_up: Callable[[Hub, UUID], Awaitable[object]]
) -> None:
    peer, _ = await open_inbox(hub)
    item, report = await received(hub, peer)
    await taken_up(hub, UUID(item))
    held = await everything(hub, item)
    for step in (assessed(BASELINE), acted(Action.AUTHORITIES_INFORMED), acted(Action.REMOVED)):
        assert await answered(hub, peer, [peer.step(step, about=report)]) == [("not-competent", None)]
    assert await everything(hub, item) == held


async def test_the_reporter_does_not_act(hub: Hub, open_inbox: OpenInbox) -> None:
    peer, _ = await open_inbox(hub)
    item, report = await received(hub, peer)
    held = await everything(hub, item)
    final = StatusBody(kind=StatusKind.FINAL, at=AT, about=parse_record(report).leaf_hash.hex(), code="removed")
    steps: list[Step] = [*(acted(action) for action in Action), final]
    found = await answered(hub, peer, [peer.step(step, about=report) for step in steps])
    assert found == [("not-competent", None)] * len(steps)
    assert await everything(hub, item) == held


async def test_a_step_for_a_report_that_was_refused_is_refused(hub: Hub, open_inbox: OpenInbox) -> None:
    peer, _ = await open_inbox(hub)
    report = peer.report(country="DE")
    found = await answered(hub, peer, [report, peer.step(assessed(ILLEGAL), about=report)])
    assert found == [("not-competent", "body.hosting.assigned_country"), ("not-competent", "item")]


async def test_whoever_sent_the_same_url_hears_of_each_step(hub: Hub, open_inbox: OpenInbox) -> None:
    first, first_inbox = await open_inbox(hub)
    second, second_inbox = await open_inbox(hub)
    url = f"http://{new_id(hub.clock.now())}.host.example/both"
    reports = [first.report(url=url), second.report(url=url)]
    for peer, report in zip((first, second), reports, strict=True):
        assert await answered(hub, peer, [report]) == [None]
    item = UUID(parse_record(reports[0]).envelope.item)
    await hub.node.store.assessor().assess(item, Assessment(BASELINE, AT))
    await hub.node.store.actor().act(item, ActionAsked(Action.REMOVED, AT, "analyst-7"))
    for peer, inbox, report in ((first, first_inbox, reports[0]), (second, second_inbox, reports[1])):
        await outcomes_arrived(hub, peer)
        heard = [parse_record(raw) for raw in inbox.records if parse_record(raw).envelope.type != "outcome"]
        assert [one.envelope.type for one in heard] == ["assessment", "action", "status"]
        about = parse_record(report)
        assert {one.envelope.item for one in heard} == {about.envelope.item}
        assert {one.envelope.parent for one in heard} == {about.leaf_hash.hex()}


async def heard_of(hub: Hub, peer: PeerSimulator, inbox: Inbox, report: bytes) -> list[Step]:
    """Return the steps that a peer was told of its report, once all is delivered."""
    await outcomes_arrived(hub, peer)
    about = parse_record(report)
    told = [one for one in map(parse_record, inbox.records) if one.envelope.item == about.envelope.item]
    assert {one.envelope.parent for one in told} <= {about.leaf_hash.hex()}
    return [one.body for one in told if isinstance(one.body, AssessmentBody | ActionBody)]


async def test_whoever_reports_a_known_url_hears_at_once_what_has_come_of_it(hub: Hub, open_inbox: OpenInbox) -> None:
    first, _ = await open_inbox(hub)
    second, inbox = await open_inbox(hub)
    url = f"http://{new_id(hub.clock.now())}.host.example/later"
    ours = first.report(url=url)
    assert await answered(hub, first, [ours]) == [None]
    item = UUID(parse_record(ours).envelope.item)
    # Nothing is said while nothing is found; once is enough.
    before, after = second.report(url=url), second.report(url=url)
    assert await answered(hub, second, [before]) == [None]
    await hub.node.store.assessor().assess(item, Assessment(BASELINE, AT, law="article 9"))
    await hub.node.store.actor().act(item, ActionAsked(Action.AUTHORITIES_INFORMED, AT, "analyst-7"))
    await hub.node.store.actor().act(item, ActionAsked(Action.HOSTER_NOTIFIED, AT))
    assert await answered(hub, second, [after]) == [None]
    so_far = await heard_of(hub, second, inbox, after)
    assert [type(one) for one in so_far] == [AssessmentBody, ActionBody, ActionBody]
    assert so_far == await heard_of(hub, second, inbox, before)
    # The rest it hears as it comes.
    await hub.node.store.actor().act(item, ActionAsked(Action.REMOVED, AT))
    assert await heard_of(hub, second, inbox, after) == [*so_far, acted(Action.REMOVED)]


async def test_what_is_found_of_an_own_item_is_told_who_reported_its_url_too(hub: Hub, open_inbox: OpenInbox) -> None:
    """By an analyst's word, and by a graver one that came with a duplicate."""
    peer, inbox = await open_inbox(hub)
    url = f"http://{new_id(hub.clock.now())}.host.example/own"
    item = await reported_here(hub, url)
    report = peer.report(url=url)
    assert await answered(hub, peer, [report]) == [None]
    await hub.node.store.assessor().assess(item, Assessment(ILLEGAL, AT))
    await reported_here(hub, url, qualification={"classification": "baseline"})
    told = [one for one in await heard_of(hub, peer, inbox, report) if isinstance(one, AssessmentBody)]
    assert [one.qualification.classification for one in told] == [ILLEGAL, BASELINE]


async def reported_here(hub: Hub, url: str, **fields: object) -> UUID:
    checked = check_report(convert_report({"url": url, **fields}), hub.clock.now())
    (taken,) = await hub.node.store.intake().take_in([Submission("test", checked.reference, checked)])
    assert isinstance(taken, Taken)
    return taken.items[0].id


async def test_a_reporter_who_found_baseline_does_not_hear_of_a_lesser_finding(hub: Hub, open_inbox: OpenInbox) -> None:
    first, _ = await open_inbox(hub)
    second, inbox = await open_inbox(hub)
    url = f"http://{new_id(hub.clock.now())}.host.example/graver"
    ours = first.report(url=url)
    assert await answered(hub, first, [ours]) == [None]
    item = UUID(parse_record(ours).envelope.item)
    await hub.node.store.assessor().assess(item, Assessment(ILLEGAL, AT))
    await hub.node.store.actor().act(item, ActionAsked(Action.HOSTER_NOTIFIED, AT))
    report = second.report(url=url).replace(b'"national"', b'"baseline"')
    assert await answered(hub, second, [report]) == [None]
    assert await heard_of(hub, second, inbox, report) == [acted(Action.HOSTER_NOTIFIED)]


# Corrections and withdrawals.


async def test_a_correction_is_taken_from_the_reporter_alone(hub: Hub, open_inbox: OpenInbox) -> None:
    peer, _ = await open_inbox(hub)
    stranger = await hub.peer()
    item, report = await received(hub, peer, assess=ILLEGAL)
    about = parse_record(report).leaf_hash.hex()
    members = Corrected(
        referrer="http://board.example/thread/1",
        hashes=(Hash(HashAlgorithm.MD5, "f" * 32),),
        site_type=SiteType.FORUM,
        commerciality=Commerciality.COMMERCIAL,
        payment_methods=(PaymentMethod.VISA,),
        reference="2026-000124",
    )
    body = CorrectionBody(corrects=about, members=members)
    assert await answered(hub, stranger, [stranger.step(body, about=report)]) == [("not-competent", "item")]
    wrong = CorrectionBody(corrects="0" * 64, members=members)
    assert await answered(hub, peer, [peer.step(wrong, about=report)]) == [("id-conflict", "body.corrects")]
    assert await answered(hub, peer, [peer.step(body, about=report)] * 2) == [None, None]
    row = await hub.row(
        "SELECT i.state, i.hashes, c.* FROM items i JOIN cases c ON c.id = i.case_id WHERE i.id = $1::uuid", item
    )
    assert (row["state"], row["hashes"]) == ("kept", [{"alg": "md5", "value": "f" * 32}])
    assert (row["site_type"], row["commerciality"], row["payment_methods"]) == ("forum", "commercial", ["visa"])
    vault = hub.node.store.vault
    assert vault.open("cases", "referrer_enc", row["id"], row["referrer_enc"]) == members.referrer
    assert vault.reference(row["id"], row["wire_reference_enc"], row["reference"]) == members.reference


@pytest.mark.parametrize("done", [False, True])
async def test_a_withdrawal_is_taken_from_the_reporter_alone(hub: Hub, open_inbox: OpenInbox, *, done: bool) -> None:
    peer, _ = await open_inbox(hub)
    stranger = await hub.peer()
    item, report = await received(hub, peer)
    if done:
        await hub.node.store.actor().act(UUID(item), ActionAsked(Action.REMOVED))
    held = await everything(hub, item)
    about = parse_record(report).leaf_hash.hex()
    body = WithdrawalBody(withdraws=about, reason=WithdrawalReason.LEGAL_ORDER)
    assert await answered(hub, stranger, [stranger.step(body, about=report)]) == [("not-competent", "item")]
    wrong = WithdrawalBody(withdraws="0" * 64, reason=WithdrawalReason.OTHER)
    assert await answered(hub, peer, [peer.step(wrong, about=report)]) == [("id-conflict", "body.withdraws")]
    assert await everything(hub, item) == held
    assert await answered(hub, peer, [peer.step(body, about=report)] * 2) == [None, None]
    row = await hub.row("SELECT state, reason, withdrawn_at, withdrawn_reason FROM items WHERE id = $1::uuid", item)
    # What is done stays done; what is known is that the report was taken back.
    assert (row["state"], row["reason"]) == (("done", "removed") if done else ("withdrawn", "legal-order"))
    assert row["withdrawn_at"] is not None
    assert row["withdrawn_reason"] == "legal-order"
    # Nothing more is said of it by its reporter, and nothing is done about it here.
    if not done:
        refused = [("handling-violation", None)]
        assert await answered(hub, peer, [peer.step(assessed(BASELINE), about=report)]) == refused
        with pytest.raises(RecordRefused, match="withdrawn"):
            await hub.node.store.actor().act(UUID(item), ActionAsked(Action.HOSTER_NOTIFIED))
        with pytest.raises(RecordRefused, match="withdrawn"):
            await hub.node.store.assessor().assess(UUID(item), Assessment(ILLEGAL, AT))


async def test_a_holder_hands_a_withdrawal_on_with_its_proof_only(hub: Hub, open_inbox: OpenInbox) -> None:
    """An item of one hotline that another one handed on: the second one's own word does not take it back."""
    reporter, _ = await open_inbox(hub)
    holder, _ = await open_inbox(hub)
    item, report = await received(hub, holder)
    # As a transfer leaves it.
    async with hub.node.db.transaction("test.write") as tx:
        await tx.execute("UPDATE items SET reporter = $2 WHERE id = $1::uuid", item, reporter.id)
    held = await everything(hub, item)
    about = parse_record(report).leaf_hash.hex()
    reason = WithdrawalReason.REPORTED_IN_ERROR
    original = reporter.step(WithdrawalBody(withdraws=about, reason=reason), about=report, item=str(new_id(AT)))
    assert await answered(hub, reporter, [original]) == [("not-competent", "item")]
    proof = await proof_of(hub, reporter, original)
    refused = [("handling-violation", "body.proof")]
    for said in (None, "c2sp.org/tlog-proof@v1\nnonsense", proof):
        body = WithdrawalBody(withdraws=about, reason=reason, proof=said)
        assert await answered(hub, holder, [holder.step(body, about=report)]) == refused
    assert await everything(hub, item) == held
    # The reporter's own record, as it stands in its stream to the holder; here, to us.
    good = reporter.step(WithdrawalBody(withdraws=about, reason=reason), about=report, parent=None)
    assert await answered(hub, reporter, [good]) == [("id-conflict", "parent")]
    body = WithdrawalBody(withdraws=about, reason=reason, proof=await proof_of(hub, reporter, good))
    assert await answered(hub, holder, [holder.step(body, about=report)]) == [None]
    assert await state(hub, item) == ("withdrawn", "reported-in-error")


async def proof_of(hub: Hub, peer: PeerSimulator, record: bytes) -> str:
    """Prove a record that the node holds of a peer, by the node's own receipt."""
    idx = peer.taken.index(record)
    async with hub.node.db.transaction("test.read") as tx:
        stream = await tx.value("SELECT id FROM inbound_streams WHERE peer = $1", peer.id)
        proofs = Proofs(tx, hub.node.store.vault)
        made = await proofs.proof(await proofs.received(stream, idx))
    assert made is not None
    return made.decode()


async def test_another_report_of_the_url_stands_for_one_that_is_taken_back(hub: Hub, open_inbox: OpenInbox) -> None:
    first, _ = await open_inbox(hub)
    second, second_inbox = await open_inbox(hub)
    url = f"http://{new_id(hub.clock.now())}.host.example/heir"
    ours, theirs = first.report(url=url), second.report(url=url)
    third = second.report(url=url)
    assert await answered(hub, first, [ours]) == [None]
    assert await answered(hub, second, [theirs, third]) == [None, None]
    about = parse_record(ours)
    body = WithdrawalBody(withdraws=about.leaf_hash.hex(), reason=WithdrawalReason.OTHER)
    assert await answered(hub, first, [first.step(body, about=ours)]) == [None]
    # The older id is the heir, and two ids of one millisecond have no order of their making.
    heir, other = sorted(parse_record(raw).envelope.item for raw in (theirs, third))
    rows = await hub.rows("SELECT id, state, duplicate_of FROM items WHERE id = ANY($1::uuid[])", [heir, other])
    found = {str(row["id"]): (row["state"], str(row["duplicate_of"])) for row in rows}
    assert found == {heir: ("assigned", "None"), other: ("duplicate", heir)}
    await hub.node.store.actor().act(UUID(heir), ActionAsked(Action.REMOVED))
    await outcomes_arrived(hub, second)
    heard = [parse_record(raw).envelope for raw in second_inbox.records]
    assert {one.item for one in heard if one.type == "action"} == {heir, other}
