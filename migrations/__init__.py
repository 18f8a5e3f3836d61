"""Alembic migrations, one branch a role."""
