"""What a take of charges needs to know, each in one statement: payers, partners of record, tiers, rates."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from eb_kit.tx import Tx

from ..domain.attribution import History, PartnerOfRecord
from ..domain.partners import ALWAYS
from ..domain.payers import ParentLinks

POR_COLUMNS = "por_id, org_id, billing_account_id, partner_id, start_at, end_at, status, created_at"


async def list_default_accounts(tx: Tx, org_ids: Collection[UUID]) -> dict[UUID, UUID]:
    """Give the default billing account of each of these organisations that has one of its own."""
    rows = await tx.fetch(
        "SELECT owner_org_id, billing_account_id FROM billing_account"
        " WHERE is_default AND owner_org_id = ANY($1)",
        list(org_ids),
    )
    return {row["owner_org_id"]: row["billing_account_id"] for row in rows}


async def list_parent_links(tx: Tx, org_ids: Collection[UUID]) -> dict[UUID, ParentLinks]:
    """Give the parent links of these organisations and of all that were ever above them, as far as known."""
    rows = await tx.fetch(
        "WITH RECURSIVE lineage AS ("
        " SELECT entity_id, body FROM known WHERE entity = 'org' AND entity_id = ANY($1)"
        " UNION SELECT k.entity_id, k.body FROM lineage l"
        " CROSS JOIN LATERAL (SELECT link ->> 'parent_org_id' FROM jsonb_array_elements(l.body -> 'parent_links')"
        " AS link UNION SELECT l.body ->> 'parent_org_id') AS above (org_id)"
        " JOIN known k ON k.entity = 'org' AND k.entity_id = above.org_id)"
        " SELECT entity_id, body FROM lineage",
        [str(org_id) for org_id in org_ids],
    )
    return {UUID(row["entity_id"]): links_of(row["body"]) for row in rows}


def links_of(body: Mapping[str, Any]) -> ParentLinks:
    """Read the parent links of an organisation's fact; without any, its present parent holds since ever."""
    links = body["parent_links"] or [
        {"effective_at": ALWAYS.isoformat(), "parent_org_id": body["parent_org_id"]}
    ]
    return [
        (
            datetime.fromisoformat(link["effective_at"]),
            UUID(link["parent_org_id"]) if link["parent_org_id"] else None,
        )
        for link in links
    ]


async def list_partners_of_record(
    tx: Tx, org_ids: Collection[UUID], account_ids: Collection[UUID]
) -> dict[UUID, list[PartnerOfRecord]]:
    """Give all partners of record, of any time, by the organisation or billing account they are of."""
    rows = await tx.fetch(
        f"SELECT {POR_COLUMNS} FROM partner_of_record WHERE org_id = ANY($1) OR billing_account_id = ANY($2)",
        list(org_ids),
        list(account_ids),
    )
    found: dict[UUID, list[PartnerOfRecord]] = defaultdict(list)
    for row in rows:
        por = PartnerOfRecord(*row)
        found[por.org_id or por.billing_account_id].append(por)  # type: ignore[index]
    return found


async def list_tiers(tx: Tx, partner_ids: Collection[UUID]) -> dict[UUID, History[str]]:
    """Give each partner's tiers, oldest first."""
    rows = await tx.fetch(
        "SELECT partner_id, effective_at, tier FROM partner_tier WHERE partner_id = ANY($1)"
        " ORDER BY partner_id, effective_at",
        list(partner_ids),
    )
    tiers: dict[UUID, list[tuple[datetime, str]]] = defaultdict(list)
    for partner_id, effective_at, tier in rows:
        tiers[partner_id].append((effective_at, tier))
    return dict(tiers)


async def list_rate_histories(
    tx: Tx, tiers: Collection[str], skus: Collection[str]
) -> dict[tuple[str, str], History[Decimal]]:
    """Give the percentages by (tier, SKU), oldest first."""
    rows = await tx.fetch(
        "SELECT partner_tier, sku, effective_at, pct FROM commission_rate"
        " WHERE partner_tier = ANY($1) AND sku = ANY($2) ORDER BY partner_tier, sku, effective_at",
        list(tiers),
        list(skus),
    )
    rates: dict[tuple[str, str], list[tuple[datetime, Decimal]]] = defaultdict(list)
    for tier, sku, effective_at, pct in rows:
        rates[tier, sku].append((effective_at, pct))
    return dict(rates)
