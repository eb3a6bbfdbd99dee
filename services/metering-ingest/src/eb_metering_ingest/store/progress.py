"""How far usage has come: one narrow row per usage record that pricing or the ledger told of."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from eb_kit.tx import Tx

from ..domain.progress import Progress

IS_FURTHER = """
    array_position('{recorded,unrated,priced,ledgered}'::text[], excluded.status)
    > array_position('{recorded,unrated,priced,ledgered}'::text[], u.status)
"""


async def update_progress(tx: Tx, news: Mapping[tuple[UUID, UUID], Progress]) -> None:
    """Move usage forward, never back; locks rows in key order."""
    keys = sorted(news)
    if not keys:
        return
    await tx.execute(
        "INSERT INTO usage_record AS u (org_id, usage_id, status, charge_id, entry_ids)"
        " SELECT org_id, usage_id, status, charge_id, entry_ids::uuid[]"
        " FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[])"
        " AS n (org_id, usage_id, status, charge_id, entry_ids)"
        " ON CONFLICT (org_id, usage_id) DO UPDATE SET charge_id = coalesce(excluded.charge_id, u.charge_id),"
        f" status = CASE WHEN {IS_FURTHER} THEN excluded.status ELSE u.status END,"
        " entry_ids = ARRAY(SELECT DISTINCT unnest(u.entry_ids || excluded.entry_ids) ORDER BY 1)"
        f" WHERE {IS_FURTHER} OR NOT u.entry_ids @> excluded.entry_ids",
        [org_id for org_id, _ in keys],
        [usage_id for _, usage_id in keys],
        [news[key].status for key in keys],
        [news[key].charge_id for key in keys],
        ["{" + ",".join(map(str, news[key].entry_ids)) + "}" for key in keys],
    )
