"""When a status that was refused is looked at again: it may have been refused for a proof that counts no more."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column, with the index that finds what is due; what was refused before is looked at as well."""
    op.add_column("outbox_refusals", sa.Column("again_at", sa.DateTime(timezone=True), nullable=True))
    op.create_index(
        "ix_outbox_refusals_again_at",
        "outbox_refusals",
        ["again_at"],
        postgresql_where=sa.text("again_at IS NOT NULL"),
    )
    op.execute(
        "UPDATE outbox_refusals r SET again_at = r.refused_at FROM outbox o "
        "WHERE o.stream = r.stream AND o.idx = r.idx AND o.type = 'status' AND r.code = 'handling-violation'"
    )
