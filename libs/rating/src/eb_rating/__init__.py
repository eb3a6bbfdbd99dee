"""The price rules: pure functions of terms, quantities and events. No I/O, no clock, no state."""

from __future__ import annotations

from .base_fees import BaseFee, base_fees
from .breakdown import Breakdown, TierLine, breakdown, breakdown_closed
from .charges import Counter, charge, charge_closed, price, target, target_closed, tax_target
from .terms import Terms, Tier, from_plain

__all__ = [
    "BaseFee",
    "Breakdown",
    "Counter",
    "Terms",
    "Tier",
    "TierLine",
    "base_fees",
    "breakdown",
    "breakdown_closed",
    "charge",
    "charge_closed",
    "from_plain",
    "price",
    "target",
    "target_closed",
    "tax_target",
]
