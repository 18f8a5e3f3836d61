"""Many real nodes over TLS under faults for minutes; afterwards every record is accounted for."""
