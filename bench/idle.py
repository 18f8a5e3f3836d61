"""The memory of an idle node with 200 peers in its directory. Usage: python -m bench.idle [peers]."""

import sys
import tempfile
import time
from pathlib import Path

import psutil

from bench.network import build_world, migrated, servers, serving
from tests.hotline.network import list_hotline

#: After a start: greetings are over, every loop and each scheduled round has run.
SETTLE_S = 30.0
LIMIT_MIB = 150
#: Member countries do not matter here; each peer needs one.
COUNTRY = "NL"


def main() -> None:
    """Measure and print."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with tempfile.TemporaryDirectory(prefix="hxbench") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with servers(folder, 1) as (server,):
            world = build_world(folder, [migrated(server, "fr")], log_level="error")
            for at in range(count):
                list_hotline(world, f"peer-{at:03d}.hotline.example", [COUNTRY])
            world.sign_directory()
            with serving(world.nodes[0]) as process:
                time.sleep(SETTLE_S)
                memory = psutil.Process(process.pid).memory_info().rss / 2**20
    print(f"memory of an idle node with {count} peers: {memory:.0f} MiB (under {LIMIT_MIB})")


if __name__ == "__main__":
    main()
