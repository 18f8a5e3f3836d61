"""The image and the two deployed nodes, checked without running them: names, files, secrets, doors."""

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, Final

import pytest
import yaml

from node.settings import FILE_VARIABLE, documented, load_settings
from tests.docs.pages import ROOT

COMPOSE: Final[dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: Final[dict[str, dict[str, Any]]] = COMPOSE["services"]
DOCKERFILE: Final = (ROOT / "Dockerfile").read_text(encoding="utf-8")
SETTINGS: Final = {row.name for row in documented()}
COUNTRIES: Final = ("fr", "nl")
#: In names of variables, not of the files that they point at.
_SECRET_WORDS: Final = ("PASSWORD", "SECRET", "TOKEN", "MASTER_KEY")


def environments() -> Iterator[tuple[str, Mapping[str, str]]]:
    for name, service in SERVICES.items():
        yield name, service.get("environment", {})


def test_there_are_two_nodes_each_with_its_own_database_and_proxy() -> None:
    assert set(SERVICES) == {f"{country}-{part}" for country in COUNTRIES for part in ("node", "database", "proxy")}


@pytest.mark.parametrize("country", COUNTRIES)
def test_the_nodes_variables_are_settings_that_the_program_takes(country: str) -> None:
    environment = dict(SERVICES[f"{country}-node"]["environment"])
    ours = {name: value for name, value in environment.items() if name.startswith("HOTLINE_")}
    assert {name.removeprefix("HOTLINE_").lower() for name in ours if name != FILE_VARIABLE} <= SETTINGS
    # The settings file is the one that `hotline init` writes from these very variables.
    del ours[FILE_VARIABLE]
    settings = load_settings(None, ours)
    assert settings.node_id == f"{country}.hotline.example"
    assert settings.countries == (country.upper(),)
    assert settings.base_url == f"https://{country}.hotline.example"
    assert settings.database_url == f"postgresql://hotline@{country}-database/hotline"


def test_no_secret_stands_in_the_environment() -> None:
    for service, environment in environments():
        for name, value in environment.items():
            held = any(word in name for word in _SECRET_WORDS) and not name.endswith("_FILE")
            assert not held, f"{service}: {name} holds a secret itself"
            assert re.search(r"://[^/@]*:[^/@]*@", str(value)) is None, f"{service}: {name} holds a password"
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    assert "PRIVATE KEY" not in text + DOCKERFILE
    assert not re.search(r"^(ARG|ENV) .*(PASSWORD|SECRET|TOKEN|MASTER_KEY)", DOCKERFILE, re.MULTILINE)


def test_secrets_are_files_outside_the_repository_and_each_is_used() -> None:
    used: set[str] = set()
    for name, service in SERVICES.items():
        for secret in service.get("secrets", []):
            assert secret["source"] in COMPOSE["secrets"], f"{name}: {secret['source']}"
            used.add(secret["source"])
    assert used == set(COMPOSE["secrets"])
    ignored = (ROOT / "deploy" / ".gitignore").read_text(encoding="utf-8").split()
    for secret in COMPOSE["secrets"].values():
        assert secret["file"].startswith("./deploy/secrets/")
    assert "/secrets/" in ignored
    assert "/node.env" in ignored


def test_what_points_at_a_secret_points_at_one_that_is_mounted() -> None:
    for name, service in SERVICES.items():
        mounted = {secret["target"] for secret in service.get("secrets", [])}
        for value in service.get("environment", {}).values():
            path = PurePosixPath(str(value))
            if path.parent == PurePosixPath("/run/secrets"):
                assert path.name in mounted, f"{name}: {path}"
    for found in re.findall(r"/run/secrets/(\w+)", (ROOT / "deploy/nginx/node.conf.template").read_text()):
        for country in COUNTRIES:
            assert found in {secret["target"] for secret in SERVICES[f"{country}-proxy"]["secrets"]}


@pytest.mark.parametrize("country", COUNTRIES)
def test_the_database_is_reached_by_its_node_alone(country: str) -> None:
    database = SERVICES[f"{country}-database"]
    assert "ports" not in database
    assert database["networks"] == [f"{country}-inside"]
    assert COMPOSE["networks"][f"{country}-inside"] == {"internal": True}
    inside = {name for name, service in SERVICES.items() if f"{country}-inside" in service["networks"]}
    assert inside == {f"{country}-database", f"{country}-node"}


def test_what_is_published_is_the_api_and_only_to_this_machine() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {f"{country}-node" for country in COUNTRIES}
    for ports in published.values():
        assert all(re.fullmatch(r"127\.0\.0\.1:\d+:8702", port) for port in ports)


@pytest.mark.parametrize("country", COUNTRIES)
def test_a_node_is_healthy_when_it_is_ready_and_starts_after_its_database(country: str) -> None:
    node = SERVICES[f"{country}-node"]
    assert "/readyz" in node["healthcheck"]["test"][-1]
    port = node["environment"]["HOTLINE_LISTEN_API"].rpartition(":")[2]
    assert f"127.0.0.1:{port}/readyz" in node["healthcheck"]["test"][-1]
    assert node["depends_on"] == {f"{country}-database": {"condition": "service_healthy"}}
    assert "pg_isready" in SERVICES[f"{country}-database"]["healthcheck"]["test"][-1]
    grace_s = int(node["stop_grace_period"].removesuffix("s"))
    assert grace_s > float(next(row.default for row in documented() if row.name == "shutdown_s"))


def test_every_volume_and_network_is_declared_and_used() -> None:
    volumes, networks = set(), set()
    for service in SERVICES.values():
        networks |= set(service["networks"])
        for volume in service.get("volumes", []):
            source, target = volume.split(":")[:2]
            assert target.startswith("/")
            if not source.startswith("."):
                volumes.add(source)
            elif not source.startswith("./deploy/directory"):
                assert (ROOT / source).exists(), source
    assert volumes == set(COMPOSE["volumes"])
    assert networks == set(COMPOSE["networks"])


def test_the_nodes_files_lie_in_volumes_that_the_image_prepares() -> None:
    prepared = re.search(r"install -d -o hotline -g hotline -m 0700 (.+)", DOCKERFILE)
    assert prepared is not None
    folders = set(prepared[1].split())
    for country in COUNTRIES:
        node = SERVICES[f"{country}-node"]
        mounted = {volume.split(":")[1] for volume in node["volumes"] if not volume.startswith(".")}
        assert mounted == folders
        kept = [node["environment"][f"HOTLINE_{name}"] for name in ("SETTINGS", "KEYS_DIR", "MASTER_KEY_FILE")]
        assert all(any(path.startswith(f"{folder}/") for folder in folders) for path in kept)
        # What a backup of the data volume holds opens nothing without the other volume.
        assert not node["environment"]["HOTLINE_MASTER_KEY_FILE"].startswith("/var/lib/hotline/")


def test_the_image_is_built_from_files_that_are_there_and_let_through() -> None:
    let_through = [
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    ]
    for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert any(PurePosixPath(source).match(pattern) for pattern in let_through), source


def test_the_image_installs_by_hash_and_runs_as_nobody_special() -> None:
    installs = [line for line in DOCKERFILE.replace("\\\n", "").splitlines() if "pip install" in line]
    assert installs
    for line in installs:
        assert "--require-hashes" in line or ("--no-index" in line and "--no-deps" in line), line
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    assert re.search(r"^USER 10001:10001$", last, re.MULTILINE)
    assert '["hotline"]' in last
    assert not re.search(r"pip|gcc|apt", last.replace("COPY --from", ""))
    python = re.findall(r"^FROM (python:\S+)", DOCKERFILE, re.MULTILINE)
    assert len(set(python)) == 1
    assert python[0].endswith("-slim")


def test_proxies_let_a_whole_batch_through_and_leave_bodies_alone() -> None:
    template = (ROOT / "deploy/nginx/node.conf.template").read_text(encoding="utf-8")
    size = re.search(r"client_max_body_size (\d+)m;", template)
    assert size is not None
    body_bytes_max = int(next(row.default for row in documented() if row.name == "body_bytes_max"))
    assert int(size[1]) * 1024 * 1024 > body_bytes_max
    assert "gzip off;" in template
    assert re.search(r"proxy_pass http://\$\{NODE\}:8701;", template), "nothing may stand behind the port"
    for country in COUNTRIES:
        environment = SERVICES[f"{country}-proxy"]["environment"]
        assert set(re.findall(r"\$\{(\w+)\}", template)) == set(environment)
        assert environment["NODE"] == f"{country}-node"
        aliases = SERVICES[f"{country}-proxy"]["networks"]["exchange"]["aliases"]
        assert aliases == [environment["SERVER_NAME"]] == [f"{country}.hotline.example"]
