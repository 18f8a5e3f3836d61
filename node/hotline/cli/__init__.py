"""The commands of the national node, one module each."""
