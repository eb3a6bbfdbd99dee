"""Shapes of what changes the hierarchy, and of group roles."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Self
from uuid import UUID

from eb_kit.inputs import Input, View

from ..domain.hierarchy import OrgLink
from ..store.members import GroupRole

GroupRoleName = Literal["GroupAdmin", "GroupBilling", "GroupSupport"]


class LinkOrg(Input):
    """Make an organisation that is a root a child."""

    link_org_id: UUID


class MoveOrg(Input):
    """Where an organisation is to stand."""

    parent_org_id: UUID


class OrgLinkView(View):
    """A request to make a root a child; its Admins answer it until it expires."""

    org_link_id: UUID
    parent_org_id: UUID
    child_org_id: UUID
    status: str
    requested_at: datetime
    expires_at: datetime
    decided_at: datetime | None

    @classmethod
    def of(cls, link: OrgLink) -> Self:
        """Show a request to link."""
        return cls(**{name: getattr(link, name) for name in cls.model_fields})


class GiveGroupRole(Input):
    """A role on an organisation and all below it, for one of its members."""

    user_id: UUID
    role: GroupRoleName


class GroupRoleView(View):
    """A group role."""

    ancestor_org_id: UUID
    user_id: UUID
    email: str
    role: str
    created_at: datetime

    @classmethod
    def of(cls, role: GroupRole) -> Self:
        """Show a group role."""
        return cls(**role._asdict())
