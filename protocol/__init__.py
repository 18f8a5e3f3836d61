"""The wire contract HX/1: pure rules and formats; no I/O, no clock, no randomness."""
