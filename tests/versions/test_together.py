"""A node of 1.0 and a node of 1.1, real processes over real sockets: both work, and what 1.0 does not know is kept."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from node.hotline.store import outbound
from node.platform.ids import new_id
from protocol.bodies import OutcomeBody
from protocol.checkpoint import StreamId
from protocol.merkle import leaf_hash
from protocol.record import parse_record
from tests.faults.conftest import make_world, open_network
from tests.faults.feed import Feed
from tests.faults.network import Network
from tests.faults.station import Station, until
from tests.versions import later
from tests.versions.later import BODY_MEMBER, ENVELOPE_MEMBER
from tests.world import World


@pytest.fixture
def world(tmp_path: Path, new_database: Callable[[], str]) -> World:
    """France speaks 1.1 and the Netherlands 1.0, as the directory says."""
    made = make_world(tmp_path, new_database)
    made.nodes[0].entry["versions"] = ["1.0", "1.1"]
    return made


@pytest.fixture
async def network(world: World) -> AsyncIterator[Network]:
    """Both nodes, running."""
    async with open_network(world) as made:
        await made.fr.start(target=later.run)
        await made.nl.start()
        await made.fr.serving()
        await made.nl.serving()
        yield made


async def _well_known(station: Station) -> dict[str, Any]:
    async with station.session.get(f"{station.settings.base_url}/.well-known/hx-node") as answer:
        said: dict[str, Any] = await answer.json()
        return said


async def sent(station: Station, peer: str) -> list[bytes]:
    """Return the records that a node wrote to a peer, as bytes."""
    vault = await station.vault()
    async with station.db.transaction("test.sent") as tx:
        rows = await tx.fetch(
            "SELECT o.stream, o.idx, o.record_enc FROM outbox o JOIN outbound_streams s ON s.id = o.stream "
            "WHERE s.peer = $1 ORDER BY o.idx",
            peer,
        )
    return [vault.open_record("outbox", row["stream"], row["idx"], row["record_enc"]) for row in rows]


async def _held(station: Station, peer: str) -> list[bytes]:
    """Return the records that a node holds of a peer, as bytes."""
    vault = await station.vault()
    async with station.db.transaction("test.held") as tx:
        rows = await tx.fetch(
            "SELECT i.stream, i.idx, i.record_enc FROM inbox i JOIN inbound_streams s ON s.id = i.stream "
            "WHERE s.peer = $1 ORDER BY i.idx",
            peer,
        )
    return [vault.open_record("inbox", row["stream"], row["idx"], row["record_enc"]) for row in rows]


async def _append(station: Station, peer: str, records: Sequence[bytes]) -> None:
    """Write records into a node's stream, as a flow of 1.1 would."""
    vault, now = await station.vault(), datetime.now(UTC)
    async with station.db.transaction("test.append") as tx:
        head = (await outbound.lock_streams(tx, [peer]))[peer]
        rows = [
            outbound.OutboxRow(
                idx, new_id(now), None, later.NOTE, leaf_hash(raw), vault.seal_record("outbox", head.id, idx, raw)
            )
            for idx, raw in enumerate(records, start=head.next_index)
        ]
        await outbound.append(tx, head, rows, now)
        await tx.notify("deliver")


async def _told(station: Station, other: Station, count: int) -> dict[int, str]:
    """Wait until `other` has said of `count` records of the station's stream what became of them, and return it."""
    origin = StreamId(station.id, other.id, 1).origin()
    found: dict[int, str] = {}

    async def all_told() -> bool:
        for one in map(parse_record, await _held(station, other.id)):
            if isinstance(one.body, OutcomeBody) and one.body.stream == origin:
                for verdict, ranges in (("accepted", one.body.accepted), ("kept", one.body.kept)):
                    found.update((idx, verdict) for first, last in ranges for idx in range(first, last + 1))
                found.update((refusal.index, refusal.code) for refusal in one.body.refused)
        return len(found) >= count

    await until(all_told, f"{other.id} tells of {count} records of {station.id}")
    return found


async def test_both_say_what_they_speak_and_speak_under_one_header(network: Network) -> None:
    assert (await _well_known(network.fr))["versions"] == ["1.0", "1.1"]
    assert (await _well_known(network.nl))["versions"] == ["1.0"]
    assert network.directory().nodes[network.fr.id].versions == ("1.0", "1.1")


async def test_what_1_0_does_not_know_is_kept_byte_for_byte_and_what_it_knows_is_done(network: Network) -> None:
    fr, nl = network.fr, network.nl
    await network.feed.hand_in(3)
    assert await _told(fr, nl, 3) == {0: "accepted", 1: "accepted", 2: "accepted"}
    reports = await sent(fr, nl.id)
    for raw in reports:
        tree = json.loads(raw)
        assert tree[ENVELOPE_MEMBER[0]] == ENVELOPE_MEMBER[1]
        assert tree["body"][BODY_MEMBER[0]] == BODY_MEMBER[1]

    now = datetime.now(UTC)
    note = later.note(reports[0], "Es eilt.", id=str(new_id(now)))
    demanding = [
        later.note(reports[1], "Not without this.", id=str(new_id(now)), crit=[ENVELOPE_MEMBER[0]]),
        later.later(_again(reports[2], now, crit=[f"body.{BODY_MEMBER[0]}"])),
    ]
    await _append(fr, nl.id, [note, *demanding])
    told = await _told(fr, nl, 6)
    assert (told[3], told[4], told[5]) == ("kept", "unknown-critical", "unknown-critical")
    # Kept to the byte, and read as far as 1.0 reads.
    assert await _held(nl, fr.id) == [*reports, note, *demanding]
    assert await nl.count("SELECT count(*) FROM items WHERE received_stream IS NOT NULL") == 3


def _again(raw: bytes, now: datetime, **members: object) -> bytes:
    """A report of another item with other members."""
    tree = {**json.loads(raw), "id": str(new_id(now)), "item": str(new_id(now)), **members}
    return json.dumps(tree, separators=(",", ":")).encode()


async def test_what_1_0_says_is_understood_by_1_1_and_its_own_members_come_back_with_the_answer(
    network: Network,
) -> None:
    fr, nl = network.fr, network.nl
    feed = Feed(nl, country="FR")
    await feed.hand_in(2)
    assert await _told(nl, fr, 2) == {0: "accepted", 1: "accepted"}
    said = await sent(nl, fr.id)
    assert not any(ENVELOPE_MEMBER[0] in json.loads(raw) for raw in said)
    # The outcome is a record of 1.1, with members that 1.0 passes over and keeps.
    (outcome,) = [one for one in map(parse_record, await _held(nl, fr.id)) if isinstance(one.body, OutcomeBody)][:1]
    assert json.loads(outcome.raw)[ENVELOPE_MEMBER[0]] == ENVELOPE_MEMBER[1]
    assert outcome.raw == (await sent(fr, nl.id))[0]
    # A type that both sides learn later is accepted by the one that knows it.
    note = later.note(said[0], "From a later Netherlands.", id=str(new_id(datetime.now(UTC))))
    await _append(nl, fr.id, [note])
    assert (await _told(nl, fr, 3))[2] == "accepted"
    assert (await _held(fr, nl.id))[2] == note


async def test_a_request_of_another_major_version_is_refused_by_both(network: Network) -> None:
    for station in (network.fr, network.nl):
        headers = {"hx-version": "2", "signature": "hx=:AAAA:", "signature-input": "hx=();created=1"}
        async with station.session.get(
            f"{station.settings.base_url}/peer/v1/streams/{network.fr.id}", headers=headers
        ) as answer:
            assert answer.status == 400
            assert (await answer.json(content_type=None))["field"] == "hx-version"
