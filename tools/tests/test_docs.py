"""The documents speak of what is there: links lead somewhere, commands exist, lengths hold."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path

import pytest

from eb_tools.cli import parser
from eb_tools.paths import repository

ROOT = repository()
PAGES = sorted(
    ROOT / name
    for name in subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
)
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")
MAKE = re.compile(r"`make ([a-z-]+)[^`]*`|^\s*make ([a-z-]+)", re.MULTILINE)
MODULE = re.compile(r"python -m (eb_[a-z_.]+)")
EB = re.compile(r"`(?:\.venv/bin/)?eb ([a-z-]+)")
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_to_files(page: Path) -> None:
    missing = [
        target
        for target in LINK.findall(page.read_text())
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_exist(page: Path) -> None:
    text = page.read_text()
    assert {a or b for a, b in MAKE.findall(text)} <= TARGETS
    modules = {module.rstrip(".") for module in MODULE.findall(text)}
    assert [module for module in modules if importlib.util.find_spec(module) is None] == []
    commands = next(iter(parser()._subparsers._group_actions)).choices  # type: ignore[union-attr]
    assert set(EB.findall(text)) <= set(commands or ())


@pytest.mark.parametrize(("page", "most"), [("README.md", 500), ("ARCHITECTURE.md", 900)])
def test_the_front_pages_stay_short(page: str, most: int) -> None:
    assert len((ROOT / page).read_text().split()) <= most
