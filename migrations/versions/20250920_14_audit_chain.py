"""The chained copy of every audit entry.

Revision: 20250920_14, after 20250920_13.
Downgrade: nothing is lost.
"""

revision = "20250920_14"
down_revision = "20250920_13"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change nothing yet."""


def downgrade() -> None:
    """Change nothing back."""
