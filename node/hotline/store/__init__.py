"""The tables of the national node and every query on them."""
