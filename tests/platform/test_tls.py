"""TLS of the peer door and of calls, over real sockets: who gets in, who is refused, what is taken up meanwhile."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from node.errors import SettingError
from node.platform.httpclient import PeerClient, PeerUnreachable, make_session
from node.platform.routes import Answer, Auth, Call, Route
from node.platform.telemetry import Metrics, make_logger
from node.platform.tls import PeerTls, open_peer_tls
from node.platform.web import Limits, Listener, listen, make_app
from node.settings import Settings, settings_from
from protocol.keys import Algorithm, PublicKey, SigningKey
from tests.certificates import Authority, replace
from tests.platform.manual_clock import ManualClock

KEY = SigningKey(Algorithm.ED25519, b"\x01" * 32)


def made(folder: Path, **values: object) -> Settings:
    least = {
        "node_id": "fr.hotline.example",
        "countries": ["FR"],
        "base_url": "https://127.0.0.1:8701",
        "embedded_database": True,
    }
    return settings_from({**least, **values}, folder)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@asynccontextmanager
async def served(tls: PeerTls) -> AsyncIterator[Listener]:
    async def hello(_call: Call) -> web.Response:
        return web.Response(text="hello")

    route = Route(
        method="GET",
        path="/x",
        summary="Say hello",
        handler=hello,
        responses={200: Answer("A word.")},
        group="Test",
        auth=Auth.OPEN,
    )
    app = make_app(
        [route], log=make_logger("error", "json"), metrics=Metrics.create(), limits=Limits(body_bytes_max=1000)
    )
    door = await listen(app, "127.0.0.1:0", shutdown_s=1, tls=tls.door)
    try:
        yield door
    finally:
        await door.close()


async def greet(door: Listener, tls: ssl.SSLContext | None) -> str:
    async with (
        make_session(timeout_s=5, tls=tls) as session,
        session.get(f"https://127.0.0.1:{door.port}/x") as answer,
    ):
        return await answer.text()


def nobody(_keyid: str) -> PublicKey:
    raise AssertionError("no answer was to come this far")


async def test_a_peer_whose_authority_is_named_is_believed_and_no_other(tmp_path: Path, authority: Authority) -> None:
    own = authority.issue("fr")
    tls = open_peer_tls(made(tmp_path, **own.settings(), peer_tls_ca_file=str(authority.file)))
    stranger = open_peer_tls(made(tmp_path, peer_tls_ca_file=str(Authority(tmp_path, "Other").file)))
    async with served(tls) as door:
        assert await greet(door, tls.calls) == "hello"
        for context in (stranger.calls, None):
            async with make_session(timeout_s=5, tls=context) as session:
                client = PeerClient(session, lambda: KEY, ManualClock(datetime.now(UTC)))
                with pytest.raises(PeerUnreachable) as unreachable:
                    await client.call("GET", f"https://127.0.0.1:{door.port}/x", nobody)
                assert unreachable.value.kind == "tls"


async def test_a_certificate_for_another_name_is_not_believed(tmp_path: Path, authority: Authority) -> None:
    own = authority.issue("fr")
    tls = open_peer_tls(made(tmp_path, **own.settings(), peer_tls_ca_file=str(authority.file)))
    async with served(tls) as door, make_session(timeout_s=5, tls=tls.calls) as session:
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await session.get(f"https://127.0.0.1:{door.port}/x", server_hostname="fr.hotline.example")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_the_door_speaks_tls_1_2_and_1_3(tmp_path: Path, authority: Authority, version: ssl.TLSVersion) -> None:
    tls = open_peer_tls(made(tmp_path, **authority.issue("fr").settings()))
    caller = ssl.create_default_context(cafile=authority.file)
    caller.minimum_version = caller.maximum_version = version
    async with served(tls) as door:
        assert await greet(door, caller) == "hello"


def test_nothing_older_than_tls_1_2_is_spoken(tmp_path: Path, authority: Authority) -> None:
    tls = open_peer_tls(made(tmp_path, **authority.issue("fr").settings()))
    for context in (tls.door, tls.calls):
        assert context is not None
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2


async def test_a_door_that_asks_for_a_certificate_lets_only_vouched_callers_in(
    tmp_path: Path, authority: Authority
) -> None:
    own = authority.issue("fr")
    clients = Authority(tmp_path, "Clients")
    tls = open_peer_tls(made(tmp_path, **own.settings(), peer_tls_client_ca_file=str(clients.file)))
    trusting = {"peer_tls_ca_file": str(authority.file)}
    vouched = open_peer_tls(made(tmp_path, **trusting, **clients.issue("nl").settings("peer_tls_client_")))
    # Without a certificate for calls of its own, a node shows the one of its door.
    by_door = open_peer_tls(made(tmp_path, **trusting, **clients.issue("de").settings()))
    wrong = open_peer_tls(made(tmp_path, **trusting, **authority.issue("us").settings()))
    async with served(tls) as door:
        assert await greet(door, vouched.calls) == "hello"
        assert await greet(door, by_door.calls) == "hello"
        for caller in (wrong, open_peer_tls(made(tmp_path, **trusting))):
            with pytest.raises(aiohttp.ClientError):
                await greet(door, caller.calls)
        assert await greet(door, vouched.calls) == "hello"


async def shown(door: Listener, authority: Authority) -> int:
    """Return the serial number of the certificate that the door shows."""
    caller = ssl.create_default_context(cafile=authority.file)
    _, writer = await asyncio.open_connection("127.0.0.1", door.port, ssl=caller)
    raw = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    await writer.wait_closed()
    return x509.load_der_x509_certificate(raw).serial_number


async def test_a_replaced_certificate_is_shown_to_the_next_caller(tmp_path: Path, authority: Authority) -> None:
    own = authority.issue("fr")
    tls = open_peer_tls(made(tmp_path, **own.settings()))
    assert not tls.refresh()
    async with served(tls) as door:
        first = await shown(door, authority)
        authority.issue("fr")
        assert tls.refresh()
        assert not tls.refresh()
        second = await shown(door, authority)
        # A certificate without its key changes nothing, and is told once.
        replace(own.key, b"no key")
        with pytest.raises(SettingError, match=r"peer_tls_certificate_file: .*fr\.pem and .*fr\.key\.pem are not"):
            tls.refresh()
        assert not tls.refresh()
        assert await shown(door, authority) == second != first
        # Gone for a moment, as between two renames.
        own.certificate.unlink()
        assert not tls.refresh()
        authority.issue("fr")
        own.key.chmod(0o640)
        with pytest.raises(SettingError, match=r"peer_tls_key_file: .* may be read or written by others"):
            tls.refresh()
        own.key.chmod(0o600)
        assert tls.refresh()
        assert await shown(door, authority) not in {first, second}


async def test_replaced_authorities_count_from_the_next_connection_on(tmp_path: Path, authority: Authority) -> None:
    """On both sides; one that is gone from the file is believed no more."""
    other = Authority(tmp_path, "Other")
    clients, peers = tmp_path / "clients.pem", tmp_path / "peers.pem"
    for file in (clients, peers):
        replace(file, authority.file.read_bytes())
    door_tls = open_peer_tls(made(tmp_path, **authority.issue("fr").settings(), peer_tls_client_ca_file=str(clients)))
    caller = open_peer_tls(made(tmp_path, **authority.issue("nl").settings(), peer_tls_ca_file=str(peers)))
    settings = {**other.issue("de").settings(), "peer_tls_ca_file": str(authority.file)}
    stranger = open_peer_tls(made(tmp_path, **settings))
    async with served(door_tls) as door:

        async def comes_in(tls: PeerTls) -> bool:
            try:
                return await greet(door, tls.calls) == "hello"
            except aiohttp.ClientError:
                return False

        assert [await comes_in(one) for one in (caller, stranger)] == [True, False]
        replace(clients, authority.file.read_bytes() + other.file.read_bytes())
        assert door_tls.refresh()
        assert [await comes_in(one) for one in (caller, stranger)] == [True, True]
        replace(clients, other.file.read_bytes())
        assert door_tls.refresh()
        assert [await comes_in(one) for one in (caller, stranger)] == [False, True]
        replace(clients, authority.file.read_bytes())
        assert door_tls.refresh()
        replace(peers, other.file.read_bytes())
        assert await comes_in(caller)
        assert caller.refresh()
        assert not await comes_in(caller)
        # A file without a certificate changes nothing, and is told once.
        replace(peers, authority.file.read_bytes())
        assert caller.refresh()
        replace(peers, b"none")
        with pytest.raises(SettingError, match=r"peer_tls_ca_file: .*peers\.pem holds no certificates"):
            caller.refresh()
        assert not caller.refresh()
        assert await comes_in(caller)


def test_files_that_are_no_good_stop_the_start(tmp_path: Path, authority: Authority) -> None:
    own, other = authority.issue("fr"), authority.issue("nl")

    def refused(sentence: str, **values: object) -> None:
        with pytest.raises(SettingError, match=sentence):
            open_peer_tls(made(tmp_path, **{**own.settings(), **values}))

    refused(r"peer_tls_certificate_file: .* belongs to it", peer_tls_key_file=str(other.key))
    refused(r"peer_tls_certificate_file: .*absent cannot be read", peer_tls_key_file=str(tmp_path / "absent"))
    refused(r"peer_tls_certificate_file: .*absent cannot be read", peer_tls_certificate_file=str(tmp_path / "absent"))
    refused(r"peer_tls_ca_file: .*absent cannot be read", peer_tls_ca_file=str(tmp_path / "absent"))
    refused(r"peer_tls_ca_file: .* holds no certificates", peer_tls_ca_file=str(own.key))
    refused(r"peer_tls_client_ca_file: .* holds no certificates", peer_tls_client_ca_file=str(own.key))
    own.key.chmod(0o644)
    refused(r"peer_tls_key_file: .* may be read or written by others")
    own.key.chmod(0o600)
    link = tmp_path / "live.pem"
    link.symlink_to(own.key)
    assert open_peer_tls(made(tmp_path, **{**own.settings(), "peer_tls_key_file": str(link)})).door is not None
    key = serialization.load_pem_private_key(own.key.read_bytes(), None)
    sealed = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"word"),
    )
    replace(own.key, sealed)
    refused(r"peer_tls_key_file: .* is encrypted")


def test_without_tls_settings_everything_stays_as_it_is(tmp_path: Path) -> None:
    assert open_peer_tls(made(tmp_path)) == PeerTls(None, None)


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"peer_tls_certificate_file": "a"}, "peer_tls_certificate_file: set both this and peer_tls_key_file"),
        ({"peer_tls_key_file": "a"}, "peer_tls_certificate_file: set both this and peer_tls_key_file"),
        ({"peer_tls_client_key_file": "a"}, "peer_tls_client_certificate_file: set both this and peer_tls_client_key"),
        ({"peer_tls_client_ca_file": "a"}, "peer_tls_client_ca_file: needs peer_tls_certificate_file"),
        (
            {"peer_tls_certificate_file": "a", "peer_tls_key_file": "b", "base_url": "http://127.0.0.1:8701"},
            "base_url: must be https, since",
        ),
        ({"peer_tls_ca_file": ""}, "peer_tls_ca_file: must be a path"),
    ],
)
def test_tls_settings_that_make_no_sense_together(tmp_path: Path, values: dict[str, object], sentence: str) -> None:
    with pytest.raises(SettingError, match=sentence):
        made(tmp_path, **values)
