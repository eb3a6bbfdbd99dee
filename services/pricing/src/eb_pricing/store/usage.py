"""Counters as people see them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eb_kit.tx import Tx

from ..domain.charges import UsageSum
from .lists import list_rows

USAGE_CONDITIONS = {
    "org_id": "org_id = {}",
    "sku": "sku = {}",
    "period": "period = {}",
    "from_version": "version >= {}",
}
"""What lists may be picked by; only what is asked for reaches the statement, so that its plan fits."""


_SHOWN = {"charged": "charged - waived AS charged"}
"""A counter's charged is what was due, before caps; people see the gross amounts, and what was waived beside."""


async def list_usage(
    tx: Tx, filters: Mapping[str, object], after: Mapping[str, Any] | None, limit: int
) -> list[UsageSum]:
    """Give counters that were ever charged, newest period first."""
    columns = [_SHOWN.get(name, name) for name in UsageSum.__dataclass_fields__]
    picked = {**filters, "from_version": 1}
    place = ("period", "org_id", "sku")
    rows = await list_rows(tx, "counter", columns, USAGE_CONDITIONS, picked, place, after, limit)
    return [UsageSum(**dict(row)) for row in rows]
