"""How many ledger lines a second one consumer posts: priced charges as bytes in, committed lines out.

1,000 organisations × 5 SKUs; every other organisation has a partner. Prints one JSON line; `--lines` sets how many.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any

import uvloop
from common import record
from consumer import Consumer, measure

from eb_contracts.auth import OrgChanged, ParentLink
from eb_contracts.ids import new_id
from eb_contracts.pricing import Charge, ChargePriced, CounterState
from eb_kit import readmodels
from eb_kit.testing import Client
from eb_ledger.app import SERVICE
from eb_ledger.consumers import give_default_accounts, post_priced_charges

ORGS = 1000
SKUS = ("sms", "form_submit", "email_check", "hosting", "report")
BORN = datetime(2026, 1, 1, tzinfo=UTC)
FIRST_BAR = 10_000


async def prepare(client: Client) -> list[Any]:
    """Let the organisations' facts arrive; give every other one a partner of record at 12.5 %."""
    context = client.context
    org_ids = [new_id() for _ in range(ORGS)]
    links = (ParentLink(parent_org_id=None, effective_at=BORN),)
    facts = [
        OrgChanged(
            version=1,
            org_id=org_id,
            parent_org_id=None,
            parent_links=links,
            default_timezone="UTC",
            country="AU",
        )
        for org_id in org_ids
    ]
    async with context.begin("service:ledger") as tx:
        await give_default_accounts(
            tx, await readmodels.keep(tx.connection, facts, context.clock.machine_now())
        )
    partner_id = new_id()
    async with context.begin("system:bench") as tx:
        await tx.execute(
            "INSERT INTO partner (partner_id, name, payout_provider, created_at) VALUES ($1, 'R', 'sandbox', $2)",
            partner_id,
            BORN,
        )
        await tx.execute("INSERT INTO partner_tier VALUES ($1, $2, 'gold')", partner_id, BORN)
        await tx.executemany(
            "INSERT INTO commission_rate VALUES ('gold', $1, 12.5, $2, $2)", [(sku, BORN) for sku in SKUS]
        )
        await tx.executemany(
            "INSERT INTO partner_of_record (por_id, org_id, partner_id, start_at, status, created_at)"
            " VALUES ($1, $2, $3, $4, 'active', $4)",
            [(new_id(), org_id, partner_id, BORN) for org_id in org_ids[::2]],
        )
    return org_ids


def takes(org_ids: list[Any], in_message: int, per_take: int) -> Iterator[list[bytes]]:
    """Make takes of priced charges without end, each charge of another organisation and SKU."""
    chance = random.Random(7)
    counter = CounterState(quantity="120", events=12, charged="6.00", version=12)
    now = datetime.now(UTC).replace(second=0, microsecond=0)

    def body() -> bytes:
        charges = tuple(
            Charge.trusted(
                charge_id=str(new_id()), org_id=chance.choice(org_ids), project_id=org_ids[0],
                sku=chance.choice(SKUS), period=f"{now:%Y-%m}", time=now, kind="usage", quantity="12.5",
                event_count=12, currency="AUD", amount_gross=f"{chance.randrange(1, 5000) / 100:.2f}",
                waived_amount="0", credit_applied="0", tax_amount="0.17", tax_code="GST", terms_hash="0" * 64,
                counter=counter, trace_ids=("0" * 32,),
            )
            for _ in range(in_message)
        )  # fmt: skip
        return ChargePriced.trusted(partition=0, charges=charges).to_bytes()

    while True:
        yield [body() for _ in range(per_take)]


def main() -> int:
    """Measure and print; exit 1 under the first bar."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=200_000)
    parser.add_argument("--in-message", type=int, default=100)
    parser.add_argument("--per-take", type=int, default=20)
    asked = parser.parse_args()
    posting = Consumer(
        SERVICE,
        ChargePriced,
        post_priced_charges,
        table="ledger.ledger",
        unit="line",
        in_take=asked.in_message * asked.per_take,
        prepare=prepare,
        takes=partial(takes, in_message=asked.in_message, per_take=asked.per_take),
    )
    result = uvloop.run(measure(posting, asked.lines, warm_takes=5))
    record("ledger", result)
    return 0 if result["lines_per_s"] >= FIRST_BAR else 1


if __name__ == "__main__":
    sys.exit(main())
