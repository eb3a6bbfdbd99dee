"""The policy table has a row for every route of a service, and a route for every row."""

from __future__ import annotations

from eb_kit.policy import policy
from eb_tools.openapi import all_routes


def test_rows_and_routes_are_the_same_both_ways() -> None:
    rows = {(service, name) for service, table in policy().items() for name in table}
    routes = {(route.service, route.name) for route in all_routes()}

    assert sorted(rows - routes) == []
    assert sorted(routes - rows) == []
