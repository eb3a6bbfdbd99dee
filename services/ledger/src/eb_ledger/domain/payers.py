"""Who pays a line: the organisation's own default account, else its nearest ancestor's.

Rule: docs/rules/ledger.md, Who pays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def payer(
    org_id: UUID, at: datetime, default_accounts: Mapping[UUID, UUID], links: Mapping[UUID, ParentLinks]
) -> UUID:
    """Give the default billing account of the organisation, else of its nearest ancestor at that instant.

    Raises OrgMissing with the organisation at which the walk upwards leaves what is known.
    """
    here, seen = org_id, set[UUID]()
    while here not in default_accounts:
        above = parent_at(links.get(here, ()), at)
        if above is None or here in seen:
            raise OrgMissing(here)
        seen.add(here)
        here = above
    return default_accounts[here]
