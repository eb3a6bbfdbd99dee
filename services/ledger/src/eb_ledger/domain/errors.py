"""What the ledger refuses, and why it parks a charge."""

from __future__ import annotations

from uuid import UUID

from eb_contracts.errors import Fault, Kind, Refusal


class RateConflict(Refusal):
    """The same (tier, SKU, instant) already has another percentage."""

    code = "rate_conflict"
    kind = Kind.CONFLICT
    title = "Another percentage is already in force for this tier and SKU from that instant."


class PorOverlap(Refusal):
    """The organisation or billing account has a partner of record at some instant of the range."""

    code = "por_overlap"
    kind = Kind.CONFLICT
    title = "There is another partner of record in this range of time."


class RangeEmpty(Refusal):
    """A range `[start_at, end_at)` needs end_at > start_at."""

    code = "range_empty"
    title = "The end must be later than the start."


class PartnerUnknown(Refusal):
    """The body names a partner that doesn't exist."""

    code = "partner_unknown"
    title = "There is no such partner."

    @classmethod
    def of(cls, partner_id: UUID) -> PartnerUnknown:
        """Name the partner that isn't there, with the pointer to it."""
        return cls(faults=(Fault("/partner_id", cls.code, f"There is no partner {partner_id}."),))


class OrgUnknown(Refusal):
    """The body names an organisation that doesn't exist."""

    code = "org_unknown"
    title = "There is no such organisation."

    @classmethod
    def of(cls, org_id: UUID) -> OrgUnknown:
        """Name the organisation that isn't there, with the pointer to it."""
        return cls(faults=(Fault("/org_id", cls.code, f"There is no organisation {org_id}."),))


class AmountInvalid(Refusal):
    """An amount in the body is negative or finer than its currency's minor unit."""

    code = "amount_invalid"
    title = "The amount is not one of this currency."


class PctInvalid(Refusal):
    """A percentage lies outside 0 to 100 or has more than two decimals."""

    code = "pct_invalid"
    title = "The percentage must lie between 0 and 100, with at most two decimals."


class PorSubject(Refusal):
    """A partner of record is of exactly one organisation or one billing account."""

    code = "por_subject"
    title = "Name exactly one of org_id and billing_account_id."


class OrgMissing(Exception):
    """A charge can't be attributed before this organisation is known; it waits, parked."""

    def __init__(self, org_id: UUID) -> None:
        super().__init__(f"organisation {org_id} is not known yet")
        self.org_id = org_id
