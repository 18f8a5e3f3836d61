"""Tests of catching up after outages."""
