"""The files of the keys that sign for the directory: the secret one of a signer, and the public one for the others."""

import base64
import json
import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from node.clock import rfc3339
from node.errors import OperatorError
from node.platform.cli.files import read_bounded, write_whole
from node.platform.keyfiles import read_key, write_secret
from protocol.keys import SEED_BYTES, Algorithm, KeyUse, PublicKey, SigningKey

_PUBLIC_BYTES_MAX: Final = 4096
_PUBLIC_ENDING: Final = ".pub"


def make_signer(path: Path, now: datetime) -> tuple[Path, PublicKey]:
    """Make a key that signs for the directory; returns the file of its public part. Raises OperatorError."""
    public_path = path.with_name(path.name + _PUBLIC_ENDING)
    if public_path.exists():
        raise OperatorError(f"{public_path} exists already and is left as it is.")
    key = SigningKey(Algorithm.ED25519, os.urandom(SEED_BYTES))
    body = {
        "use": KeyUse.AUTHORITY.value,
        "algorithm": key.algorithm.value,
        "seed": base64.b64encode(key.seed).decode("ascii"),
        "created": rfc3339(now),
    }
    write_secret(path, json.dumps(body).encode() + b"\n")
    public = read_key(path).key.public()
    write_whole(public_path, f"ed25519 {base64.b64encode(public.raw).decode('ascii')}\n".encode())
    return public_path, public


def secret_key(path: str) -> SigningKey:
    """Return a signer's key. Raises OperatorError, also for a key of another use."""
    stored = read_key(Path(path))
    if stored.use is not KeyUse.AUTHORITY:
        raise OperatorError(f"The key is one for {stored.use}; `hotline directory new-key` makes one that signs here.")
    return stored.key


def public_keys(paths: Sequence[str]) -> list[PublicKey]:
    """Return the public keys of several files. Raises OperatorError."""
    return [public_key(path) for path in paths]


def public_key(path: str) -> PublicKey:
    """Return the key of a `.pub` file. Raises OperatorError."""
    words = read_bounded(Path(path), _PUBLIC_BYTES_MAX, f"The public key {path}").split()
    try:
        if len(words) == 2 and words[0] == b"ed25519":  # noqa: PLR2004 - the algorithm and the key
            return PublicKey(Algorithm.ED25519, base64.b64decode(words[1], validate=True))
    except ValueError:
        pass
    raise OperatorError(f"{path} is not a public key as `hotline directory new-key` writes it.")
