"""Fill a stack's tables as years of use would: N events with their keys, usage, charges and ledger lines.

    python bench/fill.py --run-dir .run/bench --events 50000000

Rows are made inside of the server from a row that the demo left in each table, with ids, times and organisations of
their own; nothing crosses the wire, and events and keys get their indexes after their rows. Half of the events lie in
the running month, the others in the five before; one usage record, charge and line for ten events. Reckons the disk
first (about 750 bytes an event), says how far it is, and stops where it would leave less than 10 GB.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
from common import record

from eb_tools.postgres import PrivatePostgres

BYTES_AN_EVENT = 750
LEAVE_BYTES = 10_000_000_000
CHUNK = 1_000_000
ORGS = 4000
PER_USAGE = 10
HASHES = 16
MONTHS = 6
ORG = "('0190aaaa-0000-7000-8000-' || lpad(to_hex({n} % 4000), 12, '0'))::uuid"
PROJECT = "('0190bbbb-0000-7000-8000-' || lpad(to_hex({n} % 4000), 12, '0'))::uuid"
EVENT = "('0190cccc-0000-7000-8000-' || lpad(to_hex({n}), 12, '0'))::uuid"
USAGE = "('0190dddd-0000-7000-8000-' || lpad(to_hex({n} / 10), 12, '0'))::uuid"
ENTRY = "('0190eeee-0000-7000-8000-' || lpad(to_hex({n} / 10), 12, '0'))::uuid"
BATCH = "('0190ffff-0000-7000-8000-' || lpad(to_hex({n} / 100), 12, '0'))::uuid"
USAGE_TEXT = USAGE.replace("::uuid", "")


@dataclass(frozen=True)
class Span:
    """The numbers of the events of one month, and the time that they cover."""

    first: int
    last: int
    start: datetime
    end: datetime

    def time(self, n: str) -> str:
        """Write the time of event `n` in SQL."""
        seconds = (self.end - self.start).total_seconds() / max(1, self.last - self.first)
        return f"(timestamptz '{self.start.isoformat()}' + ({n} - {self.first}) * interval '{seconds:.9f} s')"


def spans(events: int, now: datetime) -> list[Span]:
    """Cut the events into months, oldest first; the running one has half of them."""
    found, first = [], 0
    for back in range(MONTHS - 1, -1, -1):
        month = now.year * 12 + now.month - 1 - back
        start = datetime(month // 12, month % 12 + 1, 1, tzinfo=UTC)
        end = datetime((month + 1) // 12, (month + 1) % 12 + 1, 1, tzinfo=UTC)
        count = events - first if back == 0 else events // 2 // (MONTHS - 1)
        found.append(Span(first, first + count - 1, start, min(end, now)))
        first += count
    return found


def times(some: Sequence[Span], n: str) -> str:
    """Write the time of any event in SQL."""
    cases = " ".join(f"WHEN {n} <= {span.last} THEN {span.time(n)}" for span in some)
    return f"CASE {cases} END"


async def columns_of(db: Any, table: str) -> list[str]:
    """Name a table's columns, less those that are computed."""
    rows = await db.fetch(
        "SELECT attname FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0"
        " AND NOT attisdropped AND attgenerated = '' ORDER BY attnum",
        table,
    )
    return [row["attname"] for row in rows]


async def copies(db: Any, model: str, into: str, changes: Mapping[str, str], source: str) -> str:
    """Write the INSERT that copies a row of `model` for each number `n` of `source`, with these columns changed."""
    names = await columns_of(db, model)
    picked = ", ".join(changes.get(name, f'r."{name}"').replace("{n}", "n") for name in names)
    quoted = ", ".join(f'"{name}"' for name in names)
    limit = f"(SELECT * FROM {model} LIMIT 1)"
    return f"INSERT INTO {into} ({quoted}) SELECT {picked} FROM {limit} AS r, {source} AS n"


class Progress:
    """Says how far it is, at most every ten seconds."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = 0
        self._began = self._said = time.monotonic()

    def add(self, rows: int, what: str) -> None:
        """Count rows."""
        self._done += rows
        now = time.monotonic()
        if now - self._said > 10:
            self._said = now
            rate = self._done / (now - self._began)
            print(f"{self._done / self._total:6.1%}  {rate:,.0f} rows/s  {what}", file=sys.stderr, flush=True)


async def insert(db: Any, model: str, into: str, changes: Mapping[str, str], first: int, last: int) -> int:
    """Make the rows numbered `first` to `last`."""
    statement = await copies(db, model, into, changes, f"generate_series({first}::bigint, {last}::bigint)")
    await db.execute(statement)
    return last - first + 1


async def replace_partition(db: Any, parent: str, name: str, bound: str) -> None:
    """Put the filled table in the place of an empty partition; its indexes are made now."""
    await db.execute("SET maintenance_work_mem = '1GB'; SET max_parallel_maintenance_workers = 2")
    async with db.transaction():
        if await db.fetchval("SELECT to_regclass($1)", name):
            others = f"SELECT * FROM {name} WHERE request_id NOT LIKE 'fill-%'"
            await db.execute(f"INSERT INTO {name}_filled {others}")
            await db.execute(f"ALTER TABLE {parent} DETACH PARTITION {name}; DROP TABLE {name}")
        await db.execute(f"ALTER TABLE {name}_filled RENAME TO {name.rpartition('.')[2]}")
        await db.execute(f"ALTER TABLE {parent} ATTACH PARTITION {name} {bound}")


async def make_table(db: Any, parent: str, name: str) -> None:
    """Make a table like the partitions, without indexes."""
    await db.execute(f"DROP TABLE IF EXISTS {name}_filled")
    await db.execute(f"CREATE TABLE {name}_filled (LIKE {parent} INCLUDING DEFAULTS INCLUDING CONSTRAINTS)")


EVENT_CHANGES = {
    "event_id": EVENT,
    "org_id": ORG,
    "project_id": PROJECT,
    "sku": "'fill-' || n % 5",
    "request_id": "'fill-' || n",
    "usage_id": USAGE,
    "batch_id": BATCH,
    "trace_id": "md5(n::text)",
}


async def fill_month(db: Any, span: Span, progress: Progress) -> None:
    """Fill one month of events."""
    parent, name = "metering_ingest.metering_event", f"metering_ingest.metering_event_p{span.start:%Y_%m}"
    await make_table(db, parent, name)
    changes = EVENT_CHANGES | {"event_time": span.time("n"), "recorded_at": span.time("n")}
    for first in range(span.first, span.last + 1, CHUNK):
        last = min(first + CHUNK - 1, span.last)
        progress.add(await insert(db, parent, f"{name}_filled", changes, first, last), name)
    end = datetime(span.start.year + span.start.month // 12, span.start.month % 12 + 1, 1, tzinfo=UTC)
    bound = f"FOR VALUES FROM ('{span.start.isoformat()}') TO ('{end.isoformat()}')"
    await replace_partition(db, parent, name, bound)


async def fill_keys(db: Any, some: Sequence[Span], remainder: int, events: int, progress: Progress) -> None:
    """Fill one of the hash partitions of the keys: those of its organisations."""
    parent, name = "metering_ingest.event_key", f"metering_ingest.event_key_h{remainder:02d}"
    await make_table(db, parent, name)
    org = ORG.replace("{n}", "o")
    found = await db.fetch(
        f"SELECT o FROM generate_series(0, {ORGS - 1}) AS o"
        f" WHERE satisfies_hash_partition('{parent}'::regclass, {HASHES}, {remainder}, {org})"
    )
    orgs = [row["o"] for row in found]
    changes = {
        "org_id": ORG, "request_id": "'fill-' || n", "event_id": EVENT, "event_time": times(some, "n"),
        "content_hash": "substr(sha256(n::text::bytea), 1, 16)", "duplicates": "0", "conflicts": "0",
    }  # fmt: skip
    rounds, step = events // ORGS, max(1, CHUNK // max(1, len(orgs)))
    for start in range(0, rounds, step):
        end = min(start + step, rounds)
        numbers = (
            f"(SELECT k * {ORGS} + o AS n FROM generate_series({start}::bigint, {end - 1}::bigint) AS k,"
            f" unnest(ARRAY{orgs}) AS o)"
        )
        statement = await copies(db, parent, f"{name}_filled", changes, numbers)
        await db.execute(statement.replace(") AS n", ") AS numbers"))
        progress.add((end - start) * len(orgs), name)
    await replace_partition(db, parent, name, f"FOR VALUES WITH (MODULUS {HASHES}, REMAINDER {remainder})")


def downstream(some: Sequence[Span]) -> dict[str, dict[str, str]]:
    """Say what becomes of every tenth event: usage, charge and line."""
    when = times(some, "n")
    shared = {"org_id": ORG, "sku": "'fill-' || n % 5"}
    period = f"to_char({when}, 'YYYY-MM')"
    return {
        "metering_ingest.usage_record": shared
        | {"usage_id": USAGE, "charge_id": USAGE_TEXT, "entry_ids": f"ARRAY[{ENTRY}]"},
        "pricing.charge": shared
        | {"charge_id": USAGE_TEXT, "project_id": PROJECT, "time": when, "period": period, "created_at": when},
        "ledger.charge_posting": {"charge_id": USAGE_TEXT, "org_id": ORG, "entry_id": ENTRY, "created_at": when},
        "ledger.ledger": shared
        | {
            "entry_id": ENTRY, "charge_id": USAGE_TEXT, "project_id": PROJECT, "occurred_at": when,
            "created_at": when, "period": period, "partner_id": "NULL", "por_id": "NULL",
        },
    }  # fmt: skip


async def fill_downstream(db: Any, some: Sequence[Span], events: int, progress: Progress) -> None:
    """Make usage, charges and lines, with their indexes in place."""
    for span in some:
        await db.execute("SELECT platform.ensure_month('ledger.ledger', $1)", span.start.date())
    for table, changes in downstream(some).items():
        names = await columns_of(db, table)
        kept = {name: change for name, change in changes.items() if name in names}
        for first in range(0, events, CHUNK):
            last = min(first + CHUNK, events) - 1
            numbers = f"generate_series({first}::bigint, {last}::bigint, {PER_USAGE})"
            await db.execute(await copies(db, table, table, kept, numbers) + " ON CONFLICT DO NOTHING")
            progress.add((last - first + 1) // PER_USAGE, table)


@asynccontextmanager
async def database(run_dir: Path) -> AsyncIterator[str]:
    """Give the owner's DSN of the stack's database; starts the server alone where the stack doesn't run."""
    dsn = json.loads((run_dir / "stack.json").read_text())["owner_dsn"]
    address = urlsplit(dsn)
    server = PrivatePostgres(run_dir / "postgres", address.port, address.password)
    try:
        await (await asyncpg.connect(dsn, timeout=3)).close()
    except (OSError, asyncpg.PostgresError):
        async with server:
            yield dsn
    else:
        yield dsn


def must_fit(run_dir: Path, events: int) -> None:
    """Stop where the disk is too small."""
    free, needed = shutil.disk_usage(run_dir).free, events * BYTES_AN_EVENT
    if free - needed < LEAVE_BYTES:
        raise SystemExit(
            f"{needed / 1e9:.0f} GB are needed, and 10 GB shall stay; {free / 1e9:.0f} GB are free."
        )


async def fill(run_dir: Path, events: int, workers: int) -> dict[str, Any]:
    """Fill everything, with some connections side by side; give the figures."""
    must_fit(run_dir, events)
    began = time.monotonic()
    some = spans(events, datetime.now(UTC))
    progress = Progress(events * 2 + 4 * events // PER_USAGE)
    async with database(run_dir) as dsn:
        pool = await asyncpg.create_pool(
            dsn,
            min_size=workers,
            max_size=workers,
            command_timeout=3600,
            server_settings={"eb.actor": "system:bench"},
        )
        work: list[Any] = [lambda db, span=span: fill_month(db, span, progress) for span in reversed(some)]
        work += [
            lambda db, r=remainder: fill_keys(db, some, r, events, progress) for remainder in range(HASHES)
        ]
        work.append(lambda db: fill_downstream(db, some, events, progress))

        async def worker() -> None:
            async with pool.acquire() as db:
                await db.execute("SET synchronous_commit = off")
                while work:
                    await work.pop(0)(db)

        await asyncio.gather(*(worker() for _ in range(workers)))
        filled_s = time.monotonic() - began
        await pool.execute("VACUUM (ANALYZE, FREEZE)")
        await pool.execute("CHECKPOINT")
        size = await pool.fetchval("SELECT pg_database_size(current_database())")
        await pool.close()
    return {
        "events": events,
        "rows_per_s": round((events * 2 + 4 * events // PER_USAGE) / filled_s),
        "seconds": round(time.monotonic() - began),
        "database_gb": round(size / 1e9, 1),
    }


def main() -> int:
    """Fill and print one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run-dir", type=Path, default=Path(".run/bench"))
    parser.add_argument("--events", type=int, default=50_000_000)
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    result = asyncio.run(
        fill(asked.run_dir.resolve(), asked.events // ORGS // 100 * ORGS * 100, asked.workers)
    )
    record("fill", result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
