"""Usage that nothing prices yet: it waits, and is never priced at 0 or by guess.

Rule: docs/rules/pricing.md, Usage without terms.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, NamedTuple

from eb_contracts.metering import UsageRecord

Reason = Literal["unknown_sku", "no_terms", "terms_missing"]


class Waiting(NamedTuple):
    """A usage record that waits; `hashes` names the terms that are missing, if it is only their content."""

    usage: UsageRecord
    hashes: tuple[str, ...] = ()

    def reason(self, known_skus: Collection[str]) -> Reason:
        """Say why it waits."""
        if self.hashes:
            return "terms_missing"
        return "no_terms" if self.usage.sku in known_skus else "unknown_sku"
