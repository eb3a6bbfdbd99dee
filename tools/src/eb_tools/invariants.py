"""The money's invariants over all services, for the owner: each gives the rows that break it. What prices say is
asked of the rating library, everything else of SQL.

Rule: docs/rules/ledger.md, Invariants. `eb invariants` runs them; the chaos suite does so after each fault.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from decimal import Decimal
from typing import Any
from uuid import UUID

from eb_rating import from_plain, target, target_closed

CHECKS: dict[str, str] = {
    "metered = priced, per organisation, SKU and usage record": """
        WITH metered AS (SELECT org_id, usage_id::text AS id, sku, sum(quantity) AS quantity
                         FROM metering_ingest.metering_event GROUP BY 1, 2, 3),
             priced AS (SELECT org_id, charge_id AS id, sku, quantity FROM pricing.charge WHERE kind = 'usage')
        SELECT org_id, id, m.quantity AS metered, p.quantity AS priced
        FROM metered m FULL JOIN priced p USING (org_id, id, sku)
        WHERE m.quantity IS DISTINCT FROM p.quantity
          AND NOT EXISTS (SELECT FROM pricing.unrated_usage w WHERE w.org_id = m.org_id AND w.usage_id::text = m.id)""",
    "priced = in the ledger, per charge": """
        SELECT org_id, charge_id, c.amount_gross AS priced, l.amount_gross AS posted, c.quantity, l.quantity AS q
        FROM pricing.charge c
        FULL JOIN (SELECT * FROM ledger.ledger WHERE charge_id IS NOT NULL) l USING (org_id, charge_id)
        WHERE (c.amount_gross, c.quantity, c.tax_amount, c.waived_amount, c.credit_applied)
              IS DISTINCT FROM (l.amount_gross, l.quantity, l.tax_amount, l.waived_amount, l.credit_applied)""",
    "an event counts once": """
        SELECT org_id, request_id, count(*) FROM metering_ingest.metering_event WHERE voids_event_id IS NULL
        GROUP BY 1, 2 HAVING count(*) > 1""",
    "a void takes back its event, once": """
        SELECT v.org_id, v.event_id, v.quantity AS void, e.quantity AS event, v.twice
        FROM (SELECT *, count(*) OVER (PARTITION BY org_id, voids_event_id) > 1 AS twice
              FROM metering_ingest.metering_event WHERE voids_event_id IS NOT NULL) v
        LEFT JOIN metering_ingest.metering_event e ON e.org_id = v.org_id AND e.event_id = v.voids_event_id
        WHERE v.twice OR (e.quantity, e.sku, e.project_id, e.event_time)
              IS DISTINCT FROM (-v.quantity, v.sku, v.project_id, v.event_time)""",
    "each event has its key, each key its event": """
        SELECT org_id, request_id, k.event_id AS key, e.event_id AS event
        FROM metering_ingest.event_key k FULL JOIN (
            SELECT * FROM metering_ingest.metering_event WHERE voids_event_id IS NULL) e USING (org_id, request_id)
        WHERE k.event_id IS DISTINCT FROM e.event_id""",
    "charges of a counter telescope": """
        SELECT org_id, sku, period, k.charged, c.charged AS sum, k.waived, c.waived AS cut, k.quantity, c.quantity AS q,
               k.base, c.base AS fees
        FROM pricing.counter k FULL JOIN (
            SELECT org_id, sku, period, sum(amount_gross + waived_amount) AS charged,
                   coalesce(sum(quantity) FILTER (WHERE kind <> 'base'), 0) AS quantity,
                   sum(waived_amount) AS waived, sum(base_due) AS base
            FROM pricing.charge GROUP BY 1, 2, 3) c USING (org_id, sku, period)
        WHERE coalesce(k.charged, 0) <> coalesce(c.charged, 0) OR coalesce(k.waived, 0) <> coalesce(c.waived, 0)
           OR coalesce(k.quantity, 0) <> coalesce(c.quantity, 0) OR coalesce(k.base, 0) <> coalesce(c.base, 0)""",
    "counters of closed periods are closed, and no others": """
        SELECT org_id, sku, period, k.is_closed, p.closed_at, p.settled_at
        FROM pricing.counter k LEFT JOIN pricing.billing_period p USING (org_id, period)
        WHERE CASE WHEN k.is_closed THEN p.closed_at IS NULL ELSE p.settled_at IS NOT NULL END""",
    "credit pays a part of gross, with its sign": """
        SELECT org_id, charge_id, amount_gross, credit_applied FROM pricing.charge
        WHERE credit_applied * amount_gross < 0 OR abs(credit_applied) > abs(amount_gross)""",
    "an organisation's credit in a period is no more than its gross": """
        SELECT org_id, period, currency, sum(amount_gross) AS gross, sum(credit_applied) AS credit
        FROM pricing.charge WHERE NOT EXISTS (SELECT FROM pricing.cap_cut x WHERE x.project_id IS NOT NULL
          AND (x.org_id, x.period) = (charge.org_id, charge.period))
        GROUP BY 1, 2, 3
        HAVING NOT sum(credit_applied) BETWEEN 0 AND greatest(sum(amount_gross), 0)""",
    "what caps cut of a charge is what was waived": """
        SELECT org_id, charge_id, c.waived_amount, x.cut
        FROM pricing.charge c FULL JOIN (
            SELECT org_id, charge_id, sum(due - granted + granted_before) AS cut FROM pricing.cap_cut
            GROUP BY 1, 2) x USING (org_id, charge_id)
        WHERE (x.cut IS NULL AND c.waived_amount > 0) OR x.cut <> c.waived_amount OR c.charge_id IS NULL""",
    "a budget was charged the sum of its charges": """
        SELECT b.org_id, b.budget_id, s.period, s.charged, s.granted, c.gross
        FROM pricing.budget b JOIN pricing.budget_spend s USING (budget_id) CROSS JOIN LATERAL (
            SELECT coalesce(sum(amount_gross), 0) AS gross FROM pricing.charge c
            WHERE c.org_id = b.org_id AND c.period = s.period AND c.currency = b.currency
              AND (b.project_id IS NULL OR c.project_id = b.project_id)) c
        WHERE s.charged <> c.gross OR (b.project_id IS NULL AND s.granted <> s.charged)""",
    "nothing is granted above a cap": """
        SELECT budget_id, period, total, granted, ceiling FROM pricing.budget_spend
        WHERE granted > ceiling OR granted > total""",
    "a credit's draws are what was drawn, and no more than it holds": """
        SELECT c.org_id, c.credit_id, c.amount, u.drawn, d.drawn AS draws
        FROM pricing.credit c LEFT JOIN pricing.credit_use u USING (credit_id) LEFT JOIN (
            SELECT credit_id, sum(amount) AS drawn FROM pricing.credit_draw GROUP BY 1) d USING (credit_id)
        WHERE u.drawn IS DISTINCT FROM coalesce(d.drawn, 0) OR NOT u.drawn BETWEEN 0 AND c.amount""",
    "a charge's credit is the sum of its draws": """
        SELECT org_id, charge_id, c.credit_applied, d.drawn
        FROM pricing.charge c FULL JOIN (
            SELECT org_id, charge_id, sum(amount) AS drawn FROM pricing.credit_draw GROUP BY 1, 2) d
            USING (org_id, charge_id)
        WHERE coalesce(c.credit_applied, 0) <> coalesce(d.drawn, 0)""",
    "one posting per charge, one line per posting": """
        SELECT org_id, charge_id, p.entry_id AS posting, l.entry_id AS line
        FROM ledger.charge_posting p
        FULL JOIN (SELECT * FROM ledger.ledger WHERE charge_id IS NOT NULL) l USING (org_id, charge_id)
        WHERE p.entry_id IS DISTINCT FROM l.entry_id""",
    "gross = partner + net": """
        SELECT org_id, entry_id FROM ledger.ledger WHERE amount_gross <> partner_amount + net""",
    "the partner's share telescopes": """
        SELECT partner_id, org_id, sku, period, currency, partner_pct, sum(partner_amount) AS share, sum(amount_gross)
        FROM ledger.ledger WHERE partner_id IS NOT NULL AND kind <> 'reversal' GROUP BY 1, 2, 3, 4, 5, 6
        HAVING abs(sum(partner_amount) - partner_pct * sum(amount_gross) / 100) > 0.5""",
}


PRICING = (
    "charges of a counter telescope",
    "credit pays a part of gross, with its sign",
    "an organisation's credit in a period is no more than its gross",
    "what caps cut of a charge is what was waived",
    "a budget was charged the sum of its charges",
    "nothing is granted above a cap",
    "a credit's draws are what was drawn, and no more than it holds",
    "a charge's credit is the sum of its draws",
)
"""Those that pricing keeps by itself."""


AT_TARGET = "what was due for a counter is the target of its total"
RATED = """
    SELECT c.org_id, c.sku, c.period, c.quantity, c.events, c.charged - c.base AS due, c.is_closed,
           k.body -> 'body' AS terms
    FROM pricing.counter c JOIN pricing.known k ON k.entity = 'terms' AND k.entity_id = c.terms_hash
    WHERE c.version > 0 OR c.is_closed
"""


WALK = """WITH RECURSIVE walk (ancestor_org_id, descendant_org_id, depth) AS (
            SELECT org_id, org_id, 0 FROM auth.organization
            UNION ALL
            SELECT w.ancestor_org_id, o.org_id, w.depth + 1 FROM walk w
            JOIN auth.organization o ON o.parent_org_id = w.descendant_org_id WHERE w.depth < 12)"""
"""Every pair by following parents; past the deepest hierarchy it stops, so that a cycle ends too."""

HIERARCHY: dict[str, str] = {
    "an organisation's parent is its closure row of depth 1": """
        SELECT o.org_id, o.parent_org_id, h.ancestor_org_id FROM auth.organization o
        FULL JOIN (SELECT * FROM auth.org_hierarchy WHERE depth = 1) h ON h.descendant_org_id = o.org_id
        WHERE o.parent_org_id IS DISTINCT FROM h.ancestor_org_id""",
    "the closure table is the transitive closure of the parents": f"""
        {WALK}
        SELECT ancestor_org_id, descendant_org_id, w.depth AS walked, h.depth
        FROM walk w FULL JOIN auth.org_hierarchy h USING (ancestor_org_id, descendant_org_id)
        WHERE w.depth IS DISTINCT FROM h.depth""",  # noqa: S608
    "no organisation stands above itself, none deeper than ten": f"""
        {WALK}
        SELECT ancestor_org_id, descendant_org_id, depth FROM walk
        WHERE depth > 10 OR (depth > 0 AND ancestor_org_id = descendant_org_id)""",  # noqa: S608
    "each organisation has itself at depth 0 and one root": """
        SELECT o.org_id, s.depth, r.roots FROM auth.organization o
        LEFT JOIN auth.org_hierarchy s ON s.ancestor_org_id = o.org_id AND s.descendant_org_id = o.org_id
        CROSS JOIN LATERAL (SELECT count(*) AS roots FROM auth.org_hierarchy h JOIN auth.organization a
            ON a.org_id = h.ancestor_org_id AND a.parent_org_id IS NULL WHERE h.descendant_org_id = o.org_id) r
        WHERE s.depth IS DISTINCT FROM 0 OR r.roots <> 1""",
    "the newest parent link is the parent": """
        SELECT o.org_id, o.parent_org_id, l.parent_org_id AS linked FROM auth.organization o
        LEFT JOIN LATERAL (SELECT true AS is_there, parent_org_id FROM auth.org_parent_link l
            WHERE l.org_id = o.org_id ORDER BY effective_at DESC LIMIT 1) l ON true
        WHERE l.is_there IS NULL OR o.parent_org_id IS DISTINCT FROM l.parent_org_id""",
    "what services know of a parent is the parent": """
        SELECT o.org_id, o.parent_org_id, k.body ->> 'parent_org_id' AS known FROM auth.organization o
        LEFT JOIN auth.known k ON k.entity = 'org' AND k.entity_id = o.org_id::text
        WHERE k.entity_id IS NULL OR k.version <> o.version
           OR o.parent_org_id::text IS DISTINCT FROM k.body ->> 'parent_org_id'""",
}
"""Rule: docs/rules/identity.md, Hierarchy."""
CHECKS |= HIERARCHY


async def broken(
    connection: Any, only: Iterable[str] = (*CHECKS, AT_TARGET)
) -> dict[str, list[dict[str, Any]]]:
    """Run the checks as the owner; give, per broken invariant, up to ten rows that break it."""
    found = {}
    for name in only:
        if name == AT_TARGET:
            rows = await _off_target(connection)
        else:
            rows = await connection.fetch(f"SELECT * FROM ({CHECKS[name]}) AS broken LIMIT 10")  # noqa: S608
        if rows:
            found[name] = [dict(row) for row in rows]
    return found


async def _off_target(connection: Any) -> list[dict[str, Any]]:
    """Give counters that aren't where their terms say: at the closed target once closed, else at the open one."""
    found = []
    async with connection.transaction():
        async for row in connection.cursor(RATED):
            due = target_of(row)
            if due != row["due"]:
                found.append({**dict(row), "target": due})
    return found[:10]


def target_of(row: Any) -> Decimal:
    """Give what should be due for a counter, of its columns and its terms; nothing while it is open and unused."""
    plain = row["terms"]
    terms = from_plain(json.loads(plain, parse_float=Decimal) if isinstance(plain, str) else plain)
    if row["is_closed"]:
        return target_closed(row["quantity"], row["events"], terms)
    if row["due"] == row["quantity"] == row["events"] == 0:
        return Decimal(0)
    return target(row["quantity"], row["events"], terms)


TOTALS = """
    SELECT (SELECT coalesce(sum(quantity), 0) FROM metering_ingest.metering_event WHERE org_id = ANY($1)) AS metered,
           (SELECT coalesce(sum(quantity), 0) FROM pricing.charge WHERE org_id = ANY($1)) AS priced,
           (SELECT coalesce(sum(quantity), 0) FROM ledger.ledger WHERE org_id = ANY($1)) AS posted,
           (SELECT coalesce(sum(amount_gross), 0) FROM ledger.ledger WHERE org_id = ANY($1)) AS gross,
           (SELECT coalesce(sum(partner_amount), 0) FROM ledger.ledger WHERE org_id = ANY($1)) AS partner,
           (SELECT count(*) FROM ledger.ledger WHERE org_id = ANY($1)) AS lines
"""


async def totals(connection: Any, orgs: Iterable[str]) -> dict[str, Any]:
    """Sum what these organisations metered, were charged and have in the ledger."""
    return dict(await connection.fetchrow(TOTALS, [UUID(org) for org in orgs]))
