"""Closed periods, base fees, one-off charges and re-ratings.

Revision: 20250920_08, after 20250920_07.
Downgrade: nothing is lost.
"""

revision = "20250920_08"
down_revision = "20250920_07"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change nothing yet."""


def downgrade() -> None:
    """Change nothing back."""
