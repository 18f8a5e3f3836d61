"""What every role stands on: database, web shell, HTTP client, jobs, keys, encryption, telemetry."""
