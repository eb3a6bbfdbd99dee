"""What the auth service is told beyond the common settings."""

from __future__ import annotations

from functools import cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Json, model_validator

from eb_kit.settings import CommaList, SecretLines, ServiceSettings
from eb_kit.tx import Tx

from .domain.sessions import Proof, shows

LOCAL_SECRET = "local-auth-secret"  # noqa: S105


def _ranges(written: tuple[str, ...]) -> tuple[str, ...]:
    for text in written:
        ip_network(text)
    return written


@cache
def _networks(written: tuple[str, ...]) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(ip_network(text) for text in written)


class OidcProvider(BaseModel):
    """One OpenID Connect provider; `issuer` exactly as it names itself.

    `prompt` and `acr_values` go along with each sign-in. `second_factor_acr` and `second_factor_amr` are the words by
    which this provider says that a second factor was used.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    issuer: str = Field(min_length=8)
    client_id: str = Field(min_length=1)
    client_secret: str | None = Field(None, repr=False)
    trusted_domains: tuple[str, ...] = ()
    prompt: tuple[Literal["login", "consent", "select_account"], ...] = ("select_account",)
    acr_values: tuple[str, ...] = ()
    second_factor_acr: tuple[str, ...] = ()
    second_factor_amr: tuple[str, ...] = ()

    def shows_second_factor(self, proof: Proof | None) -> bool:
        """Tell whether a sign-in here was with a second factor, by the provider's word."""
        return shows(proof, self.second_factor_acr, self.second_factor_amr)


class Settings(ServiceSettings):
    """Settings of auth; times in seconds."""

    auth_secret: SecretLines = Field(
        (LOCAL_SECRET,),
        description="Seals signing keys and mails that wait, keys the HMAC of sign-in codes and of audit heads."
        " One a line: the first is used, the others still open what they sealed.",
    )
    mailbox_dir: Path | None = Field(
        None, description="Local runs: folder that gets each mail as one .eml file."
    )
    mail_from: str = Field("no-reply@event-builder.local", description="Sender of the platform's mails.")
    smtp_host: str | None = Field(None, description="SMTP server for mails; none: only a mailbox folder.")
    smtp_port: int = Field(587, description="Port of the SMTP server.")
    smtp_security: Literal["starttls", "tls", "none"] = Field(
        "starttls", description="How SMTP is encrypted."
    )
    smtp_username: str | None = Field(None, description="SMTP user name; none: without signing in.")
    smtp_password: str | None = Field(None, description="SMTP password.")
    trusted_proxies: Annotated[CommaList, AfterValidator(_ranges)] = Field(
        ("127.0.0.1", "::1"),
        description="Addresses or ranges (10.0.0.0/8) whose X-Forwarded-For names the client; with commas.",
    )
    session_idle_s: int = Field(
        14 * 86_400, ge=60, description="A session ends this long after its last use."
    )
    session_lifetime_s: int = Field(
        90 * 86_400, ge=60, description="A session ends this long after it began."
    )
    signing_key_days: int = Field(
        30, ge=1, description="A signing key signs this long before the next one does."
    )
    signing_key_lead_s: int = Field(
        3_600, ge=10, description="A further signing key is announced this long before its first use."
    )
    most_moved_pairs: int = Field(
        600_000,
        ge=1,
        description="Largest subtree moved in one step: its organisations times the levels above it, before and after.",
    )

    oidc_providers: Json[dict[str, OidcProvider]] = Field(
        "{}",
        validate_default=True,
        description="Sign-in providers by name, as JSON: issuer, client_id, client_secret, trusted_domains; prompt"
        " (default select_account) and acr_values to ask for; second_factor_acr and second_factor_amr, by which it"
        " says that a second factor was used.",
    )
    staff_second_factor: bool = Field(
        False,
        description="Tokens carry platform roles only where the provider of the session's sign-in showed a second"
        " factor. For production: on.",
    )
    login_challenge_required: bool = Field(
        False, description="Sign-in codes are mailed only to clients that bind them with a code_challenge."
    )

    def trusts(self, remote: str) -> bool:
        """Tell whether this network address may say whom it speaks for; False for what is no address."""
        try:
            address = ip_address(remote)
        except ValueError:
            return False
        return any(address in network for network in _networks(self.trusted_proxies))

    def plain_ways(self) -> dict[str, str]:
        """Name the settings that lead to a server without TLS, the mail server's too."""
        found = super().plain_ways()
        if self.smtp_host is not None and self.smtp_security == "none":
            found["EB_SMTP_SECURITY"] = "must be starttls or tls"
        return found

    @model_validator(mode="after")
    def _production_has_its_own_auth_secret(self) -> Settings:
        if self.eb_env == "production" and LOCAL_SECRET in self.auth_secret:
            raise ValueError("EB_AUTH_SECRET must be set in production")
        return self

    @model_validator(mode="after")
    def _somebody_can_show_a_second_factor(self) -> Settings:
        providers = self.oidc_providers.values()
        if self.staff_second_factor and not any(
            p.second_factor_acr or p.second_factor_amr for p in providers
        ):
            raise ValueError(
                "EB_STAFF_SECOND_FACTOR needs a provider with second_factor_acr or second_factor_amr"
            )
        return self

    @model_validator(mode="after")
    def _mail_goes_somewhere(self) -> Settings:
        if self.eb_env == "production" and (self.smtp_host is None or self.mailbox_dir is not None):
            raise ValueError("production sends mail through EB_SMTP_HOST; EB_MAILBOX_DIR is for local runs")
        if self.smtp_host is None and self.mailbox_dir is None:
            raise ValueError("set EB_MAILBOX_DIR (local) or EB_SMTP_HOST")
        return self

    def may_hold_platform_roles(self, proof: Proof | None) -> bool:
        """Tell whether the tokens of a session carry its user's platform roles; `proof` is how it began."""
        provider = self.oidc_providers.get(proof.provider) if proof else None
        return not self.staff_second_factor or (provider is not None and provider.shows_second_factor(proof))


def settings_of(tx: Tx) -> Settings:
    """Give the settings of this service."""
    settings: Settings = tx.context.settings
    return settings
