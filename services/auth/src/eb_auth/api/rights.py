"""Rights for the few routes that are about several organisations at once.

The token's context must be one of them; what the caller may do in the others comes from their memberships there.
Rule: docs/rules/identity.md, Hierarchy.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from uuid import UUID

from aiohttp import web

from eb_contracts.errors import NotFound
from eb_kit.access import ContextMismatch, Forbidden, caller, names_anywhere_in
from eb_kit.routing import ROUTE
from eb_kit.service import CONTEXT


async def must_hold(request: web.Request, org_id: UUID) -> None:
    """Refuse, before the body is read, who may never call this route about an organisation, whatever the context."""
    (names,) = await _names(request, [org_id], None)
    if not names:
        raise NotFound
    if names.isdisjoint(request[ROUTE].names):
        raise Forbidden


async def must_reach_all(request: web.Request, org_ids: Collection[UUID], connection: Any = None) -> None:
    """Refuse unless the caller may call this route about each of these; NotFound, ContextMismatch, Forbidden."""
    names = await _names(request, org_ids, connection)
    if not all(names):
        raise NotFound
    _must_be_in_context(request, org_ids)
    if any(each.isdisjoint(request[ROUTE].names) for each in names):
        raise Forbidden


async def must_reach_one(request: web.Request, org_ids: Collection[UUID], connection: Any = None) -> None:
    """Refuse unless the caller may call this route about one of these; NotFound, ContextMismatch, Forbidden."""
    names = await _names(request, org_ids, connection)
    if not any(names):
        raise NotFound
    _must_be_in_context(request, org_ids)
    if all(each.isdisjoint(request[ROUTE].names) for each in names):
        raise Forbidden


async def _names(request: web.Request, org_ids: Collection[UUID], connection: Any) -> list[frozenset[str]]:
    return [await names_anywhere_in(request, org_id, connection) for org_id in org_ids]


def _must_be_in_context(request: web.Request, org_ids: Collection[UUID]) -> None:
    directory = request.app[CONTEXT].directory
    if not any(caller(request).names_in(org_id, directory) for org_id in org_ids):
        raise ContextMismatch
