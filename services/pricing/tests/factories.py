"""Valid things by default; a test says only what matters to it."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from eb_contracts.catalog import (
    Assignment,
    OrgTermsAssigned,
    RetailHashes,
    RetailTermsAssigned,
    TermsBody,
    TermsDefined,
)
from eb_contracts.ids import new_id, partition_of
from eb_contracts.metering import UsageRecord, UsageRecorded

PROJECT_ID = UUID("01934c4e-0000-7000-8000-00000000000b")
PLAN_ID = UUID("01934c4e-0000-7000-8000-00000000000c")
NOVEMBER = datetime(2026, 10, 31, 13, tzinfo=UTC)
"""The first instant of November 2026 in Sydney."""
AT = datetime(2026, 11, 4, 2, tzinfo=UTC)
GRADUATED = {
    "mode": "graduated",
    "tiers": [{"up_to": "100", "unit_price": "0.10"}, {"up_to": None, "unit_price": "0.05"}],
}


def terms(sku: str = "sms", **values: Any) -> TermsDefined:
    """Terms of AUD 0.10 a unit, with their hash."""
    body = TermsBody.model_validate(
        {
            "sku": sku,
            "sku_type": "action",
            "currency": "AUD",
            "minor_digits": 2,
            "included_qty": "0",
            "overage_price": "0.10",
            **values,
        }
    )
    content = json.dumps(body.model_dump(mode="json"), sort_keys=True)
    return TermsDefined(version=1, terms_hash=hashlib.sha256(content.encode()).hexdigest(), body=body)


def assigned(*defined: TermsDefined, since: datetime = NOVEMBER, **values: Any) -> Assignment:
    """An assignment in Sydney that names these terms."""
    return Assignment.model_validate(
        {
            "effective_at": since,
            "plan_id": PLAN_ID,
            "plan_version": 1,
            "currency": "AUD",
            "time_zone": "Australia/Sydney",
            "hashes": {one.body.sku: one.terms_hash for one in defined},
            "retail_key": "AUD/AU",
            **values,
        }
    )


def org_terms(org_id: UUID, *assignments: Assignment, version: int = 1) -> OrgTermsAssigned:
    """All assignments of an organisation."""
    return OrgTermsAssigned(version=version, org_id=org_id, assignments=assignments)


def retail_terms(
    *defined: TermsDefined, since: datetime = NOVEMBER, key: str = "AUD/AU", version: int = 1
) -> RetailTermsAssigned:
    """Retail defaults that name these terms."""
    hashes = {one.body.sku: one.terms_hash for one in defined}
    return RetailTermsAssigned(
        version=version, retail_key=key, assignments=(RetailHashes(effective_at=since, hashes=hashes),)
    )


def usage(org_id: UUID, quantity: str = "1", **values: Any) -> UsageRecord:
    """One used SMS."""
    return UsageRecord.model_validate(
        {
            "usage_id": new_id(),
            "org_id": org_id,
            "project_id": PROJECT_ID,
            "sku": "sms",
            "minute": AT,
            "quantity": quantity,
            "events": 1,
            "trace_ids": ("0af7651916cd43dd8448eb211c80319c",),
            **values,
        }
    )


def message(*records: UsageRecord) -> UsageRecorded:
    """The message that carries these records."""
    return UsageRecorded(partition=partition_of(records[0].org_id), usage=records)
