"""Usage that nothing prices yet: it waits, and is never priced at 0 or by guess.

Rule: docs/rules/pricing.md, Usage without terms.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, NamedTuple

from eb_contracts.metering import UsageRecord

Reason = Literal["unknown_sku", "no_terms", "terms_missing", "out_of_bounds"]


class Waiting(NamedTuple):
    """A usage record that waits.

    `hashes` names the terms that are missing, if it is only their content; `is_out_of_bounds` says that
    its counter would grow beyond what amounts and quantities may be.
    """

    usage: UsageRecord
    hashes: tuple[str, ...] = ()
    is_out_of_bounds: bool = False

    def reason(self, known_skus: Collection[str]) -> Reason:
        """Say why it waits."""
        if self.is_out_of_bounds:
            return "out_of_bounds"
        if self.hashes:
            return "terms_missing"
        return "no_terms" if self.usage.sku in known_skus else "unknown_sku"
