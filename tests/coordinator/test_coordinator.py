"""The coordinator publishes, renews and serves; nodes follow it while they run, and each other while it is away."""

import io
import shutil
from contextlib import AsyncExitStack
from datetime import timedelta

import aiohttp
import pytest

from node.coordinator.publisher import online_keys
from node.coordinator.store import ever_listed
from node.coordinator.tables import metadata
from node.errors import OperatorError
from node.hotline.api.health import warnings_of
from node.hotline.cli.status import _directory, _in_use
from node.hotline.jobs import Jobs
from node.hotline.rounds import Rounds
from node.platform import migrate
from node.platform.database import Database
from node.platform.membership import FRESHNESS_WARNINGS
from node.platform.sources import MIRROR_PATH
from node.platform.telemetry import make_logger
from node.platform.trust import Freshness
from node.settings import settings_from
from tests.coordinator.conftest import Authority, coordinating, joined
from tests.hotline.network import ILLEGAL, Station, SteppedClock, eventually, heard_of, station
from tests.world import ADDRESS, World


async def test_its_database_is_what_the_tables_say(authority: Authority) -> None:
    db = Database(authority.settings.database_url)
    try:
        assert await migrate.differences(db.engine, metadata) == []
    finally:
        await db.close()


def test_settings_of_the_other_role_are_refused(authority: Authority) -> None:
    common = {"node_id": "x.example", "base_url": "http://127.0.0.1:9", "embedded_database": True}
    home = authority.settings.data_dir
    for values, name in (
        ({"role": "coordinator", "countries": ["FR"]}, "countries"),
        ({"role": "coordinator", "geo_allow_reserved": True}, "geo_allow_reserved"),
        ({"countries": ["FR"], "timestamp_hours": 24}, "timestamp_hours"),
    ):
        with pytest.raises(OperatorError, match=f"Setting {name}: is no setting of role"):
            settings_from({**common, **values}, home)


async def test_what_is_published_is_served_and_renewed(authority: Authority, world: World) -> None:
    clock = SteppedClock()
    async with coordinating(authority, clock) as publisher, aiohttp.ClientSession() as session:
        base = authority.settings.base_url + MIRROR_PATH
        async with session.get(f"{base}/timestamp.json") as answer:
            assert answer.status == 404
        made = await publisher.publish(authority.propose(world.nodes))
        for name, content in made.files.items():
            async with session.get(f"{base}/{name}") as answer:
                assert await answer.read() == content
        assert not await publisher.renew(older_than_s=900)
        clock.ahead_s = 901
        assert await publisher.renew(older_than_s=900)
        again = publisher.published
        assert again is not None
        assert again.use.timestamp.version > made.use.timestamp.version
        assert again.use.snapshot == made.use.snapshot
        # What was replaced is there for those in the middle of an update, and who is not listed any more is known.
        second = await publisher.publish(authority.propose(world.nodes[1:]))
        assert made.files.keys() - {"timestamp.json"} <= publisher.served.keys()
        assert second.directory.version == 2
        async with publisher.db.transaction("test.listed") as tx:
            assert await ever_listed(tx, [*made.directory.nodes, "stranger.example"]) == set(made.directory.nodes)
        async with session.get(f"http://{authority.settings.listen_api}/healthz") as answer:
            assert (await answer.json())["warnings"] == ["the directory names no desk: nobody settles disputes"]
        async with session.get(f"http://{authority.settings.listen_api}/metrics") as answer:
            assert "hotline_directory_fresh_seconds" in await answer.text()


async def test_health_tells_that_the_timestamp_is_not_renewed_and_what_expires(
    authority: Authority, world: World
) -> None:
    clock = SteppedClock()
    failed = "the timestamp is not renewed: `renew.failed` in the log says why"
    authority.settings.directory_keys_dir.joinpath("timestamp.key").chmod(0o644)
    async with coordinating(authority, clock) as publisher, aiohttp.ClientSession() as session:

        async def warnings() -> list[str]:
            async with session.get(f"http://{authority.settings.listen_api}/healthz") as answer:
                told: list[str] = (await answer.json())["warnings"]
                return told

        async def told_of() -> bool:
            return failed in await warnings()

        await eventually(told_of)
        authority.settings.directory_keys_dir.joinpath("timestamp.key").chmod(0o600)
        await publisher.publish(authority.propose(world.nodes))
        assert failed not in await warnings()
        # No round fails, but none comes either.
        clock.ahead_s = 4 * authority.settings.timestamp_every_s
        assert failed in await warnings()
        clock.ahead_s = timedelta(days=336).total_seconds()
        assert [line.split(" of ")[0] for line in await warnings() if "expires at" in line] == [
            "the root",
            "the directory",
        ]


async def test_a_proposal_that_may_not_follow_changes_nothing(authority: Authority, world: World) -> None:
    async with coordinating(authority) as publisher:
        await publisher.publish(authority.propose(world.nodes))
        stale = authority.proposed
        await publisher.publish(authority.propose(world.nodes))
        before = dict(publisher.served)
        authority.proposed = stale
        authority.document["version"] -= 1
        with pytest.raises(OperatorError, match="but version 2 is published"):
            await publisher.publish(authority.propose(world.nodes))
        authority.settings.directory_keys_dir.joinpath("timestamp.key").chmod(0o644)
        with pytest.raises(OperatorError, match="chmod 600"):
            online_keys(authority.settings)
        await publisher.read()
        assert publisher.served == before


async def test_a_coordinator_restored_from_a_backup_goes_on_above_what_nodes_have_seen(
    authority: Authority, world: World
) -> None:
    clock = SteppedClock()
    async with coordinating(authority, clock) as publisher:
        await publisher.publish(authority.propose(world.nodes))
        backup = dict(publisher.served)
        for _ in range(3):
            clock.ahead_s += 901
            await publisher.renew(older_than_s=900)
        seen = publisher.published
        assert seen is not None
        async with publisher.db.transaction("test.restore") as tx:
            await tx.execute(
                "UPDATE metadata_files SET content = $1 WHERE name = 'timestamp.json'", backup["timestamp.json"]
            )
        clock.ahead_s += 60
        assert await publisher.renew()
        again = publisher.published
        assert again is not None
        assert again.use.timestamp.version > seen.use.timestamp.version


async def test_a_suspension_spreads_while_the_coordinator_is_away(authority: Authority, world: World) -> None:
    """One node heard it before the coordinator went; the others hear it from each other's calls and mirrors."""
    fr, nl, _ = joined(world, authority)
    await world.create_field_keys()
    async with AsyncExitStack() as stack:
        async with coordinating(authority) as publisher:
            await publisher.publish(authority.propose(world.nodes))
            french = await stack.enter_async_context(station(fr))
            dutch = await stack.enter_async_context(station(nl))
            world.nodes[2].entry["state"] = "suspended"
            await publisher.publish(authority.propose(world.nodes))
            await heard_of(french.node, 2)
        assert (french.node.directory().version, dutch.node.directory().version) == (2, 1)
        # A report goes to the Dutch node; the call tells it of the newer directory, the French mirror gives it.
        await french.report(f"http://{ADDRESS['NL']}/x", qualification=ILLEGAL)

        async def heard() -> bool:
            await dutch.node.membership.refresh_if_due()
            return dutch.node.directory().version == 2

        await eventually(heard, limit_s=30)
        assert dutch.node.directory().nodes["de.hotline.example"].state == "suspended"


async def _says(one: Station, state: Freshness) -> None:
    """Status, health and metrics of a node all tell this state, and the warning that goes with it."""
    told: list[str] = []
    use = _in_use(one.node.settings, told)
    assert use is not None
    shown = _directory(use, one.node.settings, one.clock.now(), told)
    assert shown["state"] == state.value
    assert FRESHNESS_WARNINGS[state] in told
    assert FRESHNESS_WARNINGS[state] in warnings_of(one.node)
    await Jobs(one.node, Rounds(one.node))._gauges()
    metrics = one.node.metrics.render().decode()
    for each in Freshness:
        assert f'hotline_directory_state{{state="{each.value}"}} {float(each is state)}' in metrics


async def test_a_node_degrades_as_its_directory_ages_and_recovers(authority: Authority, world: World) -> None:
    """Fresh, stale, expired: what is sent, what is taken, what is said; then the coordinator is back."""
    fr, nl, _ = joined(world, authority)
    await world.create_field_keys()
    lines = io.StringIO()
    async with AsyncExitStack() as stack:
        async with coordinating(authority) as publisher:
            await publisher.publish(authority.propose(world.nodes))
            french = await stack.enter_async_context(station(fr, log=make_logger("info", "json", lines)))
            dutch = await stack.enter_async_context(station(nl))
        for one in (french, dutch):
            one.clock.ahead_s = timedelta(hours=73).total_seconds()
            assert one.node.membership.freshness() is Freshness.STALE
            await _says(one, Freshness.STALE)
        sent = (await french.report(f"http://{ADDRESS['NL']}/stale", qualification=ILLEGAL)).items[0].id
        await french.until(sent, "sent")

        async def receipted() -> bool:
            return bool(await french.value("SELECT count(*) = 1 FROM receipts"))

        await eventually(receipted)
        for one in (french, dutch):
            one.clock.ahead_s = timedelta(days=15).total_seconds()
            assert one.node.membership.freshness() is Freshness.EXPIRED
            await _says(one, Freshness.EXPIRED)
        kept = (await french.report(f"http://{ADDRESS['NL']}/expired", qualification=ILLEGAL)).items[0].id
        # It is routed and waits in the stream.
        await french.until(kept, "sent")
        assert await french.value("SELECT count(*) FROM receipts") == 1

        async def told() -> bool:
            return '"state": "expired"' in lines.getvalue()

        await eventually(told, limit_s=30)
        later = SteppedClock()
        later.ahead_s = timedelta(days=15).total_seconds()
        async with coordinating(authority, later) as publisher:
            await publisher.renew()
            for one in (french, dutch):
                await one.node.membership.refresh()
                assert one.node.membership.freshness() is Freshness.FRESH

            async def all_receipted() -> bool:
                return bool(await french.value("SELECT max(size) = 2 FROM receipts"))

            await eventually(all_receipted, limit_s=30)


async def test_a_node_whose_folder_was_set_back_takes_no_older_directory(authority: Authority, world: World) -> None:
    """The database remembers what the folder forgot; and the other way round the folder has what counts."""
    fr, *_ = joined(world, authority)
    await world.create_field_keys()
    folder, copy = fr.settings.directory_dir, world.folder / "copy"
    async with coordinating(authority) as publisher:
        await publisher.publish(authority.propose(world.nodes))
        async with station(fr) as french:
            shutil.copytree(folder, copy)
            await publisher.publish(authority.propose(world.nodes))
            await heard_of(french.node, 2)
    shutil.rmtree(folder)
    shutil.copytree(copy, folder)
    with pytest.raises(OperatorError, match="version 2 was trusted before: an older directory is refused"):
        async with station(fr):
            pass
    async with coordinating(authority), station(fr) as french:
        assert french.node.directory().version == 2
        async with french.node.db.transaction("test.restore") as tx:
            await tx.execute("DELETE FROM directory_versions WHERE version = 2")
    async with station(fr) as french:
        assert french.node.directory().version == 2
