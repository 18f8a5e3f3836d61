"""A hotline is no desk any more: its cases are the coordinator's."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Drop the table; hotlines hand open disputes in at the desk that the directory names now."""
    op.drop_table("desk_cases")
