"""A small PostgreSQL in memory: the statements of the node's store, run on virtual time; not a database for anybody."""
