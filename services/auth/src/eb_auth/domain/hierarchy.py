"""Where an organisation may stand: links, moves, and how deep a hierarchy gets.

Rule: docs/rules/identity.md, Hierarchy.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from .errors import AlreadyHasParent, Cycle, LinkNotPending, MaxDepth, SelfParent, SubtreeTooLarge

MAX_DEPTH = 10
LINK_LIFETIME = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Relative:
    """An organisation as a list of the hierarchy shows it; `depth` in edges from the one asked about."""

    org_id: UUID
    parent_org_id: UUID | None
    legal_name: str
    depth: int


@dataclass(frozen=True, slots=True)
class Shape:
    """How a subtree would hang below a new parent.

    `depth`: edges from the new parent up to its root, -1 without a parent; `height`: edges from the organisation down
    to its deepest descendant; `is_below`: the new parent is the organisation itself or stands below it; `pairs`:
    pairs of ancestor and descendant that go and come, at most.
    """

    depth: int
    height: int
    is_below: bool
    pairs: int


@dataclass(frozen=True, slots=True)
class OrgLink:
    """A request to make a root the child of another organisation, which the child's Admin answers."""

    org_link_id: UUID
    parent_org_id: UUID
    child_org_id: UUID
    status: str
    requested_by: str
    requested_at: datetime
    expires_at: datetime
    decided_by: str | None
    decided_at: datetime | None


def child_depth(parent_depth: int) -> int:
    """Give the depth of a new child in edges from its root; raises MaxDepth over ten."""
    if parent_depth >= MAX_DEPTH:
        raise MaxDepth(max_depth=MAX_DEPTH)
    return parent_depth + 1


def check_place(org_id: UUID, parent_id: UUID, shape: Shape, most_pairs: int) -> None:
    """Refuse a parent that the organisation can't have; raises SelfParent, Cycle, MaxDepth, SubtreeTooLarge."""
    if org_id == parent_id:
        raise SelfParent
    if shape.is_below:
        raise Cycle
    if shape.depth + 1 + shape.height > MAX_DEPTH:
        raise MaxDepth(max_depth=MAX_DEPTH)
    check_size(shape, most_pairs)


def check_size(shape: Shape, most_pairs: int) -> None:
    """Refuse what would hold everybody else's turn for too long; raises SubtreeTooLarge."""
    if shape.pairs > most_pairs:
        raise SubtreeTooLarge(pairs=shape.pairs, max_pairs=most_pairs)


def check_link(
    org_id: UUID, present_parent_id: UUID | None, parent_id: UUID, shape: Shape, most_pairs: int
) -> None:
    """Refuse to link what can't stand there, or has a parent already; raises AlreadyHasParent, as `check_place` too."""
    if present_parent_id is not None and org_id != parent_id:
        raise AlreadyHasParent
    check_place(org_id, parent_id, shape, most_pairs)


def is_open(link: OrgLink, wanted: str, now: datetime) -> bool:
    """Tell whether a link can still be answered; False where it was answered so. Raises LinkNotPending."""
    if link.status == wanted:
        return False
    if link.status != "pending" or link.expires_at <= now:
        raise LinkNotPending
    return True
