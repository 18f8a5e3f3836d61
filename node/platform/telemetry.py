"""Logs and metrics of one process; never lets a URL into a line, a label or a traceback. Keeps no global state."""

import logging
import re
import sys
import traceback
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TextIO, TypeAlias
from urllib.parse import urlsplit

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector

Logger: TypeAlias = structlog.typing.FilteringBoundLogger

WITHHELD: Final = "[withheld]"
#: The keys that may carry an address of the network itself: a node's base address, never anything below it.
BASE_ADDRESS_KEYS: Final = frozenset({"base_url", "peer_base_url", "listen"})
_DEPTH_MAX: Final = 6
# A scheme, its percent-encoded or defanged spelling, a host or address with a path behind it, a scheme without slashes.
_URL_LIKE: Final = re.compile(
    r"://|%3a(?:%2f){2}|hxxp|\[\.\]"
    r"|(?:[\w-]{1,63}\.)+[^\W\d_][\w-]{0,62}\.?(?::\d+)?[/?]"
    r"|\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?/|\[[0-9a-f:.]+\](?::\d+)?/"
    r"|\b(?:javascript|data|mailto|magnet|ipfs):\S",
    re.IGNORECASE,
)
#: No id, code or sentence of ours is longer; what is, was filled from outside.
_TEXT_CHARS_MAX: Final = 1024
_TRANSACTION_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_BATCH_BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


def withhold(text: str) -> str:
    """Return `text`, or WITHHELD when any part of it looks like a URL; rather once too often than once too few."""
    return WITHHELD if len(text) > _TEXT_CHARS_MAX or _URL_LIKE.search(text) else text


def make_logger(level: str, form: str, stream: TextIO | None = None, **context: object) -> Logger:
    """Return a logger that writes one line an event to `stream` (standard error when None).

    `level` and `form` are the settings log_level and log_format; `context` stands in every line. Call it as
    `log.info("a constant sentence", action="deliver.batch", peer=node_id)`: values are ids and counts.
    """
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    )
    wrapped: Logger = structlog.wrap_logger(
        structlog.PrintLogger(stream or sys.stderr),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            name_exception,
            withhold_urls,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        cache_logger_on_first_use=True,
    )
    return wrapped.bind(**context)


def name_exception(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace `exc_info` by the type of the error and where it arose: its message could quote what was reported."""
    info = event.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()[1]
    if isinstance(info, tuple):
        info = info[1]
    if isinstance(info, BaseException):
        event["error"] = type(info).__name__
        event["at"] = place_of(info.__traceback__)
    return event


def place_of(trace: TracebackType | None) -> str:
    """Return the last frames of a traceback as `file:line function`, innermost first, without source or values."""
    frames = traceback.extract_tb(trace)[-4:]
    return " < ".join(f"{Path(each.filename).name}:{each.lineno} {each.name}" for each in reversed(frames))


def withhold_urls(_logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Put WITHHELD for every value, at any depth, that looks like a URL; the last guard, not a licence to log one."""
    return {key: _address(value) if key in BASE_ADDRESS_KEYS else _safe(value) for key, value in event.items()}


def _address(value: object) -> object:
    """Return a base address as it is, if it is no more than one."""
    try:
        parts = urlsplit(str(value))
        bare = not (parts.query or parts.fragment or parts.username) and parts.path in {"", "/"}
    except ValueError:
        bare = False
    return value if bare and isinstance(value, str) else _safe(value)


def _safe(value: object, depth: int = 0) -> object:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return withhold(value)
    if depth < _DEPTH_MAX:
        if isinstance(value, Mapping):
            return {withhold(str(key)): _safe(each, depth + 1) for key, each in value.items()}
        if isinstance(value, (list, tuple, set, frozenset)):
            return [_safe(each, depth + 1) for each in value]
    if isinstance(value, (bytes, bytearray, memoryview, BaseException)):
        # Bytes may be a record, and the text of a foreign error may quote anything.
        return f"[{type(value).__name__}]"
    return withhold(str(value))


class LibraryLogs(logging.Handler):
    """Takes what libraries log through `logging` into our log: who, where and which error, never their words.

    A library's sentence may quote a request, filled in or not: asyncio joins its sentence before it logs it.
    """

    def __init__(self, logger: Logger) -> None:
        """Hand everything from warnings upwards to `logger`."""
        super().__init__(logging.WARNING)
        self._log = logger

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record as one line."""
        self._log.log(
            record.levelno,
            "a library reports",
            action="library.log",
            library=record.name,
            place=f"{record.filename}:{record.lineno}",
            exc_info=record.exc_info,
        )


def route_library_logs(logger: Logger) -> None:
    """Make `logger` the only place where this process's libraries and Python's warnings are heard; call it once."""
    logging.basicConfig(handlers=[LibraryLogs(logger)], level=logging.WARNING, force=True)
    logging.captureWarnings(capture=True)


def _registry() -> CollectorRegistry:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry


@dataclass(frozen=True, slots=True)
class Metrics:
    """Every metric of a node, made by `Metrics.create`; labels are node ids, codes and names of ours."""

    registry: CollectorRegistry
    reports_received: Counter
    items_received: Counter
    duplicates: Counter
    items_located: Counter
    records_sent: Counter
    records_received: Counter
    receipts: Counter
    batches: Counter
    problems: Counter
    intake_rejected: Counter
    http_requests: Counter
    connections_cut: Counter
    queue_depth: Gauge
    peer_last_contact_seconds: Gauge
    peer_backoff_seconds: Gauge
    peer_clock_skew_seconds: Gauge
    stream_differences: Gauge
    equivocations: Gauge
    relay_failures: Gauge
    items_out_of_reach: Gauge
    database_age_days: Gauge
    loop_errors: Counter
    directory_age_seconds: Gauge
    directory_fresh_seconds: Gauge
    directory_state: Gauge
    directory_expires_seconds: Gauge
    desk_cases: Gauge
    desk_refusals: Gauge
    transaction_seconds: Histogram
    intake_seconds: Histogram
    delivery_batch_seconds: Histogram
    http_seconds: Histogram

    @classmethod
    def create(cls) -> "Metrics":
        """Return the metrics in a registry of their own, so that two processes or tests never share a count."""
        registry = _registry()
        made: dict[str, Any] = {"registry": registry}
        for name, (kind, doc, labels, extra) in _METRICS.items():
            made[name] = kind(name, doc, labels, namespace="hotline", registry=registry, **extra)
        return cls(**made)

    def render(self) -> bytes:
        """Return all of it in the Prometheus text format."""
        return generate_latest(self.registry)


_METRICS: Final[Mapping[str, tuple[Any, str, tuple[str, ...], Mapping[str, Any]]]] = {
    "reports_received": (Counter, "Reports taken in.", (), {}),
    "items_received": (Counter, "Content items taken in, duplicates not counted.", (), {}),
    "duplicates": (Counter, "Content items that were known already.", (), {}),
    "items_located": (Counter, "Items located, by kind of verdict.", ("kind",), {}),
    "records_sent": (Counter, "Records a peer has receipted.", ("peer",), {}),
    "records_received": (Counter, "Records taken from a peer.", ("peer",), {}),
    "receipts": (Counter, "Receipts of a peer that were verified and stored.", ("peer",), {}),
    "batches": (Counter, "Batches sent to a peer, by outcome.", ("peer", "outcome"), {}),
    "problems": (Counter, "Protocol problems, by code and direction.", ("code", "direction"), {}),
    "intake_rejected": (Counter, "Reports refused at intake, by reason.", ("reason",), {}),
    "http_requests": (Counter, "Requests answered, by route template.", ("route", "method", "status"), {}),
    "connections_cut": (Counter, "Connections closed over a limit, by reason.", ("reason",), {}),
    "queue_depth": (Gauge, "Rows waiting in a queue.", ("queue",), {}),
    "peer_last_contact_seconds": (Gauge, "Seconds since a peer last gave a receipt.", ("peer",), {}),
    "peer_backoff_seconds": (Gauge, "Seconds until the next attempt to reach a peer.", ("peer",), {}),
    "peer_clock_skew_seconds": (Gauge, "Seconds a peer's clock is ahead of ours.", ("peer",), {}),
    "stream_differences": (Gauge, "Differences between the two sides of streams.", ("peer", "kind"), {}),
    "equivocations": (Gauge, "Proofs that a peer told two stories.", ("peer",), {}),
    "relay_failures": (Gauge, "Records that a peer never receipted and that were given up.", ("peer", "code"), {}),
    "items_out_of_reach": (Gauge, "Items we reported, with hotlines that are no members.", ("peer", "code"), {}),
    "loop_errors": (Counter, "Rounds of a loop that failed.", ("loop",), {}),
    "database_age_days": (Gauge, "Age of a geolocation database, by file name.", ("file",), {}),
    "directory_age_seconds": (Gauge, "Age of the membership directory.", (), {}),
    "directory_fresh_seconds": (Gauge, "Seconds until the directory stops being fresh, negative afterwards.", (), {}),
    "directory_state": (Gauge, "1 for the state the directory is in.", ("state",), {}),
    "directory_expires_seconds": (Gauge, "Seconds until a part that people sign expires.", ("part",), {}),
    "desk_refusals": (Gauge, "Disputes and contradictions that the desk refuses for good.", ("kind", "code"), {}),
    "desk_cases": (Gauge, "Cases that wait for a person at the desk.", ("kind",), {}),
    "transaction_seconds": (Histogram, "Time of a named transaction.", ("name",), {"buckets": _TRANSACTION_BUCKETS_S}),
    "intake_seconds": (
        Histogram,
        "Time from a report's arrival to its durable answer.",
        (),
        {"buckets": _TRANSACTION_BUCKETS_S},
    ),
    "delivery_batch_seconds": (
        Histogram,
        "Time from sending a batch to the answer.",
        (),
        {"buckets": _BATCH_BUCKETS_S},
    ),
    "http_seconds": (
        Histogram,
        "Time to answer a request, by route template.",
        ("route",),
        {"buckets": _TRANSACTION_BUCKETS_S},
    ),
}
