"""Which version of HX/1 this program speaks (PROTOCOL section 12); never decides by a version what a record means.

A record says by its own members what must be understood: `v`, `body.schema` and `crit`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a minor version adds to the schemas of 1.0, whose types are read and whose members are known anyway.

    `spoken` are the versions as the directory and the well-known document list them, oldest first. What may stand in
    `crit` besides are `members` of the envelope and `body_members` of every body that is read; `types` are accepted
    besides. `say` makes of each record of ours, before it is hashed, what this version says; None leaves it as it is.
    """

    spoken: tuple[str, ...] = ("1.0",)
    members: frozenset[str] = frozenset()
    body_members: frozenset[str] = frozenset()
    types: frozenset[str] = frozenset()
    say: Callable[[bytes], bytes] | None = None


#: What HX-Version says, and what comes before the point: nodes of one major version work together.
MAJOR: Final = "1"
HX_1_0: Final = Dialect()
_speaks: Dialect = HX_1_0


def speaks() -> Dialect:
    """Return what this process speaks."""
    return _speaks


def speak(dialect: Dialect) -> None:
    """Let this process speak another minor version, before it reads or makes anything; once.

    Raises RuntimeError for a second call: what was understood once must stay understood.
    """
    global _speaks  # noqa: PLW0603 -- one program speaks one version, as it has one version number
    if _speaks is not HX_1_0:
        raise RuntimeError("a process speaks one version")
    _speaks = dialect


def works_with(versions: Iterable[str]) -> bool:
    """Tell whether a node that speaks these versions works with this program: one of them has our major version."""
    return any(version.partition(".")[0] == MAJOR for version in versions)
