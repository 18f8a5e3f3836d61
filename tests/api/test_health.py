"""How the node is: alive, ready, what needs a person, and numbers; never what it holds."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from geo.mmdb import AGE_WARNING_DAYS
from node.platform.apikeys import Role
from tests.api.door import CANARY, Door, database_gone, open_door
from tests.geo.mmdb_files import write_country
from tests.hotline.network import eventually, heard_of
from tests.world import ADDRESS, World

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-")


async def test_a_node_that_is_well_says_so(door: Door) -> None:
    health = await door.ask("GET", "/healthz", role=None)
    assert (health.status, health.json()["status"], health.json()["warnings"]) == (200, "ok", [])
    ready = await door.ask("GET", "/readyz", role=None)
    assert (ready.status, ready.json()) == (200, {"ready": True})


@asynccontextmanager
async def with_country_file(world: World, built: datetime) -> AsyncIterator[tuple[Door, Path]]:
    file = write_country(world.folder / "own.mmdb", {"198.51.100.0/24": "NL"}, built=built)
    await world.create_field_keys(world.nodes[:1])
    one = world.nodes[0]
    async with open_door(replace(one, settings=replace(one.settings, geo_country_databases=(file,)))) as door:
        yield door, file


async def test_an_old_geolocation_file_is_a_warning_until_it_is_replaced(world: World) -> None:
    now = datetime.now(UTC)
    async with with_country_file(world, now - timedelta(days=AGE_WARNING_DAYS + 1)) as (door, file):
        told = (await door.ask("GET", "/healthz", role=None)).json()
        assert told["status"] == "degraded"
        (warning,) = told["warnings"]
        assert "own.mmdb" in warning
        assert f"{AGE_WARNING_DAYS + 1} days old" in warning
        assert str(world.folder) not in warning
        assert (await door.ask("GET", "/api/v1/status")).json()["warnings"] == [warning]
        # It can still take and answer.
        assert (await door.ask("GET", "/readyz", role=None)).status == 200
        write_country(file, {"198.51.100.0/24": "NL"}, built=now)
        door.clock.ahead_s += 6
        door.node.locator.refresh()
        assert (await door.ask("GET", "/healthz", role=None)).json()["status"] == "ok"


async def test_a_geolocation_file_of_the_last_day_allowed_is_no_warning(world: World) -> None:
    built = datetime.now(UTC) - timedelta(days=AGE_WARNING_DAYS, hours=1)
    async with with_country_file(world, built) as (door, _):
        assert (await door.ask("GET", "/healthz", role=None)).json()["warnings"] == []


async def test_a_file_that_is_no_good_leaves_the_old_one_in_use_and_is_a_warning(world: World) -> None:
    async with with_country_file(world, datetime.now(UTC)) as (door, file):
        file.unlink()
        file.write_bytes(b"no database")
        door.clock.ahead_s += 6
        door.node.locator.refresh()
        (warning,) = (await door.ask("GET", "/healthz", role=None)).json()["warnings"]
        assert "stays in use" in warning
        reply = await door.report({"url": f"http://{ADDRESS['NL']}/"})
        shown = await door.until(reply.json()["reports"][0]["items"][0]["id"], "waiting")
        assert shown["hosting_country"] == "NL"


async def test_a_directory_file_that_is_not_taken_is_a_warning(door: Door, world: World) -> None:
    path = world.repository / "timestamp.json"
    path.write_bytes(path.read_bytes().replace(b'"sig": "', b'"sig": "00'))
    assert not await door.node.membership.refresh()
    told = (await door.ask("GET", "/healthz", role=None)).json()
    assert (told["status"], len(told["warnings"])) == ("degraded", 1)
    assert "directory" in told["warnings"][0]
    world.sign_directory()
    await heard_of(door.node, world.version)
    assert (await door.ask("GET", "/healthz", role=None)).json()["status"] == "ok"


async def test_without_its_database_the_node_is_alive_and_not_ready(door: Door, world: World) -> None:
    elsewhere = world.nodes[1].settings.database_url
    report = {"url": f"https://{CANARY}.example/"}
    async with database_gone(door.node.db, elsewhere):
        ready = await door.ask("GET", "/readyz", role=None)
        assert (ready.status, ready.json()) == (503, {"ready": False, "reason": "database"})
        assert (await door.ask("GET", "/healthz", role=None)).status == 200
        # The keys were asked for just now or are not known: either way nothing is taken and the caller may come again.
        reply = await door.report(report)
        assert reply.errors(503, "unavailable") == []
        assert int(reply.headers["Retry-After"]) > 0
        (await door.ask("GET", "/api/v1/items")).errors(503, "unavailable")

    async def back() -> bool:
        return (await door.ask("GET", "/readyz", role=None)).status == 200

    await eventually(back)
    assert (await door.report(report)).status == 201


async def test_connections_cut_under_way_cost_no_report(door: Door, world: World) -> None:
    """The pool notices; what was answered with 201 is there, what was answered with 503 is not."""
    await door.report({"url": "https://first.example/"})
    async with database_gone(door.node.db, world.nodes[1].settings.database_url):
        pass
    taken = 0
    for n in range(5):
        reply = await door.report({"url": f"https://h{n}.example/"})
        assert reply.status in {201, 503}
        taken += reply.status == 201
    assert taken >= 4
    assert (await door.rows())["cases"] == 1 + taken


async def test_the_status_tells_queues_peers_and_ages(door: Door) -> None:
    for country in ("NL", "FR"):
        body = {"url": f"http://{ADDRESS[country]}/{CANARY}", "qualification": {"classification": "national"}}
        reply = await door.report(body)
        await door.until(reply.json()["reports"][0]["items"][0]["id"], "sent", "kept")

    async def failed() -> bool:
        told = (await door.ask("GET", "/api/v1/status")).json()
        return bool(told["peers"] and told["peers"][0]["failures"])

    await eventually(failed)
    reply = await door.ask("GET", "/api/v1/status", role=Role.MONITOR)
    told = reply.json()
    assert told["queues"]["deliver"] == 1
    assert [(row["state"], row["items"]) for row in told["items"]] == [("kept", 1), ("sent", 1)]
    (stream,) = told["streams_out"]
    assert (stream["peer"], stream["written"], stream["receipted"]) == ("nl.hotline.example", 1, 0)
    (peer,) = told["peers"]
    assert peer["last_problem"].startswith("unreachable")
    assert (told["directory"]["version"], told["directory"]["nodes"]) == (1, 2)
    assert told["directory"]["age_s"] >= 0
    ((file, kind, age),) = [(each["file"], each["kind"], each["age_days"]) for each in told["databases"]]
    assert (file, kind, age) == ("country.mmdb", "country", 0)
    assert CANARY not in reply.body.decode()
    assert _UUID.search(reply.body.decode()) is None


async def test_the_metrics_hold_no_url_no_host_and_no_id(door: Door) -> None:
    url = f"http://{ADDRESS['NL']}/{CANARY}"
    reply = await door.report({"url": url, "reference": CANARY, "qualification": {"classification": "national"}})
    item = reply.json()["reports"][0]["items"][0]["id"]
    await door.until(item, "sent")
    for path in (f"/{CANARY}", f"/api/v1/items/{CANARY}", f"/api/v1/items/{item}", f"/api/v1/items/{item}/proof"):
        await door.ask("GET", path)
    await door.ask("CANARY", "/")
    await door.report({"url": f"data:{CANARY}"})
    await door.report({CANARY: CANARY})
    text = (await door.ask("GET", "/metrics", role=Role.MONITOR)).body.decode()
    assert 'route="/api/v1/items/{item}"' in text
    assert 'hotline_items_located_total{kind="hosted"} 1.0' in text
    assert CANARY not in text.lower()
    assert ADDRESS["NL"] not in text
    assert _UUID.search(text) is None
    assert "://" not in text
