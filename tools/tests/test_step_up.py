"""Which routes need a recent sign-in, by a rule over all routes of all services: what gives or takes rights, says who
pays, or lets support in. A route with such a word in its path stands under the rule from its first day.

Rule: docs/rules/identity.md, Recent sign-in.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from eb_kit.routing import Route
from eb_tools.openapi import all_routes

RIGHTS = ("roles", "members", "invitations", "api-keys", "assist-sessions", "map-org", "mappings", "sessions")
"""Words of a path that speak of rights, of who pays, or of support."""
FREE = {
    "DELETE /orgs/{org_id}/invitations/{invitation_id}": "takes what gave no right yet",
    "POST /invitations:accept": "takes up what somebody gave who had signed in recently; the token came by mail",
    "DELETE /orgs/{org_id}/api-keys/{key_id}": "whoever sees that a key leaked ends it at once",
    "POST /assist-sessions/{assist_session_id}:end": "ends what was let in, at once",
    "POST /assist-sessions/{assist_session_id}:decline": "lets nobody in",
    "POST /auth/sessions": "is the sign-in",
}
SOME = {
    "PATCH /orgs/{org_id}": "assist_policy",
    "DELETE /orgs/{org_id}/members/{user_id}": "others than oneself",
    "DELETE /auth/sessions/{session_id}": "others than the one in use",
}
"""Only some requests; services/auth/tests/test_sign_in.py shows which."""


def speaks_of_rights(route: Route) -> bool:
    segments = route.path.replace(":", "/").split("/")
    return route.method != "GET" and not set(RIGHTS).isdisjoint(segments)


def unguarded(routes: Iterable[Route]) -> set[str]:
    """Name the routes that the rule wants to have a recent sign-in, and that don't ask for one."""
    return {
        route.name
        for route in routes
        if speaks_of_rights(route) and not (route.step_up or route.may_step_up) and route.name not in FREE
    }


def test_what_gives_rights_needs_a_recent_sign_in() -> None:
    assert unguarded(all_routes()) == set()


def test_nothing_else_does() -> None:
    always = {route.name for route in all_routes() if route.step_up}
    some = {route.name for route in all_routes() if route.may_step_up}
    assert some == set(SOME)
    assert always == {
        route.name
        for route in all_routes()
        if speaks_of_rights(route) and route.name not in FREE and route.name not in SOME
    }


def test_each_exception_is_a_route_and_only_of_the_rule() -> None:
    under_the_rule = {route.name for route in all_routes() if speaks_of_rights(route)}
    assert set(FREE) <= under_the_rule
    assert set(SOME) <= {route.name for route in all_routes()}
    assert not set(FREE) & set(SOME)


def test_the_rule_sees_routes_to_come() -> None:
    async def handler(_: Any) -> Any: ...

    def made(method: str, path: str, **options: Any) -> Route:
        return Route("ledger", method, path, handler, **options)

    mapping = "/billing-accounts/{billing_account_id}/map-org"
    assert unguarded([made("POST", mapping), made("DELETE", f"{mapping}/{{org_id}}")]) == {
        f"POST {mapping}",
        f"DELETE {mapping}/{{org_id}}",
    }
    assert unguarded(
        [made("POST", "/platform/roles"), made("PATCH", "/orgs/{org_id}/api-keys/{key_id}")]
    ) == {
        "POST /platform/roles",
        "PATCH /orgs/{org_id}/api-keys/{key_id}",
    }
    assert unguarded([made("POST", mapping, step_up=True), made("GET", "/orgs/{org_id}/members")]) == set()
