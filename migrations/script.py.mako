"""${message}

Revision: ${up_revision}, after ${down_revision | comma,n}.
Downgrade: say here what it keeps and what it can't.
"""

from kit_tables import run

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Say what comes."""
    run("")


def downgrade() -> None:
    """Say what goes."""
    run("")
