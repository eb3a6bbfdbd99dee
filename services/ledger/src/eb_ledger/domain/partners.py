"""Partners, commission rates and billing accounts as the ledger keeps them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

from eb_contracts.errors import Fault
from eb_contracts.ledger import PartnerChanged

from .commission import LARGEST, minor_unit
from .errors import AmountInvalid, PctInvalid

ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)
"""From when on a partner's first tier holds, unless said otherwise: late usage finds it."""

PCT_UNIT = Decimal("0.01")


@dataclass(frozen=True, slots=True)
class Partner:
    """A partner and its newest tier. `min_payout` is the least amount paid at once, by currency.

    Members of the organisation `org_id` act for it. `version` counts its changes.
    """

    partner_id: UUID
    name: str
    tier: str
    tier_from: datetime
    min_payout: Mapping[str, Decimal]
    payout_provider: str
    destination: str | None
    created_at: datetime
    org_id: UUID | None
    version: int


@dataclass(frozen=True, slots=True)
class CommissionRate:
    """What partners of a tier get of a SKU's gross from `effective_at` (inclusive) on, in percent."""

    partner_tier: str
    sku: str
    pct: Decimal
    effective_at: datetime


@dataclass(frozen=True, slots=True)
class BillingAccount:
    """Who pays. The default account of an organisation has no currency: it takes lines of every one."""

    billing_account_id: UUID
    owner_org_id: UUID
    name: str
    currency: str | None
    status: str
    notes: str | None
    is_default: bool
    created_at: datetime


def partner_fact(partner: Partner) -> PartnerChanged:
    """Give what other services may know of a partner."""
    return PartnerChanged(version=partner.version, partner_id=partner.partner_id, org_id=partner.org_id)


def check_minima(min_payout: Mapping[str, Decimal]) -> None:
    """Refuse minima that are negative or finer than their currency; raises AmountInvalid with pointers."""
    faults = tuple(
        Fault(f"/min_payout/{currency}", AmountInvalid.code, f"{amount} is no amount of {currency}")
        for currency, amount in min_payout.items()
        if not 0 <= amount < LARGEST or amount % minor_unit(currency)
    )
    if faults:
        raise AmountInvalid(faults=faults)


def check_pct(pct: Decimal) -> None:
    """Refuse a percentage outside 0 to 100 or finer than two decimals; raises PctInvalid."""
    if not 0 <= pct <= 100 or pct % PCT_UNIT:
        raise PctInvalid(faults=(Fault("/pct", PctInvalid.code, f"{pct} is no such percentage."),))
