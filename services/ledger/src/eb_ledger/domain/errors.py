"""What the ledger refuses, and why it parks a charge."""

from __future__ import annotations

from eb_contracts.errors import Kind, Refusal


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


class AmountInvalid(Refusal):
    """An amount in the body is negative or finer than its currency's minor unit."""

    code = "amount_invalid"
    title = "The amount is not one of this currency."


class FilterMissing(Refusal):
    """A list or sum was asked for without saying of what."""

    code = "parameter_invalid"
    kind = Kind.MALFORMED
    title = "A query parameter is missing or doesn't go with another one."


class OrgMissing(Exception):
    """A charge can't be attributed before this organisation is known; it waits, parked."""

    def __init__(self, org_id: object) -> None:
        super().__init__(f"organisation {org_id} is not known yet")
        self.org_id = org_id
