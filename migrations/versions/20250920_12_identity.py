"""Sign-in with OpenID Connect providers.

Revision: 20250920_12, after 20250920_11.
Downgrade: who is whom at which provider is kept aside and brought back by the next upgrade. Not kept: sign-ins
under way (started again).
"""

from kit_tables import audit, drop, keep, restore, run

revision = "20250920_12"
down_revision = "20250920_11"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables of sign-ins with a provider; bring back what was kept."""
    run(OIDC)
    restore(revision, "auth", "oidc_identity")
    audit("auth", "oidc_identity", "issuer,subject")


def downgrade() -> None:
    """Set aside who is whom, then drop."""
    keep(revision, "auth", "oidc_identity")
    drop("auth", "oidc_identity", "oidc_attempt")


OIDC = """
CREATE TABLE auth.oidc_attempt (
    state_sha256 bytea PRIMARY KEY,
    provider text NOT NULL,
    sealed bytea NOT NULL,
    browser_sha256 bytea NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX oidc_attempt_by_expiry ON auth.oidc_attempt (expires_at);

CREATE TABLE auth.oidc_identity (
    issuer text NOT NULL,
    subject text NOT NULL,
    user_id uuid NOT NULL REFERENCES auth."user" (user_id),
    created_at timestamptz NOT NULL,
    PRIMARY KEY (issuer, subject),
    CONSTRAINT oidc_identity_user_key UNIQUE (issuer, user_id)
);

GRANT SELECT, INSERT, DELETE ON auth.oidc_attempt TO eb_auth;
GRANT SELECT, INSERT ON auth.oidc_identity TO eb_auth;
"""
