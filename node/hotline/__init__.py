"""Role 1: the national node."""
