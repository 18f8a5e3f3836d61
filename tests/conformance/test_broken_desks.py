"""A desk that breaks one rule fails the checks that hold that rule, and no other."""

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from node.clock import SystemClock
from node.conformance.checks import Verdict
from node.conformance.desk_checks import DESK_CHECKS
from node.conformance.member import Member
from node.conformance.running import Options, open_run, results
from node.conformance.table import CHECKS_OF_DESK
from node.coordinator.serve import running
from node.platform.embedded import EmbeddedPostgres
from node.platform.membership import read_directory
from node.platform.repository import fingerprint
from node.platform.telemetry import make_logger
from protocol.desk import Ruling, sign_ruling
from protocol.keys import KeyUse
from protocol.profile import Request, Response
from tests.conformance.broken import Defect, Door, broken
from tests.conformance.conftest import add_member
from tests.conformance.test_broken_nodes import answering, by_another, code_is, members, unbound, unsigned
from tests.conftest import _new
from tests.peers.network import Network
from tests.world import TestNode, World

pytestmark = pytest.mark.asyncio(loop_scope="module")

_ALL = {one.name for one in DESK_CHECKS}


@dataclass(frozen=True, slots=True)
class Subject:
    """A running desk, and a test member that its directory lists."""

    world: World
    desk: TestNode
    folder: Path
    session: aiohttp.ClientSession

    async def failing(self, address: str) -> set[str]:
        """Make every check of a desk against what stands at this address, and return which fail."""
        world = self.world
        listed = read_directory(world.repository, fingerprint(world.root)).directory
        assert listed.desk is not None
        options = Options(address, listed.desk, None, 20.0, None)
        async with open_run(options, Member.load(self.folder), listed, SystemClock()) as run:
            found = [one async for one in results(run, CHECKS_OF_DESK, destructive=False)]
        return {one.check.name for one in found if one.verdict is Verdict.FAILED}


@pytest.fixture(scope="module")
def network(
    tmp_path_factory: pytest.TempPathFactory, database: Callable[[], str], postgres: EmbeddedPostgres
) -> Network:
    """A coordinator, a hotline and a test member; nothing runs."""
    world = World(tmp_path_factory.mktemp("desk"), database)
    made = Network(world, world.add("FR"))
    world.add_desk(_new(postgres, "template_coordinator"))
    return made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tested(network: Network) -> AsyncIterator[Subject]:
    world, folder = network.world, add_member(network, "tester", port=None)
    desk = world.desk
    assert desk is not None
    world.sign_directory()
    await world.tell_desk()
    async with (
        running(desk.settings, clock=SystemClock(), log=make_logger("critical", "json")),
        aiohttp.ClientSession() as session,
    ):
        yield Subject(world, desk, folder, session)


def rubbish(door: Door, request: Request, response: Response) -> Response:
    """To whatever it is asked, something that means nothing."""
    del response
    return door.sign(Response(200, {"content-type": "application/json", "hx-directory": "1"}, b"{'"), request)


def taken(code: str) -> Defect:
    """Take what is to be refused with this code."""

    def change(door: Door, request: Request, response: Response) -> Response:
        refused = b'"%s"' % code.encode() in response.body
        return door.sign(Response(200, {"hx-directory": "1"}, b""), request) if refused else response

    return answering(change)


def ruling(door: Door, request: Request, response: Response) -> Response:
    """Rule on whatever it is asked about, though nobody handed that in."""
    if request.method != "GET" or response.status != 404:
        return response
    dispute = request.target_uri.rsplit("/", 1)[-1]
    said = Ruling(
        desk=door.node.id,
        dispute=dispute,
        case=dispute,
        item=dispute,
        custodian="nobody.invalid",
        country="AQ",
        at=SystemClock().now(),
    )
    signed = sign_ruling(said, door.node.keys.signing(KeyUse.DESK))
    headers = {"content-type": "text/plain; charset=utf-8", "hx-directory": "1"}
    return door.sign(Response(200, headers, signed), request)


def without_limits(door: Door, request: Request, response: Response) -> Response:
    """Read whatever is sent, of any size, and find that it is no JSON."""
    if response.status != 413:
        return response
    return door.members(request, 400, {**json.loads(response.body), "status": 400, "code": "malformed"})


def listed(code: str, other: str) -> Defect:
    return members(code_is(code), code=other)


DEFECTS: list[tuple[str, Defect, set[str]]] = [
    ("unsigned-answers", answering(unsigned), {"answers-signed"}),
    ("answers-bound-to-nothing", answering(unbound), {"answers-bound"}),
    ("answers-signed-by-another", answering(by_another), {"answers-verify"}),
    ("rubbish", answering(rubbish), _ALL),
    ("takes-strangers", taken("unknown-key"), {"desk-stranger"}),
    ("takes-what-is-no-json", taken("malformed"), {"desk-no-json"}),
    ("takes-what-is-not-the-caller's", taken("handling-violation"), {"desk-not-the-holder", "desk-not-the-receiver"}),
    (
        "takes-what-says-more-or-nothing",
        taken("schema-invalid"),
        {"desk-member-more", "desk-no-such-node", "desk-one-story"},
    ),
    ("rules-on-what-it-has-not", answering(ruling), {"desk-no-ruling"}),
    ("says-that-it-has-everything", members(lambda tree: "held" in tree, held=True), {"desk-no-ruling"}),
    ("reads-without-limits", answering(without_limits), {"desk-dispute-too-large", "desk-stories-too-large"}),
    (
        "names-no-field",
        members(lambda tree: "field" in tree, field=None),
        {"desk-not-the-holder", "desk-no-such-node", "desk-one-story", "desk-not-the-receiver"},
    ),
    ("another-code", listed("invalid", "not-found"), {"desk-no-id"}),
]


async def test_the_door_alone_breaks_nothing(tested: Subject) -> None:
    async with broken(tested.desk, tested.world.nodes[-1], tested.session, Door.forward) as address:
        assert await tested.failing(address) == set()


@pytest.mark.parametrize(("defect", "failing"), [case[1:] for case in DEFECTS], ids=[case[0] for case in DEFECTS])
async def test_a_broken_rule_fails_the_checks_that_hold_it(tested: Subject, defect: Defect, failing: set[str]) -> None:
    async with broken(tested.desk, tested.world.nodes[-1], tested.session, defect) as address:
        assert await tested.failing(address) == failing


async def test_each_check_of_the_desk_is_failed_by_a_broken_one() -> None:
    alone = [failing for _, _, failing in DEFECTS if failing != _ALL]
    assert set().union(*alone) == {one.name for one in CHECKS_OF_DESK}
