"""Which desk has what was handed in, and why one refuses it: another desk gets it too, and a person hears of it."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; what was handed in before goes to the desk of now once more, which changes nothing there."""
    for table in ("disputes", "equivocations"):
        op.add_column(table, sa.Column("handed_in_to", sa.Text(), nullable=True))
        op.add_column(table, sa.Column("refused", sa.Text(), nullable=True))
