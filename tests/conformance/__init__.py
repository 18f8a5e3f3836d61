"""The conformance client: a real node passes, and a node that breaks one rule fails the check that holds it."""
