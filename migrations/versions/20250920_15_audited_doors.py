"""What people change by hand in metering, pricing and sessions is audited too.

Revision: 20250920_15, after 20250920_14.
Downgrade: nothing is lost.
"""

revision = "20250920_15"
down_revision = "20250920_14"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing yet."""


def downgrade() -> None:
    """Nothing yet."""
