"""What people do by hand in metering, pricing and to sessions is audited; heads of chains are noted in a chain.

Revision: 20250920_15, after 20250920_14.
Downgrade: the triggers go, the entries that they wrote stay. How far each chain's head was noted is kept aside and
brought back by the next upgrade. Nothing is lost.
"""

import re

from kit_tables import run
from platform_functions import AUDIT_NARROWED, AUDIT_WITH_CHAIN

revision = "20250920_15"
down_revision = "20250920_14"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Attach the triggers; have heads noted."""
    run(AUDIT_NARROWED + ANCHORS + RESTORE_ANCHORED)
    for table, name, event, condition, arguments in AUDITED:
        run(f"""
            CREATE TRIGGER {name} AFTER {event} ON {table} FOR EACH ROW
                {f"WHEN ({condition})" if condition else ""} EXECUTE FUNCTION platform.audit({arguments});
        """)


def downgrade() -> None:
    """Take triggers and column back; rows are masked as before."""
    for table, name, *_ in AUDITED:
        run(f"DROP TRIGGER {name} ON {table}")
    run(f"""
        CREATE TABLE kept."{revision}:anchored" AS SELECT chain_id, anchored_seq FROM auth.audit_chain_head;
        DROP INDEX auth.audit_chain_head_unanchored;
        ALTER TABLE auth.audit_chain_head DROP COLUMN anchored_seq;
        {masked_before()}
    """)


def masked_before() -> str:
    """Give the masking function as the revision before made it."""
    found = re.search(r"CREATE (FUNCTION platform\.audit_masked\(.*?\n\$\$;)", AUDIT_WITH_CHAIN, re.DOTALL)
    assert found is not None
    return f"CREATE OR REPLACE {found[1]}"


BY_SOMEBODY = "coalesce(current_setting('eb.actor', true), '') !~ '^(system|service):'"
"""Not a service by itself. A write without any actor counts as somebody's, and is refused."""
BY_HAND = "coalesce(current_setting('eb.actor', true), '') !~ '^(system|key|service):'"
"""A person, not a program of theirs either."""
LETTER = (
    "'dead_letter_id', 'org_id', '',"
    " 'content_hash,errors,event>org_id/project_id/request_id/sku/quantity/source/time/hold_id'"
)
"""Of the parked event what decides the bill; its metadata may say anything."""

AUDITED = (
    (
        "metering_ingest.dead_letter", "audit_changed", "UPDATE",
        BY_SOMEBODY + " AND (NEW.event IS DISTINCT FROM OLD.event OR NEW.status NOT IN ('open', OLD.status))", LETTER,
    ),
    ("metering_ingest.letter_replay", "audit_asked", "INSERT", BY_SOMEBODY, "'letter_replay_id', 'org_id'"),
    ("metering_ingest.usage_replay", "audit_asked", "INSERT", BY_SOMEBODY, "'replay_id', 'org_id'"),
    (
        "metering_ingest.provider_log", "audit_loaded", "UPDATE",
        "NEW.status = 'loaded' AND OLD.status IS DISTINCT FROM NEW.status", "'log_id', ''",
    ),
    (
        "metering_ingest.reconciliation", "audit_asked", "INSERT", BY_SOMEBODY,
        "'reconciliation_id', 'org_id'",
    ),
    (
        "metering_ingest.reconciliation", "audit_fill", "UPDATE",
        "NEW.status = 'filling' AND OLD.status IS DISTINCT FROM NEW.status", "'reconciliation_id', 'org_id'",
    ),
    ("pricing.charge", "audit_one_off", "INSERT", "NEW.kind = 'one_off'", "'charge_id', 'org_id'"),
    (
        "pricing.initiation", "audit_release", "UPDATE",
        "OLD.released_at IS NULL AND NEW.released_at IS NOT NULL AND " + BY_HAND, "'hold_id', 'org_id'",
    ),
    ("auth.session", "audit_signed_in", "INSERT", "", "'session_id', '', '', 'user_agent,address'"),
    (
        "auth.session", "audit_ended", "UPDATE", "OLD.revoked_at IS NULL AND NEW.revoked_at IS NOT NULL",
        "'session_id', '', '', 'user_agent,address'",
    ),
)  # fmt: skip
"""Table, trigger, event, condition, and the arguments of `platform.audit`. Conditions come first: rows that
machines write by the thousand cost a comparison and no call."""

ANCHORS = """
ALTER TABLE auth.audit_chain_head ADD COLUMN anchored_seq bigint NOT NULL DEFAULT 0;
COMMENT ON COLUMN auth.audit_chain_head.anchored_seq IS
    'Up to where the head was noted in the chain of heads; only a list of work, no proof.';
CREATE INDEX audit_chain_head_unanchored ON auth.audit_chain_head (chain_id) WHERE anchored_seq < seq;
"""

RESTORE_ANCHORED = f"""
DO $$
BEGIN
    IF to_regclass('kept."{revision}:anchored"') IS NOT NULL THEN
        UPDATE auth.audit_chain_head AS h SET anchored_seq = k.anchored_seq
            FROM kept."{revision}:anchored" AS k WHERE k.chain_id = h.chain_id;
        DROP TABLE kept."{revision}:anchored";
    END IF;
END
$$;
"""
