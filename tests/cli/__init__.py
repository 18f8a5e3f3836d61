"""Tests of the command line, on real databases and files."""
