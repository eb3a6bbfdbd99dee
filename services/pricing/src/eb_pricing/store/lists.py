"""What statements of all kinds share: columns for unnest, lists by a place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg

from eb_kit.tx import Tx


async def list_rows(
    tx: Tx,
    table: str,
    columns: Sequence[str],
    conditions: Mapping[str, str],
    filters: Mapping[str, object],
    place: Sequence[str],
    after: Mapping[str, Any] | None,
    limit: int,
) -> list[asyncpg.Record]:
    """Give the rows below `after`, in falling order of the columns `place`."""
    given = {name: value for name, value in filters.items() if value is not None}
    where = [conditions[name].format(f"${n}") for n, name in enumerate(given, 1)]
    values = list(given.values())
    if after is not None:
        marks = ", ".join(f"${len(values) + n}" for n in range(1, len(place) + 1))
        where.append(f"({', '.join(place)}) < ({marks})")
        values += [after[name] for name in place]
    order = ", ".join(f"{name} DESC" for name in place)
    return await tx.fetch(
        f"SELECT {', '.join(columns)} FROM {table} WHERE {' AND '.join(where) or 'true'}"
        f" ORDER BY {order} LIMIT {limit:d}",
        *values,
    )


def columns_of(rows: Sequence[Sequence[Any]], width: int) -> list[list[Any]]:
    """Turn rows into the columns that unnest takes."""
    return [[row[n] for row in rows] for n in range(width)]
