"""What hotlines said of transfers of our items that they took back: whoever was to have had one is not believed."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql as pg

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """The last word of each giver for each taker."""
    op.create_table(
        "taken_back",
        sa.Column("item_id", pg.UUID(), nullable=False),
        sa.Column("giver", sa.Text(), nullable=False),
        sa.Column("taker", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("item_id", "giver", "taker", name=op.f("pk_taken_back")),
        comment="Transfers of our items that their givers took back, by what they told us",
    )
