"""How many usage records a second one consumer charges: recorded usage as bytes in, committed charges out.

1,000 organisations × 5 SKUs at a graduated price with tax, uniform: nearly every take touches all counters.
Prints one JSON line; `--records` sets how many.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from uuid import UUID

import uvloop
from common import record
from consumer import Consumer, measure

from eb_contracts.catalog import Assignment, OrgTermsAssigned, TermsBody, TermsDefined
from eb_contracts.ids import new_id, partition_of
from eb_contracts.metering import UsageRecord, UsageRecorded
from eb_kit import readmodels, telemetry
from eb_kit.testing import Client
from eb_pricing.app import SERVICE
from eb_pricing.consumers import price_usage

ORGS = 1000
SKUS = ("sms", "form_submit", "email_check", "hosting", "report")
SINCE = datetime(2026, 1, 1, tzinfo=UTC)
FIRST_BAR = 10_000
PRICE = {
    "mode": "graduated",
    "tiers": [{"up_to": "100", "unit_price": "0.10"}, {"up_to": None, "unit_price": "0.0525"}],
}


def terms(sku: str) -> TermsDefined:
    """Make the terms of a SKU; any text will do for a hash here."""
    body = {"sku": sku, "sku_type": "action", "currency": "AUD", "minor_digits": 2, "included_qty": "10"}
    body |= {"overage_price": "0", "tiers": PRICE, "tax_code": "GST", "tax_rate": "0.1"}
    return TermsDefined(version=1, terms_hash=f"{sku:x>64}", body=TermsBody.model_validate(body))


async def prepare(client: Client) -> list[UUID]:
    """Let the facts of prices arrive; give the organisations."""
    context = client.context
    defined = [terms(sku) for sku in SKUS]
    hashes = {one.body.sku: one.terms_hash for one in defined}
    assignment = Assignment(
        effective_at=SINCE,
        plan_id=new_id(),
        plan_version=1,
        currency="AUD",
        time_zone="Australia/Sydney",
        hashes=hashes,
        retail_key="AUD/AU",
    )
    org_ids = [new_id() for _ in range(ORGS)]
    assigned = [OrgTermsAssigned(version=1, org_id=org_id, assignments=(assignment,)) for org_id in org_ids]
    async with context.begin("system:bench") as tx:
        await readmodels.keep(tx.connection, [*defined, *assigned], context.clock.machine_now())
    return org_ids


def takes(org_ids: list[UUID], in_take: int) -> Iterator[list[bytes]]:
    """Make takes of messages without end, one per partition, of usage in the last hour."""
    chance = random.Random(7)
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    while True:
        by_partition: dict[int, list[UsageRecord]] = {}
        for _ in range(in_take):
            org_id = chance.choice(org_ids)
            used = UsageRecord.trusted(
                usage_id=new_id(),
                org_id=org_id,
                project_id=org_ids[0],
                sku=chance.choice(SKUS),
                minute=now - timedelta(minutes=chance.randrange(60)),
                quantity=Decimal(chance.randrange(1, 500)) / 8,
                events=chance.randrange(1, 20),
                trace_ids=("0" * 32,),
            )
            by_partition.setdefault(partition_of(org_id), []).append(used)
        yield [
            UsageRecorded.trusted(partition=p, usage=tuple(some)).to_bytes()
            for p, some in by_partition.items()
        ]


def main() -> int:
    """Measure and print; exit 1 under the first bar."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=200_000)
    parser.add_argument("--in-take", type=int, default=5_000)
    asked = parser.parse_args()
    telemetry.start_logging("bench", "error")
    charging = Consumer(
        SERVICE,
        UsageRecorded,
        price_usage,
        table="pricing.charge",
        unit="record",
        in_take=asked.in_take,
        prepare=prepare,
        takes=partial(takes, in_take=asked.in_take),
    )
    result = uvloop.run(measure(charging, asked.records, warm_takes=4))
    record("pricing", result)
    return 0 if result["records_per_s"] >= FIRST_BAR else 1


if __name__ == "__main__":
    sys.exit(main())
