"""How many events a second one writer records: accepted batches as bytes in, committed events and usage out.

Batches of 100 of one organisation each, over 1,000 organisations × 5 SKUs. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from typing import Any

import uvloop
from common import record
from consumer import Consumer, measure

from eb_contracts.auth import ProjectChanged
from eb_contracts.ids import new_id, partition_of
from eb_contracts.metering import BatchAccepted
from eb_kit import readmodels, telemetry
from eb_kit.testing import Client
from eb_metering_ingest.app import SERVICE
from eb_metering_ingest.consumers import record_batches

ORGS = 1000
SKUS = ("sms", "form_submit", "email_check", "hosting", "report")
BATCH = 100
FIRST_BAR = 10_000


async def prepare(client: Client) -> list[tuple[Any, Any]]:
    """Let the facts of projects arrive; give (org_id, project_id) pairs."""
    pairs = [(new_id(), new_id()) for _ in range(ORGS)]
    facts = [ProjectChanged(version=1, project_id=project_id, org_id=org_id) for org_id, project_id in pairs]
    context = client.context
    async with context.begin("system:bench") as tx:
        await readmodels.keep(tx.connection, facts, context.clock.machine_now())
    return pairs


def takes(pairs: list[tuple[Any, Any]], in_take: int) -> Iterator[list[bytes]]:
    """Make takes of messages without end, each message one batch of the last four minutes."""
    chance = random.Random(7)
    now = datetime.now(UTC)
    tag = str(new_id())[-8:]
    for take in count():
        bodies = []
        for batch in range(in_take // BATCH):
            org_id, project_id = chance.choice(pairs)
            sent = [
                {
                    "request_id": f"{tag}-{take}-{batch}-{n}",
                    "sku": SKUS[n % len(SKUS)],
                    "quantity": "1",
                    "org_id": str(org_id),
                    "project_id": str(project_id),
                    "time": (now - timedelta(seconds=chance.randrange(240))).isoformat(),
                }
                for n in range(BATCH)
            ]
            message = {"partition": partition_of(org_id), "batch_id": str(new_id()), "trace_id": "0" * 32}
            bodies.append(json.dumps({**message, "received_at": now.isoformat(), "events": sent}).encode())
        yield bodies


def main() -> int:
    """Measure and print; exit 1 under the first bar."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--in-take", type=int, default=5_000)
    asked = parser.parse_args()
    telemetry.start_logging("bench", "error")
    writer = Consumer(
        SERVICE,
        BatchAccepted,
        record_batches,
        table="metering_ingest.metering_event",
        unit="event",
        in_take=asked.in_take,
        prepare=prepare,
        takes=partial(takes, in_take=asked.in_take),
    )
    result = uvloop.run(measure(writer, asked.events, warm_takes=2))
    record("writer", result)
    return 0 if result["events_per_s"] >= FIRST_BAR else 1


if __name__ == "__main__":
    sys.exit(main())
