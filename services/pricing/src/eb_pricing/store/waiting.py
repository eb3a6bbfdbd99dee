"""Usage without terms, and what waits for terms."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from uuid import UUID

from eb_contracts.metering import UsageRecord
from eb_contracts.pricing import ParkedUsage
from eb_kit.tx import Tx

from ..domain.waiting import Waiting
from .lists import columns_of


async def insert_unrated_once(
    tx: Tx, waiting: Iterable[Waiting], known_skus: Collection[str]
) -> list[ParkedUsage]:
    """Park usage that nothing prices; parked already, it gets the new reason. Gives what changed."""
    parked = {(one.usage.org_id, one.usage.usage_id): one for one in waiting}
    ordered = [parked[key] for key in sorted(parked)]
    rows = await tx.fetch(
        "INSERT INTO unrated_usage AS u (org_id, usage_id, project_id, sku, minute, quantity, events, trace_ids,"
        " reason, parked_at, hold_ids) SELECT w.org_id, w.usage_id, w.project_id, w.sku, w.minute, w.quantity,"
        " w.events, string_to_array(w.trace_ids, ' '), w.reason, $10, string_to_array(w.hold_ids, ' ')::uuid[]"
        " FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::timestamptz[], $6::numeric[],"
        " $7::bigint[], $8::text[], $9::text[], $11::text[]) AS w (org_id, usage_id, project_id, sku, minute,"
        " quantity, events, trace_ids, reason, hold_ids)"
        " ON CONFLICT (org_id, usage_id) DO UPDATE SET reason = excluded.reason"
        " WHERE u.reason <> excluded.reason RETURNING u.org_id, u.usage_id, u.reason",
        *columns_of(sorted(parked), 2),
        [one.usage.project_id for one in ordered],
        [one.usage.sku for one in ordered],
        [one.usage.minute for one in ordered],
        [one.usage.quantity for one in ordered],
        [one.usage.events for one in ordered],
        [" ".join(one.usage.trace_ids) for one in ordered],
        [one.reason(known_skus) for one in ordered],
        tx.now,
        [" ".join(map(str, one.usage.hold_ids)) for one in ordered],
    )
    return [ParkedUsage(**dict(row)) for row in rows]


async def is_unrated(tx: Tx, org_id: UUID, usage_id: UUID) -> bool:
    """Tell whether a usage record waits."""
    found = await tx.fetchval(
        "SELECT 1 FROM unrated_usage WHERE org_id = $1 AND usage_id = $2", org_id, usage_id
    )
    return found is not None


async def count_unrated(tx: Tx, limit: int) -> int:
    """Count parked usage, up to `limit`."""
    count: int = await tx.fetchval(
        "SELECT count(*) FROM (SELECT 1 FROM unrated_usage LIMIT $1) AS waiting", limit
    )
    return count


async def find_oldest_unrated(tx: Tx, orgs: int) -> datetime | None:
    """Find since when the oldest parked usage waits, in the first `orgs` organisations that have any.

    Each one's first by id is its oldest: a step of the index for each, however much of it waits.
    """
    oldest: datetime | None = await tx.fetchval(
        "WITH RECURSIVE first AS ("
        " (SELECT org_id, parked_at FROM unrated_usage ORDER BY org_id, usage_id LIMIT 1)"
        " UNION ALL SELECT n.org_id, n.parked_at FROM first AS f CROSS JOIN LATERAL ("
        "  SELECT org_id, parked_at FROM unrated_usage AS u WHERE u.org_id > f.org_id"
        "  ORDER BY org_id, usage_id LIMIT 1) AS n)"
        " SELECT min(parked_at) FROM (SELECT parked_at FROM first LIMIT $1) AS firsts",
        orgs,
    )
    return oldest


async def insert_awaited_once(tx: Tx, awaited: Collection[tuple[str, UUID]]) -> None:
    """Note which terms (by hash) organisations wait for."""
    await tx.execute(
        "INSERT INTO awaited_terms (terms_hash, org_id) SELECT * FROM unnest($1::text[], $2::uuid[])"
        " ON CONFLICT DO NOTHING",
        *columns_of(sorted(awaited), 2),
    )


async def delete_unrated(tx: Tx, keys: Collection[tuple[UUID, UUID]]) -> None:
    """Forget parked usage, by org and usage id, that now has its charge."""
    await tx.execute(
        "DELETE FROM unrated_usage WHERE (org_id, usage_id) IN (SELECT * FROM unnest($1::uuid[], $2::uuid[]))",
        *columns_of(list(keys), 2),
    )


_MARK_DUE = " ON CONFLICT (org_id) DO UPDATE SET after_usage_id = NULL"


async def mark_orgs_due(tx: Tx, org_ids: Collection[UUID]) -> None:
    """Have these organisations' waiting usage and counters looked at."""
    await tx.execute(
        "INSERT INTO terms_due (org_id) SELECT unnest($1::uuid[])" + _MARK_DUE, sorted(set(org_ids))
    )


async def mark_retail_due(tx: Tx, retail_keys: Collection[str], skus: Collection[str]) -> None:
    """Have those looked at whose counters stand on these retail defaults, or whose usage of `skus` waits."""
    await tx.execute(
        "INSERT INTO terms_due (org_id) SELECT org_id FROM counter WHERE retail_key = ANY($1)"
        " UNION SELECT org_id FROM unrated_usage WHERE sku = ANY($2) ORDER BY 1" + _MARK_DUE,
        list(retail_keys),
        list(skus),
    )


async def mark_awaiting_due(tx: Tx, terms_hashes: Collection[str]) -> list[UUID]:
    """Have those looked at who waited for these terms; give them."""
    rows = await tx.fetch(
        "WITH come AS (DELETE FROM awaited_terms WHERE terms_hash = ANY($1) RETURNING org_id)"
        " INSERT INTO terms_due AS t (org_id) SELECT DISTINCT org_id FROM come ORDER BY 1"
        + _MARK_DUE
        + " RETURNING t.org_id",
        list(terms_hashes),
    )
    return [row["org_id"] for row in rows]


async def take_due(tx: Tx, limit: int) -> dict[UUID, UUID | None]:
    """Take organisations whose terms changed; each with the last parked usage already looked at."""
    rows = await tx.fetch(
        "SELECT org_id, after_usage_id FROM terms_due ORDER BY org_id LIMIT $1 FOR UPDATE SKIP LOCKED", limit
    )
    return {row["org_id"]: row["after_usage_id"] for row in rows}


async def list_unrated_after(
    tx: Tx, due: Mapping[UUID, UUID | None], limit: int
) -> dict[UUID, list[UsageRecord]]:
    """Give organisations' next parked usage, up to `limit` records each; those without any are left out."""
    rows = await tx.fetch(
        "SELECT u.org_id, u.usage_id, u.project_id, u.sku, u.minute, u.quantity, u.events, u.trace_ids, u.hold_ids"
        " FROM unnest($1::uuid[], $2::uuid[]) AS d (org_id, after_usage_id) CROSS JOIN LATERAL"
        " (SELECT * FROM unrated_usage AS w WHERE w.org_id = d.org_id"
        " AND (d.after_usage_id IS NULL OR w.usage_id > d.after_usage_id) ORDER BY w.usage_id LIMIT $3) AS u",
        list(due),
        list(due.values()),
        limit,
    )
    found: dict[UUID, list[UsageRecord]] = {}
    for row in rows:
        plain = {**dict(row), "trace_ids": tuple(row["trace_ids"]), "hold_ids": tuple(row["hold_ids"])}
        found.setdefault(row["org_id"], []).append(UsageRecord.trusted(**plain))
    return found


async def update_due(tx: Tx, after: Mapping[UUID, UUID]) -> None:
    """Note how far the parked usage of organisations was looked at."""
    await tx.execute(
        "UPDATE terms_due AS t SET after_usage_id = d.after_usage_id"
        " FROM unnest($1::uuid[], $2::uuid[]) AS d (org_id, after_usage_id) WHERE t.org_id = d.org_id",
        list(after),
        list(after.values()),
    )


async def delete_due(tx: Tx, org_ids: Collection[UUID]) -> None:
    """Note that organisations were looked at wholly."""
    await tx.execute("DELETE FROM terms_due WHERE org_id = ANY($1)", list(org_ids))
