"""What a plan would ask of an organisation that is put on it now: its terms by jurisdiction.

Pure; made of the same parts as an organisation's own terms, so a plan that is compared costs what it will
cost. Rule: docs/rules/catalog.md, Terms of plans.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from eb_contracts.catalog import PlaceTerms, PlanTermsDefined, RetailHashes, TermsBody

from . import periods, terms
from .products import Plan
from .terms import Inputs
from .timeline import Change


@dataclass(frozen=True, slots=True)
class DuePlan:
    """A plan whose terms are to be resolved, by themselves or with an organisation's overrides.

    `published_at` is the newest version's, None before the first; `version` is of what was announced last.
    """

    plan: Plan
    currency: str
    published_at: datetime | None
    org_id: UUID | None
    overrides: Mapping[str, Mapping[str, Any]]
    version: int


def places_of(inputs: Inputs) -> list[str]:
    """Name the jurisdictions that have tax rates of their own, and `*`."""
    return sorted({terms.ANYWHERE, *(rate.jurisdiction for rate in inputs.taxes)})


def resolve_plan(due: DuePlan, inputs: Inputs) -> tuple[PlanTermsDefined, dict[str, TermsBody]]:
    """Give the fact of a plan, in its next version, and the terms that its hashes stand for."""
    places: dict[str, PlaceTerms] = {}
    bodies: dict[str, TermsBody] = {}
    if due.published_at is not None:
        since = periods.running_everywhere(due.published_at)
        for place in places_of(inputs):
            places[place], found = _in_place(due, since, place, inputs)
            bodies |= found
    fact = PlanTermsDefined(
        version=due.version + 1,
        plan_id=due.plan.plan_id,
        org_id=due.org_id,
        plan_version=due.plan.version,
        status=due.plan.status,
        currency=due.currency,
        places=places,
    )
    return fact, bodies


def _in_place(
    due: DuePlan, since: datetime, place: str, inputs: Inputs
) -> tuple[PlaceTerms, Mapping[str, TermsBody]]:
    plan = due.plan
    change = Change(since, plan.plan_id, plan.version, due.currency, due.overrides, "UTC", place)
    resolved = terms.resolve((change,), inputs)
    steps = tuple(RetailHashes(effective_at=step.effective_at, hashes=step.hashes) for step in resolved.steps)
    return PlaceTerms(retail_key=terms.retail_key(due.currency, place), assignments=steps), resolved.bodies
