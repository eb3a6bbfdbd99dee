"""Shapes of auth's requests and answers."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import AfterValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

from eb_kit.inputs import Input, Slug, Text, View
from eb_kit.policy import known_scopes

from ..domain.addresses import canonical_address
from ..domain.credentials import ApiKey
from ..domain.hierarchy import Relative
from ..domain.members import Member
from ..domain.orgs import Org, Project, is_timezone
from ..domain.sessions import LONG_AGO, Session
from ..domain.tokens import TOKEN_LIFETIME
from ..flows.signing_in import Issued
from ..store.members import OwnMembership


def _address(text: str) -> str:
    try:
        return canonical_address(text)
    except ValueError as error:
        raise PydanticCustomError("not_an_email", "{reason}", {"reason": str(error)}) from None


def _timezone(name: str) -> str:
    if not is_timezone(name):
        raise PydanticCustomError("unknown_timezone", "Must be the name of a zone in the IANA database.")
    return name


def _scope(name: str) -> str:
    if name not in known_scopes():
        raise PydanticCustomError("unknown_scope", "No route takes this scope.")
    return name


def _in_order(scopes: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(set(scopes)))


Email = Annotated[str, Text(3, 254), AfterValidator(_address)]
Timezone = Annotated[str, Text(1, 64), AfterValidator(_timezone)]
Name = Annotated[str, Text(1, 200)]
Country = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]
Visibility = Literal["private", "partners", "public"]
AssistPolicy = Literal["off", "notify", "approve"]
Role = Literal["Admin", "User"]
Scopes = Annotated[
    tuple[Annotated[str, AfterValidator(_scope)], ...],
    Field(min_length=1, max_length=50),
    AfterValidator(_in_order),
]


class Login(Input):
    """Ask for a sign-in code. With `code_challenge` (RFC 7636, S256) only who has its verifier can use the code."""

    email: Email
    code_challenge: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{43}$")] | None = None


class OpenSession(Input):
    """Sign in with a code, and the verifier where a challenge asked for it.

    `refresh_token` is the one that the device still has, if any: its session ends.
    """

    email: Email
    code: Annotated[str, Text(1, 64)]
    code_verifier: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._~-]{43,128}$")] | None = None
    refresh_token: Annotated[str, Text(1, 200)] | None = None


class RefreshSession(Input):
    """Rotate a refresh token; `org_id` chooses the context, without it the session's stays."""

    grant_type: Literal["refresh_token"]
    refresh_token: Annotated[str, Text(1, 200)]
    org_id: UUID | None = None


class LoginView(View):
    """The same for every address."""

    status: str = "accepted"


class SessionTokens(View):
    """A session's fresh credentials; `expires_in` in seconds."""

    session_id: UUID
    user_id: UUID
    refresh_token: str
    access_token: str
    token_type: str = "Bearer"  # noqa: S105
    expires_in: int = int(TOKEN_LIFETIME.total_seconds())

    @classmethod
    def of(cls, issued: Issued) -> Self:
        """Show what was issued."""
        return cls(
            session_id=issued.session_id,
            user_id=issued.user_id,
            refresh_token=issued.refresh_token,
            access_token=issued.access_token,
        )


class SessionView(View):
    """A live session; it ends at `expires_at`, or before when it isn't used until `idle_expires_at`.

    It began with a code by mail (`provider` null) or with a provider, which says how (`acr`, `amr`). `signed_in_at` is
    when its person proved who they are, null where the provider doesn't tell.
    """

    session_id: UUID
    is_current: bool
    org_id: UUID | None
    user_agent: str
    address: str
    provider: str | None
    acr: str | None
    amr: list[str]
    signed_in_at: datetime | None
    created_at: datetime
    last_used_at: datetime
    idle_expires_at: datetime
    expires_at: datetime

    @classmethod
    def of(cls, session: Session, current_id: UUID | None) -> Self:
        """Show a session to its user."""
        proof = session.proof
        return cls(
            session_id=session.session_id,
            is_current=session.session_id == current_id,
            org_id=session.org_id,
            user_agent=session.user_agent,
            address=session.address,
            provider=proof.provider if proof else None,
            acr=proof.acr if proof else None,
            amr=list(proof.amr) if proof else [],
            signed_in_at=session.signed_in_at if session.signed_in_at > LONG_AGO else None,
            created_at=session.created_at,
            last_used_at=session.last_used_at,
            idle_expires_at=session.idle_expires_at,
            expires_at=session.expires_at,
        )


class MembershipView(View):
    """A membership as its user sees it."""

    org_id: UUID
    org_slug: str
    legal_name: str
    role: str

    @classmethod
    def of(cls, membership: OwnMembership) -> Self:
        """Show a membership."""
        return cls(**membership._asdict())


class WithheldRoleView(View):
    """A platform role that somebody holds and that this session's tokens don't carry; `second_factor` is missing."""

    role: str
    reason: Literal["second_factor"] = "second_factor"


class MeView(View):
    """Who is signed in; `roles` and `org_id` are the token's, up to 200 memberships the newest.

    Inside an assist session: who helps, without their own memberships.
    """

    user_id: UUID
    email: str
    default_org_id: UUID | None
    session_id: UUID | None
    assist_session_id: UUID | None
    org_id: UUID | None
    roles: list[str]
    withheld_roles: list[WithheldRoleView]
    memberships: list[MembershipView]


class Jwk(View):
    """A public key (RFC 8037)."""

    kty: str
    crv: str
    use: str
    alg: str
    kid: str
    x: str


class JwksView(View):
    """The public keys that verify access tokens (RFC 7517)."""

    keys: list[Jwk]


class CreateOrg(Input):
    """A new organisation. Without `billing_email` the creator's address, without a time zone UTC."""

    legal_name: Name
    org_slug: Slug
    billing_email: Email | None = None
    default_timezone: Timezone | None = None
    tax_id: Annotated[str, Text(1, 64)] | None = None
    visibility: Visibility = "private"


class UpdateOrg(Input):
    """What changes of an organisation; members left out stay. `country` is the Operator's, `assist_policy` Admins'."""

    legal_name: Name = ""
    org_slug: Slug = ""
    billing_email: Email = ""
    default_timezone: Timezone = ""
    tax_id: Annotated[str, Text(1, 64)] | None = None
    visibility: Visibility = "private"
    country: Country = ""
    assist_policy: AssistPolicy = "notify"


class OrgView(View):
    """An organisation."""

    org_id: UUID
    legal_name: str
    org_slug: str
    billing_email: str
    default_timezone: str
    tax_id: str | None
    visibility: str
    country: str
    parent_org_id: UUID | None
    assist_policy: str
    created_at: datetime

    @classmethod
    def of(cls, org: Org) -> Self:
        """Show an organisation to who has a right there."""
        return cls(
            org_id=org.org_id,
            legal_name=org.legal_name,
            org_slug=org.org_slug,
            billing_email=org.billing_email,
            default_timezone=org.default_timezone,
            tax_id=org.tax_id,
            visibility=org.visibility,
            country=org.country,
            parent_org_id=org.parent_org_id,
            assist_policy=org.assist_policy,
            created_at=org.created_at,
        )


class PublicOrgView(View):
    """What a public organisation shows to everybody who is signed in."""

    org_id: UUID
    legal_name: str
    org_slug: str

    @classmethod
    def of(cls, org: Org) -> Self:
        """Show a public organisation."""
        return cls(org_id=org.org_id, legal_name=org.legal_name, org_slug=org.org_slug)


class RelativeView(View):
    """An organisation above or below the one asked about; `depth` in edges from it."""

    org_id: UUID
    parent_org_id: UUID | None
    legal_name: str
    depth: int

    @classmethod
    def of(cls, relative: Relative) -> Self:
        """Show a relative."""
        return cls(
            org_id=relative.org_id,
            parent_org_id=relative.parent_org_id,
            legal_name=relative.legal_name,
            depth=relative.depth,
        )


class UpdateMember(Input):
    """Another role for a member."""

    role: Role


class MemberView(View):
    """A member of an organisation."""

    org_id: UUID
    user_id: UUID
    email: str
    role: str
    status: str
    created_at: datetime

    @classmethod
    def of(cls, member: Member) -> Self:
        """Show a member."""
        return cls(
            org_id=member.org_id,
            user_id=member.user_id,
            email=member.email,
            role=member.role,
            status=member.status,
            created_at=member.created_at,
        )


class CreateProject(Input):
    """A new project."""

    name: Name


class UpdateProject(Input):
    """What changes of a project; `cost_center_id` null takes it away."""

    name: Name = ""
    cost_center_id: UUID | None = None


class ProjectView(View):
    """A project."""

    project_id: UUID
    org_id: UUID
    name: str
    cost_center_id: UUID | None
    created_at: datetime

    @classmethod
    def of(cls, project: Project) -> Self:
        """Show a project."""
        return cls(
            project_id=project.project_id,
            org_id=project.org_id,
            name=project.name,
            cost_center_id=project.cost_center_id,
            created_at=project.created_at,
        )


class CreateApiKey(Input):
    """A new API key; without `expires_at` it lives until it is revoked."""

    name: Name
    scopes: Scopes
    expires_at: datetime | None = None


class ApiKeyView(View):
    """An API key; `prefix` is its visible beginning."""

    key_id: UUID
    org_id: UUID | None
    name: str
    prefix: str
    scopes: list[str]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    @classmethod
    def of(cls, key: ApiKey) -> Self:
        """Show a key without its secret."""
        return cls(**_members_of(key))


class NewApiKeyView(ApiKeyView):
    """An API key with its secret, which is shown here only."""

    key: str

    @classmethod
    def with_secret(cls, key: ApiKey, text: str) -> Self:
        """Show a new key, whole."""
        return cls(**_members_of(key), key=text)


def _members_of(key: ApiKey) -> dict[str, object]:
    return {
        "key_id": key.key_id,
        "org_id": key.org_id,
        "name": key.name,
        "prefix": key.prefix,
        "scopes": list(key.scopes),
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
    }
