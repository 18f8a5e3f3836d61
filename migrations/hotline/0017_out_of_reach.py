"""What other hotlines have is found by who has it, without reading every item."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """The index over items that are with another hotline."""
    op.create_index(
        "ix_items_assigned_node",
        "items",
        ["assigned_node", "id"],
        postgresql_where=sa.text("state IN ('sent', 'transferred')"),
    )
