"""Prepaid credits: which of them pay a charge, in which order, and which get it back.

Rule: docs/rules/pricing.md, Guardrails.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import NamedTuple

from .exact import EXACT, ZERO

_add, _subtract = EXACT.add, EXACT.subtract
NEVER = datetime.max.replace(tzinfo=UTC)


class Grant(NamedTuple):
    """Money paid before: `amount` in all, `drawn` of it used.

    `sku_types` None pays for everything; `expires_at` None never ends, else its instant is the first at
    which nothing is drawn any more. `created_at` and `name` (unique) settle who is older.
    """

    name: str
    currency: str
    amount: Decimal
    drawn: Decimal
    priority: int
    created_at: datetime
    expires_at: datetime | None = None
    sku_types: Collection[str] | None = None

    @property
    def remaining(self) -> Decimal:
        """Give what is left."""
        return _subtract(self.amount, self.drawn)

    def pays_for(self, currency: str, sku_type: str | None) -> bool:
        """Tell whether it is meant for such charges."""
        return self.currency == currency and (self.sku_types is None or sku_type in self.sku_types)

    def is_usable_at(self, at: datetime) -> bool:
        """Tell whether something can be drawn at an instant."""
        return (self.expires_at is None or at < self.expires_at) and self.drawn < self.amount


class Draw(NamedTuple):
    """What a charge takes from a grant; negative when it gives back."""

    name: str
    amount: Decimal


def in_order(grants: Iterable[Grant]) -> list[Grant]:
    """Sort grants as they are drawn: priority (lower first), earliest expiry, oldest."""
    return sorted(grants, key=_place)


def _place(grant: Grant) -> tuple[int, datetime, datetime, str]:
    return grant.priority, grant.expires_at or NEVER, grant.created_at, grant.name


def apply(
    grants: Sequence[Grant], gross: Decimal, currency: str, sku_type: str | None, at: datetime
) -> tuple[tuple[Grant, ...], tuple[Draw, ...]]:
    """Pay a gross amount from grants (sorted by `in_order`), or give back to them if it is negative.

    Gives the grants after, in the same order, and what moved. The draws have the sign of `gross` and
    sum to no more than it. Nothing is drawn from what has expired at `at`; giving back goes the other
    way round, to what was drawn, expired or not: as if it had never been.
    """
    if gross < ZERO:
        draws = dict(_given_back(grants, gross, currency, sku_type))
    else:
        draws = dict(_drawn(grants, gross, currency, sku_type, at))
    after = tuple(
        grant._replace(drawn=_add(grant.drawn, draws[grant.name])) if grant.name in draws else grant
        for grant in grants
    )
    return after, tuple(Draw(name, amount) for name, amount in draws.items())


def _drawn(
    grants: Iterable[Grant], gross: Decimal, currency: str, sku_type: str | None, at: datetime
) -> Iterator[tuple[str, Decimal]]:
    for grant in grants:
        if gross <= ZERO:
            return
        if grant.pays_for(currency, sku_type) and grant.is_usable_at(at):
            amount = min(gross, grant.remaining)
            gross = _subtract(gross, amount)
            yield grant.name, amount


def _given_back(
    grants: Sequence[Grant], gross: Decimal, currency: str, sku_type: str | None
) -> Iterator[tuple[str, Decimal]]:
    for grant in reversed(grants):
        if gross >= ZERO:
            return
        if grant.pays_for(currency, sku_type) and grant.drawn > ZERO:
            amount = max(gross, -grant.drawn)
            gross = _subtract(gross, amount)
            yield grant.name, amount
