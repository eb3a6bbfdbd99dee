"""The published table of roles and routes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from eb_kit.policy import policy
from eb_tools import rbac
from eb_tools.matrix import ACTORS, trials


def test_every_route_and_its_condition_is_in_the_table() -> None:
    table = rbac.table()

    assert "| `POST /auth/login` | ● |" in table
    assert "| country: Operator only; assist_policy: Admin only |" in table
    assert not rbac.unknown_names()


def test_every_route_stands_among_the_cells_for_each_caller() -> None:
    cells = rbac.cells()

    assert cells.count("\n| `") == len(trials()) >= len({trial.route for trial in trials()})
    assert f"\n{len(ACTORS)}. {ACTORS[-1].name}\n" in cells
    assert {trial.route for trial in trials()} == {route for rows in policy().values() for route in rows}
    assert all(trial.wants.keys() == {actor.name for actor in ACTORS} for trial in trials())


def test_a_page_that_differs_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    parts = ((rbac.BEGIN, rbac.END), (rbac.BEGIN_CELLS, rbac.END_CELLS))
    page.write_text("# Page\n" + "".join(f"{begin}\nold\n{end}\nafter\n" for begin, end in parts))
    monkeypatch.setattr(rbac, "PAGE", page)
    monkeypatch.setattr(sys, "argv", ["rbac", "--check"])
    assert rbac.main() == 1

    monkeypatch.setattr(sys, "argv", ["rbac"])
    assert rbac.main() == 0

    monkeypatch.setattr(sys, "argv", ["rbac", "--check"])
    assert rbac.main() == 0
    assert page.read_text().startswith("# Page\n")
    assert page.read_text().endswith("\nafter\n")
