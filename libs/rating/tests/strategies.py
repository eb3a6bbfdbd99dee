"""Any terms and any usage that the doors let in, for hypothesis.

What is made of many parts is read from a tape of bytes, which is one draw: drawing each number by itself costs more
than all that is then tested with it. Bytes of 0, and what is behind the end, are the simplest choices, so that
hypothesis makes examples small.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import cache
from typing import Any, TypeVar

from hypothesis import strategies as st

T = TypeVar("T")
MODES = (
    "per_unit", "graduated", "volume", "package", "stairstep", "stairstep_cumulative",
    "percentage", "graduated_percentage",
)  # fmt: skip
LENGTH = 600


class Tape:
    """Choices, read one after the other."""

    def __init__(self, choices: bytes) -> None:
        self._choices = iter(choices)

    def byte(self) -> int:
        return next(self._choices, 0)

    def integer(self, low: int, high: int) -> int:
        """Give a number of the range: one of the smallest or the largest, of few digits or of many."""
        span, size = high - low, self.byte() % 16
        if size == 15:
            return high - self.byte() % (span + 1)
        length = max(1, (size * span.bit_length() + 119) // 120)
        return low + int.from_bytes(bytes(self.byte() for _ in range(length)), "big") % (span + 1)

    def pick(self, options: Sequence[T]) -> T:
        return options[self.byte() % len(options)]

    def some(self, least: int, most: int, make: Callable[[], T]) -> list[T]:
        """Make a few, `least` to `most`."""
        return [make() for _ in range(self.integer(least, most))]

    def shuffled(self, things: Sequence[T]) -> list[T]:
        """Give them in another order; as they are where the choices are 0."""
        left = list(things)
        return [left.pop(self.byte() % len(left)) for _ in things]

    def number(self, digits: int, places: int, smallest: str = "0") -> str:
        """Give a plain decimal text, of three decimals at most or as fine as it may be."""
        fine = self.byte() % 2 == 1 or places < 3
        low = Decimal(smallest).scaleb(places if fine else 3)
        scale = places if fine else 3
        return format(
            Decimal(self.integer(max(int(low), int(low > 0)), 10 ** (digits + scale) - 1)).scaleb(-scale), "f"
        )

    def quantity(self) -> Decimal:
        return Decimal(self.number(18, 6, "0.000001"))


tapes = st.binary(min_size=LENGTH, max_size=LENGTH).map(Tape)
prices = tapes.map(lambda tape: price(tape))
quantities = tapes.map(Tape.quantity)


def price(tape: Tape) -> str:
    return tape.number(12, 18)


def rate(tape: Tape) -> str:
    return tape.number(1, 18)


def fee(tape: Tape) -> str:
    return tape.pick(("0", tape.number(6, 3)))


PRICED = {"unit_price": price, "rate": rate, "flat_fee": fee}


def tiers(tape: Tape, *members: str) -> list[dict[str, Any]]:
    ends = {Decimal(end) for end in tape.some(0, 5, lambda: tape.number(9, 6, "0.000001"))}
    bounds = [*(format(end, "f") for end in sorted(ends)), None]
    return [{"up_to": bound} | {name: PRICED[name](tape) for name in members} for bound in bounds]


def shape(tape: Tape, mode: str) -> dict[str, Any]:
    match mode:
        case "per_unit":
            made: dict[str, Any] = {"unit_price": price(tape)}
        case "package":
            made = {"package_size": tape.number(9, 6, "0.000001"), "package_price": price(tape)}
        case "percentage":
            made = {"rate": rate(tape), "fixed_fee": fee(tape)}
        case "graduated" | "volume":
            made = {"tiers": tiers(tape, "unit_price", "flat_fee")}
        case "graduated_percentage":
            made = {"tiers": tiers(tape, "rate", "flat_fee")}
        case _:
            made = {"tiers": tiers(tape, "flat_fee")}
    return {"mode": mode, **made, **limits(tape)}


def limits(tape: Tape) -> dict[str, Any]:
    """Give any of a minimum, a maximum that isn't below it, and `flat_on_zero`."""
    low, high = sorted((tape.number(6, 3), tape.number(9, 3)), key=Decimal)
    given = {"minimum": low, "maximum": high, "flat_on_zero": True}
    return {name: value for name, value in given.items() if tape.byte() % 2}


def plan(tape: Tape, modes: Sequence[str] = MODES) -> dict[str, Any]:
    """Make terms as plain data."""
    return {
        "currency": "AUD",
        "minor_digits": tape.pick((0, 2, 3)),
        "rounding": tape.pick(("half_up", "half_even")),
        "included_qty": tape.pick(("0", tape.number(9, 6))),
        "overage_price": "0",
        "tiers": shape(tape, tape.pick(modes)),
        "tax_rate": tape.pick((None, format(Decimal(tape.integer(0, 10**4)).scaleb(-4), "f"))),
    }


@cache
def plans(modes: tuple[str, ...] = MODES) -> st.SearchStrategy[dict[str, Any]]:
    """Terms as plain data, of any of these modes."""
    return tapes.map(lambda tape: plan(tape, modes))
