"""`kill -9` of an import at each side of a commit: running it again completes it and adds nothing twice."""

import json
from pathlib import Path

from tests.faults.network import Network
from tests.faults.orders import Moment, Order
from tests.world import ADDRESS

_ROWS = 200
_ROWS_PER_COMMIT = 40


async def test_an_import_is_resumed(network: Network, tmp_path: Path) -> None:
    fr = network.fr
    rows = [{"url": f"http://{ADDRESS['NL']}/row/{number}"} for number in range(_ROWS)]
    file = tmp_path / "reports.ndjson"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {"import_rows_per_commit": _ROWS_PER_COMMIT}
    expected = 0
    for nth, moment in ((1, Moment.BEFORE), (1, Moment.AFTER), (2, Moment.BEFORE), (2, Moment.AFTER)):
        # Rows that are there already change nothing, so the count is of chunks that are new.
        order = Order(moment, "intake.store", nth)
        await fr.struck(await fr.start(kill=order, settings=settings, importing=file))
        expected += (nth if moment is Moment.AFTER else nth - 1) * _ROWS_PER_COMMIT
        assert await fr.count("SELECT count(*) FROM items") == min(expected, _ROWS)
    for _ in range(2):
        assert await (await fr.start(settings=settings, importing=file)).ended() == 0
        assert await fr.count("SELECT count(*) FROM items WHERE state = 'locating'") == _ROWS
        assert await fr.count("SELECT count(*) FROM cases") == _ROWS
        assert await fr.count("SELECT count(DISTINCT url_digest) FROM items") == _ROWS
    assert fr.unforeseen() == []
