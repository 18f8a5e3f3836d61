"""The image, the two deployed nodes and the coordinator, checked without running them: names, files, secrets, doors."""

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
#: Whoever runs a process of the program, and under which name of the network.
OPERATORS: Final = {"fr": "fr.hotline.example", "nl": "nl.hotline.example", "coordinator": "coordinator.example"}
#: In names of variables, not of the files that they point at.
_SECRET_WORDS: Final = ("PASSWORD", "SECRET", "TOKEN", "MASTER_KEY")


def environments() -> Iterator[tuple[str, Mapping[str, str]]]:
    for name, service in SERVICES.items():
        yield name, service.get("environment", {})


def test_each_operator_has_a_process_a_database_and_a_proxy() -> None:
    assert set(SERVICES) == {f"{operator}-{part}" for operator in OPERATORS for part in ("node", "database", "proxy")}


@pytest.mark.parametrize("operator", OPERATORS)
def test_the_variables_are_settings_that_the_program_takes(operator: str) -> None:
    environment = dict(SERVICES[f"{operator}-node"]["environment"])
    ours = {name: value for name, value in environment.items() if name.startswith("HOTLINE_")}
    assert {name.removeprefix("HOTLINE_").lower() for name in ours if name != FILE_VARIABLE} <= SETTINGS
    # The settings file is the one that `hotline init` writes from these very variables.
    del ours[FILE_VARIABLE]
    settings = load_settings(None, ours)
    assert settings.node_id == OPERATORS[operator]
    assert settings.countries == ((operator.upper(),) if operator in COUNTRIES else ())
    assert settings.role == ("hotline" if operator in COUNTRIES else "coordinator")
    assert settings.base_url == f"https://{OPERATORS[operator]}"
    assert settings.database_url == f"postgresql://hotline@{operator}-database/hotline"


def test_the_coordinator_is_given_no_setting_of_a_hotline() -> None:
    """The program would refuse to start with one, so also the file of variables that the nodes share is not its."""
    assert SERVICES["coordinator-node"]["env_file"] == []
    assert all(SERVICES[f"{country}-node"]["env_file"] == ["deploy/node.env"] for country in COUNTRIES)


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
        for operator in OPERATORS:
            assert found in {secret["target"] for secret in SERVICES[f"{operator}-proxy"]["secrets"]}


@pytest.mark.parametrize("operator", OPERATORS)
def test_the_database_is_reached_by_its_node_alone(operator: str) -> None:
    database = SERVICES[f"{operator}-database"]
    assert "ports" not in database
    assert database["networks"] == [f"{operator}-inside"]
    assert COMPOSE["networks"][f"{operator}-inside"] == {"internal": True}
    inside = {name for name, service in SERVICES.items() if f"{operator}-inside" in service["networks"]}
    assert inside == {f"{operator}-database", f"{operator}-node"}


def test_what_is_published_is_the_api_and_only_to_this_machine() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {f"{operator}-node" for operator in OPERATORS}
    for ports in published.values():
        assert all(re.fullmatch(r"127\.0\.0\.1:\d+:8702", port) for port in ports)


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_node_is_healthy_when_it_is_ready_and_starts_after_its_database(operator: str) -> None:
    node = SERVICES[f"{operator}-node"]
    assert "/readyz" in node["healthcheck"]["test"][-1]
    port = node["environment"]["HOTLINE_LISTEN_API"].rpartition(":")[2]
    assert f"127.0.0.1:{port}/readyz" in node["healthcheck"]["test"][-1]
    assert node["depends_on"] == {f"{operator}-database": {"condition": "service_healthy"}}
    assert "pg_isready" in SERVICES[f"{operator}-database"]["healthcheck"]["test"][-1]
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
    for operator in OPERATORS:
        node = SERVICES[f"{operator}-node"]
        mounted = {volume.split(":")[1] for volume in node["volumes"] if not volume.startswith(".")}
        assert mounted == folders
        secret = ("MASTER_KEY_FILE",) if operator in COUNTRIES else ("DIRECTORY_KEYS_DIR",)
        kept = [node["environment"][f"HOTLINE_{name}"] for name in ("SETTINGS", "KEYS_DIR", *secret)]
        assert all(any(path.startswith(f"{folder}/") for folder in folders) for path in kept)
        # What a backup of the data volume holds opens and signs nothing without the other volume.
        assert not any(path.startswith("/var/lib/hotline/") for path in kept[1:])


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
    for operator, name in OPERATORS.items():
        environment = SERVICES[f"{operator}-proxy"]["environment"]
        assert set(re.findall(r"\$\{(\w+)\}", template)) == set(environment)
        assert environment["NODE"] == f"{operator}-node"
        aliases = SERVICES[f"{operator}-proxy"]["networks"]["exchange"]["aliases"]
        assert aliases == [environment["SERVER_NAME"]] == [name]
