"""What `hotline init` is given, by options, --set and environment, as values of settings. Writes nothing."""

import tomllib
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from node.errors import OperatorError, SettingError
from node.settings import FILE_VARIABLE, documented

_VARIABLE_PREFIX: Final = "HOTLINE_"
MASTER_VARIABLE: Final = "HOTLINE_MASTER_KEY"
_KINDS: Final = {row.name: row.kind for row in documented()}
#: Options that are settings: what is given goes into the settings file as it is.
_OPTIONS: Final[Mapping[str, str]] = {
    "node_id": "name of the node in the network, such as fr.hotline.example",
    "base_url": "public address of the peer protocol: https, a host and perhaps a port",
    "listen_peer": "address:port that serves the peer protocol (default 127.0.0.1:8701)",
    "listen_api": "address:port that serves the API, health and metrics (default 127.0.0.1:8702)",
    "directory_root": "fingerprint of the membership directory's root; `hotline join` writes it otherwise",
}
_PATHS: Final[Mapping[str, str]] = {
    "data_dir": "folder of everything the node keeps in files (default: data, beside the settings file)",
}


def add_common_arguments(parser: ArgumentParser) -> None:
    """Add the options that every role has."""
    for name, text in _OPTIONS.items():
        parser.add_argument(flag(name), metavar="NAME" if name == "node_id" else "TEXT", help=text)
    for name, text in _PATHS.items():
        parser.add_argument(flag(name), metavar="PATH", help=text)
    database = parser.add_mutually_exclusive_group()
    database.add_argument(
        "--database-url",
        metavar="TEXT",
        help="address of an empty PostgreSQL database; better in HOTLINE_DATABASE_URL if it holds a password",
    )
    database.add_argument("--embedded", action="store_true", help="run a private PostgreSQL in the data folder instead")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="any other setting (docs/operations.md)"
    )


def flag(name: str) -> str:
    """Return the option of a setting."""
    return f"--{name.replace('_', '-')}"


def given(arguments: Namespace, environ: Mapping[str, str]) -> dict[str, object]:
    """Return the settings that the environment gives, those of --set over them, and the other options over both."""
    values = _of_environment(environ)
    for pair in arguments.set:
        name, separator, text = pair.partition("=")
        if not separator:
            raise OperatorError("Option --set takes NAME=VALUE, such as --set log_level=debug.")
        values[name] = _value(name, text)
    options = {name: getattr(arguments, name) for name in (*_OPTIONS, *_PATHS, "database_url")}
    # A path as a shell's user means it: from here, not from the folder of the settings file.
    values |= {
        name: str(Path(text).expanduser().absolute()) if name in _PATHS else text
        for name, text in options.items()
        if text is not None
    }
    if arguments.country:
        values["countries"] = arguments.country
    if arguments.dns_server:
        values["dns_servers"] = arguments.dns_server
    if arguments.directory_source:
        values["directory_sources"] = arguments.directory_source
    if arguments.embedded:
        values["embedded_database"] = True
        values.pop("database_url", None)
    return values


def _of_environment(environ: Mapping[str, str]) -> dict[str, object]:
    names = {
        variable: variable.removeprefix(_VARIABLE_PREFIX).lower()
        for variable in environ
        if variable.startswith(_VARIABLE_PREFIX) and variable not in {FILE_VARIABLE, MASTER_VARIABLE}
    }
    return {name: _value(name, environ[variable]) for variable, name in names.items()}


def _value(name: str, text: str) -> object:
    """Return the value of a setting in its type; what is of another type stays text and is refused with the rest."""
    kind = _KINDS.get(name)
    if kind is None:
        raise SettingError(name, "there is no such setting")
    if kind.startswith("list"):
        return [part.strip() for part in text.split(",") if part.strip()]
    if kind in {"true or false", "whole number", "number"}:
        try:
            return tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            return text
    return text
