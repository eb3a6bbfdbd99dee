"""Voids, corrected dead letters and replays.

Revision: 20250920_09, after 20250920_08.
Downgrade: nothing is lost.
"""

revision = "20250920_09"
down_revision = "20250920_08"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change nothing yet."""


def downgrade() -> None:
    """Change nothing back."""
