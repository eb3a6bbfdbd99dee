"""Who pays a line: the organisation's own default account, else its nearest ancestor's.

Rule: docs/rules/ledger.md, Who pays.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from .attribution import in_force
from .errors import OrgMissing

ParentLinks = Sequence[tuple[datetime, UUID | None]]
"""From which instant on which parent (None: a root), oldest first."""


def parent_at(links: ParentLinks, at: datetime) -> UUID | None:
    """Give the parent at an instant; before the first link the first one holds already."""
    if not links:
        return None
    return in_force(links, max(at, links[0][0]))


def was_ever_root(links: ParentLinks) -> bool:
    """Tell whether the organisation had no parent at some time, so that it keeps an account of its own."""
    return not links or any(parent is None for _, parent in links)


def lineage(org_id: UUID, at: datetime, links: Mapping[UUID, ParentLinks]) -> Iterator[UUID]:
    """Walk from the organisation to its root at that instant; raises OrgMissing where a link is unknown."""
    here: UUID | None = org_id
    seen: set[UUID] = set()
    while here is not None and here not in seen:
        if here not in links:
            raise OrgMissing(here)
        yield here
        seen.add(here)
        here = parent_at(links[here], at)


def payer(
    org_id: UUID, at: datetime, default_accounts: Mapping[UUID, UUID], links: Mapping[UUID, ParentLinks]
) -> UUID:
    """Give the billing account of the nearest of the lineage that has a default one.

    Raises OrgMissing when the walk leaves what is known before it finds one.
    """
    last = org_id
    for last in lineage(org_id, at, links):
        if last in default_accounts:
            return default_accounts[last]
    raise OrgMissing(last)
