"""Splits SQL into tokens and takes them one by one; knows no statement and no expression."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

_TOKEN = re.compile(
    r"\s*(?:(?P<param>\$\d+)|(?P<number>\d+(?:\.\d+)?)|(?P<string>'(?:[^']|'')*')|(?P<name>[A-Za-z_][A-Za-z_0-9]*)"
    r"|(?P<quoted>\"[^\"]+\")|(?P<op>::|=>|->>|->|<=|>=|<>|!=|\|\||[-+*/%=<>(),.\[\]]))"
)

T = TypeVar("T")


class UnknownSyntax(Exception):  # noqa: N818 - names the fact: the simulator has to learn it
    """A statement says something that the simulated database does not know yet."""


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str


def _tokens(query: str) -> list[_Token]:
    found: list[_Token] = []
    at, end = 0, len(query.rstrip())
    while at < end:
        match = _TOKEN.match(query, at)
        if match is None:
            raise UnknownSyntax(f"at {query[at : at + 30]!r}")
        kind = str(match.lastgroup)
        text = match[kind]
        found.append(_Token(kind, text.lower() if kind == "name" else text))
        at = match.end()
    return found


class Tokens:
    """The tokens of one statement, and how far they are read."""

    def __init__(self, query: str) -> None:
        """Begin before the first; raises UnknownSyntax."""
        self._tokens = _tokens(query)
        self._at = 0

    def _over(self) -> bool:
        """Tell whether all are read."""
        return self._at == len(self._tokens)

    def _peek(self, ahead: int = 0) -> str:
        at = self._at + ahead
        return self._tokens[at].text if at < len(self._tokens) else ""

    def _kind(self, ahead: int = 0) -> str:
        at = self._at + ahead
        return self._tokens[at].kind if at < len(self._tokens) else ""

    def _next(self) -> str:
        text = self._peek()
        self._at += 1
        return text

    def _take(self, *words: str) -> bool:
        """Take these words if they come next, all of them."""
        if all(self._peek(ahead) == word for ahead, word in enumerate(words)):
            self._at += len(words)
            return True
        return False

    def _need(self, *words: str) -> None:
        if not self._take(*words):
            raise self._unknown(f"expected {' '.join(words)}")

    def _unknown(self, what: str) -> UnknownSyntax:
        return UnknownSyntax(f"{what} at {' '.join(t.text for t in self._tokens[self._at : self._at + 6])!r}")

    def _name(self) -> str:
        if self._kind() == "quoted":
            return self._next().strip('"')
        if self._kind() != "name":
            raise self._unknown("expected a name")
        return self._next()

    def _names(self) -> tuple[str, ...]:
        self._need("(")
        return self._list(self._name)

    def _list(self, one: Callable[[], T]) -> tuple[T, ...]:
        """Read `one, one, …)` up to the closing parenthesis."""
        found = [one()]
        while self._take(","):
            found.append(one())
        self._need(")")
        return tuple(found)

    def _commas(self, one: Callable[[], T]) -> tuple[T, ...]:
        found = [one()]
        while self._take(","):
            found.append(one())
        return tuple(found)
