"""Reconciliations: runs, their slices (one organisation and SKU), what was counted a day, and drifts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from eb_contracts.ids import new_id
from eb_kit.tx import Tx

from ..domain.reconciling import MOST_SAMPLES, DriftKey, DriftSum, Metered, Span

NEVER_BEFORE = UUID(int=0)
EASTERNMOST, WESTERNMOST = timedelta(hours=14), timedelta(hours=12)
RUN = """
    SELECT reconciliation_id, from_on, to_on, provider, org_id, sku, status, asked_by, created_at, finished_at,
           provider_messages, metered_events, drift_messages, is_over_tolerance, filled, unfilled
      FROM reconciliation
"""
METERED = """
    SELECT e.event_id, coalesce(e.metadata ->> 'provider_message_id', e.request_id) AS message_id, e.sku, e.quantity,
           e.event_time, k.void_event_id IS NOT NULL AS is_voided, e.metadata ->> 'provider' AS provider
      FROM metering_event AS e
      JOIN event_key AS k ON k.org_id = e.org_id AND k.request_id = e.request_id AND k.event_id = e.event_id
       AND k.event_time = e.event_time
"""


async def insert_run(
    tx: Tx,
    reconciliation_id: UUID,
    from_on: date,
    to_on: date,
    *,
    provider: str | None = None,
    org_id: UUID | None = None,
    sku: str | None = None,
    nightly_on: date | None = None,
) -> bool:
    """Ask for a comparison of days; False if this night's is there already."""
    tag = await tx.execute(
        "INSERT INTO reconciliation (reconciliation_id, from_on, to_on, provider, org_id, sku, nightly_on, status,"
        " asked_by, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, 'planning', $8, $9)"
        " ON CONFLICT (nightly_on) DO NOTHING",
        reconciliation_id,
        from_on,
        to_on,
        provider,
        org_id,
        sku,
        nightly_on,
        tx.actor,
        tx.now,
    )
    return tag == "INSERT 0 1"


async def take_run(tx: Tx, status: str) -> Any | None:
    """Take the oldest run of a status; what another process holds is skipped."""
    return await tx.fetchrow(
        "SELECT * FROM reconciliation WHERE status = $1 ORDER BY reconciliation_id LIMIT 1 FOR UPDATE SKIP LOCKED",
        status,
    )


async def take_slice(tx: Tx) -> Any | None:
    """Take one slice of a run that is compared or filled, with its run; what another process holds is skipped."""
    return await tx.fetchrow(
        "SELECT s.*, r.provider, r.sku AS only_sku, r.fill_project_id FROM reconciliation AS r"
        " JOIN reconciliation_slice AS s ON s.reconciliation_id = r.reconciliation_id AND s.phase <> 'done'"
        " WHERE r.status IN ('comparing', 'filling') ORDER BY s.reconciliation_id, s.org_id, s.sku LIMIT 1"
        " FOR UPDATE OF s SKIP LOCKED"
    )


async def take_walked(tx: Tx) -> Any | None:
    """Take a run whose slices are all done."""
    return await tx.fetchrow(
        "SELECT * FROM reconciliation AS r WHERE status IN ('comparing', 'filling') AND NOT EXISTS (SELECT 1"
        " FROM reconciliation_slice WHERE reconciliation_id = r.reconciliation_id AND phase <> 'done')"
        " ORDER BY reconciliation_id LIMIT 1 FOR UPDATE SKIP LOCKED"
    )


async def update_planned(
    tx: Tx, reconciliation_id: UUID, planned_after: UUID | None, *, is_whole: bool
) -> None:
    """Note how far the planning has come."""
    await tx.execute(
        "UPDATE reconciliation SET planned_after = $2, status = CASE WHEN $3 THEN 'comparing' ELSE status END"
        " WHERE reconciliation_id = $1",
        reconciliation_id,
        planned_after,
        is_whole,
    )


async def list_skus(tx: Tx, run: Mapping[str, Any]) -> dict[str, tuple[datetime, datetime] | None]:
    """Give the SKUs that a run compares: the one it names, else those of which loaded logs tell in its days.

    For a nightly run, which nobody asked for, with the time that logs reach over; else None.
    """
    if run["sku"] is not None:
        return {run["sku"]: None}
    begins = datetime.combine(run["from_on"], time(), UTC) - EASTERNMOST
    ends = datetime.combine(run["to_on"], time(), UTC) + WESTERNMOST
    rows = await tx.fetch(
        "SELECT p.sku, min(p.first_at) AS first_at, max(p.last_at) AS last_at FROM provider_log_part AS p"
        " JOIN provider_log AS l ON l.log_id = p.log_id WHERE l.status = 'loaded' AND p.last_at >= $1"
        " AND p.first_at < $2 AND ($3::text IS NULL OR p.provider = $3) GROUP BY p.sku ORDER BY p.sku",
        begins,
        ends,
        run["provider"],
    )
    is_nightly = run["nightly_on"] is not None
    return {row["sku"]: (row["first_at"], row["last_at"]) if is_nightly else None for row in rows}


async def list_orgs(tx: Tx, run: Mapping[str, Any], limit: int) -> list[tuple[UUID, str]]:
    """Give the next organisations that a run may concern, each with its time zone."""
    rows = await tx.fetch(
        "SELECT entity_id, body->>'default_timezone' AS zone FROM known WHERE entity = 'org' AND NOT is_deleted"
        " AND ($1::text IS NULL OR entity_id = $1) AND ($2::text IS NULL OR entity_id > $2)"
        " ORDER BY entity_id LIMIT $3",
        str(run["org_id"]) if run["org_id"] else None,
        str(run["planned_after"]) if run["planned_after"] else None,
        limit,
    )
    return [(UUID(row["entity_id"]), row["zone"]) for row in rows]


async def forget_runs(tx: Tx, before: datetime) -> int:
    """Delete the oldest run that was asked for before an instant, with all it found; give how many."""
    reconciliation_id = await tx.fetchval(
        "SELECT reconciliation_id FROM reconciliation WHERE created_at < $1 AND status = 'done'"
        " ORDER BY reconciliation_id LIMIT 1 FOR UPDATE SKIP LOCKED",
        before,
    )
    if reconciliation_id is None:
        return 0
    for table in ("reconciliation_slice", "reconciliation_day", "reconciliation_drift", "reconciliation"):
        await tx.execute(f"DELETE FROM {table} WHERE reconciliation_id = $1", reconciliation_id)
    return 1


async def insert_slices(tx: Tx, reconciliation_id: UUID, spans: Sequence[Span]) -> None:
    """Plan the organisations and SKUs of which there is anything on either side."""
    await tx.execute(
        "INSERT INTO reconciliation_slice (reconciliation_id, org_id, sku, zone, starts_at, ends_at, phase, after_at,"
        " after_id, after_seq) SELECT $1, w.org_id, w.sku, w.zone, w.starts_at, w.ends_at, 'rows', w.starts_at, $7, 0"
        " FROM unnest($2::uuid[], $3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[])"
        " AS w (org_id, sku, zone, starts_at, ends_at)"
        " WHERE EXISTS (SELECT 1 FROM metering_event AS e WHERE e.org_id = w.org_id AND e.sku = w.sku"
        " AND e.event_time >= w.starts_at AND e.event_time < w.ends_at)"
        " OR EXISTS (SELECT 1 FROM provider_row AS p WHERE p.org_id = w.org_id AND p.sku = w.sku"
        " AND p.message_time >= w.starts_at AND p.message_time < w.ends_at) ON CONFLICT DO NOTHING",
        reconciliation_id,
        [span.org_id for span in spans],
        [span.sku for span in spans],
        [span.zone for span in spans],
        [span.starts_at for span in spans],
        [span.ends_at for span in spans],
        NEVER_BEFORE,
    )


async def list_rows(tx: Tx, slice_: Mapping[str, Any], limit: int) -> list[Any]:
    """Give the next rows of a slice in order of time, whether they are the ones that count or not."""
    return await tx.fetch(
        "SELECT log_id, seq, provider, message_id, message_time FROM provider_row"
        " WHERE org_id = $1 AND sku = $2 AND message_time >= $3 AND message_time < $4"
        " AND (message_time, log_id, seq) > ($5, $6, $7) ORDER BY message_time, log_id, seq LIMIT $8",
        slice_["org_id"],
        slice_["sku"],
        slice_["starts_at"],
        slice_["ends_at"],
        slice_["after_at"],
        slice_["after_id"],
        slice_["after_seq"],
        limit,
    )


async def list_events(tx: Tx, slice_: Mapping[str, Any], limit: int) -> list[Metered]:
    """Give the next events of a slice in order of time; what voids isn't an event."""
    rows = await tx.fetch(
        METERED + " WHERE e.org_id = $1 AND e.sku = $2 AND e.event_time >= $3 AND e.event_time < $4"
        " AND e.voids_event_id IS NULL AND (e.event_time, e.event_id) > ($5, $6)"
        " ORDER BY e.event_time, e.event_id LIMIT $7",
        slice_["org_id"],
        slice_["sku"],
        slice_["starts_at"],
        slice_["ends_at"],
        slice_["after_at"],
        slice_["after_id"],
        limit,
    )
    return [Metered(*row) for row in rows]


async def list_metered(tx: Tx, org_id: UUID, message_ids: Collection[str]) -> dict[str, list[Metered]]:
    """Give an organisation's events by their provider's id, first recorded first, ten at most of each."""
    rows = await tx.fetch(
        METERED + " WHERE k.org_id = $1 AND k.request_id = ANY($2) AND e.voids_event_id IS NULL"
        " AND e.metadata ->> 'provider_message_id' IS NULL"
        " UNION ALL SELECT f.* FROM unnest($2::text[]) AS w (message_id), LATERAL ("
        + METERED
        + " WHERE e.org_id = $1 AND e.voids_event_id IS NULL AND e.metadata ->> 'provider_message_id' IS NOT NULL"
        " AND e.metadata ->> 'provider_message_id' = w.message_id LIMIT 10) AS f ORDER BY event_id",
        org_id,
        sorted(message_ids),
    )
    found: dict[str, list[Metered]] = {}
    for row in rows:
        found.setdefault(row["message_id"], []).append(Metered(*row))
    return found


async def update_slice(
    tx: Tx, slice_: Mapping[str, Any], phase: str, after_at: datetime, after_id: UUID, after_seq: int
) -> None:
    """Note how far a walk has come."""
    await tx.execute(
        "UPDATE reconciliation_slice SET phase = $4, after_at = $5, after_id = $6, after_seq = $7"
        " WHERE reconciliation_id = $1 AND org_id = $2 AND sku = $3",
        slice_["reconciliation_id"],
        slice_["org_id"],
        slice_["sku"],
        phase,
        after_at,
        after_id,
        after_seq,
    )


async def add_days(
    tx: Tx, slice_: Mapping[str, Any], told: Mapping[date, tuple[int, Decimal]], *, is_metered: bool
) -> None:
    """Add counts and quantities of a batch to its days, on the side they were told by."""
    days = sorted(told)
    side, other = ("metered_events", "metered_quantity"), ("provider_messages", "provider_quantity")
    if not is_metered:
        side, other = other, side
    await tx.execute(
        f"INSERT INTO reconciliation_day AS d (reconciliation_id, org_id, sku, day, {side[0]}, {side[1]}, {other[0]},"
        f" {other[1]}) SELECT $1, $2, $3, day, messages, quantity, 0, 0"
        " FROM unnest($4::date[], $5::bigint[], $6::numeric[]) AS n (day, messages, quantity)"
        " ON CONFLICT (reconciliation_id, org_id, sku, day) DO UPDATE SET"
        f" {side[0]} = d.{side[0]} + excluded.{side[0]},"
        f" {side[1]} = d.{side[1]} + excluded.{side[1]}",
        slice_["reconciliation_id"],
        slice_["org_id"],
        slice_["sku"],
        days,
        [told[day][0] for day in days],
        [told[day][1] for day in days],
    )


async def add_drifts(tx: Tx, slice_: Mapping[str, Any], sums: Mapping[DriftKey, DriftSum]) -> None:
    """Add drifts of a batch to their rows."""
    keys = sorted(sums)
    await tx.executemany(
        "INSERT INTO reconciliation_drift AS d (drift_id, reconciliation_id, org_id, sku, day, metered_day, kind,"
        " messages, provider_quantity, metered_quantity, sample_ids)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
        " ON CONFLICT (reconciliation_id, org_id, sku, day, metered_day, kind) DO UPDATE SET"
        " messages = d.messages + excluded.messages,"
        " provider_quantity = d.provider_quantity + excluded.provider_quantity,"
        " metered_quantity = d.metered_quantity + excluded.metered_quantity,"
        f" sample_ids = (d.sample_ids || excluded.sample_ids)[1:{MOST_SAMPLES}]",
        [
            (
                new_id(), slice_["reconciliation_id"], slice_["org_id"], slice_["sku"], *key, sums[key].messages,
                sums[key].provider_quantity, sums[key].metered_quantity, sums[key].sample_ids,
            )
            for key in keys
        ],
    )  # fmt: skip


async def take_drifts(tx: Tx, reconciliation_id: UUID, limit: int) -> list[Any]:
    """Take drifts that weren't announced, with the counts of their day."""
    return await tx.fetch(
        "SELECT d.*, coalesce(c.provider_messages, 0) AS told, coalesce(c.metered_events, 0) AS metered"
        " FROM reconciliation_drift AS d LEFT JOIN reconciliation_day AS c USING (reconciliation_id, org_id, sku, day)"
        " WHERE d.reconciliation_id = $1 AND d.announced_at IS NULL ORDER BY d.drift_id LIMIT $2",
        reconciliation_id,
        limit,
    )


async def update_announced(tx: Tx, over: Mapping[UUID, bool]) -> None:
    """Note that drifts were announced, and which are more than is tolerated."""
    await tx.execute(
        "UPDATE reconciliation_drift AS d SET announced_at = $3, is_over_tolerance = n.is_over"
        " FROM unnest($1::uuid[], $2::boolean[]) AS n (drift_id, is_over) WHERE d.drift_id = n.drift_id",
        list(over),
        list(over.values()),
        tx.now,
    )


async def update_status(tx: Tx, reconciliation_id: UUID, status: str) -> None:
    """Bring a run to its next step."""
    await tx.execute(
        "UPDATE reconciliation SET status = $2, finished_at = CASE WHEN $2 = 'done' THEN $3 ELSE finished_at END"
        " WHERE reconciliation_id = $1",
        reconciliation_id,
        status,
        tx.now,
    )


async def update_totals(tx: Tx, reconciliation_id: UUID) -> Any:
    """Sum a run's days and drifts into it, and finish it; give it."""
    return await tx.fetchrow(
        "UPDATE reconciliation AS r SET status = 'done', finished_at = $2, provider_messages = d.told,"
        " metered_events = d.metered, drift_messages = f.drifting, is_over_tolerance = f.is_over"
        " FROM (SELECT coalesce(sum(provider_messages), 0) AS told, coalesce(sum(metered_events), 0) AS metered"
        " FROM reconciliation_day WHERE reconciliation_id = $1) AS d,"
        " (SELECT coalesce(sum(messages) FILTER (WHERE kind <> 'voided'), 0) AS drifting,"
        " coalesce(bool_or(is_over_tolerance), false) AS is_over FROM reconciliation_drift"
        " WHERE reconciliation_id = $1) AS f WHERE r.reconciliation_id = $1 RETURNING r.*",
        reconciliation_id,
        tx.now,
    )


async def lock_run(tx: Tx, reconciliation_id: UUID) -> Any | None:
    """Lock a run until `tx` ends, or None."""
    return await tx.fetchrow(RUN + " WHERE reconciliation_id = $1 FOR UPDATE", reconciliation_id)


async def begin_filling(
    tx: Tx, reconciliation_id: UUID, org_id: UUID | None, sku: str | None, project_id: UUID | None
) -> None:
    """Walk again through the rows of those slices where messages were missing here."""
    await tx.execute(
        "UPDATE reconciliation SET status = 'filling', fill_project_id = $2, finished_at = NULL"
        " WHERE reconciliation_id = $1",
        reconciliation_id,
        project_id,
    )
    await tx.execute(
        "UPDATE reconciliation_slice AS s SET phase = 'fill', after_at = s.starts_at, after_id = $4, after_seq = 0"
        " WHERE reconciliation_id = $1 AND ($2::uuid IS NULL OR org_id = $2) AND ($3::text IS NULL OR sku = $3)"
        " AND EXISTS (SELECT 1 FROM reconciliation_drift AS d WHERE d.reconciliation_id = $1 AND d.org_id = s.org_id"
        " AND d.sku = s.sku AND d.kind = 'missing_here')",
        reconciliation_id,
        org_id,
        sku,
        NEVER_BEFORE,
    )


async def add_filled(tx: Tx, reconciliation_id: UUID, filled: int, unfilled: int) -> None:
    """Count messages that became events, and those that couldn't."""
    await tx.execute(
        "UPDATE reconciliation SET filled = filled + $2, unfilled = unfilled + $3 WHERE reconciliation_id = $1",
        reconciliation_id,
        filled,
        unfilled,
    )


async def list_runs(tx: Tx, filters: Mapping[str, object], before: UUID | None, limit: int) -> list[Any]:
    """Give a page of runs, newest first."""
    return await tx.fetch(
        RUN + " WHERE ($1::uuid IS NULL OR org_id = $1) AND ($2::text IS NULL OR provider = $2)"
        " AND ($3::text IS NULL OR status = $3) AND ($4::uuid IS NULL OR reconciliation_id < $4)"
        " ORDER BY reconciliation_id DESC LIMIT $5",
        filters["org_id"],
        filters["provider"],
        filters["status"],
        before,
        limit,
    )


async def sum_kinds(tx: Tx, reconciliation_ids: Iterable[UUID]) -> dict[UUID, list[Any]]:
    """Give the drifts of runs by kind."""
    rows = await tx.fetch(
        "SELECT reconciliation_id, kind, count(*) AS drifts, sum(messages)::bigint AS messages"
        " FROM reconciliation_drift WHERE reconciliation_id = ANY($1) GROUP BY reconciliation_id, kind ORDER BY kind",
        list(reconciliation_ids),
    )
    found: dict[UUID, list[Any]] = {}
    for row in rows:
        found.setdefault(row["reconciliation_id"], []).append(row)
    return found


async def find_run(tx: Tx, reconciliation_id: UUID) -> Any | None:
    """Give a run, or None."""
    return await tx.fetchrow(RUN + " WHERE reconciliation_id = $1", reconciliation_id)


async def list_drifts(
    tx: Tx, reconciliation_id: UUID, filters: Mapping[str, object], before: UUID | None, limit: int
) -> list[Any]:
    """Give a page of a run's drifts, newest first, with the counts and quantities of their day on both sides."""
    return await tx.fetch(
        "SELECT d.drift_id, d.org_id, d.sku, d.day, d.metered_day, d.kind, d.messages, d.provider_quantity,"
        " d.metered_quantity, d.sample_ids, d.is_over_tolerance, coalesce(c.provider_messages, 0) AS day_messages,"
        " coalesce(c.provider_quantity, 0) AS day_provider_quantity, coalesce(c.metered_events, 0) AS day_events,"
        " coalesce(c.metered_quantity, 0) AS day_metered_quantity FROM reconciliation_drift AS d"
        " LEFT JOIN reconciliation_day AS c USING (reconciliation_id, org_id, sku, day)"
        " WHERE d.reconciliation_id = $1 AND ($2::uuid IS NULL OR d.org_id = $2) AND ($3::text IS NULL OR d.sku = $3)"
        " AND ($4::text IS NULL OR d.kind = $4) AND ($5::uuid IS NULL OR d.drift_id < $5)"
        " ORDER BY d.drift_id DESC LIMIT $6",
        reconciliation_id,
        filters["org_id"],
        filters["sku"],
        filters["kind"],
        before,
        limit,
    )
