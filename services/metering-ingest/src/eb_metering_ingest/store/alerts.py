"""Hourly sums of usage, how far each series was judged, and the alerts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from eb_kit.tx import Tx

from ..domain.alerts import Finding, Hour, Past

ALERT = """
    SELECT alert_id, org_id, sku, kind, hour, expected, seen, threshold, why, raised_at, closed_at FROM usage_alert
"""
SeriesHour = tuple[UUID, str, datetime]


async def ensure_month(tx: Tx, month: Any) -> None:
    """Have the partition of a month of hours; nothing happens if it is there."""
    await tx.execute("SELECT platform.ensure_month('metering_ingest.usage_hour', $1)", month)


async def add_hours(tx: Tx, sums: Mapping[SeriesHour, Hour]) -> None:
    """Add usage to its hours, and begin series that are new; locks rows in key order.

    A series is looked at only for hours that begin, which are those whose sum is what was just added.
    """
    keys = sorted(sums)
    await tx.execute(
        "WITH n AS (SELECT * FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::numeric[], $5::bigint[])"
        " AS n (org_id, sku, hour, quantity, events)), added AS ("
        " INSERT INTO usage_hour AS h (org_id, sku, hour, quantity, events) SELECT * FROM n"
        " ON CONFLICT (org_id, sku, hour) DO UPDATE SET quantity = h.quantity + excluded.quantity,"
        " events = h.events + excluded.events RETURNING org_id, sku, hour, quantity, events)"
        " INSERT INTO usage_series AS s (org_id, sku, first_hour, last_hour, judged_hour)"
        " SELECT org_id, sku, min(hour), max(hour), min(hour)"
        " FROM added JOIN n USING (org_id, sku, hour, quantity, events) GROUP BY org_id, sku"
        " ORDER BY org_id, sku ON CONFLICT (org_id, sku) DO UPDATE SET"
        " first_hour = least(s.first_hour, excluded.first_hour), last_hour = greatest(s.last_hour, excluded.last_hour)"
        " WHERE s.first_hour > excluded.first_hour OR s.last_hour < excluded.last_hour",
        *([key[at] for key in keys] for at in range(3)),
        [sums[key].quantity for key in keys],
        [sums[key].events for key in keys],
    )


async def take_series(tx: Tx, due: datetime, limit: int) -> list[Any]:
    """Take series with an hour up to `due` that wasn't judged; what another process takes is skipped."""
    return await tx.fetch(
        "SELECT org_id, sku, first_hour, last_hour, judged_hour FROM usage_series WHERE judged_hour < $1"
        " ORDER BY judged_hour, org_id, sku LIMIT $2 FOR UPDATE SKIP LOCKED",
        due,
        limit,
    )


async def update_judged(tx: Tx, judged: Mapping[tuple[UUID, str], datetime]) -> None:
    """Note how far series were judged."""
    keys = sorted(judged)
    await tx.execute(
        "UPDATE usage_series AS s SET judged_hour = n.hour"
        " FROM unnest($1::uuid[], $2::text[], $3::timestamptz[]) AS n (org_id, sku, hour)"
        " WHERE s.org_id = n.org_id AND s.sku = n.sku",
        [key[0] for key in keys],
        [key[1] for key in keys],
        [judged[key] for key in keys],
    )


async def forget_series(tx: Tx, before: datetime, limit: int) -> int:
    """Forget series without usage since an instant and without an open alert; give how many."""
    tag = await tx.execute(
        "DELETE FROM usage_series WHERE (org_id, sku) IN (SELECT org_id, sku FROM usage_series AS s"
        " WHERE last_hour < $1 AND NOT EXISTS (SELECT 1 FROM usage_alert AS a WHERE a.org_id = s.org_id"
        " AND a.sku = s.sku AND a.closed_at IS NULL) LIMIT $2 FOR UPDATE SKIP LOCKED)",
        before,
        limit,
    )
    return int(tag.rpartition(" ")[2])


async def list_hours(tx: Tx, wanted: Sequence[SeriesHour]) -> dict[SeriesHour, Hour]:
    """Give the sums of these hours, as far as there was usage."""
    rows = await tx.fetch(
        "SELECT h.org_id, h.sku, h.hour, h.quantity, h.events"
        " FROM unnest($1::uuid[], $2::text[], $3::timestamptz[]) AS w (org_id, sku, hour)"
        " JOIN usage_hour AS h ON h.org_id = w.org_id AND h.sku = w.sku AND h.hour = w.hour",
        [key[0] for key in wanted],
        [key[1] for key in wanted],
        [key[2] for key in wanted],
    )
    return {(row["org_id"], row["sku"], row["hour"]): Hour(row["quantity"], row["events"]) for row in rows}


async def get_past(tx: Tx, org_id: UUID, sku: str, start: datetime, end: datetime) -> Past:
    """Give what a series was like in a time; hours without usage count as zero in its 99th percentile."""
    row = await tx.fetchrow(
        "WITH past AS (SELECT hour, quantity FROM usage_hour"
        " WHERE org_id = $1 AND sku = $2 AND hour >= $3 AND hour < $4)"
        " SELECT (SELECT count(DISTINCT date_bin('7 days', hour, $3)) FROM past) AS weeks,"
        " (SELECT quantity FROM past ORDER BY quantity DESC OFFSET $5 LIMIT 1) AS ordinary",
        org_id,
        sku,
        start,
        end,
        int((end - start) / timedelta(hours=1)) // 100,
    )
    return Past(row["weeks"], row["ordinary"] or Decimal(0)) if row else Past(0, Decimal(0))


async def sum_recorded(tx: Tx, org_id: UUID, sku: str, start: datetime, end: datetime, most: int) -> Decimal:
    """Sum what is recorded of a SKU in a time, from `most` events at most: enough to see that it hasn't stopped."""
    found: Decimal = await tx.fetchval(
        "SELECT coalesce(sum(quantity), 0) FROM (SELECT quantity FROM metering_event WHERE org_id = $1 AND sku = $2"
        " AND event_time >= $3 AND event_time < $4 LIMIT $5) AS looked_at",
        org_id,
        sku,
        start,
        end,
        most,
    )
    return found


async def list_latest(tx: Tx, keys: Sequence[tuple[UUID, str]]) -> dict[tuple[UUID, str], Any]:
    """Give the latest alert of each of these series that has one."""
    rows = await tx.fetch(
        "SELECT DISTINCT ON (a.org_id, a.sku) a.* FROM unnest($1::uuid[], $2::text[]) AS w (org_id, sku)"
        " JOIN usage_alert AS a ON a.org_id = w.org_id AND a.sku = w.sku ORDER BY a.org_id, a.sku, a.alert_id DESC",
        [key[0] for key in keys],
        [key[1] for key in keys],
    )
    return {(row["org_id"], row["sku"]): row for row in rows}


async def insert_alert_once(
    tx: Tx, alert_id: UUID, org_id: UUID, sku: str, hour: datetime, finding: Finding
) -> bool:
    """Raise an alert; False if one of the organisation and SKU is open."""
    tag = await tx.execute(
        "INSERT INTO usage_alert (alert_id, org_id, sku, kind, hour, expected, seen, threshold, why, raised_at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)"
        " ON CONFLICT (org_id, sku) WHERE closed_at IS NULL DO NOTHING",
        alert_id,
        org_id,
        sku,
        finding.kind,
        hour,
        finding.expected,
        finding.seen,
        finding.threshold,
        finding.why,
        tx.now,
    )
    return tag == "INSERT 0 1"


async def close_alert(tx: Tx, alert_id: UUID) -> None:
    """Close an alert: usage is ordinary again."""
    await tx.execute("UPDATE usage_alert SET closed_at = $2 WHERE alert_id = $1", alert_id, tx.now)


async def list_alerts(
    tx: Tx, org_id: UUID | None, filters: Mapping[str, Any], before: UUID | None, limit: int
) -> list[Any]:
    """Give a page of an organisation's alerts, newest first; without org_id everybody's."""
    return await tx.fetch(
        ALERT + " WHERE ($1::uuid IS NULL OR org_id = $1) AND ($2::text IS NULL OR sku = $2)"
        " AND ($3::boolean IS NULL OR (closed_at IS NULL) = $3) AND ($4::uuid IS NULL OR alert_id < $4)"
        " ORDER BY alert_id DESC LIMIT $5",
        org_id,
        filters["sku"],
        filters["is_open"],
        before,
        limit,
    )
