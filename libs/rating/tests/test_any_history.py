"""Whatever happens to a counter, in whatever order, its charges sum to the target of its total.

For each shape by itself, beside any included quantity, minimum, maximum and `flat_on_zero`
(docs/rules/pricing.md, The one formula).
"""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eb_rating import Counter, charge, from_plain, target, target_closed

from .histories import Book, History, Record, histories
from .rules import naive_round, naive_target
from .strategies import MODES, plans, quantities

every_shape = pytest.mark.parametrize("mode", MODES)


def book_of(history: History) -> Book:
    return Book([from_plain(plan) for plan in history.plans])


@every_shape
@given(data=st.data())
def test_charges_sum_to_the_target_after_any_split_order_repetition_void_and_rerating(
    mode: str, data: st.DataObject
) -> None:
    """Once the period is closed, wherever among the steps, to the closed one; taxes sum to the sum's tax."""
    history = data.draw(histories(mode))

    book = book_of(history).play(history.steps)

    due = naive_target(Fraction(history.quantity), history.events, history.last, closed=history.is_closed)
    taxed = naive_round(due * Fraction(history.tax_rate), book.terms.minor_digits, book.terms.rounding)
    assert Fraction(book.gross) == Fraction(book.counter.charged) == due
    assert Fraction(book.taxed) == taxed
    assert (book.counter.quantity, book.counter.events) == (history.quantity, history.events)
    assert len(book.charges) == len(history.records) + len(history.changes)
    shuffled = data.draw(st.permutations(list(history.records.values())))
    at_once = Record("all", history.quantity, history.events)
    assert book_of(history).play([*shuffled, *history.changes]).gross == book.gross
    assert book_of(history).play([at_once, *history.changes]).gross == book.gross


@every_shape
@given(data=st.data())
def test_usage_that_is_all_voided_costs_what_nothing_costs(mode: str, data: st.DataObject) -> None:
    history = data.draw(histories(mode))
    usage = [record for record in history.records.values() if record.quantity > 0]
    back = [record.void() for record in usage]

    book = book_of(history).play(data.draw(st.permutations([*usage, *back, *usage, *back])))

    assert book.gross == target(Decimal(0), 0, book.terms)
    assert (book.counter.quantity, book.counter.events) == (0, 0)


@every_shape
@given(data=st.data())
def test_a_minimum_and_a_maximum_bound_what_a_closed_period_costs(mode: str, data: st.DataObject) -> None:
    plan = data.draw(plans((mode,)))
    quantity, events = data.draw(quantities), data.draw(st.integers(0, 1000))
    terms = from_plain(plan)

    closed, running = target_closed(quantity, events, terms), target(quantity, events, terms)

    assert running <= closed
    if terms.maximum is not None:
        assert closed <= terms.rounder.quantize(terms.maximum, terms.unit)
    if terms.minimum is not None:
        assert closed >= terms.rounder.quantize(terms.minimum, terms.unit)
    else:
        assert closed == running


RISING = {
    "per_unit", "graduated", "package", "stairstep_cumulative", "percentage", "graduated_percentage",
}  # fmt: skip


def ascending(plan: dict[str, Any]) -> dict[str, Any]:
    """Let a shape's prices rise from tier to tier, for those that may fall otherwise."""
    tiers = plan["tiers"].get("tiers") or []
    for member in ("unit_price", "flat_fee"):
        prices = sorted((tier[member] for tier in tiers if member in tier), key=Decimal)
        for tier, price in zip(tiers, prices, strict=False):
            tier[member] = price
    return plan


@every_shape
@given(data=st.data())
def test_more_units_and_events_never_cost_less(mode: str, data: st.DataObject) -> None:
    """Volume and stairstep fall where a later tier is cheaper; with rising tiers they rise, too."""
    plan = data.draw(plans((mode,)))
    terms = from_plain(plan if mode in RISING else ascending(plan))
    if terms.flat_on_zero and mode in ("volume", "stairstep"):
        terms = from_plain(plan | {"tiers": plan["tiers"] | {"flat_on_zero": False}})
    fewer, more = sorted((data.draw(quantities), data.draw(quantities)))
    some, many = sorted((data.draw(st.integers(0, 50)), data.draw(st.integers(0, 50))))

    assert target(fewer, some, terms) <= target(more, many, terms)
    assert target_closed(fewer, some, terms) <= target_closed(more, many, terms)
    assert charge(Counter(fewer, some, target(fewer, some, terms)), more - fewer, many - some, terms)[1] >= 0
