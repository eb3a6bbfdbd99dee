"""A ledger line, made from a charge and its attribution (docs/rules/ledger.md, Lines)."""

from __future__ import annotations

import hashlib
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple
from uuid import UUID

from eb_contracts.pricing import Charge

from .attribution import Attribution
from .commission import EXACT, LARGEST, minor_unit


class Entry(NamedTuple):
    """A line as it is stored, column by column; money in `currency`, exact.

    `net = amount_gross − partner_amount`. A tuple and no dataclass, so that thousands go to COPY as they are.
    """

    entry_id: UUID
    org_id: UUID
    project_id: UUID | None
    sku: str
    quantity: Decimal
    amount_gross: Decimal
    partner_pct: Decimal
    partner_amount: Decimal
    net: Decimal
    status: str
    created_at: datetime
    currency: str
    charge_id: str | None
    kind: str
    period: str
    occurred_at: datetime
    tax_code: str | None
    tax_amount: Decimal
    terms_hash: str
    credit_applied: Decimal
    waived_amount: Decimal
    partner_id: UUID | None
    por_id: UUID | None
    billing_account_id: UUID
    reason: str | None
    actor: str | None

    @property
    def payable(self) -> Decimal:
        """Give what the payer owes: gross and tax less credit."""
        return self.amount_gross + self.tax_amount - self.credit_applied


def status_of(partner_amount: Decimal) -> str:
    """Give a new line's status: without a partner's part there is nothing left to settle."""
    return "pending" if partner_amount else "settled"


def content_hash(charge: Charge) -> bytes:
    """Digest (SHA-256) everything of a charge that its line is made of.

    Two charges of one id are the same if this is: equal numbers, equal instants.
    """
    numbers = (*amounts_of(charge), charge.quantity)
    content = (
        f"{charge.kind}\x1f{charge.sku}\x1f{charge.period}\x1f{charge.currency}\x1f{charge.terms_hash}\x1f"
        f"{charge.project_id and charge.project_id.int}\x1f{charge.time.timestamp()}\x1f{charge.tax_code!r}\x1f"
        f"{charge.reason!r}\x1f{charge.actor!r}\x1f{[str(number.normalize(EXACT)) for number in numbers]}"
    )
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).digest()


def amounts_of(charge: Charge) -> tuple[Decimal, Decimal, Decimal, Decimal]:
    """Give the charge's money: gross, waived, credit, tax."""
    return charge.amount_gross, charge.waived_amount, charge.credit_applied, charge.tax_amount


def fault_of(charge: Charge) -> str | None:
    """Name why a charge can never become a line; None if it can.

    `currency_unknown`; `amount_precision`: finer than the minor unit; `amount_range`: 10^18 or more.
    """
    try:
        unit = minor_unit(charge.currency)
    except ValueError:
        return "currency_unknown"
    for amount in amounts_of(charge):
        if not -LARGEST < amount < LARGEST:
            return "amount_range"
        if amount % unit:
            return "amount_precision"
    return None if -LARGEST < charge.quantity < LARGEST else "amount_range"


def entry_of(
    charge: Charge,
    attribution: Attribution,
    partner_amount: Decimal,
    *,
    entry_id: UUID,
    billing_account_id: UUID,
    created_at: datetime,
) -> Entry:
    """Make the line of a charge."""
    return Entry(
        entry_id=entry_id,
        org_id=charge.org_id,
        project_id=charge.project_id,
        sku=charge.sku,
        quantity=charge.quantity,
        amount_gross=charge.amount_gross,
        partner_pct=attribution.partner_pct,
        partner_amount=partner_amount,
        net=charge.amount_gross - partner_amount,
        status=status_of(partner_amount),
        created_at=created_at,
        currency=charge.currency,
        charge_id=charge.charge_id,
        kind=charge.kind,
        period=charge.period,
        occurred_at=charge.time,
        tax_code=charge.tax_code,
        tax_amount=charge.tax_amount,
        terms_hash=charge.terms_hash,
        credit_applied=charge.credit_applied,
        waived_amount=charge.waived_amount,
        partner_id=attribution.partner_id,
        por_id=attribution.por_id,
        billing_account_id=billing_account_id,
        reason=charge.reason,
        actor=charge.actor,
    )
