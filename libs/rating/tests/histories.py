"""What may happen to one counter, for hypothesis: usage, voids, repetitions and changes of terms, in any order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cache, reduce
from typing import Any

from hypothesis import strategies as st

from eb_rating import Counter, Terms, charge, target_closed, tax_target
from eb_rating.exact import EXACT

from .strategies import Tape, plan, tapes

ZERO = Decimal(0)


def total(amounts: Iterable[Decimal]) -> Decimal:
    """Sum exactly; sum() rounds to 28 digits, which the largest prices pass."""
    return reduce(EXACT.add, amounts, ZERO)


@dataclass(frozen=True)
class Record:
    """Usage that is delivered under an id; a void is a record of its own, with the quantity turned round."""

    record_id: str
    quantity: Decimal
    events: int

    def void(self) -> Record:
        return Record(f"void of {self.record_id}", -self.quantity, -self.events)


@dataclass(frozen=True)
class Rerate:
    """From now on these terms hold."""

    number: int


@dataclass(frozen=True)
class Close:
    """The period is closed: from now on the minimum counts."""


Step = Record | Rerate | Close


@dataclass
class Book:
    """A counter as a service would keep it: a record counts once, and terms may change under it."""

    all_terms: list[Terms]
    counter: Counter = field(default_factory=Counter)
    seen: set[str] = field(default_factory=set)
    charges: list[Decimal] = field(default_factory=list)
    taxed: Decimal = ZERO
    terms: Terms = field(init=False)
    is_closed: bool = False

    def __post_init__(self) -> None:
        self.terms = self.all_terms[0]

    def play(self, steps: Iterable[Step]) -> Book:
        """Let things happen one after the other."""
        for step in steps:
            self._take(step)
        return self

    def _take(self, step: Step) -> None:
        if isinstance(step, Record):
            if step.record_id in self.seen:
                return
            self.seen.add(step.record_id)
            self._charge(step.quantity, step.events)
        else:
            if isinstance(step, Rerate):
                self.terms = self.all_terms[step.number]
            else:
                self.is_closed = True
            self._charge(ZERO, 0)

    def _charge(self, quantity: Decimal, events: int) -> None:
        after, due = charge(self.counter, quantity, events, self.terms)
        if self.is_closed:
            closed = target_closed(after.quantity, after.events, self.terms)
            after, due = after._replace(charged=closed), EXACT.subtract(closed, self.counter.charged)
        self.counter = after
        self.charges.append(due)
        rate = self.all_terms[0].tax_rate
        due = EXACT.subtract(tax_target(self.gross, self.terms, rate), self.taxed)
        self.taxed = EXACT.add(self.taxed, due)

    @property
    def gross(self) -> Decimal:
        """Sum all charges."""
        return total(self.charges)


@dataclass(frozen=True)
class History:
    """Terms by number, what is delivered (repetitions and all), and what it comes to in the end."""

    plans: list[dict[str, Any]]
    steps: list[Step]

    @property
    def records(self) -> dict[str, Record]:
        """Give each record once."""
        return {step.record_id: step for step in self.steps if isinstance(step, Record)}

    @property
    def quantity(self) -> Decimal:
        return total(record.quantity for record in self.records.values())

    @property
    def events(self) -> int:
        return sum(record.events for record in self.records.values())

    @property
    def changes(self) -> list[Step]:
        """Give what isn't a record: changes of terms, and the close."""
        return [step for step in self.steps if not isinstance(step, Record)]

    @property
    def is_closed(self) -> bool:
        return Close() in self.steps

    @property
    def last(self) -> dict[str, Any]:
        """Give the terms that hold in the end."""
        numbers = [step.number for step in self.steps if isinstance(step, Rerate)]
        return self.plans[numbers[-1] if numbers else 0]

    @property
    def tax_rate(self) -> str:
        """Give the rate that all of it is taxed at."""
        return str(self.plans[0]["tax_rate"] or 0)


def records(tape: Tape) -> list[Record]:
    """Give usage under unlike ids, voids of some of it, and some of all that once more."""
    made = [Record(str(number), tape.quantity(), tape.integer(1, 50)) for number in range(tape.integer(1, 8))]
    once = [*made, *(one.void() for one in tape.some(0, 4, lambda: tape.pick(made)))]
    return [*once, *tape.some(0, 4, lambda: tape.pick(once))]


def history(tape: Tape, mode: str) -> History:
    """Make records in any order, a void maybe before what it takes back, some twice; re-ratings and a close between.

    The first and the last terms are of the mode; those between are of any.
    """
    first, between, last = plan(tape, (mode,)), plan(tape), plan(tape, (mode,))
    alike = {"minor_digits": first["minor_digits"], "currency": first["currency"]}
    rerates = tape.some(0, 3, lambda: Rerate(tape.integer(0, 2)))
    steps = [*records(tape), *rerates, *tape.some(0, 1, Close)]
    return History([first, between | alike, last | alike], tape.shuffled(steps))


@cache
def histories(mode: str) -> st.SearchStrategy[History]:
    """Any history of a counter of this shape."""
    return tapes.map(lambda tape: history(tape, mode))
