"""Import of a CSV file by the product's own command: rows/s and resident memory.

Usage: python -m bench.importing [rows]
"""

import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.network import build_world, migrated, servers
from node.setting_files import write_settings
from tests.world import file_values


def write_csv(path: Path, rows: int, *, bad_every: int = 0) -> None:
    """Write `rows` rows; every `bad_every`th has no URL that can be taken."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["reference", "url", "media_urls", "referrer", "note", "channel", "classification", "received_at"]
        )
        for at in range(rows):
            bad = bad_every and at % bad_every == 0
            writer.writerow(
                [
                    f"{path.stem}-{at}",
                    "javascript:void(0)"
                    if bad
                    else f"https://host{at % 5000}.example/{path.stem}/{at:08d}/index.html?lang=en",
                    "",
                    "http://forum.example/thread/4711",
                    "seen by a member of the public",
                    "public",
                    ("national", "", "baseline", "not-illegal")[at % 4],
                    "2026-11-20T10:00:00Z",
                ]
            )


def run_import(settings: Path, file: Path) -> tuple[float, int, dict[str, object]]:
    """Run `hotline import`; returns (seconds, peak resident bytes, its counts)."""
    started = time.perf_counter()
    command = [
        sys.executable,
        "-m",
        "node",
        "--settings",
        str(settings),
        "import",
        str(file),
        "--json",
        "--no-progress",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    output = process.stdout.read() if process.stdout is not None else b""
    _, _, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    return seconds, usage.ru_maxrss * 1024, json.loads(output.splitlines()[-1])


def main() -> None:
    """Measure and print."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory(prefix="hxbench") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with servers(folder, 1) as (server,):
            world = build_world(folder, [migrated(server, "fr")], log_level="error")
            settings = folder / "hotline.toml"
            write_settings(settings, file_values(world.nodes[0].settings))
            for label, bad_every in (("all good", 0), ("one in ten bad", 10)):
                file = folder / f"reports-{bad_every}.csv"
                write_csv(file, rows, bad_every=bad_every)
                seconds, peak, counts = run_import(settings, file)
                rate = f"{rows / seconds:,.0f} rows/s (at least 8,000)"
                print(f"import, {label}: {rate}, peak {peak / 2**20:.0f} MiB (under 300)")
                print(f"  {counts}")
            seconds, _, counts = run_import(settings, file)
            print(f"the same file again: {rows / seconds:,.0f} rows/s, {counts}")


if __name__ == "__main__":
    main()
