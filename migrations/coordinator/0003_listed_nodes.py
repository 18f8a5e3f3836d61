"""Whom the directory ever listed, and one case for each contradiction."""

import sqlalchemy as sa
from alembic import op

revision = "c0003"
down_revision = "c0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table, which the next publication fills; cases from before keep to their digest."""
    op.create_table(
        "listed_nodes",
        sa.Column("node_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("node_id", name=op.f("pk_listed_nodes")),
        comment="Nodes that a directory published here ever listed: those that left stay part of disputes",
    )
    op.add_column("desk_cases", sa.Column("contradiction", sa.LargeBinary(), nullable=True))
    op.create_unique_constraint(op.f("uq_desk_cases_contradiction"), "desk_cases", ["contradiction"])
