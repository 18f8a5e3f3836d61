"""Benchmarks: scripts that print what they measured beside the limit measured in the same run."""
