"""Of the contradictions of a peer the first few are kept, and the others counted."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """The count of those that were not kept."""
    op.add_column("peers", sa.Column("equivocations_left_out", sa.BigInteger(), nullable=False, server_default="0"))
