"""Writes the settings file: a new one at set-up, or single settings into one that exists."""

import json
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path

from node.errors import OperatorError, SettingError
from node.settings import OPTIONS, read_settings_file, settings_from


def write_settings(path: Path, values: Mapping[str, object]) -> None:
    """Write a new settings file, mode 0600, each value under its sentence; an existing file is never touched.

    The values are checked first, so that what is written can be loaded. OperatorError when they cannot, or when the
    file exists.
    """
    settings_from(values, path.absolute().parent)
    lines = ["# Settings of this node. docs/operations.md explains each.\n"]
    for name, each in OPTIONS.items():
        if values.get(name) is not None:
            if each.environment_only:
                raise SettingError(name, "does not stand in the settings file")
            lines.append(f"\n# {each.doc}\n{name} = {_toml(values[name])}\n")
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise OperatorError(f"The settings file {path} exists already and is left as it is.") from None
    except OSError as error:
        raise OperatorError(f"The settings file {path} cannot be written ({error.strerror}).") from None
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.writelines(lines)
        file.flush()
        os.fsync(file.fileno())


def add_settings(path: Path, values: Mapping[str, object]) -> None:
    """Put `values` into an existing settings file, in place of what it says of them; whole or not at all.

    OperatorError when the file cannot be written, or says one of them in a way that only a person can change.
    """
    before = read_settings_file(path)
    named = re.compile(rf"^(?:{'|'.join(map(re.escape, values))})\s*=")
    kept = [line for line in path.read_text(encoding="utf-8").splitlines() if named.match(line) is None]
    added = [f"{name} = {_toml(value)}" for name, value in values.items()]
    text = "\n".join([*kept, *added]) + "\n"
    try:
        unchanged = tomllib.loads(text) == {**before, **values}
    except tomllib.TOMLDecodeError:
        unchanged = False
    if not unchanged:
        raise OperatorError(f"The settings file {path} says {', '.join(values)} in several lines; change it by hand.")
    fresh = path.with_name(f".{path.name}.new")
    try:
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        raise OperatorError(f"The settings file {path} cannot be written ({error.strerror}).") from None


def _toml(value: object) -> str:
    """Return `value` in TOML, whose basic strings are JSON strings but for DEL and lone surrogates."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_toml(part) for part in value)}]"
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
