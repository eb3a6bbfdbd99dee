"""Plans that an organisation doesn't have: their published terms, as if it were put on them now.

Rule: docs/rules/pricing.md, Estimates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from eb_contracts.errors import NotFound
from eb_rating.prices import OrgPrices

from .errors import PlanNotPublished

ANYWHERE = "*"


@dataclass(frozen=True, slots=True)
class Home:
    """Where an organisation is: the time zone of its periods, and the country whose taxes it pays."""

    time_zone: str
    country: str


def is_on(prices: OrgPrices | None, plan_id: UUID, minute: datetime) -> bool:
    """Tell whether an organisation's own terms are this plan's now."""
    return prices is not None and prices.org_terms.at(minute).plan_id == str(plan_id)


def home_of(prices: OrgPrices | None, told: Home, minute: datetime) -> Home:
    """Give what its own terms go by now; what is `told` of the organisation where it has none."""
    if prices is None:
        return told
    assigned = prices.org_terms.at(minute)
    return Home(str(assigned.zone), assigned.retail_key.rpartition("/")[2])


def must_be_offered(plan: Mapping[str, Any] | None, *, sees_drafts: bool) -> Mapping[str, Any]:
    """Give a plan's fact; NotFound for one that is unknown, or a draft to those who don't see drafts.

    PlanNotPublished for a draft or retired one.
    """
    if plan is None or (plan["status"] == "draft" and not sees_drafts):
        raise NotFound
    if plan["status"] != "published":
        raise PlanNotPublished
    return plan


def as_assigned(plan: Mapping[str, Any], home: Home) -> list[dict[str, Any]]:
    """Give the assignments that an organisation there would have on this plan."""
    place = plan["places"].get(home.country) or plan["places"][ANYWHERE]
    constant = {
        "plan_id": plan["plan_id"],
        "plan_version": plan["plan_version"],
        "currency": plan["currency"],
        "time_zone": home.time_zone,
        "retail_key": place["retail_key"],
    }
    return [constant | step for step in place["assignments"]]
