"""Links with consent, group roles and assist sessions.

Revision: 20250920_13, after 20250920_12.
Downgrade: nothing is lost.
"""

revision = "20250920_13"
down_revision = "20250920_12"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change nothing yet."""


def downgrade() -> None:
    """Change nothing back."""
