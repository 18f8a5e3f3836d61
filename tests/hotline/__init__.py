"""Tests of the national node on real PostgreSQL and real sockets."""
