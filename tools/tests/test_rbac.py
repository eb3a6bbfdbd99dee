"""The published table of roles and routes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from eb_tools import rbac


def test_every_route_and_its_condition_is_in_the_table() -> None:
    table = rbac.table()

    assert "| `POST /auth/login` | ● |" in table
    assert "| country: Operator only; assist_policy: Admin only |" in table
    assert not rbac.unknown_names()


def test_a_page_that_differs_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Page\n{rbac.BEGIN}\nold\n{rbac.END}\nafter\n")
    monkeypatch.setattr(rbac, "PAGE", page)
    monkeypatch.setattr(sys, "argv", ["rbac", "--check"])
    assert rbac.main() == 1

    monkeypatch.setattr(sys, "argv", ["rbac"])
    assert rbac.main() == 0

    monkeypatch.setattr(sys, "argv", ["rbac", "--check"])
    assert rbac.main() == 0
    assert page.read_text().startswith("# Page\n")
    assert page.read_text().endswith("\nafter\n")
