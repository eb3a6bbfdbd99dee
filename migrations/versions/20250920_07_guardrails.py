"""Budgets, holds and prepaid credits.

Revision: 20250920_07, after 20250920_06.
Downgrade: nothing is lost.
"""

revision = "20250920_07"
down_revision = "20250920_06"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change nothing yet."""


def downgrade() -> None:
    """Change nothing back."""
