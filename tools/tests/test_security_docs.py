"""The security pages: every requirement once, and nothing named that isn't there."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from eb_tools.paths import repository

ROOT = repository()
FOLDER = ROOT / "docs" / "security"
IDS = tuple((FOLDER / "asvs-5.0.0-ids.txt").read_text().split())
STATES = ("shown", "by construction", "gap", "with deployment")
ROW = re.compile(r"^\| (V\d+\.\d+\.\d+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
ID = re.compile(r"\bV\d+\.\d+\.\d+\b")
NAMED = re.compile(
    r"`([\w./-]+/[\w.-]+\.\w+|deploy/Dockerfile|pyproject\.toml|constraints\.txt)(?:::(\w+))?`"
)
MOST_WORDS = 10


def named_in(text: str) -> set[tuple[str, str]]:
    return set(NAMED.findall(text))


def is_there(path: str, test: str) -> bool:
    file = ROOT / path
    return file.is_file() and (not test or re.search(rf"def {test}\(", file.read_text()) is not None)


def faults(page: str, ids: tuple[str, ...]) -> list[str]:
    """Say what is wrong with the table."""
    counted = Counter(ID.findall(page))
    found = [f"{name} stands there {counted[name]} times" for name in ids if counted[name] != 1]
    found += [f"{name} is no requirement" for name in counted if name not in ids]
    for name, what, state, where in ROW.findall(page):
        if state not in STATES or len(what.split()) > MOST_WORDS:
            found.append(f"{name}: its state or its length")
        if state == "shown" and not any(test for _, test in named_in(where)):
            found.append(f"{name} is shown by no test")
        if state == "by construction" and not named_in(where):
            found.append(f"{name} names no file")
    return found


def test_every_requirement_is_answered_once() -> None:
    assert len(IDS) == len(set(IDS)) == 253
    assert faults((FOLDER / "asvs.md").read_text(), IDS) == []


@pytest.mark.parametrize("page", sorted(FOLDER.glob("*.md")), ids=lambda page: page.name)
def test_what_is_named_is_there(page: Path) -> None:
    named = named_in(page.read_text())

    assert [f"{path}::{test}" for path, test in sorted(named) if not is_there(path, test)] == []


def test_what_is_left_to_the_deployment_is_told_to_operators() -> None:
    left = [name for name, _, state, _ in ROW.findall((FOLDER / "asvs.md").read_text()) if state == STATES[3]]
    told = set(ID.findall((FOLDER / "deployment.md").read_text()))

    assert told <= set(IDS)
    assert set(left) <= told


def test_the_counts_are_those_of_the_rows() -> None:
    page = (FOLDER / "asvs.md").read_text()
    counted = Counter(state for _, _, state, _ in ROW.findall(page))

    assert {
        state: int(number) for state, number in re.findall(r"\*\*([a-z ]+)\*\* \((\d+)\)", page)
    } == counted


def test_the_threat_model_stays_short() -> None:
    assert len((FOLDER / "threat-model.md").read_text().split()) <= 1_200


def test_the_finder_finds() -> None:
    page = "| V1.1.1 | a | shown | a file |\n| V1.1.1 | b | maybe | x |\n| V9.9.9 | c | gap | d |\n"

    assert faults(page, ("V1.1.1", "V1.1.2")) == [
        "V1.1.1 stands there 2 times",
        "V1.1.2 stands there 0 times",
        "V9.9.9 is no requirement",
        "V1.1.1 is shown by no test",
        "V1.1.1: its state or its length",
    ]
    assert not is_there("tools/tests/test_house.py", "test_of_nothing")
