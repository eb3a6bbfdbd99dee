"""Prepaid credits: which of them pay a charge, in which order, and which get it back.

Rule: docs/rules/pricing.md, Guardrails.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from functools import reduce
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


class Due(NamedTuple):
    """A gross amount of a counter, to be paid from credit or given back to it.

    `borrowed` (0 or negative) is the part of a negative amount that takes the counter's gross below zero:
    under a shared cap one counter's void can take back what another one was charged.
    """

    period: str
    sku: str
    sku_type: str | None
    currency: str
    gross: Decimal
    borrowed: Decimal = ZERO


class Drawer(NamedTuple):
    """Whose charges drew from which grant."""

    period: str
    sku: str
    grant: str


class Purse(NamedTuple):
    """Grants as `in_order` sorts them, and what each counter's charges drew of them so far, all in all.

    `drawn` has to be whole for the counters that are given back to, and for the whole period where something
    was borrowed.
    """

    grants: tuple[Grant, ...]
    drawn: Mapping[Drawer, Decimal]


def pay(purse: Purse, due: Due, at: datetime) -> tuple[Purse, tuple[Draw, ...]]:
    """Pay a gross amount from credit, or give back if it is negative; the purse after, and what moved.

    The draws have the sign of `due.gross` and sum to no more than it. Nothing is drawn from what has expired at
    `at`. Giving back goes the other way round, to what this counter drew and to nothing else, expired or not:
    as if it had never been. Only what was borrowed goes back to what others drew in the period.
    """
    moved = _given_back(purse, due) if due.gross < ZERO else dict(_drawn(purse.grants, due, at))
    return _after(purse, due, moved), tuple(Draw(name, amount) for name, amount in moved.items())


def _after(purse: Purse, due: Due, moved: Mapping[str, Decimal]) -> Purse:
    grants = tuple(
        grant._replace(drawn=_add(grant.drawn, moved[grant.name])) if grant.name in moved else grant
        for grant in purse.grants
    )
    by = {name: Drawer(due.period, due.sku, name) for name in moved}
    drawn = {by[name]: _add(purse.drawn.get(by[name], ZERO), amount) for name, amount in moved.items()}
    return Purse(grants, {**purse.drawn, **drawn})


def _drawn(grants: Iterable[Grant], due: Due, at: datetime) -> Iterator[tuple[str, Decimal]]:
    gross = due.gross
    for grant in grants:
        if gross <= ZERO:
            return
        if grant.pays_for(due.currency, due.sku_type) and grant.is_usable_at(at):
            amount = min(gross, grant.remaining)
            gross = _subtract(gross, amount)
            yield grant.name, amount


def _given_back(purse: Purse, due: Due) -> dict[str, Decimal]:
    """Give what goes back to which grant: as much as this counter drew, to the grants that it drew from as far
    as nothing borrowed has gone back there, and what was borrowed besides.
    """
    grants = [grant for grant in reversed(purse.grants) if grant.currency == due.currency]
    together, own = _sums(purse, due, {grant.name for grant in grants})
    back = max(due.gross, _subtract(due.borrowed, max(ZERO, _sum(own.values()))))
    moved = dict(_taken(grants, back, {name: min(own[name], together[name]) for name in own}))
    rest = _subtract(back, _sum(moved.values()))
    left = {name: _add(amount, moved.get(name, ZERO)) for name, amount in together.items()}
    for name, amount in _taken(grants, rest, left):
        moved[name] = _add(moved.get(name, ZERO), amount)
    return moved


def _sums(purse: Purse, due: Due, names: Collection[str]) -> tuple[dict[str, Decimal], dict[str, Decimal]]:
    """Give what all counters of the period drew, and what this one did, of these grants."""
    together: dict[str, Decimal] = {}
    own: dict[str, Decimal] = {}
    for drawer, amount in purse.drawn.items():
        if drawer.period == due.period and drawer.grant in names:
            together[drawer.grant] = _add(together.get(drawer.grant, ZERO), amount)
            if drawer.sku == due.sku:
                own[drawer.grant] = amount
    return together, own


def _sum(amounts: Iterable[Decimal]) -> Decimal:
    return reduce(_add, amounts, ZERO)


def _taken(
    grants: Iterable[Grant], gross: Decimal, drawn: Mapping[str, Decimal]
) -> Iterator[tuple[str, Decimal]]:
    for grant in grants:
        if gross >= ZERO:
            return
        most = min(drawn.get(grant.name, ZERO), grant.drawn)
        if most > ZERO:
            amount = max(gross, -most)
            gross = _subtract(gross, amount)
            yield grant.name, amount
