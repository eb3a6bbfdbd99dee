"""Worked sums, each redone by the library: a file of them, and the table in docs/pricing.md."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from eb_rating import Counter, Terms, breakdown, charge, from_plain, target, target_closed

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


def table_rows() -> list[list[str]]:
    lines = PAGE.read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return [row for row in rows if row[1].startswith("`{")]


@pytest.mark.parametrize("row", table_rows(), ids=lambda row: f"{row[0]} {row[3]}")
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


def test_the_page_has_an_example_of_every_shape() -> None:
    shapes = {json.loads(row[1].strip("`"))["mode"] for row in table_rows()}

    assert shapes == {
        "per_unit", "graduated", "volume", "package", "stairstep", "stairstep_cumulative",
        "percentage", "graduated_percentage",
    }  # fmt: skip


def test_terms_refuse_a_float() -> None:
    with pytest.raises(TypeError):
        terms_of({"included_qty": 0.1, "overage_price": "1"}, "USD")


def test_the_target_of_nothing_is_a_rounded_zero() -> None:
    terms = terms_of({"included_qty": "0", "overage_price": "0.001"}, "KWD")

    assert str(target(Decimal(0), 0, terms)) == "0.000"
