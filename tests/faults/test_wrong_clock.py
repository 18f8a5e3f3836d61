"""A clock ten minutes wrong on one side: a clear alarm, a problem in the status, and no loss."""

from typing import Any

import pytest

from tests.faults.network import Network
from tests.faults.station import Station, until

_RECORDS = 60
_WRONG_S = 600.0


def _alarms(station: Station, action: str) -> list[dict[str, Any]]:
    return [
        line
        for line in station.lines()
        if (line["action"], line.get("code"), line["level"]) == (action, "clock-skew", "error")
    ]


@pytest.mark.parametrize("ahead_s", [_WRONG_S, -_WRONG_S])
@pytest.mark.parametrize("wrong", ["fr", "nl"])
async def test_a_wrong_clock_is_told_and_loses_nothing(network: Network, wrong: str, ahead_s: float) -> None:
    fr, nl, feed = network.fr, network.nl, network.feed
    station, other = (fr, nl) if wrong == "fr" else (nl, fr)
    worker = await station.start(clock_ahead_s=ahead_s)
    await other.start()
    await fr.serving()
    await feed.hand_in(_RECORDS)

    async def told() -> bool:
        contacts = (await fr.told())["peers"]
        return any(one["peer"] == nl.id and one["last_problem"] == "clock-skew" for one in contacts)

    await until(told, "the status tells of the clock")
    assert all(line["alarm"] for line in _alarms(fr, "deliver.failed"))
    assert _alarms(fr, "deliver.failed")
    assert _alarms(nl, "peer.refused")
    assert await nl.count("SELECT count(*) FROM inbox") == 0
    worker.terminate()
    assert await worker.ended() == 0
    await station.start()
    await network.settle()
    await network.check()
    assert (await fr.contact(nl.id))["last_problem"] is None
