"""Worked sums, each redone by the library: a file of them, and the table in docs/pricing.md."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from eb_rating import Counter, Terms, breakdown, charge, from_plain, target, target_closed, tax_target
from eb_rating.caps import Spend, clamp
from eb_rating.credits import Due, Grant, Purse, pay

from .rules import base_fee
from .strategies import MODES

DIGITS = {"JPY": 0, "USD": 2, "EUR": 2, "AUD": 2, "KWD": 3}
EXAMPLES = json.loads((Path(__file__).parent / "worked_examples.json").read_text())
PAGE = Path(__file__).parents[3] / "docs" / "pricing.md"


def terms_of(plan: dict[str, Any], currency: str) -> Terms:
    return from_plain({**plan, "currency": currency, "minor_digits": DIGITS[currency]})


def events_in(quantity: str) -> int:
    return 0 if quantity == "0" else -1 if quantity.startswith("-") else 1


def charged_for(terms: Terms, quantities: list[str]) -> tuple[Counter, Decimal]:
    counter, charged = Counter(), Decimal(0)
    for quantity in quantities or ["0"]:
        counter, due = charge(counter, Decimal(quantity), events_in(quantity), terms)
        charged += due
    return counter, charged


@pytest.mark.parametrize("example", EXAMPLES, ids=[example["name"] for example in EXAMPLES])
def test_a_worked_example_comes_out_to_the_cent(example: dict[str, Any]) -> None:
    open_total = closed_total = Decimal(0)
    for line in example["lines"]:
        terms = terms_of(line["terms"], example["currency"])
        counter, charged = charged_for(terms, line["quantities"])
        open_total += charged
        closed_total += target_closed(counter.quantity, counter.events, terms)

    if "open_total" in example:
        assert str(open_total) == example["open_total"]
    if "closed_total" in example:
        assert str(closed_total) == example["closed_total"]


def table_rows(first: str) -> list[list[str]]:
    """Give the rows of the page's table whose first column is called so."""
    lines = PAGE.read_text().splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith(f"| {first} |"))
    table = itertools.takewhile(lambda line: line.startswith("| "), lines[start + 2 :])
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def every_row(first: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", table_rows(first), ids=lambda row: f"{row[0]} {row[3]}")


def amounts(cell: str) -> list[Decimal]:
    return [Decimal(amount) for amount in cell.split(" + ")]


def plain(found: list[Decimal], terms: Terms) -> str:
    return " + ".join(str(terms.rounder.quantize(amount, terms.unit) + 0) for amount in found)


def per_unit(price: str, currency: str, **more: Any) -> Terms:
    return terms_of({"included_qty": "0", "overage_price": price} | more, currency)


@every_row("Shape")
def test_a_row_of_the_page_comes_out_to_the_cent(row: list[str]) -> None:
    what, shape, currency, quantities, open_total, closed_total = row
    plan = {"included_qty": "0", "overage_price": "0", "tiers": json.loads(shape.strip("`"))}
    plan["included_qty"] = plan["tiers"].pop("included_qty", "0")
    terms = terms_of(plan, currency)

    counter, charged = charged_for(terms, [] if quantities == "none" else quantities.split(" + "))

    assert what.startswith(terms.mode)
    assert str(charged) == open_total
    assert str(target_closed(counter.quantity, counter.events, terms)) == closed_total
    assert str(breakdown(counter.quantity, counter.events, terms).amount) == open_total


def test_the_page_has_examples_of_every_shape_limit_and_number_of_decimals() -> None:
    rows = [(json.loads(row[1].strip("`")), DIGITS[row[2]]) for row in table_rows("Shape")]

    for mode in MODES:
        of_mode = [(shape, digits) for shape, digits in rows if shape["mode"] == mode]
        members = {member for shape, _ in of_mode for member in shape}
        assert members >= {"minimum", "maximum"}, mode
        assert "flat_on_zero" in members or "tiers" not in members, mode
    assert {shape["mode"] for shape, _ in rows} == set(MODES)
    assert {digits for _, digits in rows} == {0, 2, 3}


@every_row("Rate")
def test_a_row_of_taxes_comes_out_to_the_cent(row: list[str]) -> None:
    rate, currency, charges, taxes, total = row
    terms, gross, taxed = per_unit("0", currency), Decimal(0), [Decimal(0)]

    for one in amounts(charges):
        gross += one
        taxed.append(tax_target(gross, terms, Decimal(rate)))

    assert plain([after - before for before, after in itertools.pairwise(taxed)], terms) == taxes
    assert plain(taxed[-1:], terms) == total


@every_row("Fee")
def test_a_row_of_base_fees_comes_out_to_the_cent(row: list[str]) -> None:
    fee, currency, month, zone_name, begins, ends, amount = row
    zone = ZoneInfo(zone_name)
    since, until = (
        None if day in ("before", "after") else datetime.fromisoformat(day).replace(tzinfo=zone)
        for day in (begins, ends)
    )

    found = base_fee(per_unit(fee, currency, sku_type="hosting"), month, zone, since, until)

    assert str(found) == amount


@every_row("Cap")
def test_a_row_of_caps_comes_out_to_the_cent(row: list[str]) -> None:
    cap, currency, due, charged, waived = row
    terms, spend, granted = per_unit("0", currency), Spend(), []

    for one in amounts(due):
        spend, passed = clamp(spend, one, Decimal(cap))
        granted.append(passed)

    assert plain(granted, terms) == charged
    assert plain([one - passed for one, passed in zip(amounts(due), granted, strict=True)], terms) == waived


@every_row("Credits")
def test_a_row_of_credits_comes_out_to_the_cent(row: list[str]) -> None:
    prepaid, currency, charges, paid, left = row
    now = datetime(2026, 11, 1, tzinfo=UTC)
    grants = [
        Grant(str(priority), currency, amount, Decimal(0), priority, now)
        for priority, amount in enumerate(amounts(prepaid))
    ]
    purse, drawn = Purse(tuple(grants), {}), []

    for one in amounts(charges):
        purse, draws = pay(purse, Due("2026-11", "sms", "action", currency, one), now)
        drawn.append(sum((draw.amount for draw in draws), Decimal(0)))

    assert plain(drawn, per_unit("0", currency)) == paid
    assert [grant.remaining for grant in purse.grants] == amounts(left)


def test_terms_refuse_a_float() -> None:
    with pytest.raises(TypeError):
        terms_of({"included_qty": 0.1, "overage_price": "1"}, "USD")


def test_the_target_of_nothing_is_a_rounded_zero() -> None:
    terms = terms_of({"included_qty": "0", "overage_price": "0.001"}, "KWD")

    assert str(target(Decimal(0), 0, terms)) == "0.000"
