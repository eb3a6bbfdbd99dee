"""Caps and credits on the way of charges, without a database: sums hold for any usage, order, voids and caps."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from eb_contracts.ids import new_id
from eb_pricing.domain.counters import CounterKey, Rated
from eb_pricing.domain.credits import pay_all
from eb_pricing.domain.guardrails import BudgetSpend, Guard
from eb_pricing.domain.rating import Priceable, rate_all
from eb_rating import target
from eb_rating.caps import Spend
from eb_rating.credits import Drawer, Grant, in_order

from .factories import PROJECT_ID, usage
from .test_counters import KEY, NOW, ORG_ID, fresh, priced_by, schedules, taxed_by_time

ZERO = Decimal(0)
OTHER = new_id()
money = st.decimals("0", "30", places=2)
steps = st.lists(
    st.tuples(st.sampled_from([PROJECT_ID, OTHER]), st.integers(1, 60), money, money), min_size=1, max_size=12
)


def budget(project_id: object, cap: Decimal, *, hard: bool = True) -> BudgetSpend:
    made = BudgetSpend(new_id(), ORG_ID, None, KEY.period, "AUD", cap, hard, (50, 100), Spend(), ZERO)
    return made._replace(project_id=project_id)


@st.composite
def guards(draw: st.DrawFn) -> Guard:
    budgets = (
        budget(PROJECT_ID, draw(money), hard=draw(st.booleans())),
        budget(None, draw(money), hard=draw(st.booleans())),
    )
    grants = [
        Grant(
            str(n),
            "AUD",
            draw(st.decimals("0.01", "9", places=2)),
            ZERO,
            draw(st.integers(0, 1)),
            NOW,
            draw(st.sampled_from([None, NOW, NOW + timedelta(days=1)])),
            draw(st.sampled_from([None, frozenset({"action"}), frozenset({"hosting"})])),
        )
        for n in range(draw(st.integers(0, 3)))
    ]
    return Guard(budgets, tuple(in_order(grants)))


def drawn_by(rated: Sequence[Rated]) -> dict[Drawer, Decimal]:
    """Sum what charges drew, as the store does."""
    drawn: dict[Drawer, Decimal] = {}
    for one in rated:
        for draw in one.settled.draws if one.settled else ():
            drawer = Drawer(one.charge.period, one.charge.sku, draw.name)
            drawn[drawer] = drawn.get(drawer, ZERO) + draw.amount
    return drawn


def recapped(guard: Guard, caps: Sequence[Decimal]) -> Guard:
    changed = zip(guard.budgets, caps, strict=True)
    return guard._replace(budgets=tuple(one._replace(amount=cap) for one, cap in changed))


@given(
    guard=guards(),
    used=steps,
    voids=st.lists(st.integers(0, 11), max_size=6),
    schedule=schedules,
    data=st.data(),
)
def test_whatever_comes_is_conserved(
    guard: Guard,
    used: list[tuple[object, int, Decimal, Decimal]],
    voids: list[int],
    schedule: list[tuple[int, str | None]],
    data: st.DataObject,
) -> None:
    priced = priced_by("0.10", *schedule)
    undone = [(used[n][0], -used[n][1], *used[n][2:]) for n in sorted(set(voids)) if n < len(used)]
    counters, state, rated = {KEY: fresh()}, {ORG_ID: guard}, list[Rated]()
    for project_id, quantity, *caps in data.draw(st.permutations([*used, *undone])):
        state[ORG_ID] = recapped(state[ORG_ID], caps)
        record = usage(ORG_ID, str(quantity), project_id=project_id, events=1 if quantity > 0 else -1)
        some, _ = rate_all(counters, [Priceable(KEY, priced, [record])], NOW, state)
        rated += pay_all(some, state, {ORG_ID: drawn_by(rated)}, NOW)

    charges = [one.charge for one in rated]
    gross = sum((one.amount_gross for one in charges), ZERO)
    waived = sum((one.waived_amount for one in charges), ZERO)
    credit = sum((one.credit_applied for one in charges), ZERO)
    counter, after = counters[KEY], state[ORG_ID]
    assert gross + waived == counter.sums.charged
    assert counter.sums.charged == target(counter.sums.quantity, counter.sums.events, priced.terms)
    assert counter.waived == waived
    assert [one.charged for one in after.budgets] == [
        sum((one.amount_gross for one in charges if one.project_id == PROJECT_ID), ZERO),
        gross,
    ]
    assert after.budgets[1].spend.granted == gross
    assert all(abs(one.credit_applied) <= abs(one.amount_gross) for one in charges)
    assert all(one.credit_applied * one.amount_gross >= ZERO for one in charges)
    assert credit == sum((grant.drawn for grant in after.grants), ZERO)
    assert taxed_by_time(rated, priced) == sum((one.tax_amount for one in charges), ZERO)


@given(cap=money, used=steps, data=st.data())
def test_under_one_cap_the_sum_is_the_same_in_any_order_and_nothing_is_negative(
    cap: Decimal, used: list[tuple[object, int, Decimal, Decimal]], data: st.DataObject
) -> None:
    priced = priced_by("0.10")
    records = [usage(ORG_ID, str(quantity)) for _, quantity, *_ in used]
    sums = []
    for order in (records, data.draw(st.permutations(records))):
        counters, state = {KEY: fresh()}, {ORG_ID: Guard((budget(None, cap),))}
        rated, _ = rate_all(counters, [Priceable(KEY, priced, list(order))], NOW, state)
        assert all(one.charge.amount_gross >= ZERO and one.charge.waived_amount >= ZERO for one in rated)
        sums.append(sum((one.charge.amount_gross for one in rated), ZERO))

    assert sums == [min(cap, counters[KEY].sums.charged)] * 2


def test_another_period_and_another_currency_meet_no_cap() -> None:
    priced = priced_by("1")
    elsewhere = (
        budget(None, ZERO)._replace(period="2026-10"),
        budget(None, ZERO)._replace(currency="EUR"),
        budget(OTHER, ZERO),
    )
    counters = {CounterKey(*KEY): fresh()}

    rated, _ = rate_all(
        counters, [Priceable(KEY, priced, [usage(ORG_ID, "5")])], NOW, {ORG_ID: Guard(elsewhere)}
    )

    assert [one.charge.amount_gross for one in rated] == [Decimal(5)]


def test_thresholds_are_reached_by_what_was_charged() -> None:
    one = budget(None, Decimal(10))._replace(charged=Decimal("5.00"))

    assert one.newly_reached() == (50,)
    assert one._replace(announced=(50,)).newly_reached() == ()
    assert one._replace(amount=ZERO, charged=ZERO).newly_reached() == ()
    assert one._replace(amount=ZERO).newly_reached() == (50, 100)
