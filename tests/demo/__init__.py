"""Tests of the demo: its made-up internet, its name server, its file, its accounting and the whole of it."""
