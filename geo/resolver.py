"""Resolves host names to addresses through configured servers, with a cache; says apart what is a fact and what is not.

"There is no such name" and "it has no address" are facts about the name. A timeout or SERVFAIL is none: try later.
It never asks a server it was not given and never tells a name in an exception.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address

from geo.dnstransport import DnsTransport, NoReplyError, Server
from geo.dnswire import (
    AAAA,
    CHAIN_MAX,
    A,
    Absent,
    Alias,
    Broken,
    Found,
    Labels,
    Step,
    labels_of,
    question_of,
    read_reply,
    text_of,
)
from geo.outcome import Answer, NoAddress, NoSuchName, Outcome, TemporaryFailure

_Question = tuple[Labels, int]
_Known = tuple[float, Step]
"""A step and the time until which it holds."""


@dataclass(frozen=True, slots=True)
class ResolverLimits:
    """Bounds of a resolver. Times in seconds."""

    timeout_s: float = 2.0  # of one try at one server
    rounds: int = 2  # through all servers
    lookup_timeout_s: float = 20.0  # of a whole lookup, aliases included
    names_in_flight_max: int = 256
    cache_entries_max: int = 200_000  # one a name and type, so half as many names
    ttl_min_s: int = 1
    ttl_max_s: int = 3_600
    negative_ttl_max_s: int = 900
    failure_ttl_s: int = 5  # RFC 9520 3.2: failures are cached, between 1 s and 5 min
    slow_server_s: float = 30.0  # a server that did not reply is asked last for so long
    ports_per_server: int = 8
    port_queries_max: int = 10_000


@dataclass(frozen=True, slots=True)
class _Missing:
    question: _Question


class Resolver:
    """Stub resolver over `servers`, (address, port) each, asked in this order. Used from one event loop."""

    def __init__(
        self, servers: Sequence[Server], *, now_s: Callable[[], float], limits: ResolverLimits | None = None
    ) -> None:
        """`now_s` is the clock of the cache, in seconds.

        Raises:
            ValueError: there is no server, or one is not an IP address and a port.
        """
        self._limits = limits or ResolverLimits()
        self._servers = tuple(_checked(server) for server in servers)
        if not self._servers:
            raise ValueError("a resolver needs at least one DNS server")
        self._now_s = now_s
        self._transport = DnsTransport(
            ports_per_server=self._limits.ports_per_server, port_queries_max=self._limits.port_queries_max
        )
        self._slots = asyncio.Semaphore(self._limits.names_in_flight_max)
        self._steps: OrderedDict[_Question, _Known] = OrderedDict()
        # What the steps of a name came to, so that a name asked for often is one look-up.
        self._outcomes: OrderedDict[str, tuple[float, Outcome]] = OrderedDict()
        self._asking: dict[_Question, asyncio.Task[_Known]] = {}
        self._slow_until: dict[Server, float] = {}

    @property
    def names_in_flight_max(self) -> int:
        """How many names are worked on at once; more wait."""
        return self._limits.names_in_flight_max

    def cached(self, name: str) -> Outcome | None:
        """What is known about a name without asking anybody, or None."""
        now = self._now_s()
        known = self._outcomes.get(name)
        if known is not None and known[0] > now:
            self._outcomes.move_to_end(name)
            return known[1]
        found = self._combined(labels_of(name), {}, now)
        if isinstance(found, list):
            return None
        return self._remember(name, found, now)

    async def lookup(self, name: str) -> Outcome:
        """All addresses of a name as `geo.host.parse_host` gives it. Never raises for what servers do."""
        known = self.cached(name)
        if known is not None:
            return known
        try:
            async with self._slots, asyncio.timeout(self._limits.lookup_timeout_s):
                return await self._lookup(name, labels_of(name))
        except TimeoutError:
            return TemporaryFailure("timeout", _server_text(self._servers[0]))

    def strays(self) -> int:
        """Datagrams received that answered nothing that was asked: a count that grows is a sign of forgery."""
        return self._transport.strays()

    async def close(self) -> None:
        """Give up what is in flight and close the sockets."""
        tasks = list(self._asking.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._transport.close()

    async def _lookup(self, name: str, labels: Labels) -> Outcome:
        # Steps of this lookup, cached or not: an answer of TTL 0 still counts for the lookup that asked.
        fresh: dict[_Question, _Known] = {}
        while True:
            now = self._now_s()
            found = self._combined(labels, fresh, now)
            if not isinstance(found, list):
                return self._remember(name, found, now)
            tasks = {question: self._ask_shared(question) for question in found}
            await asyncio.wait(tasks.values())  # which leaves the tasks running when this lookup is given up
            fresh.update({question: _result_of(task) for question, task in tasks.items()})

    def _remember(self, name: str, found: tuple[float, Outcome], now: float) -> Outcome:
        if found[0] > now:
            self._outcomes[name] = found
            self._outcomes.move_to_end(name)
            if len(self._outcomes) > self._limits.cache_entries_max // 2:
                self._outcomes.popitem(last=False)
        return found[1]

    def _combined(
        self, labels: Labels, fresh: dict[_Question, _Known], now: float
    ) -> tuple[float, Outcome] | list[_Question]:
        """What a name comes to and until when that holds, or the questions that are open."""
        v4, v6 = self._walk(labels, A, fresh, now), self._walk(labels, AAAA, fresh, now)
        if isinstance(v4, _Missing) or isinstance(v6, _Missing):
            return [walk.question for walk in (v4, v6) if isinstance(walk, _Missing)]
        return min(v4[0], v6[0]), _combine(v4[1], v6[1])

    def _walk(
        self, labels: Labels, rdtype: int, fresh: dict[_Question, _Known], now: float
    ) -> tuple[float, Outcome] | _Missing:
        """Follow the aliases through what is known, to an outcome for one type or to the question that is open."""
        chain: list[Labels] = []
        ttl_s = self._limits.ttl_max_s
        until = float("inf")
        name = labels
        while True:
            known = fresh.get((name, rdtype)) or self._from_cache((name, rdtype), now)
            if known is None:
                return _Missing((name, rdtype))
            until, step = min(until, known[0]), known[1]
            if isinstance(step, Broken):
                return until, TemporaryFailure(step.reason, step.server)
            chain.extend(step.chain)
            ttl_s = min(ttl_s, step.ttl_s or 0)
            outcome = _outcome_of(step, labels, chain, ttl_s)
            if outcome is not None:
                return until, outcome
            name = chain[-1]

    def _from_cache(self, question: _Question, now: float) -> _Known | None:
        known = self._steps.get(question)
        if known is None:
            return None
        if known[0] <= now:
            del self._steps[question]
            return None
        self._steps.move_to_end(question)
        return known

    def _keep(self, question: _Question, step: Step) -> _Known:
        limits, now = self._limits, self._now_s()
        if isinstance(step, Broken):
            ttl_s = limits.failure_ttl_s
        elif step.ttl_s is None:
            return now, step  # RFC 2308 5: a negative answer without SOA is not cached
        else:
            top = limits.negative_ttl_max_s if isinstance(step, Absent) else limits.ttl_max_s
            ttl_s = min(max(step.ttl_s, limits.ttl_min_s), top)
        self._steps[question] = known = (now + ttl_s, step)
        self._steps.move_to_end(question)
        if len(self._steps) > limits.cache_entries_max:
            self._steps.popitem(last=False)
        return known

    def _ask_shared(self, question: _Question) -> asyncio.Task[_Known]:
        task = self._asking.get(question)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._ask_and_keep(question))
            self._asking[question] = task
        return task

    async def _ask_and_keep(self, question: _Question) -> _Known:
        try:
            return self._keep(question, await self._ask(question))
        finally:
            del self._asking[question]

    async def _ask(self, question: _Question) -> Step:
        labels, rdtype = question
        wire = question_of(labels, rdtype)
        step: Step = Broken("timeout", server=_server_text(self._servers[0]))
        for _ in range(self._limits.rounds):
            for server in self._by_health():
                try:
                    step = await self._ask_one(server, wire, labels, rdtype)
                except NoReplyError as error:
                    self._slow_until[server] = self._now_s() + self._limits.slow_server_s
                    step = Broken(error.reason)
                else:
                    self._slow_until.pop(server, None)
                step = replace(step, server=_server_text(server))
                if not isinstance(step, Broken):
                    return step
        return step

    async def _ask_one(self, server: Server, wire: bytes, labels: Labels, rdtype: int) -> Step:
        timeout_s = self._limits.timeout_s
        reply = await self._transport.ask(server, wire, edns=True, timeout_s=timeout_s)
        step = read_reply(reply, labels, rdtype)
        if isinstance(step, Broken) and step.retry_plain:
            reply = await self._transport.ask(server, wire, edns=False, timeout_s=timeout_s)
            step = read_reply(reply, labels, rdtype)
        if isinstance(step, Broken) and step.truncated:
            reply = await self._transport.ask_tcp(server, wire, timeout_s=timeout_s)
            step = read_reply(reply, labels, rdtype)
        return step

    def _by_health(self) -> Iterable[Server]:
        now = self._now_s()
        return sorted(self._servers, key=lambda server: self._slow_until.get(server, now) > now)


def _outcome_of(step: Found | Alias | Absent, labels: Labels, chain: list[Labels], ttl_s: int) -> Outcome | None:
    """What the last step of a walk means, or None when its alias has to be followed."""
    links = tuple(text_of(link) for link in chain)
    if chain and len({labels, *chain}) != len(chain) + 1:
        return NoAddress(links, ttl_s, step.server, "cname-loop")
    if len(chain) > CHAIN_MAX:
        return NoAddress(links, ttl_s, step.server, "cname-too-long")
    if isinstance(step, Found):
        return Answer(step.addresses, links, ttl_s, step.server)
    if isinstance(step, Absent):
        if step.no_such_name:
            return NoSuchName(links, ttl_s, step.server)
        return NoAddress(links, ttl_s, step.server, "no-data")
    return None


def _result_of(task: asyncio.Task[_Known]) -> _Known:
    # A task is cancelled only when the resolver closes under a lookup.
    return (0.0, Broken("closed")) if task.cancelled() else task.result()


def _combine(v4: Outcome, v6: Outcome) -> Outcome:
    """One outcome of the two types. Nothing is stated as a fact unless both questions were answered."""
    if isinstance(v4, Answer) and isinstance(v6, Answer):
        # The two types may run through different aliases; all are kept, a relay may show in either.
        chain = tuple(dict.fromkeys((*v4.chain, *v6.chain)))
        addresses = (*sorted(set(v4.addresses)), *sorted(set(v6.addresses)))
        return Answer(addresses, chain, min(v4.ttl_s, v6.ttl_s), v4.server)
    for one, other in ((v4, v6), (v6, v4)):
        if isinstance(one, Answer):
            partial = other.reason if isinstance(other, TemporaryFailure) else None
            return replace(one, addresses=tuple(sorted(set(one.addresses))), partial=partial)
    for outcome in (v4, v6):
        if isinstance(outcome, TemporaryFailure):
            return outcome
    # "No such name" for one type and "no data" for the other contradict; the weaker statement is kept.
    for outcome in (v4, v6):
        if isinstance(outcome, NoAddress):
            return outcome
    return v4


def _checked(server: Server) -> Server:
    host, port = server
    try:
        address = ip_address(host)
    except ValueError:
        raise ValueError("a DNS server is given as an IP address and a port, not by name") from None
    if not 0 < port <= 65535:  # noqa: PLR2004 (the port range)
        raise ValueError("the port of a DNS server is between 1 and 65535")
    return str(address), port


def _server_text(server: Server) -> str:
    host, port = server
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
