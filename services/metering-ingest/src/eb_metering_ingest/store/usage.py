"""Usage: sums of events by window."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from eb_kit.tx import Tx


async def sum_usage(
    tx: Tx,
    org_id: UUID,
    bounds: Sequence[datetime],
    start: datetime,
    end: datetime,
    sku: str | None,
    project_id: UUID | None,
) -> list[Any]:
    """Sum an organisation's events from `start` to before `end`, right to the last committed one.

    Gives (place, sku, quantity, events); the window of `place` begins at `bounds[place - 1]`. A void takes away its
    event; windows that nothing is left of are left out.
    """
    where = ""
    values: list[Any] = [org_id, start, end, bounds]
    for column, value in (("sku", sku), ("project_id", project_id)):
        if value is not None:
            values.append(value)
            where += f" AND {column} = ${len(values)}"
    return await tx.fetch(
        "SELECT * FROM (SELECT width_bucket(event_time, $4::timestamptz[]) AS place, sku, sum(quantity) AS quantity,"
        " count(*) - 2 * count(*) FILTER (WHERE quantity < 0) AS events FROM metering_event"
        f" WHERE org_id = $1 AND event_time >= $2 AND event_time < $3{where} GROUP BY 1, 2) AS sums"
        " WHERE events <> 0 OR quantity <> 0 ORDER BY place, sku",
        *values,
    )
