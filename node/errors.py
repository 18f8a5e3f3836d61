"""Errors that end a command or a start with one sentence; never carry a reported URL or other content."""


class OperatorError(Exception):
    """Something the operator can put right: a setting, a file, a service that is not there.

    `sentence` says what is wrong and what to do, in one sentence. The command line prints it and exits with status 2;
    no traceback is shown, because nothing in the program is broken.
    """

    def __init__(self, sentence: str) -> None:
        """Keep the sentence as it will be printed."""
        super().__init__(sentence)
        self.sentence = sentence


class SettingError(OperatorError):
    """A setting is missing, unknown or makes no sense; `setting` is its name."""

    def __init__(self, setting: str, reason: str) -> None:
        """Name the setting first, because that is what the operator searches for."""
        super().__init__(f"Setting {setting}: {reason}")
        self.setting = setting
