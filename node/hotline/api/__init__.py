"""JSON in: intake, items, peer protocol, health."""
