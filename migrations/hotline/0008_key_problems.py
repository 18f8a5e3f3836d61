"""Refusals of our keys are counted apart: around a change of keys some pass by themselves."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Count them for each peer."""
    op.add_column("peers", sa.Column("key_problems", sa.Integer(), nullable=False, server_default="0"))
