"""The API door of a running node, asked over real HTTP."""
