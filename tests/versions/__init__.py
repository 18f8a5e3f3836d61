"""A node of version 1.0 and one of 1.1 work together, in both directions."""
