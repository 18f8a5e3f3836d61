"""Two nodes over TLS with a certificate asked of each caller: the whole chain, and a renewed certificate."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.certificates import Authority, replace
from tests.hotline.network import ILLEGAL, eventually, station
from tests.hotline.test_exchange import told
from tests.moves.chain import arrived
from tests.ports import free_port
from tests.world import ADDRESS, World


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def secured(tmp_path: Path, new_database: Callable[[], str], authority: Authority) -> World:
    """France and the Netherlands, each asking callers for a certificate of the authority."""
    made = World(tmp_path, new_database)
    for country in ("FR", "NL"):
        port = free_port()
        made.add(
            country,
            base_url=f"https://localhost:{port}",
            listen_peer=f"127.0.0.1:{port}",
            **authority.issue(country).settings(),
            peer_tls_ca_file=str(authority.file),
            peer_tls_client_ca_file=str(authority.file),
        )
    made.sign_directory()
    return made


async def test_records_and_receipts_pass_between_two_nodes_over_tls(secured: World, authority: Authority) -> None:
    await secured.create_field_keys()
    async with station(secured.nodes[0]) as fr, station(secured.nodes[1]) as nl:
        taken = await fr.report(f"http://{ADDRESS['NL']}/page", qualification=ILLEGAL)
        await told(fr, 1)
        assert (await nl.item(taken.items[0].id))["state"] == "assigned"
        # A certificate that is renewed while the node runs is taken up at its next look.
        authority.issue("NL")
        assert nl.node.tls.refresh()
        await fr.report(f"http://{ADDRESS['NL']}/other", qualification=ILLEGAL)
        await told(fr, 2)

        async def all_applied() -> bool:
            return bool(await nl.value("SELECT count(*) = 2 FROM items"))

        await eventually(all_applied)


async def test_a_running_node_takes_up_another_authority_on_both_its_sides(
    secured: World, authority: Authority
) -> None:
    """The French node comes back with a certificate of an authority that the Dutch one, which runs on, had not."""
    await secured.create_field_keys()
    fr_node, nl_node = secured.nodes
    both = authority.file.read_bytes()
    async with station(nl_node) as nl:
        async with station(fr_node) as fr:
            await fr.report(f"http://{ADDRESS['NL']}/page", qualification=ILLEGAL)
            await told(fr, 1)
        other = Authority(secured.folder, "Other")
        other.issue("FR")
        replace(authority.file, both + other.file.read_bytes())
        assert nl.node.tls.refresh()
        async with station(fr_node) as fr:
            await fr.report(f"http://{ADDRESS['NL']}/other", qualification=ILLEGAL)
            taken = await nl.report(f"http://{ADDRESS['FR']}/page", qualification=ILLEGAL)
            await told(fr, 2)
            await arrived(fr, taken.items[0].id, "assigned")
