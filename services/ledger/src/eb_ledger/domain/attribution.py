"""Whose partner a line has and at what percentage, all at the charge's own time.

Rule: docs/rules/ledger.md, Whose partner, what share.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import TypeVar
from uuid import UUID

from eb_contracts.errors import Fault

from .errors import RangeEmpty

NOTHING = Decimal("0.00")
T = TypeVar("T")
History = Sequence[tuple[datetime, T]]
"""What holds from which instant (inclusive) on, oldest first."""


@dataclass(frozen=True, slots=True)
class PartnerOfRecord:
    """A partner of record of exactly one organisation or billing account in `[start_at, end_at)`."""

    por_id: UUID
    org_id: UUID | None
    billing_account_id: UUID | None
    partner_id: UUID
    start_at: datetime
    end_at: datetime | None
    status: str
    created_at: datetime

    def covers(self, at: datetime) -> bool:
        """Tell whether the range holds this instant; the status doesn't matter."""
        return self.start_at <= at and (self.end_at is None or at < self.end_at)

    def status_at(self, now: datetime) -> str:
        """Give the status as it stands now: nobody writes when an end passes."""
        return por_status(self.end_at, now) if self.status == "active" else self.status


@dataclass(frozen=True, slots=True)
class Attribution:
    """The partner's part of a line; without a partner all is None and 0."""

    partner_id: UUID | None = None
    por_id: UUID | None = None
    partner_pct: Decimal = NOTHING


UNATTRIBUTED = Attribution()


def check_range(start_at: datetime, end_at: datetime | None) -> None:
    """Refuse a range `[start_at, end_at)` that holds nothing; raises RangeEmpty."""
    if end_at is not None and end_at <= start_at:
        raise RangeEmpty(
            faults=(Fault("/end_at", RangeEmpty.code, f"Must be later than {start_at.isoformat()}."),)
        )


def por_status(end_at: datetime | None, now: datetime) -> str:
    """Give the status of an undisputed partner of record: expired from its end on."""
    return "expired" if end_at is not None and end_at <= now else "active"


def in_force(history: History[T], at: datetime) -> T | None:
    """Give what holds at an instant; None before the first entry."""
    found = bisect_right(history, at, key=lambda entry: entry[0])
    return history[found - 1][1] if found else None


def partner_at(
    of_account: Sequence[PartnerOfRecord], of_org: Sequence[PartnerOfRecord], at: datetime
) -> PartnerOfRecord | None:
    """Give the partner of record of a line: its billing account's, else its organisation's, else none."""
    for candidates in (of_account, of_org):
        for por in candidates:
            if por.covers(at):
                return por
    return None


def attribute(
    por: PartnerOfRecord | None,
    tiers: Mapping[UUID, History[str]],
    rates: Mapping[tuple[str, str], History[Decimal]],
    sku: str,
    at: datetime,
) -> Attribution:
    """Give partner and percentage of a line. No rate for the partner's tier: the partner stays, with 0."""
    if por is None:
        return UNATTRIBUTED
    tier = in_force(tiers.get(por.partner_id, ()), at)
    pct = in_force(rates.get((tier, sku), ()), at) if tier is not None else None
    return Attribution(por.partner_id, por.por_id, NOTHING if pct is None else pct)
