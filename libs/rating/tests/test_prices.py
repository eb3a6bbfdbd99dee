"""What a process remembers of prices (docs/rules/pricing.md, Which terms hold)."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from eb_rating.prices import OrgPrices, PriceBook, Priced, Tax, TermsMissing

NOVEMBER = datetime(2026, 11, 1, tzinfo=UTC)


def assignment(since: datetime = NOVEMBER, **hashes: str) -> dict[str, Any]:
    return {
        "effective_at": since,
        "plan_id": "p",
        "plan_version": 1,
        "currency": "AUD",
        "time_zone": "UTC",
        "hashes": hashes,
        "retail_key": "AUD/AU",
    }


def body(price: str = "1", tax_rate: str | None = None) -> dict[str, Any]:
    tax_code = tax_rate and "GST"
    plain = {"currency": "AUD", "minor_digits": 2, "included_qty": "0", "overage_price": price}
    return plain | {"tax_rate": tax_rate, "tax_code": tax_code}


def prices_of(book: PriceBook, org_id: str = "org") -> OrgPrices:
    return book.prices_of([org_id])[org_id]


def test_terms_that_are_named_but_not_here_are_missing_until_they_come() -> None:
    book = PriceBook()
    book.learn_orgs({"org": (1, [assignment(sms="a")])})
    prices = prices_of(book)
    assert prices.priced("sms", "2026-11") == TermsMissing(("a",))

    book.learn_terms({"a": body("3")})

    priced = prices.priced("sms", "2026-11")
    assert isinstance(priced, Priced)
    assert priced.terms.tiers[0].price == 3
    assert prices.priced("fax", "2026-11") is None


def test_only_what_is_in_another_version_is_to_be_told_again() -> None:
    book = PriceBook()
    book.learn_orgs({"one": (1, [assignment()]), "two": (7, [assignment()])})

    assert book.outdated_orgs({"one": 1, "two": 8, "three": 1}) == ["two", "three"]


def test_other_retail_defaults_make_everything_be_told_again() -> None:
    book = PriceBook()
    book.learn_orgs({"org": (1, [assignment()])})
    retail = {"AUD/AU": (2, [{"effective_at": NOVEMBER, "hashes": {"sms": "r"}}])}
    assert not book.is_retail_current({"AUD/AU": 2})

    book.learn_retail(retail)

    assert book.is_retail_current({"AUD/AU": 2})
    assert book.prices_of(["org"]) == {}
    book.learn_orgs({"org": (1, [assignment()])})
    book.learn_terms({"r": body()})
    book.learn_retail(retail)
    priced = prices_of(book).priced("sms", "2026-11")
    assert isinstance(priced, Priced)
    assert priced.retail_key == "AUD/AU"


def test_tax_follows_the_steps_within_a_period_and_price_does_not() -> None:
    book = PriceBook()
    mid = datetime(2026, 11, 10, 8, 30, tzinfo=UTC)
    book.learn_terms({"a": body(), "b": body(tax_rate="0.1"), "c": body(tax_rate="0.2")})
    steps = [
        assignment(sms="a"),
        assignment(mid, sms="b"),
        assignment(datetime(2026, 12, 1, tzinfo=UTC), sms="c"),
    ]
    book.learn_orgs({"org": (1, steps)})

    november = prices_of(book).priced("sms", "2026-11")
    december = prices_of(book).priced("sms", "2026-12")

    assert isinstance(november, Priced)
    assert isinstance(december, Priced)
    assert november.terms_hash == "b"
    assert november.tax_at(NOVEMBER) == Tax(None, None)
    assert november.tax_at(mid) == Tax(Decimal("0.1"), "GST")
    assert december.terms_hash == "c"
    assert (november.start(), november.end()) == (NOVEMBER, datetime(2026, 12, 1, tzinfo=UTC))


def test_a_full_memory_forgets_and_looks_up_again() -> None:
    book = PriceBook()
    book.learn_terms({"a": body()})
    book.learn_orgs({"org": (1, [assignment(**{f"sku{n}": "a" for n in range(5000)})])})
    prices = prices_of(book)

    found = [prices.priced(f"sku{n}", "2026-11") for n in [*range(5000), 0]]

    assert all(isinstance(one, Priced) for one in found)
