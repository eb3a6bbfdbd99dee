"""Sessions remember how somebody signed in.

Revision: 20250920_17, after 20250920_16.
Downgrade: nothing is lost.
"""

revision = "20250920_17"
down_revision = "20250920_16"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing yet."""


def downgrade() -> None:
    """Nothing yet."""
