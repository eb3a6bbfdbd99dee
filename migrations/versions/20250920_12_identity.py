"""Sign-in providers, invitations and step-up.

Revision: 20250920_12, after 20250920_11.
Downgrade: nothing is lost.
"""

revision = "20250920_12"
down_revision = "20250920_11"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change nothing yet."""


def downgrade() -> None:
    """Change nothing back."""
