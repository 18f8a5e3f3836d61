"""Tests of where a host is."""
