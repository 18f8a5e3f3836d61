"""Which versions of HX/1 this program speaks (PROTOCOL section 12); never decides by a version what a record means.

A record says by its own members what must be understood: `v`, `body.schema` and `crit`.
"""

from collections.abc import Iterable
from typing import Final

#: As the directory and the well-known document list them, oldest first.
SPOKEN: Final = ("1.0",)
#: What HX-Version says, and what comes before the point: nodes of one major version work together.
MAJOR: Final = "1"


def works_with(versions: Iterable[str]) -> bool:
    """Tell whether a node that speaks these versions works with this program: one of them has our major version."""
    return any(version.partition(".")[0] == MAJOR for version in versions)
