"""Answers before an action starts: allowed or not, and what is kept free for it.

Rule: docs/rules/pricing.md, Authorize and holds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Literal, NamedTuple
from uuid import UUID

from eb_rating import Terms, target
from eb_rating.caps import Spend, room
from eb_rating.credits import Grant

ZERO = Decimal(0)
Decision = Literal["allow", "deny"]
Status = Literal["open", "released", "expired"]


@dataclass(frozen=True, slots=True)
class Action:
    """An action that is about to start; `hold_ttl_s` None asks without keeping anything free."""

    org_id: UUID
    request_id: str
    project_id: UUID | None
    sku: str
    quantity: Decimal
    hold_ttl_s: int | None


@dataclass(frozen=True, slots=True)
class Initiation:
    """The answer about one action, kept so that the same question gets it again; a hold, if it has an id.

    `needs_credit` says that the hold keeps credit free, too.
    """

    org_id: UUID
    request_id: str
    project_id: UUID | None
    sku: str
    quantity: Decimal
    period: str | None
    decision: Decision
    reason: str
    amount: Decimal | None
    currency: str | None
    needs_credit: bool
    hold_id: UUID | None
    expires_at: datetime | None
    released_at: datetime | None
    created_at: datetime

    def hold_status(self, now: datetime) -> Status:
        """Tell whether the hold keeps something free at an instant."""
        if self.released_at is not None:
            return "released"
        return "open" if self.expires_at is not None and now < self.expires_at else "expired"

    def answers(self, action: Action) -> bool:
        """Tell whether it was given about this action."""
        mine = (self.project_id, self.sku, self.quantity)
        return mine == (action.project_id, action.sku, action.quantity)


class Held(NamedTuple):
    """What open holds add to a counter: units, and actions as its events."""

    quantity: Decimal = ZERO
    actions: int = 0


class CapState(NamedTuple):
    """A hard cap with what came to it so far, and what open holds keep free of it."""

    project_id: UUID | None
    cap: Decimal
    spend: Spend
    held: Decimal


@dataclass(frozen=True, slots=True)
class Standing:
    """Everything an answer depends on, as of one snapshot.

    `quantity` and `events` are the counter's so far, `held` what open holds add to it; `caps` are those that the
    action meets, in its currency; `held_credit` is what holds that need credit keep free.
    """

    quantity: Decimal
    events: int
    held: Held
    caps: tuple[CapState, ...]
    is_prepaid_only: bool
    grants: tuple[Grant, ...]
    held_credit: Decimal


def beside(standing: Standing, sku: str, period: str, hold: Initiation) -> Standing:
    """Give what questions about a SKU in a period meet once a hold in the same currency was granted, too."""
    amount = hold.amount or ZERO
    held = standing.held
    if (hold.sku, hold.period) == (sku, period):
        held = Held(held.quantity + hold.quantity, held.actions + 1)
    return replace(
        standing,
        held=held,
        caps=tuple(_cap_beside(cap, hold) if hold.period == period else cap for cap in standing.caps),
        held_credit=standing.held_credit + (amount if hold.needs_credit else ZERO),
    )


def _cap_beside(cap: CapState, hold: Initiation) -> CapState:
    if cap.project_id not in (None, hold.project_id):
        return cap
    return cap._replace(held=cap.held + max(hold.amount or ZERO, ZERO))


class Verdict(NamedTuple):
    """Whether an action may start, why, and what it would be charged."""

    decision: Decision
    reason: str
    amount: Decimal
    needs_credit: bool


def judge(action: Action, standing: Standing, terms: Terms, minute: datetime) -> Verdict:
    """Judge an action by what it would be charged after all that is held.

    What costs nothing is allowed. Else the whole amount must have room under the project's cap and the
    organisation's, beside all open holds, and a prepaid-only SKU needs as much credit that nothing holds.
    """
    amount = marginal(action.quantity, standing, terms)
    needs_credit = standing.is_prepaid_only
    if amount <= ZERO:
        return Verdict("allow", "costs_nothing", amount, needs_credit)
    for cap in standing.caps:
        if amount > room(cap.spend, cap.held, cap.cap):
            reason = "org_cap_reached" if cap.project_id is None else "project_cap_reached"
            return Verdict("deny", reason, amount, needs_credit)
    if needs_credit and amount > _credit_left(standing, terms, minute):
        return Verdict("deny", "credit_required", amount, needs_credit)
    return Verdict("allow", "within_limits", amount, needs_credit)


def marginal(quantity: Decimal, standing: Standing, terms: Terms) -> Decimal:
    """Give what one more action costs after what was used and what is held."""
    used = standing.quantity + standing.held.quantity
    events = standing.events + standing.held.actions
    return target(used + quantity, events + 1, terms) - target(used, events, terms)


def _credit_left(standing: Standing, terms: Terms, minute: datetime) -> Decimal:
    usable = (
        grant.remaining
        for grant in standing.grants
        if grant.pays_for(terms.currency, terms.sku_type) and grant.is_usable_at(minute)
    )
    return sum(usable, ZERO) - standing.held_credit
