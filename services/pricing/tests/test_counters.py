"""Counters without a database: sums hold for any usage, terms and tax rates, in any order."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from eb_contracts.ids import new_id
from eb_contracts.metering import UsageRecord
from eb_pricing.domain.adjusting import adjust, adjustment_time, needs_new_taxes
from eb_pricing.domain.counters import Counter, CounterKey, Rated
from eb_pricing.domain.rating import Priceable, rate_all
from eb_rating import Counter as Sums
from eb_rating import from_plain, target, tax_target
from eb_rating.prices import Priced, Tax
from eb_rating.resolve import org_terms_from_plain

from .factories import NOVEMBER, assigned, terms, usage

ORG_ID = new_id()
KEY = CounterKey(ORG_ID, "sms", "2026-11")
NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
ZERO = Decimal(0)
RATES = (None, "0.05", "0.1", "0.19")


def priced_by(price: str, *taxes: tuple[int, str | None]) -> Priced:
    """Terms of a price per unit, with the tax rates by the day of November from which they hold."""
    defined = terms(overage_price=price)
    (assignment,) = org_terms_from_plain([assigned(defined).model_dump()]).assigned
    steps = tuple(
        (NOVEMBER + timedelta(days=day), Tax(Decimal(rate) if rate else None, "GST" if rate else None))
        for day, rate in taxes or [(0, None)]
    )
    found = from_plain(defined.body.model_dump())
    return Priced("2026-11", defined.terms_hash, found, assignment, None, steps)


def fresh() -> Counter:
    return Counter(KEY, "AUD", Sums(), None, None, 0)


def on_day(day: int, quantity: str) -> UsageRecord:
    events = -1 if quantity.startswith("-") else 1
    return usage(ORG_ID, quantity, minute=NOVEMBER + timedelta(days=day, hours=1), events=events)


def rated(counter: Counter, priced: Priced, records: Sequence[UsageRecord]) -> tuple[Counter, list[Rated]]:
    counters = {KEY: counter}
    charges, refused = rate_all(counters, [Priceable(KEY, priced, list(records))], NOW, {})
    assert refused == []
    return counters[KEY], charges


def taxed_by_time(charges: Sequence[Rated], priced: Priced) -> Decimal:
    """Sum the tax of charges, each amount at the rate in force at its own time."""
    gross: dict[Decimal | None, Decimal] = {}
    for one in charges:
        rate = priced.tax_at(one.charge.time).rate
        gross[rate] = gross.get(rate, ZERO) + one.charge.amount_gross
    return sum((tax_target(amount, priced.terms, rate) for rate, amount in gross.items()), ZERO)


prices = st.decimals("0", "3", places=4).map(str)
tax_steps = st.lists(
    st.tuples(st.integers(1, 28), st.sampled_from(RATES)), max_size=3, unique_by=lambda s: s[0]
)
schedules = st.tuples(st.sampled_from(RATES), tax_steps).map(lambda two: [(0, two[0]), *sorted(two[1])])
records = st.lists(
    st.builds(on_day, st.integers(0, 29), st.decimals("-90", "300", places=2).map(str)),
    min_size=1,
    max_size=10,
)


@given(first=prices, second=prices, early=schedules, late=schedules, used=records, more=records)
def test_amounts_and_taxes_end_where_they_would_had_all_been_known_before(
    first: str,
    second: str,
    early: list[tuple[int, str | None]],
    late: list[tuple[int, str | None]],
    used: list[UsageRecord],
    more: list[UsageRecord],
) -> None:
    before, after = priced_by(first, *early), priced_by(second, *late)
    counter, charges = rated(fresh(), before, used)

    charged_at = [(one.charge.time, one.charge.amount_gross) for one in charges]
    counter, _, adjusting = adjust(counter, after, NOW, None, charged_at)
    counter, later = rated(counter, after, more)

    everything = [*charges, *adjusting, *later]
    total = sum((one.charge.amount_gross for one in everything), ZERO)
    assert len(adjusting) <= 1
    assert total == counter.sums.charged == target(counter.sums.quantity, counter.sums.events, after.terms)
    assert sum((one.charge.tax_amount for one in everything), ZERO) == taxed_by_time(everything, after)
    assert [one.charge.counter.version for one in everything] == list(range(1, len(everything) + 1))


@given(price=prices, schedule=schedules, used=records, data=st.data())
def test_whatever_the_order_the_amount_is_the_same_and_the_tax_is_the_sums_own(
    price: str, schedule: list[tuple[int, str | None]], used: list[UsageRecord], data: st.DataObject
) -> None:
    priced = priced_by(price, *schedule)
    shuffled = data.draw(st.permutations(used))

    (one, charges), (other, others) = rated(fresh(), priced, used), rated(fresh(), priced, shuffled)

    assert one.sums == other.sums
    assert taxed_by_time(charges, priced) == sum((c.charge.tax_amount for c in charges), ZERO)
    assert taxed_by_time(others, priced) == sum((c.charge.tax_amount for c in others), ZERO)


def test_an_adjustment_stays_inside_its_period() -> None:
    priced = priced_by("1")
    december = datetime(2026, 11, 30, 13, tzinfo=UTC)

    assert adjustment_time(priced, NOW) == NOW
    assert adjustment_time(priced, december + timedelta(days=9)) == december - timedelta(minutes=1)
    assert adjustment_time(priced, NOVEMBER - timedelta(minutes=3)) == NOVEMBER


def test_terms_that_change_no_amount_make_no_charge() -> None:
    counter, _ = rated(fresh(), priced_by("1"), [on_day(3, "5")])

    after, _, adjusting = adjust(counter, priced_by("1.00"), NOW)

    assert adjusting == []
    assert after.version == counter.version
    assert after.is_rated_by(priced_by("1.00"))


def test_only_counters_that_may_have_been_taxed_otherwise_are_sorted_out_again() -> None:
    untaxed, _ = rated(fresh(), priced_by("1"), [on_day(3, "5")])
    taxed, _ = rated(fresh(), priced_by("1", (0, "0.1")), [on_day(3, "5")])

    assert not needs_new_taxes(untaxed, priced_by("2"))
    assert needs_new_taxes(untaxed, priced_by("1", (0, "0.1")))
    assert not needs_new_taxes(taxed, priced_by("2", (0, "0.1")))
    assert needs_new_taxes(taxed, priced_by("1", (0, "0.1"), (9, "0.2")))
