"""Exact decimal arithmetic: nothing is rounded but by `round_money`, in one place."""

from __future__ import annotations

from decimal import (
    ROUND_HALF_EVEN,
    ROUND_HALF_UP,
    Clamped,
    Context,
    Decimal,
    DivisionByZero,
    Inexact,
    InvalidOperation,
    Overflow,
    Underflow,
)
from typing import Literal

Rounding = Literal["half_up", "half_even"]

ZERO = Decimal(0)
DIGITS = 200
"""Enough for any product of what the doors let in; a result that needs more raises decimal.Inexact."""

EXACT = Context(prec=DIGITS, traps=[Inexact, InvalidOperation, DivisionByZero, Overflow, Underflow, Clamped])
ROUNDERS = {
    "half_up": Context(prec=DIGITS, rounding=ROUND_HALF_UP, traps=[InvalidOperation]),
    "half_even": Context(prec=DIGITS, rounding=ROUND_HALF_EVEN, traps=[InvalidOperation]),
}


def exact_decimal(value: Decimal | str | int) -> Decimal:
    """Read an exact number; TypeError for a float, ValueError for what is no finite number."""
    if isinstance(value, float):
        raise TypeError("a float is no exact number")
    number = Decimal(value)
    if not number.is_finite():
        raise ValueError(f"{value} is not finite")
    return number


def ceil_div(amount: Decimal, size: Decimal) -> Decimal:
    """Give how many packages of `size` hold `amount` (both positive), the last one begun counted whole."""
    whole = EXACT.divide_int(amount, size)
    return whole if EXACT.multiply(whole, size) == amount else EXACT.add(whole, 1)
