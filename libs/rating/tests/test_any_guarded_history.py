"""Caps and credits lose no cent and make none, whatever happens to the counters that share them.

Two counters of one organisation, two projects: usage, voids, repetitions, re-ratings, closes, caps that change,
grants that come and expire, in any order (docs/rules/pricing.md, Guardrails).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eb_rating import from_plain
from eb_rating.caps import Spend, clamp
from eb_rating.credits import Due, Grant, Purse, in_order, pay
from eb_rating.exact import EXACT

from .histories import ZERO, Book, Close, History, Record, Rerate, history, total
from .rules import naive_target
from .strategies import MODES, Tape, tapes

every_shape = pytest.mark.parametrize("mode", MODES)
START = datetime(2026, 11, 1, tzinfo=UTC)
ENDLESS = Decimal(10) ** 60
ORG = "org"
PROJECTS = ("one", "other")
SKU_TYPES = ("action", "hosting")


@dataclass(frozen=True)
class Cap:
    """From now on this much may be granted; None: any amount."""

    owner: str
    amount: Decimal | None


@dataclass(frozen=True)
class Later:
    """Days go by."""

    days: int


@dataclass(frozen=True)
class Used:
    """Something happens to a counter; usage belongs to a project."""

    counter: int
    step: Record | Rerate | Close


Event = Used | Cap | Later | Grant


@dataclass
class Paid:
    """One charge of a counter: what was due, what caps cut, what is gross, and what credits paid of it."""

    counter: int
    project: str | None
    due: Decimal
    gross: Decimal
    credit: Decimal

    @property
    def waived(self) -> Decimal:
        return EXACT.subtract(self.due, self.gross)


@dataclass
class Till:
    """An organisation as a service would keep it: counters, what its caps have seen, its grants."""

    books: list[Book]
    caps: dict[str, Decimal | None] = field(default_factory=dict)
    spends: dict[str, Spend] = field(default_factory=dict)
    purse: Purse = field(default_factory=lambda: Purse((), {}))
    paid: list[Paid] = field(default_factory=list)
    now: datetime = START

    def play(self, events: list[Event]) -> Till:
        for event in events:
            match event:
                case Cap():
                    self.caps[event.owner] = event.amount
                case Later():
                    self.now += timedelta(days=event.days)
                case Grant():
                    grants = in_order([*self.purse.grants, replace_created(event, self.now)])
                    self.purse = self.purse._replace(grants=tuple(grants))
                case Used():
                    self._use(event)
        return self

    def _use(self, event: Used) -> None:
        book = self.books[event.counter]
        count = len(book.charges)
        book.play([event.step])
        project = project_of(event.step)
        for due in book.charges[count:]:
            self._settle(event.counter, project, due)

    def _settle(self, counter: int, project: str | None, due: Decimal) -> None:
        owners = [ORG] if project is None else [project, ORG]
        gross = due
        for owner in owners:
            self.spends[owner], gross = clamp(self.spends.get(owner, Spend()), gross, self.cap_of(owner))
        charged = total(one.gross for one in self.paid if one.counter == counter)
        borrowed = EXACT.subtract(min(ZERO, EXACT.add(charged, gross)), min(ZERO, charged))
        payable = Due("2026-11", str(counter), SKU_TYPES[counter], "AUD", gross, min(ZERO, borrowed))
        self.purse, draws = pay(self.purse, payable, self.now)
        self.paid.append(Paid(counter, project, due, gross, total(draw.amount for draw in draws)))

    def cap_of(self, owner: str) -> Decimal:
        """Give the cap in force; more than can ever be due where there is none."""
        cap = self.caps.get(owner)
        return ENDLESS if cap is None else cap

    def summed(self, member: str, project: str | None = None) -> Decimal:
        """Sum a column over the charges, all of them or a project's."""
        chosen = [one for one in self.paid if project is None or one.project == project]
        return total(getattr(one, member) for one in chosen)


def replace_created(grant: Grant, now: datetime) -> Grant:
    """Let a grant be made now; it expires so many days later as it says."""
    expires_at = grant.expires_at and now + (grant.expires_at - START)
    return grant._replace(created_at=now, expires_at=expires_at)


def project_of(step: Record | Rerate | Close) -> str | None:
    """Give the project of usage; a void has its usage's."""
    return PROJECTS[int(step.record_id[-1]) % 2] if isinstance(step, Record) else None


def money(tape: Tape) -> Decimal:
    return Decimal(tape.integer(0, 10**9))


def cap(tape: Tape) -> Cap:
    return Cap(tape.pick((ORG, *PROJECTS)), tape.pick((money(tape), None)))


def grants(tape: Tape) -> list[Grant]:
    """Make up to four grants with unlike rules."""
    return [
        Grant(
            str(number),
            "AUD",
            money(tape) + 1,
            ZERO,
            priority=tape.integer(0, 2),
            created_at=START,
            expires_at=tape.pick((None, START + timedelta(days=tape.integer(1, 30)))),
            sku_types=tape.pick((None, ("action",), ("hosting",), ("seat",))),
        )
        for number in range(tape.integer(0, 4))
    ]


@dataclass(frozen=True)
class Guarded:
    """Two counters' histories, the caps at first, and everything in the order in which it happens."""

    histories: tuple[History, History]
    first_caps: list[Cap]
    events: list[Event]

    def till(self) -> Till:
        """Give an organisation to which nothing has happened yet but its first caps."""
        books = [Book([from_plain(plan) for plan in history.plans]) for history in self.histories]
        return Till(books).play(list(self.first_caps))

    def target(self) -> Fraction:
        """Say by the naive rules what is due for both counters in the end."""
        return sum(
            (
                naive_target(Fraction(one.quantity), one.events, one.last, closed=one.is_closed)
                for one in self.histories
            ),
            Fraction(0),
        )


def guarded_history(tape: Tape, mode: str, *, changing: bool) -> Guarded:
    """Make two counters of a shape, in one currency; `changing`: caps change on the way."""
    first, second = history(tape, mode), history(tape, mode)
    alike = {"minor_digits": first.plans[0]["minor_digits"]}
    second = replace(second, plans=[plan | alike for plan in second.plans])
    used = [Used(n, step) for n, one in enumerate((first, second)) for step in one.steps]
    caps = tape.some(0, 5, lambda: cap(tape)) if changing else []
    laters = tape.some(0, 4, lambda: Later(tape.integer(1, 20)))
    events = tape.shuffled([*used, *grants(tape), *caps, *laters])
    first, second = (
        replace(one, steps=[e.step for e in events if isinstance(e, Used) and e.counter == n])
        for n, one in enumerate((first, second))
    )
    return Guarded((first, second), tape.some(0, 3, lambda: cap(tape)), events)


@cache
def guarded(mode: str, *, changing: bool) -> st.SearchStrategy[Guarded]:
    """Any history of two guarded counters of this shape."""
    return tapes.map(lambda tape: guarded_history(tape, mode, changing=changing))


def check_each_cent(till: Till, target: Fraction) -> None:
    assert (
        Fraction(till.summed("due"))
        == target
        == Fraction(till.summed("gross")) + Fraction(till.summed("waived"))
    )
    assert till.summed("credit") == total(grant.drawn for grant in till.purse.grants)
    assert all(ZERO <= grant.drawn <= grant.amount for grant in till.purse.grants)
    gross = credit = ZERO
    for one in till.paid:
        gross, credit = EXACT.add(gross, one.gross), EXACT.add(credit, one.credit)
        assert credit >= ZERO
        assert credit <= gross or till.caps.keys() & set(PROJECTS), "credit is more than what it pays for"
        assert ZERO <= one.credit <= one.gross or one.gross <= one.credit <= ZERO


@every_shape
@given(data=st.data())
def test_target_is_gross_and_waived_and_gross_is_credit_and_the_rest_due(
    mode: str, data: st.DataObject
) -> None:
    told = data.draw(guarded(mode, changing=True))

    till = told.till().play(told.events)

    check_each_cent(till, told.target())


@every_shape
@given(data=st.data())
def test_a_cap_that_stays_grants_the_cap_or_the_total_whichever_is_less(
    mode: str, data: st.DataObject
) -> None:
    """A project's cap first, then the organisation's; in any order the same where one project uses all."""
    told = data.draw(guarded(mode, changing=False))

    till = told.till().play(told.events)

    check_each_cent(till, told.target())
    came = total(one.due for one in till.paid if one.project is None)
    for project in PROJECTS:
        cap = till.caps.get(project)
        due = till.summed("due", project)
        granted = due if cap is None else min(due, cap)
        assert till.spends.get(project, Spend()).granted == granted
        came = EXACT.add(came, granted)
    cap = till.caps.get(ORG)
    assert till.summed("gross") == (came if cap is None else min(came, cap))
