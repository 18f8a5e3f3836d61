"""The two-minute network on one machine: hotlines, their databases and a DNS server."""
