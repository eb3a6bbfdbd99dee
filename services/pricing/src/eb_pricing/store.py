"""Every SQL statement of pricing: counters, charges, usage without terms, and what waits for terms."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from operator import itemgetter
from typing import Any
from uuid import UUID

import asyncpg

from eb_contracts.errors import NotFound
from eb_contracts.metering import UsageRecord
from eb_contracts.pricing import ParkedUsage
from eb_kit.db import write_json
from eb_kit.tx import Tx
from eb_rating import Counter as Sums

from .domain.charges import KeptCharge, UsageSum
from .domain.counters import Counter, CounterKey, Rated, TaxSum
from .domain.waiting import Waiting

TERMS_LOCK = 7_020_250_920
"""Advisory lock: shared while usage is rated by the facts read, exclusive while facts change."""

ZERO = Decimal(0)


async def lock_terms_shared(tx: Tx) -> None:
    """Keep the facts of prices as they are until `tx` ends; others may rate by them too."""
    await tx.execute("SELECT pg_advisory_xact_lock_shared($1)", TERMS_LOCK)


async def lock_terms(tx: Tx) -> None:
    """Wait until nobody rates by the facts as they were; who begins to rate waits until `tx` ends.

    So whatever was rated or parked by older facts is visible to whoever takes up what this tx marks as due.
    """
    await tx.execute("SELECT pg_advisory_xact_lock($1)", TERMS_LOCK)


async def list_terms_versions(tx: Tx, org_ids: Collection[UUID]) -> tuple[dict[str, int], dict[str, int]]:
    """Give the versions of these organisations' assignments, and of all retail defaults, by id."""
    rows = await tx.fetch(
        "SELECT entity, entity_id, version FROM known"
        " WHERE entity = 'org_terms' AND entity_id = ANY($1::text[]) AND NOT is_deleted"
        " UNION ALL SELECT entity, entity_id, version FROM known WHERE entity = 'retail_terms' AND NOT is_deleted",
        [str(org_id) for org_id in org_ids],
    )
    orgs = {row["entity_id"]: row["version"] for row in rows if row["entity"] == "org_terms"}
    retail = {row["entity_id"]: row["version"] for row in rows if row["entity"] == "retail_terms"}
    return orgs, retail


async def list_facts(
    tx: Tx, entity: str, entity_ids: Collection[str] | None = None
) -> dict[str, tuple[int, Mapping[str, Any]]]:
    """Give version and body of an entity's facts by id; all of them without `entity_ids`."""
    rows = await tx.fetch(
        "SELECT entity_id, version, body FROM known WHERE entity = $1 AND NOT is_deleted"
        " AND ($2::text[] IS NULL OR entity_id = ANY($2))",
        entity,
        None if entity_ids is None else list(entity_ids),
    )
    return {row["entity_id"]: (row["version"], row["body"]) for row in rows}


async def insert_counters_once(tx: Tx, keys: Mapping[CounterKey, str]) -> None:
    """Insert counters that may be missing, by key in its currency, in key order.

    Where no row is, FOR UPDATE locks nothing, and two first charges would both win.
    """
    await tx.execute(
        "INSERT INTO counter (org_id, sku, period, currency)"
        " SELECT * FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[]) ORDER BY 1, 2, 3"
        " ON CONFLICT DO NOTHING",
        *_columns(list(keys), 3),
        list(keys.values()),
    )


_COUNTER = (
    "c.currency, c.quantity, c.events, c.charged, c.tax_rate, c.tax_base, c.taxed, c.earlier_taxes,"
    " c.terms_hash, c.retail_key, c.version"
)


async def lock_counters(tx: Tx, keys: Iterable[CounterKey]) -> dict[CounterKey, Counter]:
    """Lock counters until `tx` ends, in key order; those that don't exist are left out."""
    wanted = list(keys)
    rows = await tx.fetch(
        f"SELECT k.place, {_COUNTER} FROM unnest($1::uuid[], $2::text[], $3::text[])"  # noqa: S608 - constants
        " WITH ORDINALITY AS k (org_id, sku, period, place) JOIN counter AS c USING (org_id, sku, period)"
        " ORDER BY org_id, sku, period FOR UPDATE OF c",
        *_columns(wanted, 3),
    )
    found = ((wanted[row["place"] - 1], row) for row in rows)
    return {key: _counter(key, row) for key, row in found}


async def list_counters_of(tx: Tx, org_ids: Collection[UUID]) -> list[Counter]:
    """Give all counters of organisations that were ever charged, unlocked."""
    rows = await tx.fetch(
        f"SELECT c.org_id, c.sku, c.period, {_COUNTER} FROM counter AS c"  # noqa: S608 - constants
        " WHERE c.org_id = ANY($1) AND c.version > 0",
        list(org_ids),
    )
    return [_counter(CounterKey(row["org_id"], row["sku"], row["period"]), row) for row in rows]


def _counter(key: CounterKey, row: asyncpg.Record) -> Counter:
    taxes: tuple[TaxSum, ...] = ()
    if row["tax_rate"] is not None:
        earlier = row["earlier_taxes"] or ()
        others = (TaxSum(*(Decimal(number) for number in numbers)) for numbers in earlier)
        taxes = (TaxSum(row["tax_rate"], row["tax_base"], row["taxed"]), *others)
    sums = Sums(row["quantity"], row["events"], row["charged"])
    return Counter(key, row["currency"], sums, row["terms_hash"], row["retail_key"], row["version"], taxes)


async def update_counters(tx: Tx, counters: Sequence[Counter]) -> None:
    """Write locked counters as they now are. Decimals travel as text: asyncpg takes long over numeric."""
    taxes = [counter.taxes[0] if counter.taxes else TaxSum(None) for counter in counters]
    await tx.execute(
        "UPDATE counter AS c SET currency = u.currency, quantity = u.quantity, events = u.events,"
        " charged = u.charged, tax_rate = u.tax_rate, tax_base = u.tax_base, taxed = u.taxed,"
        " earlier_taxes = u.earlier_taxes::jsonb, terms_hash = u.terms_hash, retail_key = u.retail_key,"
        " version = u.version"
        " FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[]::numeric[], $6::bigint[],"
        " $7::text[]::numeric[], $8::text[]::numeric[], $9::text[]::numeric[], $10::text[]::numeric[],"
        " $11::text[], $12::text[], $13::text[], $14::bigint[]) AS u (org_id, sku, period, currency,"
        " quantity, events, charged, tax_rate, tax_base, taxed, earlier_taxes, terms_hash, retail_key, version)"
        " WHERE c.org_id = u.org_id AND c.sku = u.sku AND c.period = u.period",
        *_columns([counter.key for counter in counters], 3),
        [counter.currency for counter in counters],
        [str(counter.sums.quantity) for counter in counters],
        [counter.sums.events for counter in counters],
        [str(counter.sums.charged) for counter in counters],
        [None if tax.rate is None else str(tax.rate) for tax in taxes],
        [str(tax.gross) for tax in taxes],
        [str(tax.taxed) for tax in taxes],
        [write_json(counter.taxes[1:]) if counter.taxes[1:] else None for counter in counters],
        [counter.terms_hash for counter in counters],
        [counter.retail_key for counter in counters],
        [counter.version for counter in counters],
    )


async def find_charged(tx: Tx, usage: Sequence[UsageRecord]) -> set[UUID]:
    """Give the ids of those usage records that have a charge."""
    rows = await tx.fetch(
        "SELECT k.place FROM unnest($1::text[], $2::uuid[]) WITH ORDINALITY AS k (charge_id, org_id, place)"
        " JOIN charge AS c USING (charge_id, org_id)",
        [str(record.usage_id) for record in usage],
        [record.org_id for record in usage],
    )
    return {usage[row["place"] - 1].usage_id for row in rows}


SAME_IN_MESSAGE = (
    "charge_id", "org_id", "project_id", "sku", "period", "time", "kind", "quantity", "event_count", "currency",
    "amount_gross", "tax_amount", "tax_code", "terms_hash", "reason", "actor", "trace_ids",
)  # fmt: skip
BESIDE = (
    "tax_rate", "tax_base", "counter_quantity", "counter_events", "counter_charged", "counter_version", "created_at",
)  # fmt: skip
NOT_YET = ("waived_amount", "credit_applied")
"""Columns that nothing fills yet; they are 0 by default."""
CHARGE_COLUMNS = (*SAME_IN_MESSAGE, *BESIDE, *NOT_YET)
_same_in_message = itemgetter(*SAME_IN_MESSAGE)


async def insert_charges(tx: Tx, rated: Iterable[Rated]) -> None:
    """Insert charges at COPY speed; a charge that is there already ends the transaction."""
    await tx.copy("charge", (*SAME_IN_MESSAGE, *BESIDE), [_charge_row(one, tx.now) for one in rated])


def _charge_row(rated: Rated, now: datetime) -> tuple[object, ...]:
    counter, tax = rated.charge.counter, rated.tax
    state = (counter.quantity, counter.events, counter.charged, counter.version)
    return (*_same_in_message(vars(rated.charge)), tax.rate, tax.gross, *state, now)


async def list_gross_by_time(
    tx: Tx, counters: Collection[Counter]
) -> dict[CounterKey, list[tuple[datetime, Decimal]]]:
    """Give the gross amounts charged to counters in their currency, summed by the charges' time."""
    rows = await tx.fetch(
        "SELECT c.org_id, c.sku, c.period, c.time, sum(c.amount_gross) AS gross"
        " FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[]) AS k (org_id, sku, period, currency)"
        " JOIN charge AS c USING (org_id, sku, period, currency) GROUP BY 1, 2, 3, 4 ORDER BY c.time",
        *_columns([counter.key for counter in counters], 3),
        [counter.currency for counter in counters],
    )
    found: dict[CounterKey, list[tuple[datetime, Decimal]]] = {counter.key: [] for counter in counters}
    for row in rows:
        found[CounterKey(row["org_id"], row["sku"], row["period"])].append((row["time"], row["gross"]))
    return found


async def insert_unrated_once(
    tx: Tx, waiting: Iterable[Waiting], known_skus: Collection[str]
) -> list[ParkedUsage]:
    """Park usage that nothing prices; parked already, it gets the new reason. Gives what changed."""
    parked = {(one.usage.org_id, one.usage.usage_id): one for one in waiting}
    ordered = [parked[key] for key in sorted(parked)]
    rows = await tx.fetch(
        "INSERT INTO unrated_usage AS u (org_id, usage_id, project_id, sku, minute, quantity, events, trace_ids,"
        " reason, parked_at) SELECT w.org_id, w.usage_id, w.project_id, w.sku, w.minute, w.quantity, w.events,"
        " string_to_array(w.trace_ids, ' '), w.reason, $10"
        " FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::timestamptz[], $6::numeric[],"
        " $7::bigint[], $8::text[], $9::text[]) AS w (org_id, usage_id, project_id, sku, minute, quantity, events,"
        " trace_ids, reason)"
        " ON CONFLICT (org_id, usage_id) DO UPDATE SET reason = excluded.reason"
        " WHERE u.reason <> excluded.reason RETURNING u.org_id, u.usage_id, u.reason",
        *_columns(sorted(parked), 2),
        [one.usage.project_id for one in ordered],
        [one.usage.sku for one in ordered],
        [one.usage.minute for one in ordered],
        [one.usage.quantity for one in ordered],
        [one.usage.events for one in ordered],
        [" ".join(one.usage.trace_ids) for one in ordered],
        [one.reason(known_skus) for one in ordered],
        tx.now,
    )
    return [ParkedUsage(**dict(row)) for row in rows]


async def count_unrated(tx: Tx, limit: int) -> int:
    """Count parked usage, up to `limit`."""
    count: int = await tx.fetchval(
        "SELECT count(*) FROM (SELECT 1 FROM unrated_usage LIMIT $1) AS waiting", limit
    )
    return count


async def insert_awaited_once(tx: Tx, awaited: Collection[tuple[str, UUID]]) -> None:
    """Note which terms (by hash) organisations wait for."""
    await tx.execute(
        "INSERT INTO awaited_terms (terms_hash, org_id) SELECT * FROM unnest($1::text[], $2::uuid[])"
        " ON CONFLICT DO NOTHING",
        *_columns(sorted(awaited), 2),
    )


async def delete_unrated(tx: Tx, keys: Collection[tuple[UUID, UUID]]) -> None:
    """Forget parked usage, by org and usage id, that now has its charge."""
    await tx.execute(
        "DELETE FROM unrated_usage WHERE (org_id, usage_id) IN (SELECT * FROM unnest($1::uuid[], $2::uuid[]))",
        *_columns(list(keys), 2),
    )


_MARK_DUE = " ON CONFLICT (org_id) DO UPDATE SET after_usage_id = NULL"


async def mark_orgs_due(tx: Tx, org_ids: Collection[UUID]) -> None:
    """Have these organisations' waiting usage and counters looked at."""
    await tx.execute(
        "INSERT INTO terms_due (org_id) SELECT unnest($1::uuid[])" + _MARK_DUE, sorted(set(org_ids))
    )


async def mark_retail_due(tx: Tx, retail_keys: Collection[str], skus: Collection[str]) -> None:
    """Have those looked at whose counters stand on these retail defaults, or whose usage of `skus` waits."""
    await tx.execute(
        "INSERT INTO terms_due (org_id) SELECT org_id FROM counter WHERE retail_key = ANY($1)"  # noqa: S608
        " UNION SELECT org_id FROM unrated_usage WHERE sku = ANY($2) ORDER BY 1" + _MARK_DUE,
        list(retail_keys),
        list(skus),
    )


async def mark_awaiting_due(tx: Tx, terms_hashes: Collection[str]) -> None:
    """Have those looked at who waited for these terms."""
    await tx.execute(
        "WITH come AS (DELETE FROM awaited_terms WHERE terms_hash = ANY($1) RETURNING org_id)"  # noqa: S608
        " INSERT INTO terms_due (org_id) SELECT DISTINCT org_id FROM come ORDER BY 1" + _MARK_DUE,
        list(terms_hashes),
    )


async def take_due(tx: Tx, limit: int) -> dict[UUID, UUID | None]:
    """Take organisations whose terms changed; each with the last parked usage already looked at."""
    rows = await tx.fetch(
        "SELECT org_id, after_usage_id FROM terms_due ORDER BY org_id LIMIT $1 FOR UPDATE SKIP LOCKED", limit
    )
    return {row["org_id"]: row["after_usage_id"] for row in rows}


async def list_unrated_after(
    tx: Tx, due: Mapping[UUID, UUID | None], limit: int
) -> dict[UUID, list[UsageRecord]]:
    """Give organisations' next parked usage, up to `limit` records each; those without any are left out."""
    rows = await tx.fetch(
        "SELECT u.org_id, u.usage_id, u.project_id, u.sku, u.minute, u.quantity, u.events, u.trace_ids"
        " FROM unnest($1::uuid[], $2::uuid[]) AS d (org_id, after_usage_id) CROSS JOIN LATERAL"
        " (SELECT * FROM unrated_usage AS w WHERE w.org_id = d.org_id"
        " AND (d.after_usage_id IS NULL OR w.usage_id > d.after_usage_id) ORDER BY w.usage_id LIMIT $3) AS u",
        list(due),
        list(due.values()),
        limit,
    )
    found: dict[UUID, list[UsageRecord]] = {}
    for row in rows:
        plain = {**dict(row), "trace_ids": tuple(row["trace_ids"])}
        found.setdefault(row["org_id"], []).append(UsageRecord.trusted(**plain))
    return found


async def update_due(tx: Tx, after: Mapping[UUID, UUID]) -> None:
    """Note how far the parked usage of organisations was looked at."""
    await tx.execute(
        "UPDATE terms_due AS t SET after_usage_id = d.after_usage_id"
        " FROM unnest($1::uuid[], $2::uuid[]) AS d (org_id, after_usage_id) WHERE t.org_id = d.org_id",
        list(after),
        list(after.values()),
    )


async def delete_due(tx: Tx, org_ids: Collection[UUID]) -> None:
    """Note that organisations were looked at wholly."""
    await tx.execute("DELETE FROM terms_due WHERE org_id = ANY($1)", list(org_ids))


async def list_known_skus(tx: Tx, skus: Collection[str]) -> set[str]:
    """Give those of the SKUs that the catalog has announced."""
    return set(await list_facts(tx, "sku", skus))


CHARGE_CONDITIONS = {
    "org_id": "org_id = {}",
    "sku": "sku = {}",
    "project_id": "project_id = {}",
    "period": "period = {}",
    "kind": "kind = {}",
    "charge_id": "charge_id = {}",
    "created_from": "created_at >= {}",
    "created_to": "created_at < {}",
}
USAGE_CONDITIONS = {
    "org_id": "org_id = {}",
    "sku": "sku = {}",
    "period": "period = {}",
    "from_version": "version >= {}",
}
"""What lists may be picked by; only what is asked for reaches the statement, so that its plan fits."""


async def list_charges(
    tx: Tx, filters: Mapping[str, object], after: Mapping[str, Any] | None, limit: int
) -> list[KeptCharge]:
    """Give charges, newest first: of one organisation by their creation, of all by their ids, which are in time."""
    place = ("created_at", "charge_id") if filters["org_id"] is not None else ("charge_id", "org_id")
    rows = await _list(tx, "charge", CHARGE_COLUMNS, CHARGE_CONDITIONS, filters, place, after, limit)
    return [_kept(row) for row in rows]


async def find_charges(tx: Tx, charge_id: str) -> list[KeptCharge]:
    """Give the charges of this id: one per organisation at most."""
    rows = await tx.fetch(
        f"SELECT {', '.join(CHARGE_COLUMNS)} FROM charge WHERE charge_id = $1",  # noqa: S608 - constants
        charge_id,
    )
    return [_kept(row) for row in rows]


def _kept(row: asyncpg.Record) -> KeptCharge:
    return KeptCharge(**{**dict(row), "trace_ids": tuple(row["trace_ids"])})


async def get_terms_body(tx: Tx, terms_hash: str) -> dict[str, Any]:
    """Give the body of terms that a charge names, or raise NotFound."""
    facts = await list_facts(tx, "terms", [terms_hash])
    if terms_hash not in facts:
        raise NotFound
    body: dict[str, Any] = facts[terms_hash][1]["body"]
    return body


async def list_usage(
    tx: Tx, filters: Mapping[str, object], after: Mapping[str, Any] | None, limit: int
) -> list[UsageSum]:
    """Give counters that were ever charged, newest period first."""
    columns = tuple(UsageSum.__dataclass_fields__)
    picked = {**filters, "from_version": 1}
    place = ("period", "org_id", "sku")
    rows = await _list(tx, "counter", columns, USAGE_CONDITIONS, picked, place, after, limit)
    return [UsageSum(**dict(row)) for row in rows]


async def _list(
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
        f"SELECT {', '.join(columns)} FROM {table} WHERE {' AND '.join(where) or 'true'}"  # noqa: S608
        f" ORDER BY {order} LIMIT {limit:d}",
        *values,
    )


def _columns(rows: Sequence[Sequence[Any]], width: int) -> list[list[Any]]:
    """Turn rows into the columns that unnest takes."""
    return [[row[n] for row in rows] for n in range(width)]
