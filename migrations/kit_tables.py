"""What every revision shares: running SQL, grants, checks, the audit trigger, and the kit's tables of a service.

All statements are plain SQL. Online they go to asyncpg as one script (many statements in one round trip);
offline they are written out.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from alembic import context, op

SCHEMAS = ("auth", "domain_verify", "catalog", "metering_ingest", "pricing", "ledger", "estimator")
"""One schema per service; its role is `eb_<schema>`."""

PARTITION_NAMES = re.compile(r".+_(p\d{4}_\d{2}(_\d{2})?|h\d{2})")
"""How partitions are called: `<table>_pYYYY_MM`, `<table>_pYYYY_MM_DD`, `<table>_hNN`."""

CAUTION = "SET LOCAL lock_timeout = '10s'; SET LOCAL statement_timeout = '15min';\n"
"""A migration that can't get its locks gives up before everybody else queues behind it."""
OUTBOX_DAYS = 8
INBOX_MONTHS = 3
MONTHS_AHEAD = 12


def run(script: str) -> None:
    """Run one or more SQL statements, with the migration itself as the actor of what it writes."""
    if context.is_offline_mode():
        op.execute(CAUTION + script)
        return
    bind = op.get_bind()
    bind.exec_driver_sql("SET LOCAL eb.actor = 'system:migration'")
    script = CAUTION + script
    bind.connection.dbapi_connection.run_async(lambda connection: connection.execute(script))  # type: ignore[union-attr]


def role_of(schema: str) -> str:
    """Give the login role of the service that owns a schema."""
    return f"eb_{schema}"


def grant(schema: str, table: str, rights: str) -> None:
    """Give the owning service's role rights on one of its tables."""
    run(f'GRANT {rights} ON {schema}."{table}" TO {role_of(schema)}')


def finite(*columns: str) -> str:
    """Give CHECKs that keep numerics in a finite range: NaN and both infinities fall outside."""
    return ", ".join(f"CHECK ({column} > -1e18 AND {column} < 1e18)" for column in columns)


def audit(schema: str, table: str, key_columns: str, org_column: str = "") -> None:
    """Attach the audit trigger: each write of `table` leaves an entry in `<schema>.audit_entry`.

    `key_columns` is a comma list that becomes entity_id (values joined by `/`); TRUNCATE is refused, since it
    would leave no entry. Rule: docs/rules/identity.md, Audit.
    """
    run(f"""
        CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON {schema}."{table}"
            FOR EACH ROW EXECUTE FUNCTION platform.audit('{key_columns}', '{org_column}');
        CREATE TRIGGER audit_truncate BEFORE TRUNCATE ON {schema}."{table}"
            FOR EACH STATEMENT EXECUTE FUNCTION platform.refuse();
    """)


def keep(revision: str, schema: str, *tables: str) -> None:
    """Set the rows of tables aside in schema `kept` before a downgrade drops them."""
    for table in tables:
        run(f"SELECT platform.keep('{revision}', '{schema}', '{table}')")


def restore(revision: str, schema: str, *tables: str) -> None:
    """Bring back what an earlier downgrade of this revision set aside; nothing if there is none."""
    for table in tables:
        run(f"SELECT platform.restore('{revision}', '{schema}', '{table}')")


def drop(schema: str, *tables: str) -> None:
    """Drop tables, in the order given."""
    for table in tables:
        run(f'DROP TABLE {schema}."{table}"')


def months(table: str, back: int, ahead: int = MONTHS_AHEAD) -> None:
    """Make the monthly partitions of `schema.table` from `back` months ago to `ahead` months from today."""
    run(f"""
        SELECT platform.ensure_month('{table}', (date '{_this_month()}' + make_interval(months => n))::date)
        FROM generate_series({-back}, {ahead}) AS n
    """)


def create_kit_tables(schema: str) -> None:
    """Make the tables that the kit keeps in every service's schema, with their partitions and grants."""
    run(KIT_TABLES.replace("@schema", schema).replace("@role", role_of(schema)))
    run(f"""
        SELECT platform.ensure_id_partitions('{schema}', 'outbox', timestamptz '{_today()}' - interval '1 day',
                                             timestamptz '{_today()}' + interval '{OUTBOX_DAYS} days');
        SELECT platform.ensure_id_partitions('{schema}', 'inbox', timestamptz '{_today()}' - interval '1 month',
                                             timestamptz '{_today()}' + interval '{INBOX_MONTHS} months');
    """)


def _today() -> str:
    return datetime.now(UTC).date().isoformat()


def _this_month() -> str:
    return datetime.now(UTC).date().replace(day=1).isoformat()


KIT_TABLES = """
CREATE TABLE @schema.outbox (
    outbox_id uuid NOT NULL,
    lane smallint NOT NULL,
    exchange text NOT NULL,
    routing_key text NOT NULL,
    type text NOT NULL,
    subject text NOT NULL,
    body bytea NOT NULL,
    headers jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    sent_at timestamptz,
    PRIMARY KEY (outbox_id)
) PARTITION BY RANGE (outbox_id);
CREATE INDEX outbox_unsent ON @schema.outbox (lane, outbox_id) WHERE sent_at IS NULL;
GRANT SELECT, INSERT, UPDATE ON @schema.outbox TO @role;

CREATE TABLE @schema.inbox (
    message_id uuid NOT NULL,
    queue text NOT NULL,
    handled_at timestamptz NOT NULL,
    PRIMARY KEY (message_id, queue)
) PARTITION BY RANGE (message_id);
GRANT SELECT, INSERT ON @schema.inbox TO @role;

CREATE TABLE @schema.bus_dead_letter (
    dead_letter_id uuid PRIMARY KEY,
    queue text NOT NULL,
    message_id uuid,
    type text,
    headers jsonb NOT NULL,
    body bytea NOT NULL,
    error_class text NOT NULL,
    detail text NOT NULL,
    fingerprint text NOT NULL,
    attempts integer NOT NULL,
    first_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL,
    trace_id text,
    status text NOT NULL CHECK (status IN ('open', 'replayed', 'discarded'))
);
CREATE INDEX bus_dead_letter_by_status ON @schema.bus_dead_letter (status, dead_letter_id);
CREATE UNIQUE INDEX bus_dead_letter_message ON @schema.bus_dead_letter (message_id, queue) WHERE status = 'open';
GRANT SELECT, INSERT, UPDATE, DELETE ON @schema.bus_dead_letter TO @role;

CREATE TABLE @schema.idempotency_key (
    scope text NOT NULL,
    route text NOT NULL,
    key text NOT NULL,
    request_sha256 bytea NOT NULL,
    status integer NOT NULL,
    headers jsonb NOT NULL,
    body bytea,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (scope, route, key)
);
CREATE INDEX idempotency_key_by_age ON @schema.idempotency_key (created_at);
GRANT SELECT, INSERT, UPDATE, DELETE ON @schema.idempotency_key TO @role;

CREATE TABLE @schema.known (
    entity text NOT NULL,
    entity_id text NOT NULL,
    version bigint NOT NULL,
    is_deleted boolean NOT NULL,
    body jsonb NOT NULL,
    changed_at timestamptz NOT NULL,
    PRIMARY KEY (entity, entity_id)
);
CREATE INDEX known_by_change ON @schema.known (changed_at);
GRANT SELECT, INSERT, UPDATE, DELETE ON @schema.known TO @role;

CREATE TABLE @schema.read_model (
    entity text PRIMARY KEY,
    snapshot_id uuid NOT NULL,
    state text NOT NULL CHECK (state IN ('loading', 'complete')),
    requested_at timestamptz NOT NULL,
    expected integer,
    completed_at timestamptz
);
GRANT SELECT, INSERT, UPDATE, DELETE ON @schema.read_model TO @role;

CREATE TABLE @schema.audit_entry (
    audit_id uuid PRIMARY KEY,
    org_id uuid,
    entity text NOT NULL,
    entity_id text NOT NULL,
    action text NOT NULL CHECK (action IN ('insert', 'update', 'delete')),
    actor text NOT NULL,
    on_behalf_of text,
    session_user_name text NOT NULL,
    request_id text,
    trace_id text,
    at timestamptz NOT NULL,
    before jsonb,
    after jsonb
);
CREATE INDEX audit_entry_by_org ON @schema.audit_entry (org_id, audit_id);
CREATE INDEX audit_entry_by_entity ON @schema.audit_entry (entity, entity_id, audit_id);
CREATE TRIGGER stands BEFORE UPDATE OR DELETE ON @schema.audit_entry
    FOR EACH ROW EXECUTE FUNCTION platform.refuse();
CREATE TRIGGER stands_truncate BEFORE TRUNCATE ON @schema.audit_entry
    FOR EACH STATEMENT EXECUTE FUNCTION platform.refuse();
GRANT SELECT ON @schema.audit_entry TO @role;
"""
