"""The soak, short: three nodes and the coordinator under faults and ceremonies, and everything accounted for."""

import asyncio
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.soak.run import Outcome, Plan, Soak
from tests.soak.site import build, serving_databases

_SEED = 7
_SECONDS = 8.0


@pytest.fixture
def outcome(tmp_path: Path, short_tmp: Path) -> Outcome:
    """What a short soak came to; its seed is fixed, the moments at which its faults strike are the machine's."""
    with serving_databases(short_tmp, 1) as servers:
        site = build(tmp_path, servers, nodes=3)
        plan = Plan(_SECONDS, _SEED, reports_per_s=15.0, gap_s=1.5, ceremony_gap_s=0.5, ceremonies_min=1)
        return asyncio.run(Soak(site, plan, lambda _: None).run())


@pytest.mark.timeout(900)
def test_everything_is_accounted_for_after_faults_and_ceremonies(outcome: Outcome) -> None:
    shown = asdict(outcome)
    assert outcome.wrong == [], shown
    assert outcome.acknowledged > 20, shown
    assert outcome.records > outcome.acknowledged // 2, shown
    assert sum(outcome.faults.values()) >= 3, shown
    assert outcome.ceremonies["restore"] == 1, shown
    assert outcome.directory_version > 1, shown
    assert sum(outcome.hostile.values()) >= 5, shown
