"""Tests of what every role stands on."""
