"""The rules of the national node."""
