"""Partners may name the organisation whose members act for them; who somebody is at a provider is personal.

Revision: 20250920_16, after 20250920_15.
Downgrade: organisations and versions of partners are kept aside and brought back by the next upgrade.
Nothing is lost. Audit entries name a provider's subject only in what was written before this revision, or after a
downgrade: chained entries stay as they are.
"""

from kit_tables import run

revision = "20250920_16"
down_revision = "20250920_15"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns, bring back what was kept; mask subjects."""
    run(COLUMNS + RESTORE + SUBJECT.format("'issuer,user_id', '', 'subject', ''"))


def downgrade() -> None:
    """Set the columns aside, then drop them; the trigger is what it was."""
    run(KEEP + TAKE_COLUMNS + SUBJECT.format("'issuer,subject', ''"))


COLUMNS = """
ALTER TABLE ledger.partner ADD COLUMN org_id uuid, ADD COLUMN version bigint NOT NULL DEFAULT 1;
"""

KEEP = f"""
CREATE TABLE kept."{revision}:ledger.partner" AS
    SELECT partner_id, org_id, version FROM ledger.partner WHERE org_id IS NOT NULL OR version > 1;
"""

RESTORE = f"""
DO $$
BEGIN
    IF to_regclass('kept."{revision}:ledger.partner"') IS NOT NULL THEN
        ALTER TABLE ledger.partner DISABLE TRIGGER audit;
        UPDATE ledger.partner AS p SET org_id = k.org_id, version = k.version
            FROM kept."{revision}:ledger.partner" AS k WHERE p.partner_id = k.partner_id;
        ALTER TABLE ledger.partner ENABLE TRIGGER audit;
        DROP TABLE kept."{revision}:ledger.partner";
    END IF;
END
$$;
"""

SUBJECT = """
CREATE OR REPLACE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON auth.oidc_identity FOR EACH ROW
    EXECUTE FUNCTION platform.audit({});
"""

TAKE_COLUMNS = """
ALTER TABLE ledger.partner DROP COLUMN org_id, DROP COLUMN version;
"""
