"""Hands reports in through the API as a machine of the hotline would: again and again until it is answered."""

from dataclasses import dataclass, field
from typing import Any

import aiohttp

from tests.faults.station import Station, until
from tests.world import ADDRESS

_TAKEN = {200, 201}
_LATER = {503}


@dataclass(slots=True)
class Feed:
    """Numbered reports of distinct URLs, and the answers that came: item ids by the report's number."""

    station: Station
    country: str = "NL"
    qualified: bool = True
    handed_in: int = 0
    acknowledged: dict[int, str] = field(default_factory=dict)

    def _report(self, number: int) -> dict[str, Any]:
        said = {"url": f"http://{ADDRESS[self.country]}/page/{number}", "reference": f"{self.country}-{number:06}"}
        return {**said, "qualification": {"classification": "national"}} if self.qualified else said

    async def hand_in(self, count: int) -> None:
        """Hand `count` more reports in; returns when the node acknowledged them."""
        numbers = range(self.handed_in, self.handed_in + count)
        self.handed_in += count
        body = {"reports": [self._report(number) for number in numbers]}
        headers = {"Authorization": f"Bearer {self.station.key}"}

        async def taken() -> bool:
            try:
                async with self.station.session.post(
                    f"{self.station.api}/api/v1/reports", json=body, headers=headers
                ) as answer:
                    assert answer.status in _TAKEN | _LATER, await answer.text()
                    if answer.status in _LATER:
                        return False
                    reports = (await answer.json())["reports"]
            except aiohttp.ClientError:
                return False
            for number, one in zip(numbers, reports, strict=True):
                self.acknowledged[number] = one["items"][0]["id"]
            return True

        await until(taken, f"{self.station.id} takes reports in")
