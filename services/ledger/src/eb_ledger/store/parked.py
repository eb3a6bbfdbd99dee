"""Charges that are no line: waiting for their organisation, in conflict with a posted one, or never possible."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from eb_contracts.pricing import Charge
from eb_kit.tx import Tx

from ..domain.postings import ChargeKey, Parked


async def insert_parked(tx: Tx, parked: Iterable[Parked]) -> None:
    """Park charges; the same content again only renews what an open one waits for."""
    await tx.executemany(
        "INSERT INTO parked_charge AS p"
        " (org_id, charge_id, content_hash, reason, waits_for, body, parked_at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (org_id, charge_id, content_hash)"
        " DO UPDATE SET reason = excluded.reason, waits_for = excluded.waits_for WHERE p.resolved_at IS NULL",
        [
            (
                one.offer.charge.org_id,
                one.offer.charge.charge_id,
                one.offer.content_hash,
                one.reason,
                one.waits_for,
                one.offer.charge.model_dump(mode="json"),
                tx.now,
            )
            for one in parked
        ],
    )


async def take_arrived(tx: Tx, limit: int) -> list[Charge]:
    """Take parked charges whose awaited organisation is known by now, oldest first; others skip them."""
    rows = await tx.fetch(
        "SELECT p.body FROM parked_charge p"
        " JOIN known k ON k.entity = 'org' AND k.entity_id = p.waits_for::text"
        " WHERE p.reason = 'org_unknown' AND p.resolved_at IS NULL"
        " ORDER BY p.parked_at LIMIT $1 FOR UPDATE OF p SKIP LOCKED",
        limit,
    )
    return [Charge.model_validate(row["body"]) for row in rows]


async def resolve_posted(tx: Tx, keys: Sequence[ChargeKey]) -> int:
    """Close those of these parked charges that are posted by now, or in conflict; give how many."""
    rows = await tx.fetch(
        "UPDATE parked_charge p SET resolved_at = $3 FROM unnest($1::text[], $2::uuid[])"
        " AS done (charge_id, org_id) WHERE p.org_id = done.org_id AND p.charge_id = done.charge_id"
        " AND p.reason = 'org_unknown' AND p.resolved_at IS NULL AND EXISTS (SELECT 1 FROM charge_posting c"
        " WHERE c.charge_id = p.charge_id AND c.org_id = p.org_id AND c.content_hash = p.content_hash)"
        " RETURNING p.charge_id",
        [key.charge_id for key in keys],
        [key.org_id for key in keys],
        tx.now,
    )
    return len(rows)


async def count_parked(tx: Tx) -> dict[str, int]:
    """Give how many charges are parked and open, by reason."""
    rows = await tx.fetch(
        "SELECT reason, count(*) AS parked FROM parked_charge WHERE resolved_at IS NULL GROUP BY reason"
    )
    return {row["reason"]: row["parked"] for row in rows}
