"""The chained copy of every audit entry; personal values apart from entries, secrets out of them.

Revision: 20250920_14, after 20250920_13.
Downgrade: chains, their heads and personal values are kept aside and brought back by the next upgrade; entries
written meanwhile are chained then. Not kept: which entries still wait to be sent (found again by comparison).
Entries that were masked stay masked.
"""

import re

from kit_tables import SCHEMAS, drop, keep, restore, role_of, run
from platform_functions import AUDIT_WITH_CHAIN, PLATFORM_FUNCTIONS

revision = "20250920_14"
down_revision = "20250920_13"
branch_labels = None
depends_on = None

KEPT = ("audit_chain", "audit_chain_head", "audit_personal")


def upgrade() -> None:
    """Make the chain; have entries masked and sent by the trigger; take in the entries that are there."""
    run(AUTH + AUDIT_WITH_CHAIN)
    restore(revision, "auth", *KEPT)
    mask()
    run(DECISIONS)
    for schema in SCHEMAS:
        run(WAITING.replace("@schema", schema).replace("@role", role_of(schema)))


def downgrade() -> None:
    """Set the chain aside, then drop it; the trigger is what it was."""
    keep(revision, "auth", *KEPT)
    run(f"{TRIGGERS_BEFORE} {audit_before()} DROP FUNCTION platform.audit_masked;")
    for schema in SCHEMAS:
        drop(schema, "audit_waiting")
    drop("auth", *reversed(KEPT))


def audit_before() -> str:
    """Give the trigger function as the baseline made it."""
    found = re.search(r"CREATE (FUNCTION platform\.audit\(\).*?\n\$\$;)", PLATFORM_FUNCTIONS, re.DOTALL)
    assert found is not None
    return f"CREATE OR REPLACE {found[1]}"


AUTH = """
CREATE TABLE auth.audit_chain (
    chain_id uuid NOT NULL,
    seq bigint NOT NULL,
    audit_id uuid NOT NULL,
    service text NOT NULL,
    entity text NOT NULL,
    entity_id text NOT NULL,
    action text NOT NULL,
    actor text NOT NULL,
    on_behalf_of text,
    session_user_name text NOT NULL,
    request_id text,
    trace_id text,
    at timestamptz NOT NULL,
    before jsonb,
    after jsonb,
    hash bytea NOT NULL,
    PRIMARY KEY (chain_id, seq),
    CONSTRAINT audit_chain_audit_id_key UNIQUE (audit_id)
);
CREATE INDEX audit_chain_by_entity ON auth.audit_chain (chain_id, entity, entity_id, seq);
CREATE INDEX audit_chain_by_actor ON auth.audit_chain (chain_id, actor, seq);
CREATE TRIGGER stands BEFORE UPDATE OR DELETE ON auth.audit_chain
    FOR EACH ROW EXECUTE FUNCTION platform.refuse();
CREATE TRIGGER stands_truncate BEFORE TRUNCATE ON auth.audit_chain
    FOR EACH STATEMENT EXECUTE FUNCTION platform.refuse();
COMMENT ON COLUMN auth.audit_chain.chain_id IS 'The organisation; all zeros for what belongs to none.';

CREATE TABLE auth.audit_chain_head (
    chain_id uuid PRIMARY KEY,
    seq bigint NOT NULL,
    hash bytea NOT NULL,
    seal bytea NOT NULL
);
COMMENT ON COLUMN auth.audit_chain_head.seal IS 'HMAC of chain, seq and hash with a key that the database lacks.';

CREATE TABLE auth.audit_personal (
    audit_id uuid NOT NULL,
    name text NOT NULL,
    salt bytea NOT NULL,
    before text,
    after text,
    PRIMARY KEY (audit_id, name)
);
CREATE INDEX audit_personal_before ON auth.audit_personal (before);
CREATE INDEX audit_personal_after ON auth.audit_personal (after);
COMMENT ON TABLE auth.audit_personal IS 'Personal values that entries only commit to; a row can be erased.';

GRANT SELECT, INSERT ON auth.audit_chain TO eb_auth;
GRANT SELECT, INSERT, UPDATE ON auth.audit_chain_head TO eb_auth;
GRANT SELECT ON auth.audit_personal TO eb_auth;
"""

MASKED = (
    ("organization", "org_id", "org_id", "billing_email,legal_name,tax_id", ""),
    ("api_key", "key_id", "org_id", "name", "secret_sha256"),
    ("invitation", "invitation_id", "org_id", "email", "token_sha256"),
    ("project", "project_id", "org_id", "name", ""),
)
"""Table, key, organisation, personal columns, secret columns."""

MASK_OLD = """
WITH salted AS (
    SELECT audit_id, uuid_send(gen_random_uuid()) AS salt, before, after FROM auth.audit_entry
    WHERE entity = '@table'
      AND NOT EXISTS (SELECT 1 FROM auth.audit_personal AS p WHERE p.audit_id = audit_entry.audit_id)),
masked AS (
    UPDATE auth.audit_entry AS e SET before = platform.audit_masked(s.before, '@personal', '@secret', s.salt),
        after = platform.audit_masked(s.after, '@personal', '@secret', s.salt)
    FROM salted AS s WHERE e.audit_id = s.audit_id RETURNING e.audit_id)
INSERT INTO auth.audit_personal (audit_id, name, salt, before, after)
    SELECT s.audit_id, name, salt, s.before ->> name, s.after ->> name
    FROM salted AS s JOIN masked USING (audit_id), unnest(string_to_array('@personal', ',')) AS name
    WHERE coalesce(s.before ->> name, s.after ->> name) IS NOT NULL;
"""

TRIGGER = """
CREATE OR REPLACE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON auth.@table FOR EACH ROW
    EXECUTE FUNCTION platform.audit('@key', '@org', '@personal', '@secret');
CREATE OR REPLACE TRIGGER audit_truncate BEFORE TRUNCATE ON auth.@table
    FOR EACH STATEMENT EXECUTE FUNCTION platform.refuse();
"""


def mask() -> None:
    """Mask the entries that are there, and from now on."""
    run("ALTER TABLE auth.audit_entry DISABLE TRIGGER stands")
    for names in MASKED:
        script = MASK_OLD + TRIGGER
        for word, name in zip(("@table", "@key", "@org", "@personal", "@secret"), names, strict=True):
            script = script.replace(word, name)
        run(script)
    run("ALTER TABLE auth.audit_entry ENABLE TRIGGER stands")


DECISIONS = """
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON pricing.rerate FOR EACH ROW
    EXECUTE FUNCTION platform.audit('rerate_id', 'org_id');
CREATE TRIGGER audit_truncate BEFORE TRUNCATE ON pricing.rerate
    FOR EACH STATEMENT EXECUTE FUNCTION platform.refuse();
CREATE TRIGGER audit_close AFTER UPDATE ON pricing.billing_period FOR EACH ROW
    WHEN (NEW.closed_at IS DISTINCT FROM OLD.closed_at)
    EXECUTE FUNCTION platform.audit('org_id,period', 'org_id');
CREATE TRIGGER audit_void AFTER UPDATE OF void_event_id ON metering_ingest.event_key FOR EACH ROW
    WHEN (NEW.void_event_id IS DISTINCT FROM OLD.void_event_id)
    EXECUTE FUNCTION platform.audit('org_id,request_id', 'org_id');
"""
"""Money is decided by these too. Of periods and events only the decision is noted, not their coming and going."""

TRIGGERS_BEFORE = """
DROP TRIGGER audit ON pricing.rerate;
DROP TRIGGER audit_truncate ON pricing.rerate;
DROP TRIGGER audit_close ON pricing.billing_period;
DROP TRIGGER audit_void ON metering_ingest.event_key;
CREATE OR REPLACE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON auth.organization FOR EACH ROW
    EXECUTE FUNCTION platform.audit('org_id', 'org_id');
CREATE OR REPLACE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON auth.api_key FOR EACH ROW
    EXECUTE FUNCTION platform.audit('key_id', 'org_id');
DROP TRIGGER audit ON auth.invitation;
DROP TRIGGER audit_truncate ON auth.invitation;
DROP TRIGGER audit ON auth.project;
DROP TRIGGER audit_truncate ON auth.project;
"""

WAITING = """
CREATE TABLE @schema.audit_waiting (
    audit_id uuid PRIMARY KEY REFERENCES @schema.audit_entry (audit_id)
);
COMMENT ON TABLE @schema.audit_waiting IS 'Audit entries that are still to be sent to auth, which chains them.';
GRANT SELECT, UPDATE, DELETE ON @schema.audit_waiting TO @role;
INSERT INTO @schema.audit_waiting (audit_id) SELECT e.audit_id FROM @schema.audit_entry AS e
    WHERE NOT EXISTS (SELECT FROM auth.audit_chain AS c WHERE c.audit_id = e.audit_id);
"""
