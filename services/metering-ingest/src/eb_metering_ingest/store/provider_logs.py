"""Providers' logs: the log itself, its rows by month, whose messages it holds, and the lines that are no rows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import date, datetime
from typing import Any
from uuid import UUID

from eb_kit.tx import Tx

from ..domain.provider_logs import Reject, Row
from ..domain.reconciling import Message

MOST_REJECTS = 1000
"""Rejected lines that are kept for a log; all are counted."""
ROW_COLUMNS = (
    "log_id", "seq", "provider", "message_id", "org_id", "sku", "quantity", "message_time", "project_id",
)  # fmt: skip
LOG = """
    SELECT log_id, provider, format, CASE status WHEN 'cleared' THEN 'abandoned' ELSE status END AS status, loaded_by,
           rows, rejected, skipped, started_at, finished_at
      FROM provider_log
"""


async def insert_log(tx: Tx, log_id: UUID, provider: str | None, format_name: str) -> None:
    """Begin a log; its rows aren't compared before it is loaded."""
    await tx.execute(
        "INSERT INTO provider_log (log_id, provider, format, status, loaded_by, started_at, heard_at)"
        " VALUES ($1, $2, $3, 'loading', $4, $5, $5)",
        log_id,
        provider,
        format_name,
        tx.actor,
        tx.now,
    )


async def ensure_month(tx: Tx, month: date) -> None:
    """Have the partition of a month of rows; nothing happens if it is there."""
    await tx.execute("SELECT platform.ensure_month('metering_ingest.provider_row', $1)", month)


async def insert_rows(tx: Tx, log_id: UUID, after: int, rows: Sequence[Row]) -> None:
    """COPY rows of a log that has `after` already, and note whose they are."""
    if not rows:
        return
    records = [
        (log_id, seq, r.provider, r.message_id, r.org_id, r.sku, r.quantity, r.time, r.project_id)
        for seq, r in enumerate(rows, after + 1)
    ]
    await tx.copy("provider_row", ROW_COLUMNS, records)
    parts: dict[tuple[UUID, str, str], list[datetime]] = {}
    for row in rows:
        parts.setdefault((row.org_id, row.sku, row.provider), []).append(row.time)
    keys = sorted(parts)
    await tx.execute(
        "INSERT INTO provider_log_part AS p (log_id, org_id, sku, provider, rows, first_at, last_at)"
        " SELECT $1, * FROM unnest($2::uuid[], $3::text[], $4::text[], $5::bigint[], $6::timestamptz[],"
        " $7::timestamptz[]) ON CONFLICT (log_id, org_id, sku, provider) DO UPDATE SET rows = p.rows + excluded.rows,"
        " first_at = least(p.first_at, excluded.first_at), last_at = greatest(p.last_at, excluded.last_at)",
        log_id,
        [key[0] for key in keys],
        [key[1] for key in keys],
        [key[2] for key in keys],
        [len(parts[key]) for key in keys],
        [min(parts[key]) for key in keys],
        [max(parts[key]) for key in keys],
    )


async def insert_rejects(tx: Tx, log_id: UUID, rejects: Sequence[Reject]) -> None:
    """Keep lines that are no rows, with their reasons; the first of a line stands."""
    await tx.execute(
        "INSERT INTO provider_reject (log_id, line, reason) SELECT $1, * FROM unnest($2::bigint[], $3::text[])"
        " ON CONFLICT DO NOTHING",
        log_id,
        [one.line for one in rejects],
        [one.reason for one in rejects],
    )


async def update_progress(tx: Tx, log_id: UUID, *, rows: int, rejected: int, skipped: int) -> bool:
    """Count what was loaded so far; False if the log was given up meanwhile."""
    tag = await tx.execute(
        "UPDATE provider_log SET rows = rows + $2, rejected = rejected + $3, skipped = skipped + $4,"
        " rows_left = rows_left + $2, heard_at = $5 WHERE log_id = $1 AND status = 'loading'",
        log_id,
        rows,
        rejected,
        skipped,
        tx.now,
    )
    return tag == "UPDATE 1"


async def find_same(tx: Tx, content_hash: bytes) -> Any | None:
    """Give the loaded log of the same content, or None. Waits for one that is just being finished."""
    await tx.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"provider_log:{content_hash.hex()}"
    )
    return await tx.fetchrow(LOG + " WHERE content_hash = $1 AND status = 'loaded'", content_hash)


async def update_loaded(tx: Tx, log_id: UUID, content_hash: bytes) -> Any | None:
    """Make a log count, and give it; None if it was given up meanwhile."""
    return await tx.fetchrow(
        "UPDATE provider_log SET status = 'loaded', content_hash = $2, finished_at = $3"
        " WHERE log_id = $1 AND status = 'loading'"
        " RETURNING log_id, provider, format, status, loaded_by, rows, rejected, skipped, started_at, finished_at",
        log_id,
        content_hash,
        tx.now,
    )


async def update_abandoned(tx: Tx, log_id: UUID) -> None:
    """Give up a log that is loading: a sweep takes its rows away."""
    await tx.execute(
        "UPDATE provider_log SET status = 'abandoned', finished_at = $2 WHERE log_id = $1 AND status = 'loading'",
        log_id,
        tx.now,
    )


async def abandon_quiet(tx: Tx, before: datetime, limit: int) -> int:
    """Give up logs that stopped loading, as when the process died; give how many."""
    tag = await tx.execute(
        "UPDATE provider_log SET status = 'abandoned', finished_at = $3 WHERE log_id IN"
        " (SELECT log_id FROM provider_log WHERE status = 'loading' AND heard_at < $1 ORDER BY heard_at LIMIT $2"
        " FOR UPDATE SKIP LOCKED)",
        before,
        limit,
        tx.now,
    )
    return int(tag.rpartition(" ")[2])


async def clear_abandoned(tx: Tx, limit: int) -> int:
    """Delete up to `limit` rows of one given-up log, from its end; 0 if there is none."""
    log = await tx.fetchrow(
        "SELECT log_id, rows_left FROM provider_log WHERE status = 'abandoned' ORDER BY heard_at LIMIT 1"
        " FOR UPDATE SKIP LOCKED"
    )
    if log is None:
        return 0
    left = max(0, log["rows_left"] - limit)
    await tx.execute("DELETE FROM provider_row WHERE log_id = $1 AND seq > $2", log["log_id"], left)
    if not left:
        await tx.execute("DELETE FROM provider_log_part WHERE log_id = $1", log["log_id"])
    await tx.execute(
        "UPDATE provider_log SET rows_left = $2, status = CASE WHEN $2::bigint = 0 THEN 'cleared' ELSE status END"
        " WHERE log_id = $1",
        log["log_id"],
        left,
    )
    return 1


async def forget_logs(tx: Tx, before: datetime, limit: int) -> int:
    """Delete what is left of logs that were ended before an instant and whose rows are gone; give how many."""
    rows = await tx.fetch(
        "DELETE FROM provider_log WHERE log_id IN (SELECT log_id FROM provider_log WHERE finished_at < $1"
        " AND status IN ('loaded', 'cleared') LIMIT $2 FOR UPDATE SKIP LOCKED) RETURNING log_id",
        before,
        limit,
    )
    log_ids = [row["log_id"] for row in rows]
    await tx.execute("DELETE FROM provider_log_part WHERE log_id = ANY($1)", log_ids)
    await tx.execute("DELETE FROM provider_reject WHERE log_id = ANY($1)", log_ids)
    return len(rows)


async def forget_old(tx: Tx, table: str, before: datetime) -> str | None:
    """Drop the oldest month of rows or hourly sums that ends before an instant's month; give its name, None if none."""
    name: str | None = await tx.fetchval(
        "SELECT platform.drop_month($1, $2)", f"metering_ingest.{table}", before
    )
    return name


async def list_logs(tx: Tx, provider: str | None, before: UUID | None, limit: int) -> list[Any]:
    """Give a page of logs, newest first."""
    return await tx.fetch(
        LOG + " WHERE ($1::text IS NULL OR provider = $1) AND ($2::uuid IS NULL OR log_id < $2)"
        " ORDER BY log_id DESC LIMIT $3",
        provider,
        before,
        limit,
    )


async def find_log(tx: Tx, log_id: UUID) -> Any | None:
    """Give a log, or None."""
    return await tx.fetchrow(LOG + " WHERE log_id = $1", log_id)


async def list_newest(tx: Tx) -> dict[str | None, datetime]:
    """Give when the newest log that counts was loaded, per provider it was sent for.

    Reads one row a log, and logs leave after months.
    """
    rows = await tx.fetch(
        "SELECT provider, max(finished_at) AS loaded_at FROM provider_log WHERE status = 'loaded' GROUP BY 1"
    )
    return {row["provider"]: row["loaded_at"] for row in rows}


async def list_rejects(tx: Tx, log_id: UUID) -> list[Any]:
    """Give the lines that are no rows, as far as they were kept."""
    return await tx.fetch(
        "SELECT line, reason FROM provider_reject WHERE log_id = $1 ORDER BY line LIMIT $2",
        log_id,
        MOST_REJECTS,
    )


async def list_messages(
    tx: Tx, message_ids: Collection[str], earliest: datetime, latest: datetime
) -> list[Message]:
    """Give what is told of these ids, per provider: the newest loaded log's first word, and how often it has it."""
    rows = await tx.fetch(
        "SELECT DISTINCT ON (r.message_id, r.provider) r.log_id, r.seq, r.provider, r.message_id, r.org_id, r.sku,"
        " r.quantity, r.message_time, r.project_id,"
        " count(*) OVER (PARTITION BY r.message_id, r.provider, r.log_id) AS copies"
        " FROM provider_row AS r JOIN provider_log AS l ON l.log_id = r.log_id"
        " WHERE r.message_id = ANY($1) AND r.message_time >= $2 AND r.message_time < $3 AND l.status = 'loaded'"
        " ORDER BY r.message_id, r.provider, r.log_id DESC, r.seq",
        list(message_ids),
        earliest,
        latest,
    )
    return [Message(*row) for row in rows]
