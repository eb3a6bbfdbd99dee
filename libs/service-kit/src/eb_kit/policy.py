"""The policy table: which roles and key scopes may call which route. Data, in one file, read by every service.

Rule: docs/rules/identity.md, Roles.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import yaml

PLATFORM_ROLES = frozenset({"Operator", "Finance", "Support"})
GROUP_ROLES = frozenset({"GroupAdmin", "GroupBilling", "GroupSupport"})
ORG_ROLES = frozenset({"Admin", "User"})
ASSIST_MODES = {"read_only": "assist_ro", "read_write": "assist_rw"}
ASSIST_ROLES = frozenset(ASSIST_MODES.values())
"""What the token of an assist session goes by, by its mode."""


@cache
def policy() -> dict[str, dict[str, frozenset[str]]]:
    """Give, per service, `METHOD /path` → who may call it; the file's `sets` are only anchors."""
    table = yaml.safe_load(files("eb_kit").joinpath("permissions.yaml").read_text())
    return {
        service: {route: frozenset(names) for route, names in rows.items()}
        for service, rows in table.items()
        if service != "sets" and rows
    }


def row_of(service: str, method: str, path: str) -> frozenset[str]:
    """Give who may call a route; KeyError for a route without a row, which fails at start."""
    return policy()[service][f"{method} {path}"]


@cache
def known_scopes() -> frozenset[str]:
    """Give every key scope that some route takes, each also with `:tree`."""
    plain = {
        name.removeprefix("key:")
        for rows in policy().values()
        for names in rows.values()
        for name in names
        if name.startswith("key:")
    }
    return frozenset(plain | {f"{scope}:tree" for scope in plain})
