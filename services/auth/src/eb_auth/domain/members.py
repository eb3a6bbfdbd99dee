"""Memberships and the rule of the last Admin.

Rule: docs/rules/identity.md, Members.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from .errors import LastAdmin


@dataclass(frozen=True, slots=True)
class Member:
    """A user's membership of an organisation."""

    org_id: UUID
    user_id: UUID
    email: str
    role: str
    status: str
    created_at: datetime


def keep_an_admin(admins: Set[UUID], user_id: UUID, new_role: str | None) -> None:
    """Refuse a change after which nobody is Admin; `new_role` None means removal. Raises LastAdmin."""
    if new_role != "Admin" and admins == {user_id}:
        raise LastAdmin
