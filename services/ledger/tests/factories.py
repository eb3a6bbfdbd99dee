"""Valid things by default; a test says only what matters to it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from eb_contracts.auth import OrgChanged, ParentLink
from eb_contracts.ids import partition_of
from eb_contracts.pricing import Charge, ChargePriced, CounterState

ORG_ID = UUID("01934c4e-0000-7000-8000-00000000000a")
PROJECT_ID = UUID("01934c4e-0000-7000-8000-00000000000b")
BORN = datetime(2026, 1, 1, tzinfo=UTC)
AT = datetime(2026, 11, 4, 2, tzinfo=UTC)


def a_charge(**values: Any) -> Charge:
    """One used SMS of AUD 1.00."""
    counter = CounterState(quantity="1", events=1, charged="1.00", version=1)
    return Charge.model_validate(
        {
            "charge_id": "usage-1",
            "org_id": ORG_ID,
            "project_id": PROJECT_ID,
            "sku": "sms",
            "period": "2026-11",
            "time": AT,
            "kind": "usage",
            "quantity": "1",
            "event_count": 1,
            "currency": "AUD",
            "amount_gross": "1.00",
            "waived_amount": "0.00",
            "credit_applied": "0.00",
            "tax_amount": "0.00",
            "tax_code": "GST",
            "terms_hash": "0" * 64,
            "counter": counter,
            **values,
        }
    )


def a_message(*charges: Charge) -> ChargePriced:
    """The message that carries these charges."""
    return ChargePriced(partition=partition_of(charges[0].org_id), charges=charges)


def an_org(
    org_id: UUID = ORG_ID,
    parent: UUID | None = None,
    *,
    version: int = 1,
    later: tuple[tuple[datetime, UUID | None], ...] = (),
) -> OrgChanged:
    """An organisation since January 2026, with what became of its parent later."""
    links = [ParentLink(parent_org_id=parent, effective_at=BORN)]
    links += [ParentLink(parent_org_id=above, effective_at=at) for at, above in later]
    return OrgChanged(
        version=version,
        org_id=org_id,
        parent_org_id=links[-1].parent_org_id,
        parent_links=tuple(links),
        default_timezone="UTC",
        country="AU",
    )
