"""Which versions work together, and what a process that speaks a later one understands and says."""

import json
from collections.abc import Iterator

import pytest

from protocol import versions
from protocol.errors import ProtocolError
from protocol.record import parse_record
from protocol.versions import HX_1_0, Dialect, speak, speaks, works_with
from tests.protocol.sample_network import report


def _say(raw: bytes) -> bytes:
    return json.dumps({**json.loads(raw), "urgency": "high"}).encode()


LATER = Dialect(("1.0", "1.1"), frozenset({"urgency"}), frozenset({"summary"}), frozenset({"note"}), _say)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Iterator[Dialect]:
    """A process of 1.1, for one test."""
    monkeypatch.setattr(versions, "_speaks", HX_1_0)
    speak(LATER)
    yield LATER
    assert speaks() is LATER


def record(**members: object) -> bytes:
    return json.dumps({**json.loads(report()), **members}).encode()


def test_nodes_of_one_major_version_work_together() -> None:
    assert works_with(HX_1_0.spoken)
    assert works_with(("2.0", "1.7"))
    assert not works_with(("2.0", "11.0"))
    assert not works_with(())


@pytest.mark.parametrize("name", ["urgency", "body.summary"])
def test_what_1_0_does_not_know_it_refuses_where_it_must_be_understood(name: str) -> None:
    assert speaks() is HX_1_0
    with pytest.raises(ProtocolError, match="unknown-critical"):
        parse_record(record(crit=[name]))


def test_a_later_version_understands_and_says_more(later: Dialect) -> None:
    assert json.loads(report())["urgency"] == "high"
    for name in ("urgency", "body.summary", "body.url"):
        assert parse_record(record(crit=[name])).envelope.crit == (name,)
    for name in ("summary", "body.urgency", "note"):
        with pytest.raises(ProtocolError, match="unknown-critical"):
            parse_record(record(crit=[name]))
    # Of a body that is not read, no name is known.
    with pytest.raises(ProtocolError, match="unknown-critical"):
        parse_record(record(type="note", crit=["body.summary"]))
    with pytest.raises(RuntimeError, match="one version"):
        speak(later)
