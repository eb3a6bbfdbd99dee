"""Settings of domain-verify."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from eb_kit.settings import CommaList, ServiceSettings

from .outside.resolver import read_server

SHORTEST_SECRET = 16


def _addresses(servers: tuple[str, ...]) -> tuple[str, ...]:
    for server in servers:
        read_server(server)
    return servers


def _long_enough(secrets: tuple[str, ...]) -> tuple[str, ...]:
    if any(len(secret) < SHORTEST_SECRET for secret in secrets):
        raise ValueError(f"a secret has at least {SHORTEST_SECRET} characters")
    return secrets


def _by_name(value: object) -> object:
    """Read `name=secret,name=secret`; a name twice has two valid secrets."""
    if not isinstance(value, str):
        return value
    secrets: dict[str, tuple[str, ...]] = {}
    for pair in filter(None, (part.strip() for part in value.split(","))):
        name, equals, secret = pair.partition("=")
        if not equals or not name.strip():
            raise ValueError("expected name=secret,name=secret")
        secrets[name.strip()] = (*secrets.get(name.strip(), ()), secret.strip())
    return secrets


Secrets = Annotated[CommaList, AfterValidator(_long_enough)]
NamedSecrets = Annotated[
    dict[str, Annotated[tuple[str, ...], AfterValidator(_long_enough)]], BeforeValidator(_by_name)
]


class Settings(ServiceSettings):
    """What domain-verify is told."""

    dns_servers: Annotated[CommaList, AfterValidator(_addresses)] = Field(
        (),
        validation_alias="DNS_SERVERS",
        description="Resolvers as host:port with commas, hosts as addresses; none: the system's.",
    )
    inbound_domain: str = Field(
        "verify.event-builder.test", description="Domain of the addresses that claimants write to."
    )
    platform_domains: CommaList = Field(
        (), description="The platform's own domains, which nobody can claim, besides the inbound one."
    )
    inbound_raw_secrets: Secrets = Field(
        (), description="Secrets of the mail servers that post raw mails, with commas; two while rotating."
    )
    email_submit_secrets: NamedSecrets = Field(
        {},
        description="Secrets of trusted mail processors, name=secret with commas; a name twice while rotating.",
    )
    judge_cpu_s: float = Field(0.25, gt=0, le=10, description="CPU time that judging one mail may use.")
    judge_wall_s: float = Field(30.0, gt=0, le=50, description="Wall clock that judging one mail may take.")
    judge_parallel: int = Field(8, ge=1, le=100, description="Most mails judged at once by one process.")
    judge_rest_s: float = Field(
        60.0, gt=0, description="A judging process with nothing to do for so long is ended."
    )
    raw_kept_days: int = Field(30, ge=1, description="How long raw mails are kept.")
