"""Runs every benchmark, one after the other."""

import subprocess
import sys

BENCHMARKS = (
    "bench.directory",
    "bench.location",
    "bench.intake",
    "bench.importing",
    "bench.delivery",
    "bench.catchup",
    "bench.fairness",
    "bench.idle",
    "bench.scale",
)


def main() -> int:
    """Run each in a process of its own; returns the worst exit status."""
    worst = 0
    for name in BENCHMARKS:
        print(f"== {name}", flush=True)
        worst = max(worst, subprocess.run([sys.executable, "-m", name], check=False).returncode)
    return worst


if __name__ == "__main__":
    sys.exit(main())
