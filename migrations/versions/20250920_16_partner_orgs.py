"""Partners may name the organisation whose members act for them.

Revision: 20250920_16, after 20250920_15.
Downgrade: nothing is lost.
"""

revision = "20250920_16"
down_revision = "20250920_15"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing yet."""


def downgrade() -> None:
    """Nothing yet."""
