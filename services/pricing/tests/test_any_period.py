"""Whatever happens to a counter, in whatever order: what was due is what its terms and its base fees say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from eb_contracts.ids import new_id
from eb_pricing.domain.adjusting import BY_CLOSE, BY_TERMS, adjust
from eb_pricing.domain.base_fees import Target, bring, fee_id
from eb_pricing.domain.counters import Counter, CounterKey, Rated
from eb_pricing.domain.rating import OneOff, rate_one_off, rate_usage
from eb_rating import BaseFee, Terms, base_fees, from_plain, target, target_closed, tax_target
from eb_rating import Counter as Sums
from eb_rating.prices import OrgPrices, Priced
from eb_rating.resolve import OrgTerms, org_terms_from_plain

from .factories import AT, usage

ORG_ID = new_id()
KEY = CounterKey(ORG_ID, "site", "2026-11")
START = datetime(2026, 10, 31, 13, tzinfo=UTC)
CURRENCIES = {"AUD": 2, "JPY": 0, "KWD": 3}


def terms_of(price: str, minimum: str, tax: str | None, currency: str) -> Terms:
    return from_plain(
        {
            "sku_type": "hosting",
            "currency": currency,
            "minor_digits": CURRENCIES[currency],
            "included_qty": "1",
            "overage_price": "0",
            "tiers": {"mode": "per_unit", "unit_price": price, "minimum": minimum, "maximum": "500"},
            "tax_code": "GST",
            "tax_rate": tax,
        }
    )


all_terms = st.builds(
    terms_of,
    st.sampled_from(("0.333", "7", "30.05")),
    st.sampled_from(("0", "5", "99.5")),
    st.sampled_from((None, "0.1")),
    st.sampled_from(tuple(CURRENCIES)),
)
instants = st.integers(0, 29 * 24 * 60).map(lambda n: START + timedelta(minutes=n))
uses = st.tuples(st.sampled_from(("use", "void", "one_off")), st.decimals("0.001", "99", places=3))
steps = st.one_of(
    uses,
    st.tuples(st.sampled_from(("close", "rerate", "begin")), st.just(Decimal(0))),
    st.tuples(st.just("change"), all_terms),
)


class Story:
    """A counter, the terms it has, and all its charges."""

    def __init__(self, first: Terms, since: datetime, end: datetime | None) -> None:
        self.spans, self.counter = (since, end), Counter(KEY, first.currency, Sums(), None, None, 0)
        self.rated: list[Rated] = []
        self.is_closed = False
        self.change(first)

    def change(self, terms: Terms) -> None:
        """Have other terms, from the same instant on."""
        since, end = self.spans
        plain: list[dict[str, Any]] = [_assigned(since, terms.currency, {"site": "now"})]
        if end is not None and end > since:
            plain.append(_assigned(end, terms.currency, {}))
        org_terms: OrgTerms = org_terms_from_plain(plain)
        found = OrgPrices(org_terms, {}, {"now": terms}).priced("site", KEY.period)
        assert isinstance(found, Priced)
        self.priced = found._replace(terms_hash=str(id(terms)))
        self.fees: tuple[BaseFee, ...] = tuple(
            fee._replace(terms_hash=self.priced.terms_hash)
            for fee in base_fees(org_terms, {"now": terms}, KEY.period)
        )

    def step(self, what: str, value: Any) -> None:
        """Let something happen; what is closed stays closed."""
        counter = self.counter
        self.is_closed |= what == "close"
        if what == "change":
            self.change(value)
        elif what in ("use", "void", "one_off"):
            self._use(what, value)
        elif what in ("close", "rerate", "begin") and not (what == "begin" and counter.is_closed):
            closing = counter._replace(is_closed=counter.is_closed or what == "close")
            made = {one.charge.charge_id for one in self.rated}
            cause = BY_CLOSE if what == "close" else BY_TERMS
            if not (what == "close" and counter.is_closed):
                moved, _, rated = bring(closing, Target(self.priced, self.fees), made, AT, cause=cause)
                self._keep(moved, rated)

    def _use(self, what: str, quantity: Decimal) -> None:
        counter, priced = self.counter, self.priced
        if counter.is_closed and counter.version:
            if counter.terms_hash != priced.terms_hash:
                return
        elif not counter.is_rated_by(priced):
            counter, _, rated = adjust(counter, priced, AT)
            self._keep(counter, rated)
        if what == "one_off":
            one_off = OneOff(str(new_id()), ORG_ID, None, "site", quantity, AT)
            moved, _, charges = rate_one_off(counter, one_off, priced, "user:x", AT)
            self._keep(moved, charges)
        else:
            sign = 1 if what == "use" else -1
            record = usage(ORG_ID, str(sign * quantity), events=sign, sku="site")
            moved, _, charge = rate_usage(counter, record, priced)
            self._keep(moved, [charge])

    def _keep(self, counter: Counter, rated: list[Rated]) -> None:
        assert counter.is_closed == self.is_closed
        self.counter = counter
        self.rated += rated


def _assigned(since: datetime, currency: str, hashes: dict[str, str]) -> dict[str, Any]:
    return {
        "effective_at": since,
        "plan_id": ORG_ID,
        "plan_version": 1,
        "currency": currency,
        "time_zone": "Australia/Sydney",
        "hashes": hashes,
        "retail_key": "x",
    }


@given(all_terms, instants, st.none() | instants, st.lists(steps, max_size=12), st.booleans())
def test_any_story_of_a_period_ends_at_its_target(
    first: Terms, since: datetime, end: datetime | None, happened: list[tuple[str, Any]], closes: bool
) -> None:
    story = Story(first, since, end)
    for what, value in happened:
        story.step(what, value)
    if closes:
        story.step("close", None)
    story.step("rerate", None)

    counter, priced, charges = story.counter, story.priced, [one.charge for one in story.rated]
    sums, terms = counter.sums, priced.terms
    if counter.is_closed:
        assert sums.charged == target_closed(sums.quantity, sums.events, terms)
    elif sums != Sums():
        assert sums.charged == target(sums.quantity, sums.events, terms)
    assert counter.base == sum(fee.amount for fee in story.fees)
    in_currency = [one for one in charges if one.currency == terms.currency]
    assert sum(one.amount_gross for one in in_currency) == sums.charged + counter.base
    elsewhere = [one for one in charges if one.currency != terms.currency]
    assert sum(one.amount_gross for one in elsewhere) == sum(one.tax_amount for one in elsewhere) == 0
    assert [one.counter.version for one in charges] == list(range(1, len(charges) + 1))
    assert sum(one.quantity for one in charges if one.kind != "base") == sums.quantity
    made = [one.charge_id for one in charges if one.kind == "base"]
    assert len(made) == len(set(made))
    assert set(made) <= {fee_id(ORG_ID, fee) for fee in story.fees}


@given(
    all_terms,
    st.lists(
        st.tuples(st.sampled_from(("use", "void", "one_off")), st.decimals("0.001", "99", places=3)),
        max_size=10,
    ),
    st.integers(0, 10),
)
def test_when_a_period_closes_changes_no_sum(
    terms: Terms, happened: list[tuple[str, Decimal]], place: int
) -> None:
    sums = []
    for closes_at in (min(place, len(happened)), len(happened)):
        story = Story(terms, START, None)
        for n, (what, value) in enumerate([*happened, ("begin", Decimal(0))]):
            if n == closes_at:
                story.step("close", None)
            story.step(what, value)
        gross = sum(one.charge.amount_gross for one in story.rated)
        sums.append((gross, sum(one.charge.tax_amount for one in story.rated)))
        assert sums[-1][1] == tax_target(gross, terms, terms.tax_rate)

    assert sums[0] == sums[1]
