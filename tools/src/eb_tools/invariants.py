"""The money's invariants over all services, as SQL for the owner: each query gives the rows that break it.

Rule: docs/rules/ledger.md, Invariants. `eb invariants` runs them; the chaos suite does so after each fault.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID

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
        WHERE (c.amount_gross, c.quantity, c.tax_amount, c.waived_amount)
              IS DISTINCT FROM (l.amount_gross, l.quantity, l.tax_amount, l.waived_amount)""",
    "an event counts once": """
        SELECT org_id, request_id, count(*) FROM metering_ingest.metering_event
        GROUP BY 1, 2 HAVING count(*) > 1""",
    "each event has its key, each key its event": """
        SELECT org_id, request_id, k.event_id AS key, e.event_id AS event
        FROM metering_ingest.event_key k FULL JOIN metering_ingest.metering_event e USING (org_id, request_id)
        WHERE k.event_id IS DISTINCT FROM e.event_id""",
    "charges of a counter telescope": """
        SELECT org_id, sku, period, k.charged, c.charged AS sum, k.quantity, c.quantity AS q
        FROM pricing.counter k FULL JOIN (
            SELECT org_id, sku, period, sum(amount_gross + waived_amount) AS charged, sum(quantity) AS quantity
            FROM pricing.charge GROUP BY 1, 2, 3) c USING (org_id, sku, period)
        WHERE coalesce(k.charged + k.waived, 0) <> coalesce(c.charged, 0)
           OR coalesce(k.quantity, 0) <> coalesce(c.quantity, 0)""",
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


async def broken(connection: Any, only: Iterable[str] = tuple(CHECKS)) -> dict[str, list[dict[str, Any]]]:
    """Run the checks as the owner; give, per broken invariant, up to ten rows that break it."""
    found = {}
    for name in only:
        rows = await connection.fetch(f"SELECT * FROM ({CHECKS[name]}) AS broken LIMIT 10")  # noqa: S608
        if rows:
            found[name] = [dict(row) for row in rows]
    return found


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
