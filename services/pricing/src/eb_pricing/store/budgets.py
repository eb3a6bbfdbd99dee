"""Budgets as people set and see them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple
from decimal import Decimal
from typing import Any
from uuid import UUID

import asyncpg

from eb_contracts.errors import NotFound
from eb_kit.tx import Tx

from ..domain.budgets import Budget, BudgetState
from ..domain.errors import BudgetExists
from .lists import list_rows

BUDGET_COLUMNS = (
    "budget_id", "org_id", "project_id", "amount", "currency", "thresholds", "hard_cap", "first_period", "created_at",
    "updated_at",
)  # fmt: skip
CONDITIONS = {"org_id": "org_id = {}", "project_id": "project_id = {}"}
TAKEN = ("budget_of_org", "budget_of_project")


def _budget(row: asyncpg.Record) -> Budget:
    plain = {name: row[name] for name in BUDGET_COLUMNS}
    return Budget(**{**plain, "thresholds": tuple(row["thresholds"])})


async def is_project_of(tx: Tx, project_id: UUID, org_id: UUID) -> bool:
    """Tell whether a project is known, and the organisation's."""
    found = await tx.fetchval(
        "SELECT 1 FROM known WHERE entity = 'project' AND entity_id = $1 AND NOT is_deleted AND body ->> 'org_id' = $2",
        str(project_id),
        str(org_id),
    )
    return found is not None


async def insert_budget(tx: Tx, budget: Budget) -> None:
    """Insert a budget; raises BudgetExists where the organisation, or the project, has one.

    The lock of the terms must be held alone: whatever is charged later then meets it.
    """
    marks = ", ".join(f"${n}" for n in range(1, len(BUDGET_COLUMNS) + 1))
    try:
        await tx.execute(
            f"INSERT INTO budget ({', '.join(BUDGET_COLUMNS)}) VALUES ({marks})", *astuple(budget)
        )
    except asyncpg.UniqueViolationError as error:
        if error.constraint_name not in TAKEN:
            raise
        raise BudgetExists from None


async def has_budget(tx: Tx, org_id: UUID, project_id: UUID | None) -> bool:
    """Tell whether an organisation, or one of its projects, has a budget."""
    found = await tx.fetchval(
        "SELECT 1 FROM budget WHERE org_id = $1 AND project_id IS NOT DISTINCT FROM $2", org_id, project_id
    )
    return found is not None


async def get_budget(tx: Tx, budget_id: UUID) -> Budget:
    """Give a budget; raises NotFound."""
    row = await tx.fetchrow("SELECT * FROM budget WHERE budget_id = $1", budget_id)
    if row is None:
        raise NotFound
    return _budget(row)


async def lock_budget(tx: Tx, budget_id: UUID) -> Budget:
    """Lock a budget until `tx` ends, and with it all of its organisation, by key as charges do; raises NotFound.

    Nothing is charged to them meanwhile.
    """
    rows = await tx.fetch(
        "SELECT * FROM budget WHERE org_id = (SELECT org_id FROM budget WHERE budget_id = $1)"
        " ORDER BY budget_id FOR UPDATE",
        budget_id,
    )
    found = next((row for row in rows if row["budget_id"] == budget_id), None)
    if found is None:
        raise NotFound
    return _budget(found)


async def update_budget(tx: Tx, budget: Budget) -> None:
    """Write a locked budget's amount, currency, thresholds and cap; what its cap allows follows in all periods."""
    await tx.execute(
        "UPDATE budget SET amount = $2, currency = $3, thresholds = $4, hard_cap = $5, updated_at = $6"
        " WHERE budget_id = $1",
        budget.budget_id,
        budget.amount,
        budget.currency,
        list(budget.thresholds),
        budget.hard_cap,
        budget.updated_at,
    )
    await tx.execute(
        "UPDATE budget_spend SET ceiling = CASE WHEN $3 THEN greatest($2, granted) END WHERE budget_id = $1",
        budget.budget_id,
        budget.amount,
        budget.hard_cap,
    )


async def delete_spends(tx: Tx, budget_id: UUID) -> None:
    """Forget what was counted: in another currency counting begins anew."""
    await tx.execute("DELETE FROM budget_spend WHERE budget_id = $1", budget_id)


async def delete_budget(tx: Tx, budget_id: UUID) -> None:
    """Delete a locked budget and what was counted of it."""
    await tx.execute("DELETE FROM budget WHERE budget_id = $1", budget_id)


async def list_budgets(
    tx: Tx, filters: Mapping[str, object], after: Mapping[str, Any] | None, limit: int
) -> list[Budget]:
    """Give budgets, newest first."""
    rows = await list_rows(tx, "budget", BUDGET_COLUMNS, CONDITIONS, filters, ("budget_id",), after, limit)
    return [_budget(row) for row in rows]


async def list_states(tx: Tx, budgets: Sequence[Budget], periods: Mapping[UUID, str]) -> list[BudgetState]:
    """Give how budgets stand, each in the period named for its organisation."""
    rows = await tx.fetch(
        "SELECT s.* FROM unnest($1::uuid[], $2::text[]) AS w (budget_id, period)"
        " JOIN budget_spend AS s USING (budget_id, period)",
        [one.budget_id for one in budgets],
        [periods[one.org_id] for one in budgets],
    )
    found = {row["budget_id"]: row for row in rows}
    return [_state(one, periods[one.org_id], found.get(one.budget_id)) for one in budgets]


def _state(budget: Budget, period: str, row: asyncpg.Record | None) -> BudgetState:
    if row is None:
        return BudgetState(budget, period)
    held_back: Decimal = row["total"] - row["granted"]
    return BudgetState(budget, period, row["charged"], held_back, tuple(sorted(row["announced"])))
