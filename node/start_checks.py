"""What is looked at before a process starts: the files that its settings name are there, and no secret is exposed."""

import stat
from pathlib import Path

from node.errors import OperatorError, SettingError
from node.setting_rules import exposure
from node.settings import Settings


def check_at_start(settings: Settings) -> None:
    """Refuse to start, with one sentence (OperatorError), when a file that the settings name is missing or exposed."""
    try:
        _check_keys(settings)
        needed = {
            "geo_country_databases": settings.geo_country_databases,
            "geo_asn_databases": settings.geo_asn_databases,
        }
        for name, paths in needed.items():
            for path in paths:
                if not path.is_file():
                    raise SettingError(name, f"there is no file {path}")
    except OSError as error:
        raise OperatorError(f"{error.filename} cannot be looked at ({error.strerror}).") from None


def _check_keys(settings: Settings) -> None:
    if not settings.keys_dir.is_dir():
        raise SettingError("keys_dir", f"{settings.keys_dir} is not a folder; `hotline init` makes the keys")
    if settings.keys_dir.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise SettingError("keys_dir", f"{settings.keys_dir} may be written by others; chmod 700 it")
    keys = sorted(settings.keys_dir.glob("*.key"))
    if not keys:
        raise SettingError("keys_dir", f"{settings.keys_dir} holds no key; `hotline init` makes the keys")
    for key in keys:
        _check_secret("keys_dir", key)
    if not settings.master_key:
        _check_secret("master_key_file", settings.master_key_file)


def _check_secret(name: str, path: Path) -> None:
    try:
        fault = exposure(path.lstat().st_mode)
    except FileNotFoundError:
        fault = "is missing"
    if fault is not None:
        raise SettingError(name, f"{path} {fault}")
