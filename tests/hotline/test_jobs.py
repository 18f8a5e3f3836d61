"""The loops of a node at their end: nothing is begun after the word to stop, and nothing is left running."""

import asyncio
import io
from datetime import timedelta

import pytest

from geo.locator import Locator
from node.hotline.flows.transfer.fallback import Fallback
from node.hotline.flows.transfer.orphans import Orphans
from node.hotline.flows.transfer.resend import Resender
from node.hotline.jobs import Jobs
from node.hotline.rounds import Rounds
from node.platform.telemetry import make_logger
from node.platform.trust import Freshness
from protocol.directory import Directory, NodeEntry
from protocol.errors import ProtocolError
from tests.hotline.network import ILLEGAL, eventually, station
from tests.world import ADDRESS, World

#: Nobody vouched for the directory for so long.
_TOO_OLD_S = 16 * 86_400.0


async def test_no_delivery_is_begun_once_the_node_is_told_to_stop(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose turn it is was being asked when the word came: the answer must not begin what nobody would wait for."""
    asked, told = asyncio.Event(), asyncio.Event()
    begun: list[str] = []

    class Late(Jobs):
        async def _peers_due(self) -> list[NodeEntry]:
            asked.set()
            await told.wait()
            return [entry for entry in self._node.directory().nodes.values() if entry.id != self._node.settings.node_id]

        async def _deliver(self, peer: NodeEntry) -> None:
            begun.append(peer.id)

        async def stop(self) -> None:
            self._stop.set()
            told.set()
            await super().stop()

    monkeypatch.setattr("node.hotline.serve.Jobs", Late)
    await world.create_field_keys(world.nodes[:1])
    async with station(world.nodes[0]) as fr:
        await fr.report(f"http://{ADDRESS['NL']}/x", qualification=ILLEGAL)
        await asked.wait()
    assert begun == []


async def test_a_node_that_ended_leaves_no_task_behind(world: World) -> None:
    """Its peer is away, so deliveries fail and begin again all the time while it is told to stop."""
    await world.create_field_keys(world.nodes[:1])
    before = asyncio.all_tasks()
    for n in range(3):
        async with station(world.nodes[0]) as fr:
            item = (await fr.report(f"http://{ADDRESS['NL']}/{n}", qualification=ILLEGAL)).items[0].id
            await fr.until(item, "sent")
        assert asyncio.all_tasks() <= before


async def test_nobody_is_late_before_it_could_be_asked(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a start, and after a time in which the directory had expired, the longest wait has to pass first."""
    asked: list[bool] = []

    async def run_once(_self: Fallback, _directory: Directory, *, late: bool = True) -> int:
        asked.append(late)
        return 0

    class Counted(Jobs):
        async def _fallback(self) -> None:
            await super()._fallback()
            rounds.append(len(asked))

    rounds: list[int] = []
    monkeypatch.setattr(Fallback, "run", run_once)
    monkeypatch.setattr("node.hotline.serve.Jobs", Counted)
    monkeypatch.setattr("node.hotline.jobs._FALLBACK_S", 0.1)
    world.valid = timedelta(days=1)
    world.sign_directory()
    await world.create_field_keys(world.nodes[:1])
    async with station(world.nodes[0], backoff_cap_s=3600.0) as fr:

        async def a_round_over() -> None:
            before = len(rounds)

            async def two_more() -> bool:
                # The first of them may have begun before.
                return len(rounds) >= before + 2

            await eventually(two_more)

        await a_round_over()
        assert set(asked) == {False}
        fr.clock.ahead_s += 3600.0
        await a_round_over()
        assert asked[-1]
        fr.clock.ahead_s += _TOO_OLD_S
        assert fr.node.membership.freshness() is Freshness.EXPIRED
        await a_round_over()
        before = len(asked)
        await a_round_over()
        assert len(asked) == before
        fr.clock.ahead_s -= _TOO_OLD_S
        await a_round_over()
        assert not asked[-1]


async def test_a_step_after_a_change_of_the_directory_that_fails_keeps_no_other_from_being_done(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    broken = True

    async def orphans(_self: Orphans, _directory: Directory) -> int:
        done.append("orphans")
        if broken:
            raise ProtocolError("schema-invalid", "what a peer wrote cannot be told")
        return 0

    async def fallback(_self: Fallback, _directory: Directory, *, late: bool = True) -> int:
        del late
        done.append("fallback")
        return 0

    def refresh(_self: Locator) -> None:
        done.append("locator")

    class Idle(Jobs):
        def start(self) -> None:
            pass

    monkeypatch.setattr("node.hotline.serve.Jobs", Idle)
    await world.create_field_keys(world.nodes[:1])
    lines = io.StringIO()
    async with station(world.nodes[0], log=make_logger("info", "json", lines)) as fr:
        monkeypatch.setattr(Orphans, "run", orphans)
        monkeypatch.setattr(Fallback, "run", fallback)
        monkeypatch.setattr(Locator, "refresh", refresh)
        jobs = Jobs(fr.node, Rounds(fr.node))
        await jobs._refresh()
        assert done == ["orphans", "fallback", "locator"]
        assert '"action": "orphans.failed"' in lines.getvalue()
        done.clear()
        # What failed is tried again, and nothing else.
        await jobs._refresh()
        assert done == ["orphans", "locator"]
        broken = False
        for _ in range(2):
            await jobs._refresh()
        assert done == ["orphans", "locator", "orphans", "locator", "locator"]


async def test_what_goes_at_once_with_a_new_directory_goes_after_a_round_that_was_at_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    went: list[bool] = []

    async def resend(_self: Resender, _directory: Directory, *, at_once: bool = False) -> int:
        went.append(at_once)
        return 0

    class Idle(Jobs):
        def start(self) -> None:
            pass

    monkeypatch.setattr("node.hotline.serve.Jobs", Idle)
    await world.create_field_keys(world.nodes[:1])
    async with station(world.nodes[0]) as fr:
        monkeypatch.setattr(Resender, "run", resend)
        jobs = Jobs(fr.node, Rounds(fr.node))
        async with fr.node.db.session_lock("orphans"):
            await jobs._refresh()
        assert went == []
        for _ in range(2):
            await jobs._refresh()
        assert went == [True]
