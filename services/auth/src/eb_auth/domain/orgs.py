"""Organisations, their projects and their place in the hierarchy.

Rule: docs/rules/identity.md, Organisations and Hierarchy.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import cache
from uuid import UUID
from zoneinfo import available_timezones

from eb_contracts.auth import OrgChanged, ParentLink, ProjectChanged

DEFAULT_COUNTRY = "AU"
DEFAULT_TIMEZONE = "UTC"


@dataclass(frozen=True, slots=True)
class Org:
    """An organisation. `version` counts its changes."""

    org_id: UUID
    legal_name: str
    org_slug: str
    billing_email: str
    default_timezone: str
    tax_id: str | None
    visibility: str
    country: str
    parent_org_id: UUID | None
    created_at: datetime
    version: int
    assist_policy: str = "notify"


@dataclass(frozen=True, slots=True)
class Project:
    """A project of an organisation."""

    project_id: UUID
    org_id: UUID
    name: str
    cost_center_id: UUID | None
    created_at: datetime
    version: int


def is_timezone(name: str) -> bool:
    """Tell whether this is the name of a time zone in the IANA database."""
    return name in _timezones()


@cache
def _timezones() -> frozenset[str]:
    return frozenset(name for name in available_timezones() if name == "UTC" or "/" in name)


def org_fact(org: Org, links: tuple[ParentLink, ...]) -> OrgChanged:
    """Give the public state of an organisation: ids and settings, no names, no addresses."""
    return OrgChanged(
        version=org.version,
        org_id=org.org_id,
        parent_org_id=org.parent_org_id,
        parent_links=links,
        default_timezone=org.default_timezone,
        country=org.country,
    )


def project_fact(project: Project) -> ProjectChanged:
    """Give the public state of a project."""
    return ProjectChanged(
        version=project.version,
        project_id=project.project_id,
        org_id=project.org_id,
        cost_center_id=project.cost_center_id,
    )
