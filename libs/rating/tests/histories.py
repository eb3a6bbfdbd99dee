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

from .strategies import plans, quantities

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


usages = st.lists(st.tuples(quantities, st.integers(1, 50)), min_size=1, max_size=8)
some_of_eight = st.lists(st.integers(0, 7), max_size=4)
rerates = st.lists(st.integers(0, 2).map(Rerate), max_size=3)
closes = st.lists(st.just(Close()), max_size=1)


@st.composite
def _records(draw: st.DrawFn) -> list[Record]:
    """Usage under unlike ids, voids of some of it, and some of all that once more."""
    made = [Record(str(number), *drawn) for number, drawn in enumerate(draw(usages))]
    once = [*made, *(made[n % len(made)].void() for n in draw(some_of_eight))]
    return [*once, *(once[n % len(once)] for n in draw(some_of_eight))]


records = _records()


@cache
@st.composite
def histories(draw: st.DrawFn, mode: str) -> History:
    """Records in any order (a void may come before what it takes back), some twice; re-ratings and a close between.

    The first and the last terms are of the mode; those between are of any.
    """
    first = draw(plans((mode,)))
    between = draw(plans())
    last = draw(plans((mode,)))
    alike = {"minor_digits": first["minor_digits"], "currency": first["currency"]}
    steps = [*draw(records), *draw(rerates), *draw(closes)]
    draw(st.randoms(use_true_random=False)).shuffle(steps)
    return History([first, between | alike, last | alike], steps)
