"""The rules' list of what goes on while nobody could hear of a revocation is what the routes declare."""

from __future__ import annotations

import re

from eb_tools.openapi import all_routes
from eb_tools.paths import repository

ROW = re.compile(r"^\| (`(?:POST|PUT|PATCH|DELETE) .*) \| (.*) \|$", re.MULTILINE)


def test_what_goes_on_is_listed_with_its_reason() -> None:
    outages = (
        (repository() / "docs/rules/http.md").read_text().partition("## Outages")[2].partition("\n## ")[0]
    )
    listed = {
        name: reason for names, reason in ROW.findall(outages) for name in re.findall(r"`([^`]+)`", names)
    }

    assert listed == {route.name: route.goes_on for route in all_routes() if route.goes_on}


def test_no_route_that_only_reads_gives_a_reason() -> None:
    assert [route.name for route in all_routes() if route.method == "GET" and route.goes_on] == []
