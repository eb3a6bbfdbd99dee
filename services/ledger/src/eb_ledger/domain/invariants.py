"""What must hold of the ledger at every commit (docs/rules/ledger.md, Invariants)."""

from __future__ import annotations

from decimal import Decimal
from typing import NamedTuple

from .commission import CommissionKey, share


class ShareSum(NamedTuple):
    """What the lines of one commission key sum to."""

    key: CommissionKey
    gross: Decimal
    partner_amount: Decimal


def is_telescoped(summed: ShareSum) -> bool:
    """Tell whether the partner got exactly the rounded share of the key's whole gross."""
    return summed.partner_amount == share(summed.gross, summed.key.partner_pct, summed.key.currency)
