"""The reference of a peer's report, and one that was corrected, are kept."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """References as records have them."""
    op.add_column("cases", sa.Column("wire_reference_enc", sa.LargeBinary(), nullable=True))
