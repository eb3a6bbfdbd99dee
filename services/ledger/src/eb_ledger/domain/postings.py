"""From a take of charges to its lines: screening, claiming once, telescoping the shares.

Rule: docs/rules/ledger.md, Once per charge.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from eb_contracts.pricing import Charge

from .attribution import Attribution
from .commission import EXACT, CommissionKey, shares
from .entries import content_hash, fault_of

REASONS = ("org_unknown", "conflict", "currency_unknown", "amount_precision", "amount_range")
"""Why a charge is parked."""


class ChargeKey(NamedTuple):
    """What a charge is posted once for; its order is the order of locks."""

    charge_id: str
    org_id: UUID


class Offer(NamedTuple):
    """A charge and the digest of its content."""

    charge: Charge
    content_hash: bytes


class Parked(NamedTuple):
    """An offer that is no line, why, and the organisation it waits for, if any."""

    offer: Offer
    reason: str
    waits_for: UUID | None = None


Offers = dict[ChargeKey, Offer]


def screen(charges: Iterable[Charge]) -> tuple[Offers, list[Parked]]:
    """Give the charges that may be posted, once each and sorted by key, and those that can't be lines.

    Of two charges with one key and unlike content the first stays.
    """
    offers: Offers = {}
    parked = []
    for charge in charges:
        offer = Offer(charge, content_hash(charge))
        if (fault := fault_of(charge)) is not None:
            parked.append(Parked(offer, fault))
            continue
        first = offers.setdefault(ChargeKey(charge.charge_id, charge.org_id), offer)
        if first.content_hash != offer.content_hash:
            parked.append(Parked(offer, "conflict"))
    return dict(sorted(offers.items(), key=lambda item: item[0])), parked


def conflicts(offers: Offers, posted: Mapping[ChargeKey, bytes]) -> list[Parked]:
    """Give the offers whose charge was posted with other content."""
    return [
        Parked(offers[key], "conflict")
        for key, posted_hash in posted.items()
        if offers[key].content_hash != posted_hash
    ]


def commission_key(charge: Charge, attribution: Attribution) -> CommissionKey | None:
    """Give what the charge's share telescopes over; None where there is no share."""
    if attribution.partner_id is None or not attribution.partner_pct:
        return None
    return CommissionKey(
        attribution.partner_id,
        charge.org_id,
        charge.sku,
        charge.period,
        charge.currency,
        attribution.partner_pct,
    )


def by_commission_key(
    offers: Offers, attributions: Mapping[ChargeKey, Attribution]
) -> dict[CommissionKey, list[ChargeKey]]:
    """Group the charges that have a share by what it telescopes over, sorted by that key."""
    groups: dict[CommissionKey, list[ChargeKey]] = defaultdict(list)
    for key, offer in offers.items():
        if (group := commission_key(offer.charge, attributions[key])) is not None:
            groups[group].append(key)
    return dict(sorted(groups.items()))


def gross_of(offers: Offers, keys: Iterable[ChargeKey]) -> Decimal:
    """Sum the gross of some charges, exactly."""
    total = Decimal(0)
    for key in keys:
        total = EXACT.add(total, offers[key].charge.amount_gross)
    return total


def part_by_charge(
    offers: Offers,
    groups: Mapping[CommissionKey, list[ChargeKey]],
    added: Mapping[CommissionKey, Decimal],
    gross_after: Mapping[CommissionKey, Decimal],
) -> dict[ChargeKey, Decimal]:
    """Give each charge's partner amount, from the gross added to its key's counter and what that shows after."""
    parts: dict[ChargeKey, Decimal] = {}
    for group, keys in groups.items():
        before = EXACT.subtract(gross_after[group], added[group])
        amounts = [offers[key].charge.amount_gross for key in keys]
        parts |= zip(keys, shares(amounts, before, group.partner_pct, group.currency), strict=True)
    return parts
