"""A contradiction of two epochs is kept with the record that says where the first had ended."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Proofs of the records that begin epochs."""
    op.add_column("equivocations", sa.Column("ending", sa.LargeBinary(), nullable=True))
