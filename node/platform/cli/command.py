"""What every command is given: its settings, the clock, an event loop. Does no command's work."""

import argparse
import asyncio
import os
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from uuid import UUID

from node.clock import Clock
from node.errors import OperatorError, SettingError
from node.platform.telemetry import withhold
from node.settings import DEFAULT_FILE, FILE_VARIABLE, Settings, load_settings

try:
    from uvloop import new_event_loop as _fast_loop
except ImportError:  # not made for every system
    _loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
else:
    _loop_factory = _fast_loop

T = TypeVar("T")


class Parser(argparse.ArgumentParser):
    """An argument parser that takes no abbreviated options and never repeats an argument that looks like a URL."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take what argparse takes."""
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def error(self, message: str) -> NoReturn:
        """End with status 2; argparse quotes what it did not understand, which may have been pasted content."""
        super().error(" ".join(withhold(word) for word in message.split(" ")))


@dataclass(frozen=True, slots=True)
class Context:
    """The surroundings of one call of the command line."""

    environ: Mapping[str, str]
    settings_file: Path | None
    clock: Clock

    def settings(self) -> Settings:
        """Return the checked settings; raises OperatorError."""
        try:
            return load_settings(self.settings_file, self.environ)
        except SettingError as error:
            path = self.settings_path()
            if path.exists():
                raise
            reason = f"there is no settings file {path}, `hotline init` writes one"
            raise OperatorError(f"{error.sentence.rstrip('.')}; {reason}.") from None

    def settings_path(self) -> Path:
        """Return where the settings file is, or would be."""
        return (self.settings_file or Path(self.environ.get(FILE_VARIABLE) or DEFAULT_FILE)).absolute()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` on a new event loop, uvloop's where it is installed, and return what it returns."""
        with asyncio.Runner(loop_factory=_loop_factory) as runner:
            return runner.run(work)


def parse_id(text: str, what: str) -> UUID:
    """Return the id in `text`; OperatorError, which does not repeat it, when it is none."""
    try:
        return UUID(text)
    except ValueError:
        raise OperatorError(
            f"That is not the id of {what}: an id looks like 0192f7a0-0000-7000-8000-000000000001."
        ) from None


def check_folder(path: Path) -> None:
    """Refuse, with OperatorError, a file whose folder is not there or may not be written."""
    folder = path.absolute().parent
    if not folder.is_dir():
        raise OperatorError(f"There is no folder {folder}.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OperatorError(f"The folder {folder} may not be written.")
