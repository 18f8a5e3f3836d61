"""Migrations of the national node."""
