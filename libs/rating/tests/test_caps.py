"""Caps: what is cut, for any order of amounts, voids and changes of the cap."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from eb_rating.caps import Spend, clamp, give_back_waived, room

ZERO = Decimal(0)
money = st.decimals("0", "50", places=2)
steps = st.lists(st.tuples(money, st.decimals("-30", "50", places=2)), max_size=20)


def run(moves: Sequence[tuple[Decimal, Decimal]]) -> tuple[Spend, list[Decimal]]:
    spend, passed = Spend(), []
    for cap, due in moves:
        spend, some = clamp(spend, due, cap)
        passed.append(some)
    return spend, passed


@given(moves=steps)
def test_what_passed_sums_to_what_was_granted_and_nothing_is_lost(
    moves: list[tuple[Decimal, Decimal]],
) -> None:
    spend, passed = run(moves)
    waived = [due - some for (_, due), some in zip(moves, passed, strict=True)]

    assert sum(passed, ZERO) == spend.granted
    assert sum(passed, ZERO) + sum(waived, ZERO) == spend.total == sum((due for _, due in moves), ZERO)


@given(moves=steps)
def test_granted_grows_no_further_than_the_cap_nor_than_the_total(
    moves: list[tuple[Decimal, Decimal]],
) -> None:
    spend = Spend()
    for cap, due in moves:
        after, _ = clamp(spend, due, cap)
        assert after.granted <= after.total
        assert after.granted <= max(cap, spend.granted)
        spend = after


@given(cap=money, dues=st.lists(money, min_size=1, max_size=12), data=st.data())
def test_whatever_the_order_or_the_split_the_same_is_granted(
    cap: Decimal, dues: list[Decimal], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(dues))

    spend, _ = run([(cap, due) for due in shuffled])

    assert spend == Spend(sum(dues, ZERO), min(cap, sum(dues, ZERO)))
    assert clamp(Spend(), sum(dues, ZERO), cap)[0] == spend


@given(moves=st.lists(st.tuples(money, money), max_size=20))
def test_nothing_negative_passes_without_a_void(moves: list[tuple[Decimal, Decimal]]) -> None:
    _, passed = run(moves)

    assert all(some >= ZERO for some in passed)


@given(moves=st.lists(st.tuples(money, money), max_size=20), last=money)
def test_a_void_of_everything_gives_everything_back_and_no_more(
    moves: list[tuple[Decimal, Decimal]], last: Decimal
) -> None:
    spend, passed = run(moves)

    after, back = clamp(spend, -spend.total, last)

    assert after == Spend(spend.total * 0, ZERO)
    assert back == -sum(passed, ZERO)


@given(moves=st.lists(st.tuples(money, money), max_size=10), cap=money, held=money, due=money)
def test_what_there_is_room_for_passes_whole(
    moves: list[tuple[Decimal, Decimal]], cap: Decimal, held: Decimal, due: Decimal
) -> None:
    spend, _ = run(moves)
    left = room(spend, held, cap)

    if due <= left:
        after, passed = clamp(spend, due, cap)
        assert passed >= due
        assert due == ZERO or after.granted + held <= cap
    else:
        assert max(spend.total, spend.granted) + held + due > cap


@given(waived=money, due=st.decimals("-60", "60", places=2))
def test_without_a_cap_a_void_takes_back_what_was_waived_first(waived: Decimal, due: Decimal) -> None:
    gross = give_back_waived(waived, due)

    assert gross == (due if due >= ZERO else min(ZERO, due + waived))
