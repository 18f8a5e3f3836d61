"""The flow that applies what peers said: one module for each kind of record."""
