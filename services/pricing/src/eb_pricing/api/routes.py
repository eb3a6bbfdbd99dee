"""The table of pricing's routes, and what its doors share."""

from __future__ import annotations

from uuid import UUID

from aiohttp import web

from eb_contracts.errors import Fault
from eb_kit.access import caller, reach
from eb_kit.problems import ParameterInvalid
from eb_kit.web import Routes

routes = Routes("pricing")

STAFF = ("Operator", "Finance", "Support")


async def reach_list(request: web.Request, org_id: UUID | None) -> None:
    """Refuse unless the caller may list things of the organisation; only platform staff may name none."""
    if org_id is not None:
        await reach(request, org_id)
    elif not caller(request).has_role(*STAFF):
        raise ParameterInvalid(faults=(Fault("/org_id", "required", "Say of which organisation."),))
