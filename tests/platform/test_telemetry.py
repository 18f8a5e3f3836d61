"""Logs and metrics: what is written, and what is withheld."""

import asyncio
import io
import json
import logging
import warnings
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.platform.telemetry import (
    WITHHELD,
    Logger,
    Metrics,
    make_logger,
    route_library_logs,
    withhold,
)


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def log(stream: io.StringIO) -> Logger:
    return make_logger("info", "json", stream, node="fr.hotline.example")


@pytest.fixture
def library_logs(log: Logger) -> Iterator[None]:
    """Library logs routed for one test only."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers = []
    route_library_logs(log)
    yield
    logging.captureWarnings(capture=False)
    root.handlers = before
    root.setLevel(level)


def fail() -> None:
    """Raise an error whose text quotes what was reported."""
    raise ValueError("the page https://files.example/a is bad")


def written(stream: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_has_its_context_action_and_ids(log: Logger, stream: io.StringIO) -> None:
    log.info("a batch was delivered", action="deliver.batch", peer="nl.hotline.example", records=1000)
    log.debug("too fine", action="x")
    (line,) = written(stream)
    assert line.pop("time")
    assert line == {
        "event": "a batch was delivered",
        "level": "info",
        "action": "deliver.batch",
        "node": "fr.hotline.example",
        "peer": "nl.hotline.example",
        "records": 1000,
    }


@pytest.mark.parametrize(
    "text",
    [
        "https://files.example/a",
        "reported HTTP://FILES.EXAMPLE",
        "files.example/a",
        "files.example:8080/a",
        "files.example?x=1",
        "files.example./a",
        "bücher.example/a",
        "http%3A%2F%2Ffiles.example%2Fa",
        "hxxps files",
        "files[.]example",
        "192.0.2.1/a",
        "[2001:db8::1]:80/a",
        "javascript:alert",
        "magnet:?xt=urn",
        "x" * 2000,
    ],
)
def test_what_looks_like_a_url_is_withheld_wherever_it_stands(log: Logger, stream: io.StringIO, text: str) -> None:
    log.warning(
        text, action="x", value=text, deep={"a": [text, (text,)], text: 1}, odd=ValueError(text), raw=text.encode()
    )
    (line,) = written(stream)
    assert text not in stream.getvalue()
    assert line["event"] == line["value"] == WITHHELD
    assert line["deep"] == {"a": [WITHHELD, [WITHHELD]], WITHHELD: 1}
    assert (line["odd"], line["raw"]) == ("[ValueError]", "[bytes]")


@pytest.mark.parametrize(
    "text",
    [
        "fr.hotline.example",
        "2026-11-22T16:00:00.000Z",
        "019376a0-5c00-7000-8000-000000000001",
        "stream-gap",
        "country.mmdb",
        "127.0.0.1:8701",
        "hx/1/fr.hotline.example",
        "a sentence. With two parts",
        "web.py:12 handler < routes.py:5 call",
    ],
)
def test_ids_codes_and_sentences_pass(text: str) -> None:
    assert withhold(text) == text or text.startswith("hx/")


@given(
    st.text(max_size=30),
    st.from_regex(r"[a-z]{2,8}://[a-z]{1,10}\.example/[a-z]{1,5}", fullmatch=True),
    st.text(max_size=30),
)
def test_no_surroundings_hide_a_url(before: str, url: str, after: str) -> None:
    assert withhold(before + url + after) == WITHHELD


def test_a_nodes_base_address_passes_and_nothing_below_it(log: Logger, stream: io.StringIO) -> None:
    log.info("calling", action="x", peer_base_url="https://nl.hotline.example:8701")
    log.info("calling", action="x", peer_base_url="https://files.example/a")
    log.info("calling", action="x", peer_base_url="https://files.example/?a")
    log.info("calling", action="x", peer_base_url="https://[files.example")
    values = [line["peer_base_url"] for line in written(stream)]
    assert values == ["https://nl.hotline.example:8701", WITHHELD, WITHHELD, WITHHELD]


def test_an_error_is_named_and_placed_and_not_quoted(log: Logger, stream: io.StringIO) -> None:
    try:
        fail()
    except ValueError as error:
        log.exception("a step failed", action="x")
        log.warning("a step failed", action="x", exc_info=error)
        log.warning("a step failed", action="x", exc_info=(type(error), error, error.__traceback__))
    lines = written(stream)
    assert len(lines) == 3
    for line in lines:
        assert line["error"] == "ValueError"
        assert str(line["at"]).startswith("test_telemetry.py:")
        assert "bad" not in json.dumps(line)


def test_text_for_a_terminal_withholds_as_well(stream: io.StringIO) -> None:
    log = make_logger("debug", "text", stream)
    try:
        fail()
    except ValueError:
        log.exception("a step failed", action="x", page="https://files.example/a")
    assert "a step failed" in stream.getvalue()
    assert "files.example" not in stream.getvalue()


@pytest.mark.usefixtures("library_logs")
def test_a_librarys_words_stay_out(stream: io.StringIO) -> None:
    logging.getLogger("aiohttp.server").warning("bad request line %s", "GET https://files.example/a")
    logging.getLogger("asyncio").error("Task failed with ValueError('https://files.example/a')")
    logging.getLogger("quiet").info("fine")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("https://files.example/a is odd", stacklevel=1)
    lines = written(stream)
    assert [line["library"] for line in lines] == ["aiohttp.server", "asyncio", "py.warnings"]
    assert "files.example" not in stream.getvalue()


@pytest.mark.usefixtures("library_logs")
async def test_what_asyncio_reports_of_a_lost_task_is_placed_and_not_quoted(stream: io.StringIO) -> None:
    try:
        fail()
    except ValueError as error:
        asyncio.get_running_loop().call_exception_handler({"message": str(error), "exception": error})
    (line,) = written(stream)
    assert (line["library"], line["error"]) == ("asyncio", "ValueError")
    assert "files.example" not in stream.getvalue()


def test_metrics_are_each_processs_own() -> None:
    one, other = Metrics.create(), Metrics.create()
    one.records_sent.labels("nl.hotline.example").inc(5)
    one.queue_depth.labels("locate").set(7)
    one.transaction_seconds.labels("deliver.receipt").observe(0.003)
    text = one.render().decode()
    assert 'hotline_records_sent_total{peer="nl.hotline.example"} 5.0' in text
    assert 'hotline_queue_depth{queue="locate"} 7.0' in text
    assert 'hotline_transaction_seconds_count{name="deliver.receipt"} 1.0' in text
    assert "process_resident_memory_bytes" in text
    assert 'peer="nl.hotline.example"' not in other.render().decode()
