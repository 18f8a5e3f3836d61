"""Two nodes' talk under stress: every refusal, every repeat and every fault of the other side."""
