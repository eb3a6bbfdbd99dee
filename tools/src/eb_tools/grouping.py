"""A pytest plugin of `make test`: who runs what when several workers share the suite.

The tests of one file stay together, for their fixtures. All that needs the whole stack is one group: one stack, one
test at a time, after the others have been handed out.
"""

from __future__ import annotations

import pytest

from eb_tools.paths import repository

STACK = repository() / "tests"


@pytest.hookimpl(tryfirst=True)  # before the workers write the groups into the names
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test its group."""
    for item in items:
        group = "stack" if item.path.is_relative_to(STACK) else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
