"""The conformance client: it checks any node from outside, against docs/protocol.md; it knows nothing of ours."""
