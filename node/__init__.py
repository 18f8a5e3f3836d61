"""The program, run in one of its roles."""
