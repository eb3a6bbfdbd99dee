"""Sessions remember what the provider said about the sign-in they began with.

Revision: 20250920_17, after 20250920_16.
Downgrade: what providers said is kept aside and brought back by the next upgrade. Not kept: sign-ins under way
(started again), in both directions.
"""

from kit_tables import run

revision = "20250920_17"
down_revision = "20250920_16"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns, bring back what was kept."""
    run(COLUMNS + RESTORE + FORGET_ATTEMPTS)


def downgrade() -> None:
    """Set the columns aside, then drop them."""
    run(KEEP + TAKE_COLUMNS + FORGET_ATTEMPTS)


COLUMNS = """
ALTER TABLE auth.session ADD COLUMN provider text, ADD COLUMN acr text,
    ADD COLUMN amr text[] NOT NULL DEFAULT '{}', ADD COLUMN auth_time timestamptz;
"""

KEEP = f"""
CREATE TABLE kept."{revision}:auth.session" AS
    SELECT session_id, provider, acr, amr, auth_time FROM auth.session WHERE provider IS NOT NULL;
"""

RESTORE = f"""
DO $$
BEGIN
    IF to_regclass('kept."{revision}:auth.session"') IS NOT NULL THEN
        UPDATE auth.session AS s SET provider = k.provider, acr = k.acr, amr = k.amr, auth_time = k.auth_time
            FROM kept."{revision}:auth.session" AS k WHERE s.session_id = k.session_id;
        DROP TABLE kept."{revision}:auth.session";
    END IF;
END
$$;
"""

TAKE_COLUMNS = """
ALTER TABLE auth.session DROP COLUMN provider, DROP COLUMN acr, DROP COLUMN amr, DROP COLUMN auth_time;
"""

FORGET_ATTEMPTS = """
DELETE FROM auth.oidc_attempt;
"""
