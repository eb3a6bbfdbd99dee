"""Currencies (ISO 4217, from the iso4217 package) and how amounts and quantities are written."""

from __future__ import annotations

from decimal import Decimal
from functools import cache

import iso4217


@cache
def minor_digits(currency: str) -> int:
    """Give the currency's decimals (JPY 0, AUD 2, KWD 3); ValueError if ISO 4217 doesn't list it as money."""
    try:
        exponent = iso4217.Currency(currency).exponent
    except ValueError:
        raise ValueError(f"{currency!r} is not an ISO 4217 currency") from None
    if exponent is None:
        raise ValueError(f"{currency!r} has no minor unit")
    return int(exponent)


def money_text(amount: Decimal, currency: str) -> str:
    """Write an amount with exactly its currency's decimals; ValueError if it has more than those."""
    exact = amount.quantize(Decimal(1).scaleb(-minor_digits(currency)))
    if exact != amount:
        raise ValueError(f"{amount} is finer than the minor unit of {currency}")
    return format(exact + 0, "f")


def plain_text(number: Decimal) -> str:
    """Write a quantity or price without exponent and without trailing zeros."""
    text = format(number, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text
