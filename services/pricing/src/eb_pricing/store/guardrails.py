"""Budgets and what was spent of them, credits and what was drawn, as charges meet them.

Locks: a charge's transaction holds its counters, then takes budgets by key, then uses of credits by key. Whoever
changes a budget locks its row and nothing else after it; whoever makes one holds the lock of the terms alone,
so that no charge is under way that didn't see it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from uuid import UUID

import asyncpg

from eb_kit.tx import Tx
from eb_rating.caps import Spend
from eb_rating.credits import Draw, Drawer, Grant, in_order

from ..domain.charges import KeptCharge
from ..domain.counters import CounterKey, Rated
from ..domain.guardrails import BudgetSpend, Cut, Guard, Guards
from .lists import columns_of


async def list_guarded(tx: Tx, org_ids: Collection[UUID]) -> list[UUID]:
    """Give those of the organisations that have a budget or were ever granted credit."""
    rows = await tx.fetch(
        "SELECT org_id FROM budget WHERE org_id = ANY($1) UNION SELECT org_id FROM credit WHERE org_id = ANY($1)",
        list(org_ids),
    )
    return [row["org_id"] for row in rows]


async def lock_guards(tx: Tx, org_ids: Sequence[UUID], periods: Iterable[tuple[UUID, str]]) -> Guards:
    """Lock what guards organisations until `tx` ends, with what was spent in these (organisation, period) pairs."""
    guards: Guards = {}
    for spend in await lock_spends(tx, org_ids, periods):
        guard = guards.get(spend.org_id, Guard())
        guards[spend.org_id] = guard._replace(budgets=(*guard.budgets, spend))
    for org_id, grants in (await _lock_grants(tx, org_ids)).items():
        guards[org_id] = guards.get(org_id, Guard())._replace(grants=tuple(in_order(grants)))
    return guards


async def lock_spends(
    tx: Tx, org_ids: Sequence[UUID], periods: Iterable[tuple[UUID, str]]
) -> list[BudgetSpend]:
    """Lock organisations' budgets by key; give what was spent of them in these periods, begun where it is new."""
    budgets = {
        row["budget_id"]: row
        for row in await tx.fetch(
            "SELECT * FROM budget WHERE org_id = ANY($1) ORDER BY budget_id FOR UPDATE", list(org_ids)
        )
    }
    wanted = [
        (budget_id, period)
        for org_id, period in sorted(set(periods))
        for budget_id, row in budgets.items()
        if row["org_id"] == org_id and row["first_period"] <= period
    ]
    if not wanted:
        return []
    await _begin_spends(tx, wanted)
    rows = await tx.fetch(
        "SELECT s.* FROM unnest($1::uuid[], $2::text[]) AS w (budget_id, period)"
        " JOIN budget_spend AS s USING (budget_id, period) ORDER BY budget_id, period",
        [budget_id for budget_id, _ in wanted],
        [period for _, period in wanted],
    )
    return [_spend(budgets[row["budget_id"]], row) for row in rows]


def _spend(budget: asyncpg.Record, row: asyncpg.Record) -> BudgetSpend:
    return BudgetSpend(
        budget["budget_id"],
        budget["org_id"],
        budget["project_id"],
        row["period"],
        budget["currency"],
        budget["amount"],
        budget["hard_cap"],
        tuple(budget["thresholds"]),
        Spend(row["total"], row["granted"]),
        row["charged"],
        tuple(row["announced"]),
    )


_BEGIN = """
    INSERT INTO budget_spend (budget_id, period, total, granted, charged, ceiling, announced)
    SELECT b.budget_id, w.period, s.total, s.granted, s.charged,
           CASE WHEN b.hard_cap THEN greatest(b.amount, s.granted) END, '{}'
    FROM unnest($1::uuid[], $2::text[]) AS w (budget_id, period) JOIN budget AS b USING (budget_id)
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(granted - granted_before - due), 0) AS cut FROM cap_cut AS x
        WHERE x.org_id = b.org_id AND x.period = w.period AND x.currency = b.currency
          AND x.project_id IS NOT NULL AND (b.project_id IS NULL OR x.project_id = b.project_id)) AS p
    CROSS JOIN LATERAL (
        SELECT coalesce(sum(charged), 0) + p.cut AS total, coalesce(sum(charged - waived), 0) AS granted,
               coalesce(sum(charged - waived), 0) AS charged
        FROM counter AS c WHERE b.project_id IS NULL
          AND c.org_id = b.org_id AND c.period = w.period AND c.currency = b.currency
        HAVING b.project_id IS NULL
        UNION ALL
        SELECT coalesce(sum(amount_gross + waived_amount), 0),
               coalesce(sum(amount_gross + waived_amount), 0) + p.cut, coalesce(sum(amount_gross), 0)
        FROM counter AS c JOIN charge AS h USING (org_id, sku, period) WHERE b.project_id IS NOT NULL
          AND c.org_id = b.org_id AND c.period = w.period AND h.currency = b.currency AND h.project_id = b.project_id
        HAVING b.project_id IS NOT NULL) AS s
    WHERE NOT EXISTS (SELECT FROM budget_spend AS o WHERE (o.budget_id, o.period) = (w.budget_id, w.period))
    ON CONFLICT DO NOTHING
"""


async def _begin_spends(tx: Tx, wanted: Sequence[tuple[UUID, str]]) -> None:
    """Begin to count budgets in periods from what was charged there so far; nothing happens where they are.

    What an older budget's cap cut and wasn't granted since is still outstanding: the total holds it.
    """
    await tx.execute(_BEGIN, [budget_id for budget_id, _ in wanted], [period for _, period in wanted])


async def _lock_grants(tx: Tx, org_ids: Sequence[UUID]) -> dict[UUID, list[Grant]]:
    rows = await tx.fetch(
        "SELECT c.credit_id, c.org_id, c.currency, c.amount, u.drawn, c.priority, c.created_at, c.expires_at,"
        " c.sku_types FROM credit AS c JOIN credit_use AS u USING (credit_id)"
        " WHERE c.org_id = ANY($1) AND (u.drawn > 0 OR c.expires_at IS NULL OR c.expires_at > $2)"
        " ORDER BY c.credit_id FOR UPDATE OF u",
        list(org_ids),
        tx.minute,
    )
    grants: dict[UUID, list[Grant]] = {}
    for row in rows:
        grants.setdefault(row["org_id"], []).append(grant_of(row))
    return grants


def grant_of(row: asyncpg.Record) -> Grant:
    """Read a credit with what was drawn of it."""
    return Grant(
        str(row["credit_id"]),
        row["currency"],
        row["amount"],
        row["drawn"],
        row["priority"],
        row["created_at"],
        row["expires_at"],
        None if row["sku_types"] is None else frozenset(row["sku_types"]),
    )


async def update_spends(tx: Tx, spends: Sequence[BudgetSpend]) -> None:
    """Write what was spent of locked budgets."""
    await tx.execute(
        "UPDATE budget_spend AS s SET total = u.total, granted = u.granted, charged = u.charged,"
        " announced = s.announced || string_to_array(u.news, ' ')::int[]"
        " FROM unnest($1::uuid[], $2::text[], $3::numeric[], $4::numeric[], $5::numeric[], $6::text[])"
        " AS u (budget_id, period, total, granted, charged, news)"
        " WHERE s.budget_id = u.budget_id AND s.period = u.period",
        [one.budget_id for one in spends],
        [one.period for one in spends],
        [one.spend.total for one in spends],
        [one.spend.granted for one in spends],
        [one.charged for one in spends],
        [" ".join(map(str, one.newly_reached())) for one in spends],
    )


async def update_uses(tx: Tx, grants: Sequence[Grant]) -> None:
    """Write what was drawn of locked credits."""
    await tx.execute(
        "UPDATE credit_use AS c SET drawn = u.drawn FROM unnest($1::uuid[], $2::numeric[]) AS u (credit_id, drawn)"
        " WHERE c.credit_id = u.credit_id",
        [UUID(one.name) for one in grants],
        [one.drawn for one in grants],
    )


async def update_waived(tx: Tx, waived: Mapping[CounterKey, Decimal]) -> None:
    """Write what caps cut from locked counters so far."""
    await tx.execute(
        "UPDATE counter AS c SET waived = u.waived"
        " FROM unnest($1::uuid[], $2::text[], $3::text[], $4::numeric[]) AS u (org_id, sku, period, waived)"
        " WHERE (c.org_id, c.sku, c.period) = (u.org_id, u.sku, u.period)",
        [key.org_id for key in waived],
        [key.sku for key in waived],
        [key.period for key in waived],
        list(waived.values()),
    )


_DRAWN = """
    WITH keys AS (
        SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[]) AS k (org_id, sku, period)
        UNION SELECT c.org_id, c.sku, c.period
        FROM (SELECT * FROM unnest($4::uuid[], $5::text[]) AS p (org_id, period)
              UNION SELECT org_id, period FROM unnest($1::uuid[], $3::text[]) AS k (org_id, period)
              WHERE EXISTS (SELECT FROM cap_cut AS x WHERE (x.org_id, x.period) = (k.org_id, k.period))) AS p
        JOIN counter AS c USING (org_id, period))
    SELECT org_id, h.period, h.sku, d.credit_id, sum(d.amount) AS drawn
    FROM keys JOIN charge AS h USING (org_id, sku, period) JOIN credit_draw AS d USING (charge_id, org_id)
    WHERE h.credit_applied <> 0 GROUP BY 1, 2, 3, 4
"""


async def list_drawn(
    tx: Tx, counters: Collection[CounterKey], periods: Collection[tuple[UUID, str]]
) -> dict[UUID, dict[Drawer, Decimal]]:
    """Give what these counters' charges drew from each credit, in all, per organisation; and what all others did
    of these periods (organisation, period), and of those in which a cap ever cut. The credits must be locked.
    """
    rows = await tx.fetch(_DRAWN, *columns_of(list(counters), 3), *columns_of(list(periods), 2))
    drawn: dict[UUID, dict[Drawer, Decimal]] = {}
    for row in rows:
        drawer = Drawer(row["period"], row["sku"], str(row["credit_id"]))
        drawn.setdefault(row["org_id"], {})[drawer] = row["drawn"]
    return drawn


CUT_COLUMNS = (
    "charge_id", "org_id", "period", "currency", "budget_id", "project_id", "cap", "due", "total", "granted_before",
    "granted",
)  # fmt: skip
DRAW_COLUMNS = ("charge_id", "org_id", "credit_id", "amount", "created_at")


async def insert_cuts(tx: Tx, rated: Iterable[Rated]) -> None:
    """Keep what caps changed of charges."""
    rows = [
        (one.charge.charge_id, one.charge.org_id, one.charge.period, one.charge.currency, *cut)
        for one in rated
        if one.settled
        for cut in one.settled.cuts
    ]
    if rows:
        await tx.copy("cap_cut", CUT_COLUMNS, rows)


async def insert_draws(tx: Tx, rated: Iterable[Rated]) -> None:
    """Keep what charges drew from credits, or gave back."""
    rows = [
        (one.charge.charge_id, one.charge.org_id, UUID(draw.name), draw.amount, tx.now)
        for one in rated
        if one.settled
        for draw in one.settled.draws
    ]
    if rows:
        await tx.copy("credit_draw", DRAW_COLUMNS, rows)


async def list_cuts_of(tx: Tx, charge: KeptCharge) -> list[Cut]:
    """Give what caps changed of a charge, the project's first."""
    rows = await tx.fetch(
        "SELECT budget_id, project_id, cap, due, total, granted_before, granted FROM cap_cut"
        " WHERE charge_id = $1 AND org_id = $2 ORDER BY project_id NULLS LAST",
        charge.charge_id,
        charge.org_id,
    )
    return [Cut(**dict(row)) for row in rows]


async def list_draws_of(tx: Tx, charge: KeptCharge) -> list[Draw]:
    """Give what a charge drew from credits, or gave back, by credit."""
    rows = await tx.fetch(
        "SELECT credit_id, amount FROM credit_draw WHERE charge_id = $1 AND org_id = $2 ORDER BY credit_id",
        charge.charge_id,
        charge.org_id,
    )
    return [Draw(str(row["credit_id"]), row["amount"]) for row in rows]
