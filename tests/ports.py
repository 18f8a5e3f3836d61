"""Ports of the loopback for tests that choose one before they open it."""

import os
import random
import socket
from itertools import cycle

_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
#: Below the range that the system takes ports of outgoing connections from: the port of a dead node stays free. Each
#: worker has ports of its own, or one could take what another has chosen and not opened yet.
_PORTS = list(range(20_000 + _WORKER % 4, 32_000, 4))
random.SystemRandom().shuffle(_PORTS)
#: Each in its turn, so that one that was chosen and is not open is not chosen again for long.
_NEXT = cycle(_PORTS)


def free_port() -> int:
    """Return a port that nobody has at this moment, and that no outgoing connection will be given."""
    while True:
        port = next(_NEXT)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
