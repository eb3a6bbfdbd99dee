"""Budgets as people change them, and answers before an action starts: steps of several HTTP doors.

Locks: making a budget holds the facts of prices alone, changing one its row. An answer to authorize waits only
for other answers about the same organisation. Rule: docs/rules/pricing.md, Guardrails; Authorize and holds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

from eb_contracts.ids import new_id
from eb_kit.tx import Tx
from eb_rating.prices import OrgPrices, Priced, TermsMissing
from eb_rating.resolve import month_in

from .. import store
from ..domain.budgets import Budget, BudgetState
from ..domain.errors import BudgetExists
from ..domain.initiations import Action, Initiation, Standing, beside, judge
from . import keeping
from .prices import peek_prices, peek_terms

NOWHERE = "UTC"
ANSWER_KEPT = timedelta(hours=24)
FORGET_AT_ONCE = 1000


async def running_periods(tx: Tx, org_ids: Collection[UUID]) -> dict[UUID, str]:
    """Give the billing period that runs now, per organisation; without terms by its own time zone."""
    prices = await peek_prices(tx, org_ids)
    return {
        org_id: prices[org_id].period_of(tx.minute) if org_id in prices else _calendar_month(tx, org_id)
        for org_id in org_ids
    }


def _calendar_month(tx: Tx, org_id: UUID) -> str:
    org = tx.context.directory.org(org_id)
    return month_in(tx.minute, ZoneInfo(org.default_timezone if org else NOWHERE))


async def make_budget(
    tx: Tx, org_id: UUID, project_id: UUID | None, make: Callable[[str], Budget]
) -> BudgetState:
    """Make a budget (from its first period) that counts what was charged so far; announce what that reaches.

    Raises BudgetExists. Holds the facts of prices alone: no charge is under way that wouldn't meet it.
    """
    if await store.has_budget(tx, org_id, project_id):
        raise BudgetExists
    await store.lock_terms(tx)
    periods = await running_periods(tx, [org_id])
    budget = make(periods[org_id])
    await store.insert_budget(tx, budget)
    return await _begin(tx, budget, periods[org_id])


async def change_budget(tx: Tx, before: Budget, budget: Budget) -> BudgetState:
    """Write a locked budget anew; announce what its spend then reaches. In another currency it counts anew."""
    periods = await running_periods(tx, [budget.org_id])
    if before.currency != budget.currency:
        await store.delete_spends(tx, budget.budget_id)
    await store.update_budget(tx, budget)
    return await _begin(tx, budget, periods[budget.org_id])


async def _begin(tx: Tx, budget: Budget, period: str) -> BudgetState:
    """Have a locked budget count in the running period, and say what it has reached."""
    spends = await store.lock_spends(tx, [budget.org_id], [(budget.org_id, period)])
    if mine := [one for one in spends if one.budget_id == budget.budget_id and one.newly_reached()]:
        await keeping.keep_spends(tx, mine)
    (state,) = await store.list_states(tx, [budget], {budget.org_id: period})
    return state


async def states_of(tx: Tx, budgets: Sequence[Budget], period: str | None = None) -> list[BudgetState]:
    """Give how budgets stand in a period, or in the one that runs."""
    org_ids = {one.org_id for one in budgets}
    periods = dict.fromkeys(org_ids, period) if period else await running_periods(tx, org_ids)
    return await store.list_states(tx, budgets, periods)


async def authorize(tx: Tx, org_id: UUID, actions: Sequence[Action]) -> list[Initiation]:
    """Answer whether actions of one organisation may start, in their order; a known request_id gets its answer.

    Exact because answers about one organisation are given one after the other, each from a snapshot of
    budgets, counters, credits and holds that contains all holds granted before.
    """
    prices = (await peek_prices(tx, [org_id])).get(org_id)
    await store.lock_initiations(tx, org_id)
    answers = await store.find_initiations(tx, org_id, {action.request_id for action in actions})
    desk = Desk(prices, {}, [])
    new: list[Initiation] = []
    for action in actions:
        if action.request_id not in answers:
            answers[action.request_id] = await _answered(tx, action, desk)
            new.append(answers[action.request_id])
    if new:
        await store.insert_initiations(tx, new)
    return [answers[action.request_id] for action in actions]


class Desk(NamedTuple):
    """What answers of one transaction share: prices, and per (SKU, project) what prices it and how it stands."""

    prices: OrgPrices | None
    standings: dict[tuple[str, UUID | None], tuple[Priced, Standing]]
    holds: list[Initiation]

    def grant(self, hold: Initiation) -> None:
        """Have the questions that follow meet a hold that was granted."""
        self.holds.append(hold)
        for key, (priced, standing) in self.standings.items():
            if priced.terms.currency == hold.currency:
                self.standings[key] = priced, beside(standing, key[0], priced.period, hold)


async def _answered(tx: Tx, action: Action, desk: Desk) -> Initiation:
    key = action.sku, action.project_id
    if key not in desk.standings:
        found = await _price_of(tx, action, desk.prices)
        if not isinstance(found, Priced):
            return _answer(tx, action, decision="deny", reason=found)
        standing = await store.read_standing(tx, action, found.period, found.terms.currency)
        for hold in desk.holds:
            if hold.currency == found.terms.currency:
                standing = beside(standing, action.sku, found.period, hold)
        desk.standings[key] = found, standing
    priced, standing = desk.standings[key]
    verdict = judge(action, standing, priced.terms, tx.minute)
    answer = _answer(tx, action, period=priced.period, currency=priced.terms.currency, **verdict._asdict())
    if verdict.decision == "deny" or action.hold_ttl_s is None:
        return answer
    hold = replace(answer, hold_id=new_id(), expires_at=tx.now + timedelta(seconds=action.hold_ttl_s))
    desk.grant(hold)
    return hold


async def _price_of(tx: Tx, action: Action, prices: OrgPrices | None) -> Priced | str:
    """Find what prices the action, or why nothing does."""
    if prices is None:
        return "no_terms"
    period = prices.period_of(tx.minute)
    found = prices.priced(action.sku, period)
    if isinstance(found, TermsMissing):
        await peek_terms(tx, found.hashes)
        found = prices.priced(action.sku, period)
    if isinstance(found, Priced):
        return found
    if found is not None:
        return "terms_missing"
    return "no_terms" if await store.list_known_skus(tx, [action.sku]) else "unknown_sku"


def _answer(tx: Tx, action: Action, **verdict: Any) -> Initiation:
    plain = {
        "period": None,
        "amount": None,
        "currency": None,
        "needs_credit": False,
        "hold_id": None,
        "expires_at": None,
        "released_at": None,
    }
    return Initiation(
        org_id=action.org_id,
        request_id=action.request_id,
        project_id=action.project_id,
        sku=action.sku,
        quantity=action.quantity,
        created_at=tx.now,
        **{**plain, **verdict},
    )


async def release(tx: Tx, hold: Initiation) -> Initiation:
    """Release a hold if it is open; give it as it then is."""
    assert hold.hold_id is not None
    await store.release_holds(tx, [(hold.org_id, hold.hold_id)])
    return await store.get_hold(tx, hold.hold_id)


async def forget_answers(tx: Tx) -> int:
    """Forget answers to authorize after 24 h; give how many."""
    return await store.delete_old_initiations(tx, tx.now - ANSWER_KEPT, FORGET_AT_ONCE)
