"""What each queue was sent and has handled, compared.

Revision: 20250920_11, after 20250920_10.
Downgrade: nothing is lost.
"""

revision = "20250920_11"
down_revision = "20250920_10"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change nothing yet."""


def downgrade() -> None:
    """Change nothing back."""
