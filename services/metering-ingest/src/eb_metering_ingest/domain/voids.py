"""A void: the negative of a recorded event, at its time, once.

Rule: docs/rules/metering.md, Voids.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from eb_contracts.ids import new_id, partition_of
from eb_contracts.metering import UsageRecord, UsageRecorded


@dataclass(frozen=True, slots=True)
class Void:
    """What a void is known by: an event and a usage record of its own."""

    event_id: UUID
    usage_id: UUID
    reason: str

    @classmethod
    def of(cls, reason: str) -> Void:
        """Make its ids."""
        return cls(new_id(), new_id(), reason)


def usage_of_void(void: Void, row: Mapping[str, Any], trace_id: str) -> UsageRecorded:
    """Give the usage that leaves: minus the quantity, minus one event, no hold. `row` is the void as stored."""
    record = UsageRecord(
        usage_id=void.usage_id,
        org_id=row["org_id"],
        project_id=row["project_id"],
        sku=row["sku"],
        minute=row["event_time"].replace(second=0, microsecond=0),
        quantity=row["quantity"],
        events=-1,
        trace_ids=(trace_id,),
    )
    return UsageRecorded(partition=partition_of(record.org_id), usage=(record,))
