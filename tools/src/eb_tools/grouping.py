"""A pytest plugin of `make test`: who runs what when several workers share the suite.

The tests of one file stay together, for their fixtures. All that needs the whole stack is one group: one stack, one
test at a time, after the others have been handed out.
"""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

STACK = "tests/"


class ByFile(LoadScopeScheduling):  # type: ignore[misc]
    """Hands out whole files."""

    def _split_scope(self, nodeid: str) -> str:
        """Give the group of a test by its name (`folder/test_file.py::test`)."""
        return STACK if nodeid.startswith(STACK) else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    """Let the controller use it."""
    return ByFile(config, log)
