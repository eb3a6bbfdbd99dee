"""Facts of the auth service: organisations, members, projects, keys, signing keys, revocations. No names, no emails."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from .base import Body, EntityFact, register


class ParentLink(Body):
    """From `effective_at` (a whole minute) on, the parent is this; None means a root."""

    parent_org_id: UUID | None
    effective_at: datetime


@register
class OrgChanged(EntityFact):
    """An organisation's public state; `parent_links` is its whole history, oldest first."""

    TYPE = "auth.org.changed.v1"
    ENTITY = "org"
    org_id: UUID
    parent_org_id: UUID | None
    parent_links: tuple[ParentLink, ...]
    default_timezone: str
    country: str

    @property
    def entity_id(self) -> str:
        return str(self.org_id)


@register
class MemberChanged(EntityFact):
    """Somebody's roles in one organisation: the membership's, and a group role that reaches all below it."""

    TYPE = "auth.member.changed.v1"
    ENTITY = "member"
    org_id: UUID
    user_id: UUID
    role: str | None
    group_role: str | None = None

    @property
    def entity_id(self) -> str:
        return f"{self.org_id}:{self.user_id}"


@register
class ProjectChanged(EntityFact):
    """A project of an organisation."""

    TYPE = "auth.project.changed.v1"
    ENTITY = "project"
    project_id: UUID
    org_id: UUID
    cost_center_id: UUID | None = None

    @property
    def entity_id(self) -> str:
        return str(self.project_id)


@register
class ApiKeyChanged(EntityFact):
    """A machine's credential: an organisation's key, or a trusted system's (`service`, no org).

    `secret_sha256` is the hex digest of the whole key as its holder sends it.
    """

    TYPE = "auth.api_key.changed.v1"
    ENTITY = "api_key"
    key_id: UUID
    kind: Literal["org", "service"]
    org_id: UUID | None
    name: str | None = None
    secret_sha256: str
    scopes: tuple[str, ...]
    expires_at: datetime | None
    revoked_at: datetime | None

    @property
    def entity_id(self) -> str:
        return str(self.key_id)


@register
class SigningKeyChanged(EntityFact):
    """A public key of access tokens (Ed25519, `x` as in RFC 8037), announced before its first use."""

    TYPE = "auth.signing_key.changed.v1"
    ENTITY = "signing_key"
    kid: str
    x: str
    retired_at: datetime | None

    @property
    def entity_id(self) -> str:
        return self.kid


@register
class AccessRevoked(EntityFact):
    """Access tokens about `subject` issued at or before `not_before` are void.

    `subject` is `session:<session_id>`, `member:<org_id>:<user_id>`, `platform:<user_id>` or
    `assist:<assist_session_id>`.
    """

    TYPE = "auth.access.revoked.v1"
    ENTITY = "revocation"
    subject_key: str
    not_before: datetime

    @property
    def entity_id(self) -> str:
        return self.subject_key
