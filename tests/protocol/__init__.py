"""Tests of the wire contract: outside vectors first, then the rules."""
