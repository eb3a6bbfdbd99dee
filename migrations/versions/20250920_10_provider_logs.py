"""Provider logs, reconciliations and usage alerts.

Revision: 20250920_10, after 20250920_09.
Downgrade: nothing is lost.
"""

revision = "20250920_10"
down_revision = "20250920_09"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change nothing yet."""


def downgrade() -> None:
    """Change nothing back."""
