"""One conformance run: finds out where the stream stands, then makes every check in order. Prints nothing."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from ssl import SSLContext

from node.clock import Clock
from node.conformance.checks import Check, Result, Run, make, own_stream
from node.conformance.exchange import Exchange, NoAnswer, open_session
from node.conformance.inbox import Inbox
from node.conformance.member import Member
from node.conformance.outcomes import Delivered, Fetched, Outcomes
from node.conformance.speaker import Speaker, changed
from node.errors import OperatorError
from protocol.batch import decode_batch
from protocol.checkpoint import Checkpoint, StreamId
from protocol.directory import DeskEntry, Directory, NodeEntry
from protocol.errors import ProtocolError
from protocol.keys import KeyUse
from protocol.merkle import Edge, leaf_hash
from protocol.note import parse_note
from protocol.profile import Request

NOTE: str = "conformance-note"


class QuietSpeaker(Speaker):
    """A speaker whose records nobody has to act on: of a type that no version of HX has."""

    def reports(self, count: int) -> list[bytes]:
        """Return so many records that a node keeps and does not read."""
        return [changed(self.report(), type=NOTE, body={"schema": 1}) for _ in range(count)]


@dataclass(frozen=True, slots=True)
class Options:
    """What a run is told: the address that is called, where we listen, how long an answer may take, in seconds."""

    address: str
    node: NodeEntry | DeskEntry
    listen: tuple[str, int] | None
    timeout_s: float
    tls: SSLContext | None


@asynccontextmanager
async def open_run(options: Options, member: Member, directory: Directory, clock: Clock) -> AsyncIterator[Run]:
    """Yield a run whose log stands where the node's does; raises OperatorError when that cannot be."""
    entry = options.node
    if member.id not in directory.nodes:
        raise OperatorError(f"The directory does not list the test member {member.id}.")
    country = entry.countries[0] if isinstance(entry, NodeEntry) and entry.countries else "AQ"
    speaker = QuietSpeaker(member.id, member.keys, entry.id, entry.base_url, country, clock.now)
    log = member.log(entry.id)
    async with open_session(timeout_s=options.timeout_s, tls=options.tls) as session:
        exchange = Exchange(session, entry.id, entry.base_url, options.address, directory, clock.now)
        run = Run(member, speaker, exchange, log, None)
        if isinstance(entry, NodeEntry):
            # A desk has no streams.
            try:
                await _find_place(run)
                run.limits = await _limits(run)
            except NoAnswer as nothing:
                raise OperatorError(f"The node cannot be asked: {nothing}.") from None
        exchange.answers.clear()
        async with _outcomes(options, run) as outcomes:
            run.outcomes = outcomes
            yield run


async def results(run: Run, checks: tuple[Check, ...], *, destructive: bool) -> AsyncIterator[Result]:
    """Yield the result of each check as it is made."""
    for number, check in enumerate(checks, start=1):
        yield await make(number, check, run, destructive=destructive)


async def _find_place(run: Run) -> None:
    """Take up our log where the node holds it."""
    answer = await run.get(own_stream(run))
    if answer.status != HTTPStatus.OK:
        # A node that holds nothing of ours; or one that answers badly, which the checks will tell.
        run.speaker.taken = []
        return
    try:
        covered = Checkpoint.parse(parse_note(answer.body).text)
        stream = StreamId.parse(covered.origin)
    except ProtocolError:
        run.speaker.taken = list(run.log.records)
        return
    run.speaker.epoch = stream.epoch
    ours = run.log.records[: covered.size]
    # That the root is ours too is for the checks to find: a batch that continues another log is refused, no more.
    run.speaker.taken = ours if len(ours) == covered.size else await _taken_back(run, covered)


async def _taken_back(run: Run, covered: Checkpoint) -> list[bytes]:
    """Return our own records as the node holds them, when our log does not reach so far; OperatorError if it cannot."""
    records: list[bytes] = []
    while len(records) < covered.size:
        answer = await run.get(f"/peer/v1/inbox/{run.member.id}/{run.speaker.epoch}?from={len(records)}")
        if answer.status != HTTPStatus.OK:
            break
        try:
            records += decode_batch(answer.body, bytes_max=len(answer.body))[1]
        except ProtocolError:
            break
    if Edge.EMPTY.extend(map(leaf_hash, records)).root() != covered.root:
        raise OperatorError(
            f"The node holds {covered.size} records of {run.member.id}, which {run.member.folder} does not, and does "
            "not give them back: make a new test member (--new-member)."
        )
    return records


async def _limits(run: Run) -> dict[str, int]:
    answer = await run.exchange.send(Request("GET", run.speaker.target_url + "/.well-known/hx-node", {}, b""))
    limits = answer.members().get("limits")
    return {name: value for name, value in limits.items() if type(value) is int} if isinstance(limits, dict) else {}


@asynccontextmanager
async def _outcomes(options: Options, run: Run) -> AsyncIterator[Outcomes]:
    if options.listen is None:
        yield Fetched(run.speaker, run.exchange, options.timeout_s)
        return
    directory, node_id, now = run.exchange.directory, run.exchange.node_id, run.speaker.now()
    inbox = Inbox(
        StreamId(node_id, run.member.id, 1),
        run.member.base_url,
        run.member.keys,
        [one.public for one in options.node.keys if one.use is KeyUse.HTTP],
        directory.verification_keys(node_id, KeyUse.STREAM, now),
        run.speaker.now,
    )
    try:
        await inbox.listen(options.listen)
    except OSError as error:
        raise OperatorError(f"The address of --listen cannot be had ({error.strerror}).") from None
    try:
        yield Delivered(inbox, options.timeout_s)
    finally:
        await inbox.close()
