"""The directory as a node keeps it: several sources, a disk that survives any crash, and nothing that goes back."""

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from node.errors import OperatorError
from node.platform import membership as module
from node.platform.httpclient import make_session
from node.platform.membership import (
    HINT_DISTRUST_S,
    HINT_REST_S,
    Membership,
    expiry_warnings,
    own_warnings,
    read_directory,
)
from node.platform.repository import fingerprint
from node.platform.sources import LINE_BYTES_PER_S_MIN, MIRROR_PATH, HttpSource, Source, SourceFailed
from node.platform.trust import TIMESTAMP, Freshness, root_file
from protocol.codes import NodeState
from tests.platform.manual_clock import ManualClock
from tests.platform.tuf_repository import NOW, Notebook, Repository, begin, update


@dataclass
class MemorySource:
    """A source that can fail or lack files; counts what it is asked for."""

    files: Mapping[str, bytes]
    name: str = "memory"
    local: bool = False
    asked: list[str] = field(default_factory=list)

    async def fetch(self, file: str, bytes_max: int) -> bytes | None:
        self.asked.append(file)
        raw = self.files.get(file)
        return None if raw is None else raw[: bytes_max + 1]


@pytest.fixture
def repository() -> Repository:
    return Repository.begun()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


class Making:
    """Makes members' memberships in one folder."""

    def __init__(self, folder: Path, repository: Repository, clock: ManualClock) -> None:
        self.folder = folder / "trusted"
        self.repository = repository
        self.clock = clock
        self.ledger = Notebook()

    def __call__(self, *sources: Source, mirrors: Mapping[str, Source] | None = None) -> Membership:
        chosen = None if mirrors is None else (lambda node: mirrors.get(node.id) or MemorySource({}))
        return Membership(
            folder=self.folder,
            fingerprint=self.repository.pin,
            sources=sources,
            ledger=self.ledger,
            clock=self.clock,
            own_id="fr.hotline.example",
            mirror=chosen,
        )


@pytest.fixture
def make(tmp_path: Path, repository: Repository, clock: ManualClock) -> Making:
    return Making(tmp_path, repository, clock)


async def test_what_was_trusted_is_there_after_a_restart_without_any_source(
    make: Making, repository: Repository, clock: ManualClock
) -> None:
    first = make(MemorySource(repository.files))
    await first.start()
    clock.advance(80 * 3600)
    again = make(MemorySource({}))
    await again.start()
    assert again.current().version == 1
    assert again.freshness() is Freshness.STALE
    clock.advance(11 * 86_400)
    assert again.freshness() is Freshness.EXPIRED
    assert not await again.refresh()
    assert again.current().version == 1
    # Everything that another needs to come to the same trust is served.
    for name, content in repository.files.items():
        assert again.file(name) == content


async def test_nothing_that_has_expired_is_a_first_directory(
    make: Making, repository: Repository, clock: ManualClock
) -> None:
    clock.advance(80 * 3600)
    with pytest.raises(OperatorError, match="has expired"):
        await make(MemorySource(repository.files)).start()


async def test_without_a_root_of_the_fingerprint_there_is_no_start(make: Making) -> None:
    with pytest.raises(OperatorError, match="it has no root of the pinned fingerprint"):
        await make(MemorySource(Repository.begun().files | {root_file(1): other_root()})).start()


def other_root() -> bytes:
    stranger = Repository(root_keys=("x", "y"))
    stranger.rotate()
    return stranger.files[root_file(1)]


async def test_a_newcomer_may_pin_a_later_root(tmp_path: Path, repository: Repository, clock: ManualClock) -> None:
    repository.root_keys = ("root b", "root c", "root d")
    repository.rotate(signers=("root b", "root c", "root d"))
    repository.publish()
    make = Making(tmp_path, repository, clock)
    pinned = fingerprint(repository.files[root_file(2)])
    made = Membership(
        folder=make.folder,
        fingerprint=pinned,
        sources=[MemorySource(repository.files)],
        ledger=make.ledger,
        clock=clock,
    )
    await made.start()
    assert made.current().version == 2
    assert read_directory(make.folder, pinned).root_version == 2


class Stopped(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("rotates", [False, True])
async def test_a_crash_between_any_two_files_leaves_a_whole_directory(
    make: Making, repository: Repository, monkeypatch: pytest.MonkeyPatch, *, rotates: bool
) -> None:
    source = MemorySource(repository.files)
    await make(source).start()
    if rotates:
        repository.root_keys = ("root b", "root c", "root d")
        repository.rotate(signers=("root b", "root c", "root d"))
    repository.publish()
    source.files = repository.files
    real, steps = os.replace, 0
    real_unlink = os.unlink

    def counted(step: Callable[..., None]) -> Callable[..., None]:
        def run(*arguments: object, **options: object) -> None:
            nonlocal steps
            if steps == 0:
                raise Stopped
            steps -= 1
            step(*arguments, **options)

        return run

    seen = set()
    for number in range(12):
        steps = number
        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", counted(real))
            patched.setattr(os, "rename", counted(os.rename))
            patched.setattr(os, "unlink", counted(real_unlink))
            with suppress(Stopped):
                going = make(source)
                await going.start()
                await going.refresh()
        # Whatever is there now is a whole directory, without any source.
        kept = read_directory(make.folder, repository.pin)
        seen.add(kept.directory.version)
        restarted = make(MemorySource({}))
        await restarted.start()
        assert restarted.current().version == kept.directory.version
    assert seen == {1, 2}
    # The next timestamp clears away what a crash left behind.
    repository.stamp()
    source.files = repository.files
    last = make(source)
    await last.start()
    await last.refresh()
    names = {path.name for path in make.folder.iterdir() if not path.name.startswith(".")}
    assert {name for name in names if not name.endswith("root.json")} == {
        name for name in current_files(repository) if not name.endswith("root.json")
    }


def current_files(repository: Repository) -> set[str]:
    gone = {"1.snapshot.json", "1.targets.json"}
    old = {
        name
        for name, raw in repository.files.items()
        if name.endswith(".directory.json") and raw != repository.document
    }
    return set(repository.files) - gone - old


async def test_an_older_set_never_replaces_a_newer_one_on_the_disk(make: Making, repository: Repository) -> None:
    """Two processes share the folder; the one that is behind writes last."""
    old = repository.copy()
    behind = make(MemorySource(old.files))
    await behind.start()
    repository.publish()
    ahead = make(MemorySource(repository.files))
    await ahead.start()
    await ahead.refresh()
    old.stamp()
    behind._sources = [MemorySource(old.files)]
    await behind.refresh()
    assert read_directory(make.folder, repository.pin).directory.version == 2


async def test_a_bad_source_is_told_and_the_next_one_is_asked(make: Making, repository: Repository) -> None:
    bad, good = MemorySource(dict(repository.files), name="bad"), MemorySource(repository.files, name="good")
    made = make(bad, good)
    await made.start()
    repository.publish()
    bad.files = {**bad.files, TIMESTAMP: b"nothing"}
    good.files = repository.files
    assert await made.refresh()
    assert made.current().version == 2
    assert made.problem is not None
    assert "of bad is not taken: timestamp.json is not metadata" in made.problem
    bad.files = repository.files
    assert not await made.refresh()
    assert made.problem is None


async def test_while_the_coordinator_is_away_mirrors_spread_a_new_directory(
    make: Making, repository: Repository, clock: ManualClock
) -> None:
    coordinator, mirror = MemorySource(repository.files), MemorySource(repository.files)
    made = make(coordinator, mirrors={"nl.hotline.example": mirror})
    await made.start()
    await made.refresh_if_due()
    mirror.asked.clear()
    repository.publish()
    mirror.files, coordinator.files = repository.files, {}
    # A hint of something newer is followed at once, any other not before a minute has passed.
    made.hint("2", "nl.hotline.example")
    assert await made.refresh_if_due()
    assert made.current().version == 2
    for lie in ("3", "99999", "x", "0", "-1", None):
        made.hint(lie, "nl.hotline.example")
    mirror.asked.clear()
    coordinator.asked.clear()
    assert not await made.refresh_if_due()
    assert mirror.asked == []
    clock.advance(HINT_REST_S + 1)
    assert not await made.refresh_if_due()
    assert TIMESTAMP in mirror.asked


async def test_a_key_that_is_not_known_makes_a_node_look_once_and_not_more_than_once_a_minute(
    make: Making, repository: Repository, clock: ManualClock
) -> None:
    coordinator = MemorySource(repository.files)
    made = make(coordinator)
    await made.start()
    await made.refresh_if_due()
    repository.publish()
    coordinator.files = repository.files
    made.doubt()
    assert await made.refresh_if_due()
    assert made.current().version == 2
    # What made it look is settled; another key that nobody knows has to wait.
    coordinator.asked.clear()
    clock.advance(HINT_REST_S / 2)
    made.doubt()
    assert not await made.refresh_if_due()
    assert coordinator.asked == []
    clock.advance(HINT_REST_S)
    assert not await made.refresh_if_due()
    assert TIMESTAMP in coordinator.asked
    coordinator.asked.clear()
    clock.advance(2 * HINT_REST_S)
    assert not await made.refresh_if_due()
    assert coordinator.asked == []


async def test_a_hint_of_a_node_that_cannot_be_called_asks_it_nothing(make: Making, repository: Repository) -> None:
    nodes = json.loads(repository.document)["nodes"]
    for node in nodes:
        node["delivery"] = "pull" if node["id"] == "nl.hotline.example" else "push"
    repository.publish(nodes=nodes)
    mirror, other = MemorySource(repository.files), MemorySource(repository.files)
    mirrors = {node["id"]: other for node in nodes} | {"nl.hotline.example": mirror}
    made = make(MemorySource(repository.files), mirrors=mirrors)
    await made.start()
    made.hint("3", "nl.hotline.example")
    await made.refresh()
    assert TIMESTAMP in other.asked
    assert mirror.asked == []


async def test_an_honest_hint_after_a_lie_is_followed(make: Making, repository: Repository, clock: ManualClock) -> None:
    nodes = json.loads(repository.document)["nodes"]
    for node in nodes:
        # One in maintenance is asked for nothing but what it spoke of itself.
        node["state"] = "maintenance" if node["id"] == "nl.hotline.example" else "active"
    repository.publish(nodes=nodes)
    frozen, honest = repository.copy(), MemorySource(repository.files)
    liar = MemorySource(frozen.files)
    made = make(MemorySource(frozen.files), mirrors={"nl.hotline.example": honest, "de.hotline.example": liar})
    await made.start()
    await made.refresh_if_due()
    made.hint("999999999999999", "de.hotline.example")
    assert not await made.refresh_if_due()
    repository.publish(nodes=nodes)
    honest.files = repository.files
    made.hint("3", "nl.hotline.example")
    made.hint("999999999999999", "de.hotline.example")
    clock.advance(HINT_REST_S + 1)
    assert await made.refresh_if_due()
    assert made.current().version == 3


async def test_a_member_that_never_has_what_it_claims_is_not_asked_for_ever(
    make: Making, repository: Repository, clock: ManualClock
) -> None:
    coordinator, liar = MemorySource(repository.files), MemorySource(repository.files)
    made = make(coordinator, mirrors={"nl.hotline.example": liar})
    await made.start()
    await made.refresh_if_due()
    clock.advance(HINT_REST_S + 1)
    asked = 0
    # Each message of it says so, in the time between two looks of the schedule.
    for minute in range(5):
        coordinator.asked.clear()
        made.hint(str(999_999_999_999_999 - minute), "nl.hotline.example")
        assert not await made.refresh_if_due()
        asked += TIMESTAMP in coordinator.asked
        clock.advance(HINT_REST_S + 1)
    assert asked == 1
    # Its word counts again later; it may have been its line.
    clock.advance(HINT_DISTRUST_S)
    await made.refresh_if_due()
    repository.publish()
    coordinator.files = repository.files
    clock.advance(HINT_REST_S + 1)
    made.hint("2", "nl.hotline.example")
    assert await made.refresh_if_due()


@pytest.mark.parametrize("liar", ["nl.hotline.example", "desk.hotline.example"])
async def test_nobody_is_asked_for_ever_for_the_word_of_one_that_has_no_mirror(
    make: Making, repository: Repository, clock: ManualClock, liar: str
) -> None:
    nodes = json.loads(repository.document)["nodes"]
    for node in nodes:
        node["delivery"] = "pull" if node["id"] == "nl.hotline.example" else "push"
    repository.publish(nodes=nodes)
    coordinator = MemorySource(repository.files)
    made = make(coordinator, mirrors={node["id"]: MemorySource(repository.files) for node in nodes})
    await made.start()
    await made.refresh_if_due()
    asked = 0
    for _ in range(5):
        coordinator.asked.clear()
        made.hint("99", liar)
        assert not await made.refresh_if_due()
        asked += TIMESTAMP in coordinator.asked
        clock.advance(HINT_REST_S + 1)
    assert asked == 1


async def test_a_frozen_coordinator_is_passed_over_when_a_peer_is_ahead(make: Making, repository: Repository) -> None:
    frozen = repository.copy()
    mirror = MemorySource(repository.files)
    made = make(MemorySource(frozen.files), mirrors={"nl.hotline.example": mirror})
    await made.start()
    repository.publish()
    mirror.files = repository.files
    assert not await made.refresh()
    made.hint("2", "nl.hotline.example")
    assert await made.refresh()
    assert made.current().version == 2


# Over HTTP.


@asynccontextmanager
async def served(answer: Callable[[web.Request], "web.StreamResponse"]) -> AsyncIterator[str]:
    async def handle(request: web.Request) -> web.StreamResponse:
        return answer(request)

    app = web.Application()
    app.router.add_get(MIRROR_PATH + "/{file}", handle)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        await server.close()


async def test_over_http_like_anywhere(make: Making, repository: Repository) -> None:
    def answer(request: web.Request) -> web.StreamResponse:
        raw = repository.files.get(request.match_info["file"])
        return web.Response(status=404) if raw is None else web.Response(body=raw)

    async with served(answer) as url, make_session(timeout_s=5) as session:
        made = make(HttpSource(session, url, "the coordinator"))
        await made.start()
        repository.publish()
        assert await made.refresh()
        assert made.current().version == 2


@pytest.mark.parametrize(
    ("status", "sentence"), [(500, "answered 500"), (302, "answered 302"), (200, "is not metadata")]
)
async def test_what_a_server_answers_instead_is_no_directory(
    make: Making, repository: Repository, status: int, sentence: str
) -> None:
    bad = False

    def answer(request: web.Request) -> web.StreamResponse:
        if bad and request.match_info["file"] == TIMESTAMP:
            return web.Response(status=status, text="sorry", headers={"Location": "http://127.0.0.1:9/"})
        raw = repository.files.get(request.match_info["file"])
        return web.Response(status=404) if raw is None else web.Response(body=raw)

    async with served(answer) as url, make_session(timeout_s=5) as session:
        made = make(HttpSource(session, url, "the coordinator"))
        await made.start()
        bad = True
        assert not await made.refresh()
        assert made.problem is not None
        assert sentence in made.problem
        assert "127.0.0.1" not in made.problem


async def test_a_large_file_may_take_longer_than_a_call_and_a_small_one_may_not() -> None:
    async def slow(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        # Less than the time of a call apart, and more of it altogether.
        for _ in range(5):
            await response.write(b"part")
            await asyncio.sleep(0.2)
        return response

    app = web.Application()
    app.router.add_get(MIRROR_PATH + "/{file}", slow)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server()
    try:
        async with make_session(timeout_s=0.5) as session:
            source = HttpSource(session, f"http://127.0.0.1:{server.port}", "the coordinator")
            assert await source.fetch(TIMESTAMP, 60 * LINE_BYTES_PER_S_MIN) == 5 * b"part"
            with pytest.raises(SourceFailed, match="did not answer"):
                await source.fetch(TIMESTAMP, 100)
    finally:
        await server.close()


async def test_endless_data_is_cut_off(make: Making, repository: Repository) -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        raw = repository.files.get(request.match_info["file"])
        if request.match_info["file"] != TIMESTAMP or not sent:
            sent += request.match_info["file"] == TIMESTAMP
            return web.Response(status=404) if raw is None else web.Response(body=raw)
        response = web.StreamResponse()
        await response.prepare(request)
        while sent < 50_000_000:
            await response.write(b" " * 65_536)
            sent += 65_536
        return response

    app = web.Application()
    app.router.add_get(MIRROR_PATH + "/{file}", endless)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server()
    try:
        async with make_session(timeout_s=20) as session:
            made = make(HttpSource(session, f"http://127.0.0.1:{server.port}", "the coordinator"))
            await made.start()
            assert not await made.refresh()
            assert made.problem is not None
            assert "timestamp.json has more bytes" in made.problem
    finally:
        await server.close()
    assert sent < 50_000_000


async def test_a_failing_disk_leaves_the_directory_as_it_is(
    make: Making, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = MemorySource(repository.files)
    made = make(source)
    await made.start()
    repository.publish()
    source.files = repository.files

    def full(_path: Path, _content: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(module, "_write", full)
        assert not await made.refresh()
    assert made.problem is not None
    assert "No space left" in made.problem
    assert made.current().version == 1
    assert await made.refresh()


def test_what_expires_is_said_a_month_ahead_and_how_the_directory_has_this_node(repository: Repository) -> None:
    use = update(begin(repository), repository.files).use
    assert use is not None
    assert expiry_warnings(use, NOW + timedelta(days=334)) == []
    root, directory = expiry_warnings(use, NOW + timedelta(days=335))
    assert root.startswith("the root of the membership directory expires at 2027-11-22T16")
    assert directory.startswith("the directory of")
    entry = next(iter(use.directory.nodes.values()))
    assert own_warnings(use.directory, entry.id, entry.base_url) == []
    (moved,) = own_warnings(use.directory, entry.id, "https://elsewhere.example")
    assert "another address" in moved
    assert "does not list" in own_warnings(use.directory, "x.example", "https://x.example")[0]
    for state in (NodeState.SUSPENDED, NodeState.LEFT, NodeState.MAINTENANCE):
        nodes = {**use.directory.nodes, entry.id: replace(entry, state=state)}
        (said,) = own_warnings(replace(use.directory, nodes=nodes), entry.id, entry.base_url)
        assert said == f"the membership directory lists this node as {state}"
