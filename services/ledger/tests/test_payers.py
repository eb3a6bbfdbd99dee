"""The payer is the nearest of the lineage, at the charge's own time, that has a default account."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from eb_ledger.domain.errors import OrgMissing
from eb_ledger.domain.payers import parent_at, payer, was_ever_root

BORN = datetime(2026, 1, 1, tzinfo=UTC)
LINKED = datetime(2026, 11, 10, tzinfo=UTC)
TICK = timedelta(microseconds=1)
ROOT, OTHER_ROOT, CHILD, GRANDCHILD = (UUID(int=n) for n in range(1, 5))
ACCOUNT, OTHER_ACCOUNT = UUID(int=11), UUID(int=12)

LINKS = {
    ROOT: [(BORN, None)],
    OTHER_ROOT: [(BORN, None)],
    CHILD: [(BORN, ROOT), (LINKED, OTHER_ROOT)],
    GRANDCHILD: [(BORN, CHILD)],
}
ACCOUNTS = {ROOT: ACCOUNT, OTHER_ROOT: OTHER_ACCOUNT}


def test_a_root_pays_by_its_own_account() -> None:
    assert payer(ROOT, BORN, ACCOUNTS, LINKS) == ACCOUNT


@pytest.mark.parametrize(
    ("at", "expected"), [(LINKED - TICK, ACCOUNT), (LINKED, OTHER_ACCOUNT), (LINKED + TICK, OTHER_ACCOUNT)]
)
def test_a_grandchild_pays_by_the_root_of_its_own_time(at: datetime, expected: UUID) -> None:
    assert payer(GRANDCHILD, at, ACCOUNTS, LINKS) == expected


def test_an_org_that_was_ever_a_root_keeps_its_account_below_a_parent() -> None:
    links = {**LINKS, OTHER_ROOT: [(BORN, None), (LINKED, ROOT)]}

    assert payer(OTHER_ROOT, LINKED, ACCOUNTS, links) == OTHER_ACCOUNT


def test_before_its_first_link_an_org_has_the_first_parent_already() -> None:
    assert parent_at(LINKS[CHILD], BORN - timedelta(days=1)) == ROOT


def test_a_missing_ancestor_is_named() -> None:
    links = {CHILD: LINKS[CHILD], GRANDCHILD: LINKS[GRANDCHILD]}

    with pytest.raises(OrgMissing) as missing:
        payer(GRANDCHILD, BORN, {}, links)

    assert missing.value.org_id == ROOT


def test_links_that_bite_their_tail_end_the_walk() -> None:
    links = {CHILD: [(BORN, GRANDCHILD)], GRANDCHILD: [(BORN, CHILD)]}

    with pytest.raises(OrgMissing):
        payer(CHILD, BORN, {}, links)


@pytest.mark.parametrize(
    ("links", "expected"),
    [([(BORN, None)], True), ([(BORN, ROOT)], False), ([(BORN, ROOT), (LINKED, None)], True), ([], True)],
)
def test_only_orgs_born_as_children_were_never_roots(
    links: list[tuple[datetime, UUID | None]], expected: bool
) -> None:
    assert was_ever_root(links) is expected
