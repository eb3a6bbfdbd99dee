"""What organisations have: entitlements, business models, timelines; and the terms resolved from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from eb_contracts.catalog import OrgTermsAssigned, RetailTermsAssigned, TermsBody, TermsDefined
from eb_contracts.errors import NotFound
from eb_kit.tx import Tx

from ..domain.products import Entitlement, OrgModel
from ..domain.timeline import Change, Timeline

INPUTS = 7_312_001
"""Advisory lock: shared while an organisation's terms are resolved, alone while what they are made of changes."""
DEFINING = 7_312_002
"""Advisory lock: held by whoever keeps new terms."""
CHANGE = "org_id, effective_at, plan_id, plan_version, currency, overrides, time_zone, country"


async def lock_inputs(tx: Tx, *, alone: bool) -> None:
    """Lock what terms are made of until `tx` ends: alone to change it, else shared with other readers.

    Take it before any row: a change then sees every organisation that was resolved without it.
    """
    await tx.execute(f"SELECT pg_advisory_xact_lock{'' if alone else '_shared'}({INPUTS})")


async def get_place(tx: Tx, org_id: UUID) -> tuple[str, str]:
    """Give an organisation's time zone and country as last heard; raises NotFound."""
    row = await tx.fetchrow(
        "SELECT body ->> 'default_timezone' AS time_zone, body ->> 'country' AS country FROM known"
        " WHERE entity = 'org' AND entity_id = $1 AND NOT is_deleted",
        str(org_id),
    )
    if row is None:
        raise NotFound
    return row["time_zone"], row["country"]


async def is_any_closed(tx: Tx, org_id: UUID, periods: Sequence[str]) -> bool:
    """Tell whether one of these billing periods of an organisation is closed, as far as pricing has said."""
    found = await tx.fetchval(
        "SELECT 1 FROM known WHERE entity = 'billing_period' AND entity_id = ANY($1) LIMIT 1",
        [f"{org_id}/{period}" for period in periods],
    )
    return found is not None


async def lock_timelines(tx: Tx, org_ids: Iterable[UUID]) -> dict[UUID, Timeline]:
    """Lock the timelines of these organisations until `tx` ends, in the order of ids; unknown ones are left out."""
    wanted = sorted(set(org_ids))
    await tx.execute(
        "SELECT 1 FROM org_terms_state WHERE org_id = ANY($1) ORDER BY org_id FOR UPDATE", wanted
    )
    rows = await tx.fetch(
        f"SELECT {CHANGE} FROM org_terms_change WHERE org_id = ANY($1) ORDER BY org_id, effective_at", wanted
    )
    timelines: dict[UUID, tuple[Change, ...]] = {}
    for row in rows:
        members = {name: value for name, value in row.items() if name != "org_id"}
        timelines[row["org_id"]] = (*timelines.get(row["org_id"], ()), Change(**members))
    return timelines


async def lock_timeline(tx: Tx, org_id: UUID) -> Timeline:
    """Lock an organisation's timeline until `tx` ends; a new one is empty.

    Insert first: where no row is, FOR UPDATE locks nothing and two first assignments both win.
    """
    await tx.execute(
        "INSERT INTO org_terms_state (org_id, version, assignments) VALUES ($1, 0, '[]') ON CONFLICT DO NOTHING",
        org_id,
    )
    return (await lock_timelines(tx, [org_id])).get(org_id, ())


async def update_timeline(tx: Tx, org_id: UUID, old: Timeline, new: Timeline) -> None:
    """Make the kept timeline what `new` says."""
    stays = [change.effective_at for change in new if change in old]
    await tx.execute(
        "DELETE FROM org_terms_change WHERE org_id = $1 AND NOT effective_at = ANY($2)", org_id, stays
    )
    await tx.executemany(
        f"INSERT INTO org_terms_change ({CHANGE}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        [
            (
                org_id,
                change.effective_at,
                change.plan_id,
                change.plan_version,
                change.currency,
                change.overrides,
                change.time_zone,
                change.country,
            )
            for change in new
            if change not in old
        ],
    )


async def mark_due(tx: Tx, plan_id: UUID | None = None) -> None:
    """Have the terms of all organisations resolved again, or of those that are on a plan at any time."""
    await tx.execute(
        "UPDATE org_terms_state SET due_at = $1 WHERE $2::uuid IS NULL"
        " OR org_id IN (SELECT org_id FROM org_terms_change WHERE plan_id = $2)",
        tx.now,
        plan_id,
    )


async def take_due(tx: Tx, limit: int) -> list[UUID]:
    """Take organisations whose terms are to be resolved again; none that another worker has in hand."""
    rows = await tx.fetch(
        "UPDATE org_terms_state SET due_at = NULL WHERE org_id IN (SELECT org_id FROM org_terms_state"
        " WHERE due_at IS NOT NULL ORDER BY due_at, org_id LIMIT $1 FOR UPDATE SKIP LOCKED) RETURNING org_id",
        limit,
    )
    return sorted(row["org_id"] for row in rows)


async def list_announced(tx: Tx, org_ids: Iterable[UUID]) -> list[OrgTermsAssigned]:
    """Give what was announced last about these organisations, in the order of ids; version 0: nothing yet."""
    rows = await tx.fetch(
        "SELECT org_id, version, assignments FROM org_terms_state WHERE org_id = ANY($1) ORDER BY org_id",
        list(org_ids),
    )
    return [OrgTermsAssigned.model_validate(dict(row)) for row in rows]


async def get_announced(tx: Tx, org_id: UUID) -> OrgTermsAssigned:
    """Give what was announced last about an organisation; raises NotFound before the first time."""
    found = [fact for fact in await list_announced(tx, [org_id]) if fact.assignments]
    if not found:
        raise NotFound
    return found[0]


async def update_org_fact(tx: Tx, fact: OrgTermsAssigned) -> None:
    """Keep what is announced about an organisation."""
    await tx.execute(
        "UPDATE org_terms_state SET version = $2, assignments = $3 WHERE org_id = $1",
        fact.org_id,
        fact.version,
        fact.model_dump(mode="json")["assignments"],
    )


async def list_org_facts(tx: Tx, after: str | None, limit: int) -> list[OrgTermsAssigned]:
    """Give what was announced about organisations in the order of ids, for snapshots."""
    rows = await tx.fetch(
        "SELECT org_id, version, assignments FROM org_terms_state"
        " WHERE version > 0 AND ($1::uuid IS NULL OR org_id > $1) ORDER BY org_id LIMIT $2",
        UUID(after) if after else None,
        limit,
    )
    return [OrgTermsAssigned.model_validate(dict(row)) for row in rows]


async def insert_terms_once(tx: Tx, bodies: Mapping[str, TermsBody]) -> list[TermsDefined]:
    """Keep terms by their hash; give those that were new, in the order of hashes.

    Whoever has new ones waits for others who have: two that insert the same hashes in turns would deadlock.
    """
    known = await tx.fetch("SELECT terms_hash FROM terms WHERE terms_hash = ANY($1)", list(bodies))
    hashes = sorted(bodies.keys() - {row["terms_hash"] for row in known})
    if not hashes:
        return []
    await tx.execute(f"SELECT pg_advisory_xact_lock({DEFINING})")
    rows = await tx.fetch(
        "INSERT INTO terms (terms_hash, body, created_at)"
        " SELECT terms_hash, body::jsonb, $3 FROM unnest($1::text[], $2::text[]) AS t (terms_hash, body)"
        " ON CONFLICT DO NOTHING RETURNING terms_hash",
        hashes,
        [bodies[terms_hash].model_dump_json(exclude_unset=True) for terms_hash in hashes],
        tx.now,
    )
    new = sorted(row["terms_hash"] for row in rows)
    return [TermsDefined(version=1, terms_hash=terms_hash, body=bodies[terms_hash]) for terms_hash in new]


async def list_terms(tx: Tx, hashes: Iterable[str]) -> dict[str, TermsBody]:
    """Give terms by their hashes."""
    rows = await tx.fetch("SELECT terms_hash, body FROM terms WHERE terms_hash = ANY($1)", list(hashes))
    return {row["terms_hash"]: TermsBody.model_validate(row["body"]) for row in rows}


async def list_terms_facts(tx: Tx, after: str | None, limit: int) -> list[TermsDefined]:
    """Give all terms in the order of hashes, for snapshots."""
    rows = await tx.fetch(
        "SELECT terms_hash, body FROM terms WHERE terms_hash > $1 ORDER BY terms_hash LIMIT $2",
        after or "",
        limit,
    )
    return [
        TermsDefined(version=1, terms_hash=r["terms_hash"], body=TermsBody.model_validate(r["body"]))
        for r in rows
    ]


async def insert_retail_once(tx: Tx, places: Mapping[str, tuple[str, str]]) -> list[str]:
    """Have retail defaults for these currencies and countries, by key; give the keys that were new."""
    rows = await tx.fetch(
        "INSERT INTO retail_terms_state (retail_key, currency, country, version, assignments)"
        " SELECT retail_key, currency, country, 0, '[]'"
        " FROM unnest($1::text[], $2::text[], $3::text[]) AS p (retail_key, currency, country)"
        " ON CONFLICT DO NOTHING RETURNING retail_key",
        list(places),
        [currency for currency, _ in places.values()],
        [country for _, country in places.values()],
    )
    return [row["retail_key"] for row in rows]


async def lock_retail(tx: Tx) -> list[tuple[str, str, RetailTermsAssigned]]:
    """Lock all retail defaults until `tx` ends: currency, country, and what was announced (version 0: nothing)."""
    rows = await tx.fetch(
        "SELECT retail_key, currency, country, version, assignments FROM retail_terms_state"
        " ORDER BY retail_key FOR UPDATE"
    )
    return [(row["currency"], row["country"], RetailTermsAssigned.model_validate(dict(row))) for row in rows]


async def update_retail_fact(tx: Tx, fact: RetailTermsAssigned) -> None:
    """Keep what is announced about retail defaults."""
    await tx.execute(
        "UPDATE retail_terms_state SET version = $2, assignments = $3 WHERE retail_key = $1",
        fact.retail_key,
        fact.version,
        fact.model_dump(mode="json")["assignments"],
    )


async def list_retail_facts(tx: Tx, after: str | None, limit: int) -> list[RetailTermsAssigned]:
    """Give what was announced about retail defaults in the order of keys, for snapshots."""
    rows = await tx.fetch(
        "SELECT retail_key, version, assignments FROM retail_terms_state"
        " WHERE version > 0 AND retail_key > $1 ORDER BY retail_key LIMIT $2",
        after or "",
        limit,
    )
    return [RetailTermsAssigned.model_validate(dict(row)) for row in rows]


async def list_retail(tx: Tx, keys: Iterable[str]) -> list[RetailTermsAssigned]:
    """Give the announced retail defaults of these keys."""
    rows = await tx.fetch(
        "SELECT retail_key, version, assignments FROM retail_terms_state WHERE retail_key = ANY($1)",
        list(keys),
    )
    return [RetailTermsAssigned.model_validate(dict(row)) for row in rows]


async def put_entitlement(tx: Tx, entitlement: Entitlement) -> bool:
    """Keep an organisation's entitlement to a plan; say whether it is new."""
    is_new: bool = await tx.fetchval(
        "INSERT INTO org_entitlement (org_id, plan_id, overrides, effective_at) VALUES ($1, $2, $3, $4)"
        " ON CONFLICT (org_id, plan_id) DO UPDATE SET overrides = excluded.overrides,"
        " effective_at = excluded.effective_at RETURNING xmax = 0",
        entitlement.org_id,
        entitlement.plan_id,
        entitlement.overrides,
        entitlement.effective_at,
    )
    return is_new


async def find_entitlement(tx: Tx, org_id: UUID, plan_id: UUID) -> Entitlement | None:
    """Give an organisation's entitlement to a plan, or None."""
    row = await tx.fetchrow(
        "SELECT org_id, plan_id, overrides, effective_at FROM org_entitlement WHERE org_id = $1 AND plan_id = $2",
        org_id,
        plan_id,
    )
    return Entitlement(**row) if row else None


async def list_entitlements(
    tx: Tx, org_id: UUID, before: tuple[datetime, UUID] | None, limit: int
) -> list[Entitlement]:
    """Give an organisation's entitlements, the latest to come into force first."""
    rows = await tx.fetch(
        "SELECT org_id, plan_id, overrides, effective_at FROM org_entitlement WHERE org_id = $1"
        " AND ($2::timestamptz IS NULL OR (effective_at, plan_id) < ($2, $3))"
        " ORDER BY effective_at DESC, plan_id DESC LIMIT $4",
        org_id,
        *(before or (None, None)),
        limit,
    )
    return [Entitlement(**row) for row in rows]


async def put_org_model(tx: Tx, assigned: OrgModel) -> bool:
    """Keep which business model and plan an organisation is put on; say whether it is the first."""
    values: dict[str, Any] = {name: getattr(assigned, name) for name in OrgModel.__dataclass_fields__}
    is_new: bool = await tx.fetchval(
        "INSERT INTO org_business_model (org_id, model_id, plan_id, assigned_by, assigned_at, notes, effective_at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (org_id) DO UPDATE SET model_id = excluded.model_id,"
        " plan_id = excluded.plan_id, assigned_by = excluded.assigned_by, assigned_at = excluded.assigned_at,"
        " notes = excluded.notes, effective_at = excluded.effective_at RETURNING xmax = 0",
        *values.values(),
    )
    return is_new


async def get_org_model(tx: Tx, org_id: UUID) -> OrgModel:
    """Give which business model and plan an organisation was put on last; raises NotFound."""
    row = await tx.fetchrow(
        "SELECT org_id, model_id, plan_id, assigned_by, assigned_at, notes, effective_at FROM org_business_model"
        " WHERE org_id = $1",
        org_id,
    )
    if row is None:
        raise NotFound
    return OrgModel(**row)
