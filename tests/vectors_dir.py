"""Finds the outside test vectors; never skips: an absent vector fails its test with a clear sentence."""

import os
from pathlib import Path

import pytest

_DEFAULT = Path(__file__).resolve().parents[2] / "shared" / "vectors"


def vectors(*parts: str) -> Path:
    """Return the path of a vector file or folder; fail the test when it is not there.

    The folder is `VECTORS_DIR`, or `../shared/vectors` beside the project (docs/protocol.md, "Vectors").
    """
    root = Path(os.environ.get("VECTORS_DIR", _DEFAULT))
    path = root.joinpath(*parts)
    if not path.exists():
        pytest.fail(f"test vectors {'/'.join(parts)} not found; set VECTORS_DIR (docs/protocol.md, Vectors)")
    return path
