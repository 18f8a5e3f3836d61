"""`hotline status`: what is stored and what the files say, whatever state they are in."""

import json

from node.settings import load_settings
from tests.cli.conftest import Hotline, NewHome, Signers
from tests.cli.test_init import sql

PEER = "de.hotline.example"


def test_what_needs_a_person_is_said(hotline: Hotline, new_home: NewHome, signers: Signers) -> None:
    home = new_home()

    def warnings() -> list[str]:
        said = hotline("--settings", home.settings, "status", "--json")
        assert (said.status, said.err) == (0, "")
        found: list[str] = json.loads(said.out)["warnings"]
        return found

    assert warnings() == ["Setting directory_root is not set: no directory can be trusted; `hotline join` sets it"]
    home.add(f'directory_root = "{signers.begin(home.data / "descriptor.json")}"')
    assert warnings() == [f"The folder {home.data}/directory holds no root of the pinned fingerprint"]
    database = load_settings(home.settings, {}).database_url
    sql(
        database,
        "INSERT INTO peers (node_id, last_heard_at, failures, retry_at, last_problem, clock_skew_s) "
        "VALUES ('de.hotline.example', now() - interval '2.5 h', 4, now() + interval '5.5 min', 'clock-skew', 610)",
    )
    assert warnings()[1:] == [f"The clock of {PEER} is 10 min ahead of ours; one of the two is wrong"]
    shown = hotline("--settings", home.settings, "status").out
    row = next(line for line in shown.splitlines() if PEER in line)
    assert [cell.strip() for cell in row.split("   ") if cell.strip()] == [
        PEER, "2 h ago", "never", "4", "5 min", "clock-skew", "10 min"
    ]  # fmt: skip
    assert shown.splitlines()[-1].startswith("WARNING: The clock of")


def test_an_old_geolocation_file_is_told(hotline: Hotline, new_home: NewHome) -> None:
    home = new_home()
    lines = home.settings.read_text().splitlines()
    home.settings.write_text("\n".join(line for line in lines if not line.startswith("geo_country_databases")))
    said = json.loads(hotline("--settings", home.settings, "geo", "status", "--json").out)
    assert [each["file"].rsplit("/", 1)[-1] for each in said["databases"]] == ["country.mmdb"]
    assert said["databases"][0]["age_days"] <= 45 or "country.mmdb" in said["warnings"][0]
