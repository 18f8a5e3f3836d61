"""The deterministic simulator: whole nodes on virtual time, network and storage, and histories drawn from seeds."""
