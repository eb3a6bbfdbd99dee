"""How many rates a second the library makes on one core: a graduated price of five tiers, one event at a time.

Prints one JSON line. `charge` counts and charges each event; `explain` tells one amount tier by tier;
the raw ceiling is the same loop around one product of two Decimals.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from decimal import Decimal

from common import record

from eb_rating import Counter, Terms, breakdown, charge, from_plain

RATES = 300_000
ROUNDS = 5


def five_tiers() -> Terms:
    """A price whose bounds lie where the run passes through all of them."""
    bounds = ("10000", "50000", "150000", "400000", None)
    prices = ("0.10", "0.08", "0.0625", "0.05", "0.041")
    tiers = [{"up_to": bound, "unit_price": price} for bound, price in zip(bounds, prices, strict=True)]
    shape = {"mode": "graduated", "tiers": tiers}
    return from_plain(
        {
            "currency": "AUD",
            "minor_digits": 2,
            "included_qty": "100",
            "overage_price": "0",
            "tiers": shape,
        }
    )


def charge_all(terms: Terms, count: int) -> None:
    """Rate `count` events of unlike quantities into one counter."""
    quantities = [Decimal(n % 7 + 1) + Decimal("0.25") for n in range(64)]
    counter = Counter()
    for n in range(count):
        counter, _ = charge(counter, quantities[n & 63], 1, terms)


def multiply_all(count: int) -> None:
    """Do nothing but one exact product per round."""
    one, other = Decimal("12345.678"), Decimal("0.0625")
    for _ in range(count):
        _product = one * other


def explain_all(terms: Terms, count: int) -> None:
    """Tell the same amount again and again."""
    for _ in range(count):
        breakdown(Decimal(250_000), 1, terms)


def best_rate(work: Callable[[], None], count: int) -> int:
    """Give the best of some rounds, in calls per second."""
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return round(count / min(seconds))


def main() -> int:
    """Measure and print; exit 1 if the first bar of 100,000 rates a second isn't met."""
    terms = five_tiers()
    rates = best_rate(lambda: charge_all(terms, RATES), RATES)
    ceiling = best_rate(lambda: multiply_all(RATES), RATES)
    result = {
        "rates_per_s": rates,
        "explains_per_s": best_rate(lambda: explain_all(terms, 20_000), 20_000),
        "decimal_products_per_s": ceiling,
        "ratio": round(rates / ceiling, 3),
        "tiers": len(terms.tiers),
    }
    record("rating", result)
    return 0 if rates >= 100_000 else 1


if __name__ == "__main__":
    sys.exit(main())
