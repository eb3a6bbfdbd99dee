"""Credits: who pays, in which order, and who gets it back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from eb_rating.credits import Draw, Grant, apply, in_order

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


@given(some=grants(), made=charges)
def test_credit_has_the_sign_of_the_charge_is_never_more_and_conserves(
    some: list[Grant], made: list[tuple[Decimal, str, datetime]]
) -> None:
    now, paid = tuple(some), ZERO
    for gross, sku_type, at in made:
        after, draws = apply(now, gross, "AUD", sku_type, at)
        credit = sum((draw.amount for draw in draws), ZERO)
        assert abs(credit) <= abs(gross)
        assert all(draw.amount * gross > ZERO for draw in draws)
        assert sum((one.drawn for one in after), ZERO) - sum((one.drawn for one in now), ZERO) == credit
        assert all(ZERO <= one.drawn <= one.amount for one in after)
        now, paid = after, paid + credit

    assert paid == sum((one.drawn for one in now), ZERO)


@given(some=grants(), gross=st.decimals("0", "60", places=2), sku_type=st.sampled_from(SKU_TYPES))
def test_nothing_is_drawn_from_what_has_ended_or_is_meant_for_others(
    some: list[Grant], gross: Decimal, sku_type: str
) -> None:
    by_name = {one.name: one for one in some}

    _, draws = apply(some, gross, "AUD", sku_type, NOW)

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
    after, draws = apply(some, gross, "AUD", sku_type, NOW)

    back, given_back = apply(after, -gross, "AUD", sku_type, NOW + HOUR * 99)

    assert list(back) == some
    assert given_back == tuple(Draw(draw.name, -draw.amount) for draw in reversed(draws))


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
    after, draws = apply([grant("a"), grant("b", "0.50")], Decimal("1.20"), "AUD", "action", NOW)

    assert draws == (Draw("a", Decimal("1.00")), Draw("b", Decimal("0.20")))
    assert [one.remaining for one in after] == [ZERO, Decimal("0.30")]
