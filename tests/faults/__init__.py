"""Faults to survive: processes killed at each durable step, answers lost, databases cut off, wrong clocks."""
