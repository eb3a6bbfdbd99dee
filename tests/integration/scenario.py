"""A little history told in messages: organisations, terms, usage and charges, as the services would say it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from eb_contracts.auth import OrgChanged, ParentLink, ProjectChanged
from eb_contracts.base import Message
from eb_contracts.catalog import (
    Assignment,
    OrgTermsAssigned,
    PriceShape,
    RetailHashes,
    RetailTermsAssigned,
    SkuChanged,
    TermsBody,
    TermsDefined,
    Tier,
)
from eb_contracts.ids import new_id, partition_of
from eb_contracts.metering import UsageRecord, UsageRecorded
from eb_contracts.pricing import Charge, ChargePriced, CounterState

NOW = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=10)
MONTH = NOW.replace(day=1, hour=0, minute=0)
SKUS = ("sms", "form", "page")
PLAN = new_id()
Terms = dict[str, TermsDefined]


def terms_of(sku: str, price: str, tiers: PriceShape | None = None) -> TermsDefined:
    """Define terms in AUD with 10 % tax."""
    body = TermsBody(
        sku=sku,
        sku_type="action",
        currency="AUD",
        minor_digits=2,
        included_qty=Decimal(5),
        overage_price=Decimal(0 if tiers else price),
        tiers=tiers,
        tax_code="GST",
        tax_rate=Decimal("0.10"),
    )
    digest = hashlib.sha256(json.dumps(body.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()
    return TermsDefined(version=1, terms_hash=digest, body=body)


GRADUATED = PriceShape(
    mode="graduated",
    tiers=(
        Tier(up_to=Decimal(20), unit_price=Decimal("0.10"), flat_fee=Decimal(1)),
        Tier(up_to=None, unit_price=Decimal("0.033"), flat_fee=Decimal(0)),
    ),
)


@dataclass
class Scenario:
    """Everything that was said, in the order in which it happened."""

    orgs: list[UUID] = field(default_factory=list)
    facts: list[Message] = field(default_factory=list)
    usage: list[UsageRecord] = field(default_factory=list)
    charges: list[Charge] = field(default_factory=list)

    @property
    def usage_messages(self) -> list[Message]:
        """Give the usage in messages of a few records of one partition."""
        return [
            UsageRecorded(partition=partition, usage=tuple(records[n : n + 3]))
            for partition, records in _by_partition(self.usage).items()
            for n in range(0, len(records), 3)
        ]

    @property
    def charge_messages(self) -> list[Message]:
        """Give the charges in messages of a few of one partition."""
        return [
            ChargePriced(partition=partition, charges=tuple(records[n : n + 3]))
            for partition, records in _by_partition(self.charges).items()
            for n in range(0, len(records), 3)
        ]


def _by_partition(records: list[Any]) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = {}
    for record in records:
        found.setdefault(partition_of(record.org_id), []).append(record)
    return found


def a_scenario() -> Scenario:
    """Tell it: two groups whose members move, terms that change while usage flows, three SKUs."""
    told = Scenario()
    old = {sku: terms_of(sku, "0.07", GRADUATED if sku == "sms" else None) for sku in SKUS}
    new = {sku: terms_of(sku, "0.05") for sku in SKUS}
    told.facts += [SkuChanged(version=v, sku=sku, type="action", unit="each") for sku in SKUS for v in (1, 2)]
    told.facts += [*old.values(), *new.values()]
    told.facts.append(_retail(old))
    for number in range(4):
        org, parent = new_id(), told.orgs[0] if number % 2 else None
        told.orgs.append(org)
        told.facts += [_org(org, None, 1), _org(org, parent, 2)]
        told.facts += [_assigned(org, old, None), _assigned(org, old, new)]
        _use(told, org)
    return told


def _use(told: Scenario, org: UUID) -> None:
    projects = [new_id() for _ in range(2)]
    told.facts += [ProjectChanged(version=1, project_id=project, org_id=org) for project in projects]
    for number in range(18):
        record = UsageRecord(
            usage_id=new_id(),
            org_id=org,
            project_id=projects[number % 2],
            sku=SKUS[number % 3],
            minute=NOW + timedelta(minutes=number % 5),
            quantity=Decimal(-1 if number == 17 else number + 1) / 2,
            events=-1 if number == 17 else 2,
        )
        told.usage.append(record)
        told.charges.append(_charge(record))


def _charge(record: UsageRecord) -> Charge:
    """Price it simply: what the ledger does with an amount doesn't depend on how it came about."""
    return Charge(
        charge_id=str(record.usage_id),
        org_id=record.org_id,
        project_id=record.project_id,
        sku=record.sku,
        period=f"{record.minute:%Y-%m}",
        time=record.minute,
        kind="usage",
        quantity=record.quantity,
        event_count=record.events,
        currency="AUD",
        amount_gross=(record.quantity * Decimal("0.37")).quantize(Decimal("0.01")),
        waived_amount=Decimal("0.00"),
        credit_applied=Decimal("0.00"),
        tax_amount=Decimal("0.00"),
        tax_code=None,
        terms_hash="0" * 64,
        counter=CounterState(quantity=record.quantity, events=2, charged=Decimal(0), version=1),
    )


def _org(org: UUID, parent: UUID | None, version: int) -> OrgChanged:
    links = [ParentLink(parent_org_id=None, effective_at=MONTH - timedelta(days=90))]
    if parent is not None:
        links.append(ParentLink(parent_org_id=parent, effective_at=MONTH - timedelta(days=40)))
    return OrgChanged(
        version=version,
        org_id=org,
        parent_org_id=parent,
        parent_links=tuple(links),
        default_timezone="Australia/Sydney",
        country="AU",
    )


def _assigned(org: UUID, old: Terms, new: Terms | None) -> OrgTermsAssigned:
    """The plan names two SKUs, the third has retail terms; the new plan holds for the whole running period."""
    steps = [_assignment(MONTH - timedelta(days=62), old)]
    if new is not None:
        steps.append(_assignment(MONTH - timedelta(days=1), new))
    return OrgTermsAssigned(version=len(steps), org_id=org, assignments=tuple(steps))


def _assignment(effective_at: datetime, terms: Terms) -> Assignment:
    return Assignment(
        effective_at=effective_at,
        plan_id=PLAN,
        plan_version=1,
        currency="AUD",
        time_zone="Australia/Sydney",
        hashes={sku: terms[sku].terms_hash for sku in SKUS[:2]},
        retail_key="AUD/AU",
    )


def _retail(terms: Terms) -> RetailTermsAssigned:
    step = RetailHashes(effective_at=MONTH - timedelta(days=90), hashes={"page": terms["page"].terms_hash})
    return RetailTermsAssigned(version=1, retail_key="AUD/AU", assignments=(step,))
