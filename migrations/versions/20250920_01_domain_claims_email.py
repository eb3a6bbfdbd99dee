"""Domain claims proved by email, their challenges, the mails that came in, and one open invitation per address.

Revision: 20250920_01, after 20250920_00.
Downgrade: claims and what was judged about mails are kept aside and brought back by the next upgrade.
Not kept: raw mails that still wait to be judged (their senders send again) and the index of open invitations, which
the upgrade makes again.
"""

from kit_tables import audit, drop, keep, restore, run

revision = "20250920_01"
down_revision = "20250920_00"
branch_labels = None
depends_on = None

TABLES = ("domain_claim", "claim_challenge", "inbound_mail")


def upgrade() -> None:
    """Make domain-verify's tables and the invitation's partial unique index."""
    run(CLAIMS)
    restore(revision, "domain_verify", *TABLES)
    audit("domain_verify", "domain_claim", "claim_id", "org_id")


def downgrade() -> None:
    """Set claims and judged mails aside, then drop."""
    run("""
        UPDATE domain_verify.inbound_mail SET raw = NULL;
        DELETE FROM domain_verify.inbound_mail WHERE outcome = 'waiting'
    """)
    keep(revision, "domain_verify", *TABLES)
    drop("domain_verify", *reversed(TABLES))
    run("DROP TYPE domain_verify.claim_status; DROP INDEX auth.invitation_open_key")


CLAIMS = """
CREATE UNIQUE INDEX invitation_open_key ON auth.invitation (org_id, lower(email::text)) WHERE consumed_at IS NULL;

CREATE TYPE domain_verify.claim_status AS ENUM ('pending', 'verified', 'revoked', 'pending_conflict');

CREATE TABLE domain_verify.domain_claim (
    claim_id uuid PRIMARY KEY,
    org_id uuid NOT NULL,
    domain public.citext NOT NULL,
    organizational_domain text NOT NULL,
    status domain_verify.claim_status NOT NULL,
    verified_at timestamptz,
    wildcard boolean NOT NULL DEFAULT false,
    proof jsonb,
    dns_token text NOT NULL,
    expires_at timestamptz NOT NULL,
    version bigint NOT NULL DEFAULT 1,
    created_at timestamptz NOT NULL,
    CONSTRAINT domain_claim_verified CHECK ((status = 'verified') <= (verified_at IS NOT NULL AND proof IS NOT NULL)),
    CONSTRAINT domain_claim_canonical CHECK (domain::text COLLATE "C" ~ '^[A-Za-z0-9.-]{3,253}$'),
    CONSTRAINT domain_claim_wildcard CHECK (NOT wildcard OR domain::text = organizational_domain)
);
CREATE UNIQUE INDEX domain_claim_holder_key ON domain_verify.domain_claim (domain)
    WHERE status IN ('pending', 'verified');
CREATE UNIQUE INDEX domain_claim_org_key ON domain_verify.domain_claim (org_id, domain) WHERE status <> 'revoked';
CREATE INDEX domain_claim_by_org ON domain_verify.domain_claim (org_id, claim_id);
CREATE INDEX domain_claim_by_family ON domain_verify.domain_claim (organizational_domain) WHERE status <> 'revoked';
CREATE INDEX domain_claim_by_expiry ON domain_verify.domain_claim (expires_at)
    WHERE status IN ('pending', 'pending_conflict');

CREATE TABLE domain_verify.claim_challenge (
    claim_id uuid PRIMARY KEY REFERENCES domain_verify.domain_claim (claim_id),
    token_sha256 bytea NOT NULL,
    send_to text NOT NULL,
    issued_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    used_at timestamptz,
    last_attempt jsonb,
    CONSTRAINT claim_challenge_token_key UNIQUE (token_sha256),
    CONSTRAINT claim_challenge_send_to_key UNIQUE (send_to)
);

CREATE TABLE domain_verify.inbound_mail (
    mail_id uuid PRIMARY KEY,
    request_sha256 bytea NOT NULL,
    provider text NOT NULL,
    received_at timestamptz NOT NULL,
    clock_ahead_s integer NOT NULL,
    envelope_from text,
    envelope_to text NOT NULL,
    client_ip text NOT NULL,
    helo text NOT NULL,
    raw bytea,
    raw_sha256 bytea NOT NULL,
    claim_id uuid REFERENCES domain_verify.domain_claim (claim_id),
    outcome text NOT NULL,
    reasons text[] NOT NULL DEFAULT '{}',
    checks jsonb NOT NULL DEFAULT '{}',
    dns_answers jsonb NOT NULL DEFAULT '{}',
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz,
    judged_at timestamptz,
    trace_id text,
    CONSTRAINT inbound_mail_request_key UNIQUE (request_sha256),
    CONSTRAINT inbound_mail_outcome CHECK (outcome IN ('waiting', 'verified', 'refused')),
    CONSTRAINT inbound_mail_due_at CHECK ((outcome = 'waiting') <= (next_attempt_at IS NOT NULL))
);
CREATE INDEX inbound_mail_due ON domain_verify.inbound_mail (next_attempt_at) WHERE outcome = 'waiting';
CREATE INDEX inbound_mail_by_claim ON domain_verify.inbound_mail (claim_id, mail_id);
CREATE INDEX inbound_mail_with_raw ON domain_verify.inbound_mail (received_at) WHERE raw IS NOT NULL;
COMMENT ON COLUMN domain_verify.inbound_mail.clock_ahead_s IS
    'How far the business clock stood ahead of the machine''s at receipt: signers follow the machine''s.';

GRANT SELECT, INSERT, UPDATE ON domain_verify.domain_claim, domain_verify.claim_challenge, domain_verify.inbound_mail
    TO eb_domain_verify;
"""
