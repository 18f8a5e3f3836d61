"""The membership directory: which nodes there are, and which of their keys count when; never fetched or stored here.

It travels as the target `directory.json` of TUF metadata (PROTOCOL section 2); what vouches for it is not known here.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from types import MappingProxyType
from typing import Final

import msgspec

from protocol.checkpoint import check_node_id
from protocol.codes import COUNTRIES, Delivery, NodeState
from protocol.errors import ProtocolError
from protocol.keys import Algorithm, KeyState, KeyUse, PublicKey
from protocol.note import decode_base64
from protocol.strictjson import loads, typed
from protocol.timestamps import parse_time

VERSION: Final = 1
# A full set of keys takes 4.6 KiB, and stays listed when the next one serves: 36 sets of each of 200 nodes.
DIRECTORY_BYTES_MAX: Final = 32 * 1024 * 1024

NODES_MAX: Final = 1000
# 51 full sets.
KEYS_MAX: Final = 256
WEIGHT_MAX: Final = 1_000_000
_NAME_CHARS_MAX: Final = 200

# What a node signs with; `enc` and `authority` keys have no place in this document.
_NODE_USES: Final = frozenset({KeyUse.HTTP, KeyUse.STREAM, KeyUse.RECEIPT, KeyUse.WITNESS})
# Without these a node can neither speak, send nor acknowledge.
_REQUIRED_USES: Final = (KeyUse.HTTP, KeyUse.STREAM, KeyUse.RECEIPT)
# What the desk answers and rules with.
_DESK_USES: Final = frozenset({KeyUse.HTTP, KeyUse.DESK})
_DESK_ALGORITHMS: Final = ((KeyUse.HTTP, Algorithm.ED25519), *((KeyUse.DESK, one) for one in Algorithm))
_PROTOCOL_VERSION: Final = re.compile("[0-9]{1,4}[.][0-9]{1,4}")
# Scheme and host, perhaps a port, and nothing behind: it is compared with and put before paths as text.
_BASE_URL: Final = re.compile(
    r"https?://(?:[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?|\[[0-9a-f:.]{2,45}\])(?::(?P<port>[0-9]{1,5}))?",
)
_LIMIT_NAME: Final = re.compile("[a-z][a-z0-9_]{0,63}")
_CONTROL: Final = re.compile("[\x00-\x1f\x7f]")
_PORT_MAX: Final = 65535


class DirectoryInvalid(Exception):  # noqa: N818 -- names the fact, as SignatureInvalid does
    """The directory document breaks a rule; `field` is the path of the member at fault, as `nodes[1].base_url`."""

    def __init__(self, field: str, reason: str) -> None:
        """Say which member and why."""
        super().__init__(f"{field}: {reason}" if field else reason)
        self.field = field
        self.reason = reason


@dataclass(frozen=True, slots=True)
class DirectoryKey:
    """One key of a node, with its window (PROTOCOL section 1). Raises DirectoryInvalid, the field relative to it.

    An active key counts from `not_before` on, a retired one until `retired_at`; `next` ones do not count yet.
    """

    use: KeyUse
    public: PublicKey
    state: KeyState
    not_before: datetime
    retired_at: datetime | None = None
    compromised_since: datetime | None = None
    _window: tuple[datetime, datetime | None] | None = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Refuse a state without its date, and a use that has no place here."""
        if self.use not in _NODE_USES | _DESK_USES:
            raise DirectoryInvalid("use", "no node has a key of this use here")
        if self.retired_at is None:
            if self.state is KeyState.RETIRED:
                raise DirectoryInvalid("retired_at", "a retired key says since when")
        elif self.state not in {KeyState.RETIRED, KeyState.COMPROMISED}:
            raise DirectoryInvalid("retired_at", "a key that is not retired has no such time")
        elif self.retired_at < self.not_before:
            raise DirectoryInvalid("retired_at", "the key was retired before it began to count")
        if (self.compromised_since is None) is (self.state is KeyState.COMPROMISED):
            raise DirectoryInvalid("compromised_since", "a compromised key says since when, and no other")
        ends = [end for end in (self.retired_at, self.compromised_since) if end is not None]
        window = None if self.state is KeyState.NEXT else (self.not_before, min(ends, default=None))
        object.__setattr__(self, "_window", window)

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm, which is the key's own."""
        return self.public.algorithm

    def window(self) -> tuple[datetime, datetime | None] | None:
        """Return from when until before when the key was good, the end None while it is; None for a `next` key."""
        return self._window

    def good_at(self, at: datetime) -> bool:
        """Say whether the key was good at a time that is proven; also for one that was compromised later."""
        window = self.window()
        return window is not None and window[0] <= at and (window[1] is None or at < window[1])

    def counts_at(self, at: datetime) -> bool:
        """Say whether the key counts; a compromised one never does, for its thief may write any time."""
        return self.state is not KeyState.COMPROMISED and self.good_at(at)


@dataclass(frozen=True, slots=True)
class NodeEntry:
    """One member. Raises DirectoryInvalid, the field relative to it.

    `countries` are ISO 3166 alpha-2 codes, the first the home of what is assigned by mandate; `base_url` is scheme
    and host; `weight` is its share where a country has several hotlines; `contact` is for people. A node whose
    `delivery` is PULL cannot be called from outside: nobody sends to it, it fetches what is said to it.
    """

    id: str
    countries: tuple[str, ...]
    name: str
    base_url: str
    versions: tuple[str, ...]
    limits: Mapping[str, int] = field(hash=False)
    state: NodeState
    weight: int
    keys: tuple[DirectoryKey, ...]
    contact: str
    delivery: Delivery = Delivery.PUSH

    def __post_init__(self) -> None:
        """Refuse what no member can be."""
        try:
            check_node_id(self.id, field="id")
        except ProtocolError as error:
            raise DirectoryInvalid("id", error.detail) from None
        _check_countries(self.countries)
        _check_line(self.name, "name")
        _check_line(self.contact, "contact")
        _check_base_url(self.base_url)
        if not self.versions or not all(map(_PROTOCOL_VERSION.fullmatch, self.versions)):
            raise DirectoryInvalid("versions", "this is not a list of protocol versions as 1.0")
        for name, limit in self.limits.items():
            if not _LIMIT_NAME.fullmatch(name) or limit < 0:
                raise DirectoryInvalid("limits", "a limit has a name in lower case and is not negative")
        if not 0 <= self.weight <= WEIGHT_MAX:
            raise DirectoryInvalid("weight", f"the weight is from 0 to {WEIGHT_MAX}")
        self._check_keys()

    def _check_keys(self) -> None:
        _check_keys(self.keys, _NODE_USES)
        if self.state is NodeState.ACTIVE:
            for use in _REQUIRED_USES:
                if not any(key.use is use and key.state is KeyState.ACTIVE for key in self.keys):
                    raise DirectoryInvalid("keys", f"an active node has an active {use} key")


@dataclass(frozen=True, slots=True)
class DeskEntry:
    """The network's desk, which is no member. Raises DirectoryInvalid, the field relative to it.

    `base_url` is scheme and host; its `http` keys sign its answers, its `desk` keys, of both algorithms, its rulings.
    """

    id: str
    base_url: str
    keys: tuple[DirectoryKey, ...]

    def __post_init__(self) -> None:
        """Refuse what no desk can be."""
        try:
            check_node_id(self.id, field="id")
        except ProtocolError as error:
            raise DirectoryInvalid("id", error.detail) from None
        _check_base_url(self.base_url)
        _check_keys(self.keys, _DESK_USES)
        for use, algorithm in _DESK_ALGORITHMS:
            if not any((key.use, key.algorithm, key.state) == (use, algorithm, KeyState.ACTIVE) for key in self.keys):
                raise DirectoryInvalid("keys", f"a desk has an active {use} key ({algorithm})")


@dataclass(frozen=True, slots=True)
class Directory:
    """All members and the routing among them, as one version says it. Raises DirectoryInvalid.

    `mandated` hotlines take what is hosted where there is none; `desk` settles disputes, and is none of the nodes.
    """

    version: int
    issued_at: datetime
    nodes: Mapping[str, NodeEntry]
    mandated: tuple[str, ...] = ()
    desk: DeskEntry | None = None
    _http: Mapping[str, tuple[NodeEntry | DeskEntry, DirectoryKey]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check what concerns several members, and index the keys that sign requests."""
        if self.version < 1:
            raise DirectoryInvalid("version", "versions count from 1")
        if len(self.nodes) > NODES_MAX:
            raise DirectoryInvalid("nodes", f"there are more than {NODES_MAX} nodes")
        for number, node_id in enumerate(self.mandated):
            if node_id not in self.nodes:
                raise DirectoryInvalid(f"routing.mandated[{number}]", "there is no such node")
        if len(set(self.mandated)) != len(self.mandated):
            raise DirectoryInvalid("routing.mandated", "a node occurs twice")
        if self.desk is not None and self.desk.id in self.nodes:
            raise DirectoryInvalid("routing.desk.id", "a node has this id")
        object.__setattr__(self, "nodes", MappingProxyType(dict(self.nodes)))
        object.__setattr__(self, "_http", MappingProxyType(_index_keys(self.nodes.values(), self.desk)))

    def verification_keys(self, node: str, use: KeyUse, at: datetime) -> tuple[PublicKey, ...]:
        """Return the keys of a node that count for what is received at `at`; every one of them must have signed.

        At most one of each algorithm for `stream`, `receipt` and `witness`. Empty for an unknown node or where none
        counts, which proves nothing: `protocol.cosignature` refuses to verify with no key.
        """
        return tuple(key.public for key in self._keys(node, use) if key.counts_at(at))

    def keys_good_at(self, node: str, use: KeyUse, at: datetime) -> tuple[DirectoryKey, ...]:
        """Return the keys that were good at `at`, those compromised later included.

        Only where `at` is proven by a signature of somebody else (PROTOCOL section 1: a compromised key's signature
        counts only for checkpoints cosigned before).
        """
        return tuple(key for key in self._keys(node, use) if key.good_at(at))

    def http_key(self, keyid: str, at: datetime) -> tuple[str, PublicKey]:
        """Return the node, or the desk, and the key that a `keyid` (RFC 7638 thumbprint) names, in constant time.

        Raises ProtocolError `unknown-key` for one that is not listed or does not count yet, `key-revoked` for one
        that is retired or compromised, or whose node has left or is suspended.
        """
        found = self._http.get(keyid)
        if found is None:
            raise ProtocolError("unknown-key", "no node of the directory has this key", field="keyid")
        node, key = found
        if isinstance(node, NodeEntry) and node.state in {NodeState.LEFT, NodeState.SUSPENDED}:
            raise ProtocolError("key-revoked", "the key's node is not a member at present", field="keyid")
        if key.state is KeyState.COMPROMISED or (key.retired_at is not None and at >= key.retired_at):
            raise ProtocolError("key-revoked", f"the key is {key.state}", field="keyid")
        if not key.counts_at(at):
            raise ProtocolError("unknown-key", "the key does not count yet", field="keyid")
        return node.id, key.public

    def _keys(self, node: str, use: KeyUse) -> Iterable[DirectoryKey]:
        entry = self.entry(node)
        return () if entry is None else (key for key in entry.keys if key.use is use)

    def left(self) -> frozenset[str]:
        """Return the nodes that have left the network, which nothing is sent to any more."""
        return frozenset(node.id for node in self.nodes.values() if node.state is NodeState.LEFT)

    def fetching(self) -> frozenset[str]:
        """Return the members that cannot be called and fetch what is for them; no two of them reach each other."""
        pull = (node for node in self.nodes.values() if node.delivery is Delivery.PULL)
        return frozenset(node.id for node in pull if node.state is not NodeState.LEFT)

    def entry(self, node: str) -> NodeEntry | DeskEntry | None:
        """Return the node, or the desk, of this id."""
        found = self.nodes.get(node)
        return self.desk if found is None and self.desk is not None and self.desk.id == node else found


def _index_keys(
    nodes: Iterable[NodeEntry], desk: DeskEntry | None
) -> dict[str, tuple[NodeEntry | DeskEntry, DirectoryKey]]:
    """Return `http` keys by thumbprint; raises DirectoryInvalid for a key that occurs twice, whatever its use."""
    seen: set[PublicKey] = set()
    index: dict[str, tuple[NodeEntry | DeskEntry, DirectoryKey]] = {}
    named: list[tuple[str, NodeEntry | DeskEntry]] = [(f"nodes[{number}]", node) for number, node in enumerate(nodes)]
    for path, entry in named if desk is None else [*named, ("routing.desk", desk)]:
        for number, key in enumerate(entry.keys):
            if key.public in seen:
                field = f"{path}.keys[{number}].public"
                raise DirectoryInvalid(field, "this key serves another use or another node already")
            seen.add(key.public)
            if key.use is KeyUse.HTTP:
                index[key.public.thumbprint()] = (entry, key)
    return index


def _check_keys(keys: Sequence[DirectoryKey], uses: frozenset[KeyUse]) -> None:
    """Require the uses of whoever has these keys, and one key at a time where every key that counts must sign."""
    if len(keys) > KEYS_MAX:
        raise DirectoryInvalid("keys", f"there are more than {KEYS_MAX} keys")
    for number, key in enumerate(keys):
        if key.use not in uses:
            raise DirectoryInvalid(f"keys[{number}].use", "whoever this is has no key of this use")
    for use in uses - {KeyUse.HTTP}:
        for algorithm in Algorithm:
            _check_windows(keys, use, algorithm)


def _check_windows(keys: Sequence[DirectoryKey], use: KeyUse, algorithm: Algorithm) -> None:
    """Require one key at a time: every key that counts must sign, and nobody signs with two."""
    windows = []
    for number, key in enumerate(keys):
        window = key.window()
        if window is not None and key.use is use and key.algorithm is algorithm:
            windows.append((window[0], number, window[1]))
    for (_, _, end), (begin, number, _) in pairwise(sorted(windows, key=lambda one: one[:2])):
        if end is None or begin < end:
            raise DirectoryInvalid(f"keys[{number}].not_before", f"two {use} keys of one algorithm overlap in time")


def _check_countries(countries: tuple[str, ...]) -> None:
    for number, country in enumerate(countries):
        if country not in COUNTRIES:
            raise DirectoryInvalid(f"countries[{number}]", "this is no country code that ISO 3166 has assigned")
    if len(set(countries)) != len(countries):
        raise DirectoryInvalid("countries", "a country occurs twice")


def _check_line(text: str, field: str) -> None:
    if not 1 <= len(text) <= _NAME_CHARS_MAX or _CONTROL.search(text):
        raise DirectoryInvalid(field, f"this is not one line of 1 to {_NAME_CHARS_MAX} characters")


def _check_base_url(base_url: str) -> None:
    match = _BASE_URL.fullmatch(base_url)
    if match is None:
        raise DirectoryInvalid("base_url", "this is not http(s), a host in lower case and perhaps a port, alone")
    if match["port"] is not None and not 1 <= int(match["port"]) <= _PORT_MAX:
        raise DirectoryInvalid("base_url", f"a port is from 1 to {_PORT_MAX}")


class _Key(msgspec.Struct, frozen=True):
    use: KeyUse
    algorithm: Algorithm
    public: str
    state: KeyState
    not_before: str
    retired_at: str | None = None
    compromised_since: str | None = None


class _Node(msgspec.Struct, frozen=True):
    id: str
    countries: tuple[str, ...]
    name: str
    base_url: str
    versions: tuple[str, ...]
    limits: dict[str, int]
    state: NodeState
    weight: int
    keys: tuple[_Key, ...]
    contact: str
    delivery: Delivery = Delivery.PUSH


class _Desk(msgspec.Struct, frozen=True):
    id: str
    base_url: str
    keys: tuple[_Key, ...]


class _Routing(msgspec.Struct, frozen=True):
    mandated: tuple[str, ...]
    desk: _Desk | None


class _Document(msgspec.Struct, frozen=True):
    v: int
    version: int
    issued_at: str
    nodes: tuple[_Node, ...]
    routing: _Routing


def parse_directory(document: bytes) -> Directory:
    """Return the directory a document describes; members it does not know are passed over.

    Raises DirectoryInvalid, its field the path of the member at fault.
    """
    try:
        parsed = typed(loads(document, bytes_max=DIRECTORY_BYTES_MAX), _Document)
        issued_at = parse_time(parsed.issued_at, field="issued_at")
    except ProtocolError as error:
        raise DirectoryInvalid(error.field or "", error.detail) from None
    if parsed.v != VERSION:
        raise DirectoryInvalid("v", "this version of the document is not known here")
    nodes: dict[str, NodeEntry] = {}
    for number, node in enumerate(parsed.nodes):
        if node.id in nodes:
            raise DirectoryInvalid(f"nodes[{number}].id", "another node has this id")
        nodes[node.id] = _entry(node, f"nodes[{number}]")
    routing = parsed.routing
    desk = None if routing.desk is None else _desk(routing.desk, "routing.desk")
    return Directory(parsed.version, issued_at, nodes, routing.mandated, desk)


def _desk(desk: _Desk, path: str) -> DeskEntry:
    keys = tuple(_key(key, f"{path}.keys[{number}]") for number, key in enumerate(desk.keys))
    try:
        return DeskEntry(desk.id, desk.base_url, keys)
    except DirectoryInvalid as error:
        raise DirectoryInvalid(f"{path}.{error.field}", error.reason) from None


def _entry(node: _Node, path: str) -> NodeEntry:
    keys = tuple(_key(key, f"{path}.keys[{number}]") for number, key in enumerate(node.keys))
    try:
        return NodeEntry(
            id=node.id,
            countries=node.countries,
            name=node.name,
            base_url=node.base_url,
            versions=node.versions,
            limits=MappingProxyType(node.limits),
            state=node.state,
            weight=node.weight,
            keys=keys,
            contact=node.contact,
            delivery=node.delivery,
        )
    except DirectoryInvalid as error:
        raise DirectoryInvalid(f"{path}.{error.field}", error.reason) from None


def _key(key: _Key, path: str) -> DirectoryKey:
    def when(text: str | None, field: str) -> datetime | None:
        return None if text is None else parse_time(text, field=field)

    try:
        return DirectoryKey(
            use=key.use,
            public=PublicKey(key.algorithm, decode_base64(key.public, field="public")),
            state=key.state,
            not_before=parse_time(key.not_before, field="not_before"),
            retired_at=when(key.retired_at, "retired_at"),
            compromised_since=when(key.compromised_since, "compromised_since"),
        )
    except ProtocolError as error:
        raise DirectoryInvalid(f"{path}.{error.field}", error.detail) from None
    except DirectoryInvalid as error:
        raise DirectoryInvalid(f"{path}.{error.field}", error.reason) from None
