"""What one organisation pays: its assignments, retail defaults and terms, put together and remembered."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from .base_fees import BaseFee, base_fees, named_hashes
from .resolve import (
    AssignedTerms,
    Found,
    OrgTerms,
    Retail,
    RetailStep,
    month_after,
    month_start,
    org_terms_from_plain,
    period_of,
    price_terms,
    retail_from_plain,
    steps_between,
    steps_of,
)
from .terms import Terms, from_plain

MOST_REMEMBERED = 4096
MOST_ORGS = 50_000
A_DAY = timedelta(days=1)
A_MONTH = timedelta(days=32)


class TermsMissing(NamedTuple):
    """Terms that are named, but whose content isn't here yet."""

    hashes: tuple[str, ...]


class Tax(NamedTuple):
    """The tax of a charge; both None where there is none."""

    rate: Decimal | None
    code: str | None


class Priced(NamedTuple):
    """What prices a SKU for a whole period; `taxes` by the instant from which each is in force."""

    period: str
    terms_hash: str
    terms: Terms
    assigned: AssignedTerms
    retail_key: str | None
    taxes: tuple[tuple[datetime, Tax], ...]

    def tax_at(self, instant: datetime) -> Tax:
        """Give the tax in force at an instant."""
        if len(self.taxes) == 1:
            return self.taxes[0][1]
        before = [tax for since, tax in self.taxes if since <= instant]
        return before[-1] if before else self.taxes[0][1]

    def start(self) -> datetime:
        """Give the first instant of the period."""
        return month_start(self.period, self.assigned.zone)

    def end(self) -> datetime:
        """Give the first instant after the period."""
        return month_start(month_after(self.period), self.assigned.zone)


class PriceBook:
    """What a process remembers of assignments, retail defaults and terms, by the versions it read.

    The caller says which versions are current and tells the bodies of those that aren't here; terms
    never change and stay. Beyond `MOST_ORGS` organisations it forgets, and asks to be told again.
    """

    def __init__(self) -> None:
        self.terms: dict[str, Terms] = {}
        self._orgs: dict[str, tuple[int, OrgPrices]] = {}
        self._retail: dict[str, tuple[RetailStep, ...]] = {}
        self._retail_versions: dict[str, int] = {}

    def outdated_orgs(self, versions: Mapping[str, int]) -> list[str]:
        """Name the organisations whose assignments must be told: not here, or in another version."""
        orgs = self._orgs
        return [one for one, version in versions.items() if one not in orgs or orgs[one][0] != version]

    def is_retail_current(self, versions: Mapping[str, int]) -> bool:
        """Tell whether the retail defaults here are these."""
        return self._retail_versions == versions

    def learn_retail(self, told: Mapping[str, tuple[int, Sequence[Mapping[str, Any]]]]) -> None:
        """Take all retail defaults anew, `{key: (version, assignments)}`; forgets what was made with others."""
        versions = {key: version for key, (version, _) in told.items()}
        if versions != self._retail_versions:
            self._retail = {key: retail_from_plain(assignments) for key, (_, assignments) in told.items()}
            self._retail_versions = versions
            self._orgs.clear()

    def learn_orgs(self, told: Mapping[str, tuple[int, Sequence[Mapping[str, Any]]]]) -> None:
        """Take organisations' assignments, `{org_id: (version, assignments)}`, none of them empty."""
        if len(self._orgs) + len(told) > MOST_ORGS:
            self._orgs.clear()
        for org_id, (version, assignments) in told.items():
            prices = OrgPrices(org_terms_from_plain(assignments), self._retail, self.terms)
            self._orgs[org_id] = (version, prices)

    def learn_terms(self, bodies: Mapping[str, Mapping[str, Any]]) -> None:
        """Take terms by their hash."""
        for terms_hash, body in bodies.items():
            self.terms[terms_hash] = from_plain(body)

    def prices_of(self, org_ids: Iterable[str]) -> dict[str, OrgPrices]:
        """Give what is known of organisations, as last told; those without assignments are left out."""
        return {org_id: self._orgs[org_id][1] for org_id in org_ids if org_id in self._orgs}


class OrgPrices:
    """One organisation's prices. Not to be changed but by making a new one when a fact changes.

    `terms` is asked again for what was missing, so that it may grow. Rule: docs/rules/pricing.md,
    Which terms hold.
    """

    def __init__(self, org_terms: OrgTerms, retail: Retail, terms: Mapping[str, Terms]) -> None:
        self.org_terms = org_terms
        self._retail = retail
        self._terms = terms
        self._periods: dict[datetime, str] = {}
        self._priced: dict[tuple[str, str], Priced] = {}

    def period_of(self, instant: datetime) -> str:
        """Give the billing period of an instant."""
        period = self._periods.get(instant)
        if period is None:
            if len(self._periods) >= MOST_REMEMBERED:
                self._periods.clear()
            period = self._periods[instant] = period_of(self.org_terms, instant)
        return period

    def priced(self, sku: str, period: str) -> Priced | TermsMissing | None:
        """Find what prices a SKU in a period; None where nothing names it."""
        key = (sku, period)
        priced: Priced | TermsMissing | None = self._priced.get(key)
        if priced is not None:
            return priced
        priced = self._look_up(sku, period)
        if isinstance(priced, Priced):
            if len(self._priced) >= MOST_REMEMBERED:
                self._priced.clear()
            self._priced[key] = priced
        return priced

    def base_fees(self, period: str) -> tuple[BaseFee, ...] | TermsMissing:
        """Give all base fees of a period, oldest first (docs/rules/pricing.md, Base fees)."""
        missing = named_hashes(self.org_terms, period) - self._terms.keys()
        if missing:
            return TermsMissing(tuple(sorted(missing)))
        return base_fees(self.org_terms, self._terms, period)

    def _look_up(self, sku: str, period: str) -> Priced | TermsMissing | None:
        found = price_terms(self.org_terms, self._retail, sku, period)
        if found is None:
            return None
        steps = self._steps(found, sku, period)
        named = {found.terms_hash, *(terms_hash for _, terms_hash in steps)}
        if missing := named - self._terms.keys():
            return TermsMissing(tuple(sorted(missing)))
        taxes = tuple((since, self._tax(terms_hash)) for since, terms_hash in steps)
        terms = self._terms[found.terms_hash]
        return Priced(period, found.terms_hash, terms, found.assigned, found.retail_key, _joined(taxes))

    def _steps(self, found: Found, sku: str, period: str) -> tuple[tuple[datetime, str], ...]:
        """Give the steps of a period, with a day to spare at both ends for a change of zone."""
        start = month_start(period, found.assigned.zone)
        named = ((found.assigned.effective_at, found.terms_hash),)
        steps = steps_of(self.org_terms, self._retail, sku) or named
        return tuple(steps_between(steps, start - A_DAY, start + A_MONTH + A_DAY))

    def _tax(self, terms_hash: str) -> Tax:
        terms = self._terms[terms_hash]
        return Tax(terms.tax_rate, terms.tax_code)


def _joined(taxes: tuple[tuple[datetime, Tax], ...]) -> tuple[tuple[datetime, Tax], ...]:
    """Leave out the steps that change no tax."""
    return tuple(step for n, step in enumerate(taxes) if n == 0 or step[1] != taxes[n - 1][1])
