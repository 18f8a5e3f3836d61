"""The membership directory as TUF metadata."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Remember versions apart for each set of signing keys; what was remembered of signed files stays, under none."""
    op.add_column(
        "directory_versions", sa.Column("keys", sa.LargeBinary(), nullable=False, server_default=sa.text("''::bytea"))
    )
    for name in ("root_version", "snapshot_version", "timestamp_version"):
        op.add_column("directory_versions", sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
    op.alter_column("directory_versions", "version", type_=sa.BigInteger())
    op.drop_constraint(op.f("pk_directory_versions"), "directory_versions", type_="primary")
    op.create_primary_key(op.f("pk_directory_versions"), "directory_versions", ["keys", "version"])
    op.create_table_comment(
        "directory_versions",
        "Membership directories this node has trusted, by who signs them; what is lower is refused",
    )
