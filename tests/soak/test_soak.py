"""The soak, short: four nodes over TLS for half a minute under every kind of fault, and everything accounted for."""

import asyncio
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.soak.run import Outcome, Plan, Soak
from tests.soak.site import build

_SEED = 7
_SECONDS = 30.0


@pytest.fixture
def outcome(tmp_path: Path, short_tmp: Path) -> Outcome:
    """What a short soak came to; its seed is fixed, the moments at which its faults strike are the machine's."""
    site = build(tmp_path, short_tmp, nodes=4, servers=2)
    try:
        plan = Plan(_SECONDS, _SEED, reports_per_s=20.0, gap_s=1.5)
        return asyncio.run(Soak(site, plan, lambda _: None).run())
    finally:
        for server in site.servers:
            server.stop()


@pytest.mark.timeout(900)
def test_everything_is_accounted_for_after_half_a_minute_of_faults(outcome: Outcome) -> None:
    shown = asdict(outcome)
    assert outcome.wrong == [], shown
    assert outcome.acknowledged > 50, shown
    assert outcome.records > outcome.acknowledged // 2, shown
    assert sum(outcome.faults.values()) >= 10, shown
    assert sum(outcome.hostile.values()) >= 20, shown
    assert outcome.refused > 0, shown
    assert sum(outcome.acts.values()) > 0, shown
