"""Every outbound connection of the national node."""
