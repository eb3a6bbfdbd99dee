"""Credits: who pays, in which order, and who gets it back."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from eb_rating.caps import Spend, clamp
from eb_rating.credits import Draw, Due, Grant, Purse, in_order, pay

ZERO = Decimal(0)
NOW = datetime(2026, 11, 5, tzinfo=UTC)
HOUR = timedelta(hours=1)
SKU_TYPES = ("action", "hosting")


def grant(name: str, amount: str = "1.00", **values: object) -> Grant:
    base = Grant(name, "AUD", Decimal(amount), ZERO, 0, NOW)
    return base._replace(**values)


@st.composite
def grants(draw: st.DrawFn) -> list[Grant]:
    made = [
        grant(
            str(n),
            priority=draw(st.integers(0, 2)),
            amount=draw(st.decimals("0.01", "20", places=2)),
            created_at=NOW - HOUR * draw(st.integers(0, 3)),
            expires_at=draw(st.one_of(st.none(), st.integers(-2, 9).map(lambda n: NOW + HOUR * n))),
            currency=draw(st.sampled_from(["AUD", "AUD", "EUR"])),
            sku_types=draw(st.sampled_from([None, None, frozenset({"action"}), frozenset({"hosting"})])),
        )
        for n in range(draw(st.integers(0, 6)))
    ]
    return in_order(made)


charges = st.lists(
    st.tuples(
        st.decimals("-15", "15", places=2),
        st.sampled_from(SKU_TYPES),
        st.integers(0, 9).map(lambda n: NOW + HOUR * n),
    ),
    max_size=15,
)


def due(
    gross: str | Decimal, sku_type: str = "action", sku: str | None = None, borrowed: Decimal = ZERO
) -> Due:
    return Due("2026-11", sku or sku_type, sku_type, "AUD", Decimal(gross), borrowed)


def purse(*grants: Grant) -> Purse:
    return Purse(tuple(in_order(grants)), {})


@given(some=grants(), made=charges)
def test_credit_has_the_sign_of_the_charge_is_never_more_and_conserves(
    some: list[Grant], made: list[tuple[Decimal, str, datetime]]
) -> None:
    now, paid = purse(*some), ZERO
    for gross, sku_type, at in made:
        after, draws = pay(now, due(gross, sku_type), at)
        credit = sum((draw.amount for draw in draws), ZERO)
        assert abs(credit) <= abs(gross)
        assert all(draw.amount * gross > ZERO for draw in draws)
        assert drawn(after) - drawn(now) == credit
        assert all(ZERO <= one.drawn <= one.amount for one in after.grants)
        now, paid = after, paid + credit

    assert paid == drawn(now) == sum(now.drawn.values(), ZERO)


def drawn(purse: Purse) -> Decimal:
    return sum((one.drawn for one in purse.grants), ZERO)


@given(some=grants(), gross=st.decimals("0", "60", places=2), sku_type=st.sampled_from(SKU_TYPES))
def test_nothing_is_drawn_from_what_has_ended_or_is_meant_for_others(
    some: list[Grant], gross: Decimal, sku_type: str
) -> None:
    by_name = {one.name: one for one in some}

    _, draws = pay(purse(*some), due(gross, sku_type), NOW)

    for draw in draws:
        one = by_name[draw.name]
        assert one.currency == "AUD"
        assert one.expires_at is None or one.expires_at > NOW
        assert one.sku_types is None or sku_type in one.sku_types
    usable = [one for one in some if one.pays_for("AUD", sku_type) and one.is_usable_at(NOW)]
    assert sum((draw.amount for draw in draws), ZERO) == min(gross, sum((one.amount for one in usable), ZERO))


@given(some=grants(), gross=st.decimals("0.01", "60", places=2), sku_type=st.sampled_from(SKU_TYPES))
def test_what_a_charge_drew_its_void_gives_back_in_reverse(
    some: list[Grant], gross: Decimal, sku_type: str
) -> None:
    after, draws = pay(purse(*some), due(gross, sku_type), NOW)

    back, given_back = pay(after, due(-gross, sku_type), NOW + HOUR * 99)

    assert list(back.grants) == some
    assert given_back == tuple(Draw(draw.name, -draw.amount) for draw in reversed(draws))


@dataclass
class Shop:
    """An organisation with a cap: what is due per SKU, what was charged for it, and its purse."""

    purse: Purse
    cap: Decimal | None = None
    spend: Spend = field(default_factory=Spend)
    due: dict[str, Decimal] = field(default_factory=lambda: dict.fromkeys(SKUS, ZERO))
    gross: dict[str, Decimal] = field(default_factory=lambda: dict.fromkeys(SKUS, ZERO))
    credit: Decimal = ZERO

    def charge(self, sku: str, amount: Decimal) -> None:
        """Charge an amount; a void takes back no more than is due for its SKU."""
        amount = max(amount, -self.due[sku])
        cap = Decimal(10**6) if self.cap is None else self.cap
        self.spend, gross = clamp(self.spend, amount, cap)
        before, after = self.gross[sku], self.gross[sku] + gross
        borrowed = min(ZERO, after) - min(ZERO, before) if gross < ZERO else ZERO
        self.purse, draws = pay(self.purse, due(gross, SKUS[sku], sku, borrowed), NOW)
        self.due[sku] += amount
        self.gross[sku] = after
        self.credit += sum((draw.amount for draw in draws), ZERO)


SKUS = {"sms": "action", "mail": "action", "disk": "hosting", "seat": "seat"}
sold = st.tuples(st.sampled_from(sorted(SKUS)), st.decimals("-15", "15", places=2))
capped = st.one_of(st.none(), st.decimals("0", "30", places=2))
KINDS = [frozenset(kinds) for n in (1, 2) for kinds in combinations(("action", "hosting", "seat"), n)]
paid_in = st.lists(
    st.tuples(st.decimals("0.01", "12", places=2), st.integers(0, 2), st.sampled_from([None, *KINDS])),
    max_size=4,
)


@given(paid=paid_in, moves=st.lists(st.one_of(sold, capped), max_size=20))
def test_credit_is_never_more_than_gross_and_all_of_it_is_back_when_everything_is_voided(
    paid: list[tuple[Decimal, int, frozenset[str] | None]], moves: list[tuple[str, Decimal] | Decimal | None]
) -> None:
    """Whatever the grants pay for, and whatever a cap moved from one SKU to another."""
    some = [
        grant(str(n), str(amount), priority=priority, sku_types=types)
        for n, (amount, priority, types) in enumerate(paid)
    ]
    shop = Shop(purse(*some))
    for move in moves:
        if isinstance(move, tuple):
            shop.charge(*move)
        else:
            shop.cap = move
        assert ZERO <= shop.credit <= sum(shop.gross.values(), ZERO)

    for sku in SKUS:
        shop.charge(sku, Decimal(-(10**6)))

    assert list(shop.purse.grants) == in_order(some)


def test_a_void_gives_back_what_its_own_counter_drew_and_leaves_what_others_did() -> None:
    narrow, wide = grant("narrow", sku_types=frozenset({"action"})), grant("wide", priority=1)
    now = purse(narrow, wide)
    for one in (due("1"), due("1", "hosting"), due("-1")):
        now, draws = pay(now, one, NOW)
    assert draws == (Draw("narrow", Decimal(-1)),)

    now, draws = pay(now, due("-1", "hosting"), NOW)

    assert draws == (Draw("wide", Decimal(-1)),)


def test_a_void_of_what_was_paid_in_money_gives_no_credit_back() -> None:
    now, _ = pay(Purse((), {}), due("1"), NOW)
    now, _ = pay(Purse((grant("late"),), now.drawn), due("1", sku="mail"), NOW)

    assert pay(now, due("-1"), NOW) == (now, ())


def test_what_a_cap_moved_here_goes_back_to_what_others_drew() -> None:
    now, _ = pay(purse(grant("narrow", sku_types=frozenset({"action"}))), due("1"), NOW)

    _, draws = pay(now, due("-3", "hosting", borrowed=Decimal("-2")), NOW)

    assert draws == (Draw("narrow", Decimal(-1)),)


def test_lower_priority_then_earlier_end_then_older_comes_first() -> None:
    made = [
        grant("late priority", priority=1),
        grant("no end", created_at=NOW - HOUR),
        grant("ends later", expires_at=NOW + HOUR * 2),
        grant("ends sooner", expires_at=NOW + HOUR),
        grant("no end, younger"),
    ]

    assert [one.name for one in in_order(made)] == [
        "ends sooner",
        "ends later",
        "no end",
        "no end, younger",
        "late priority",
    ]


def test_a_part_of_a_charge_may_be_paid() -> None:
    after, draws = pay(purse(grant("a"), grant("b", "0.50")), due("1.20"), NOW)

    assert draws == (Draw("a", Decimal("1.00")), Draw("b", Decimal("0.20")))
    assert [one.remaining for one in after.grants] == [ZERO, Decimal("0.30")]
