"""The pinned packages against the published advisories, with pip-audit; part of `make lint`.

pip-audit takes a package that its source doesn't know for a skipped one, and ends with "no known vulnerabilities"
behind a mirror that has no advisories at all. So a source counts only once it has told of a release that is known to
be vulnerable. Rule: docs/security/dependencies.md.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import yaml

from eb_tools.paths import repository

PINNED = repository() / "constraints.txt"
ALLOWED = repository() / "docs" / "security" / "advisories.yaml"
KNOWN_BAD = "flask==0.5"
"""Has public advisories since 2018 (PYSEC-2018-66, PYSEC-2019-179); isn't installed here."""
SOURCES = ("pypi", "osv")
ASK_S, AUDIT_S = 8.0, 25.0


@dataclass(frozen=True)
class Allowed:
    """A finding that is borne for a while: why, and its last day."""

    advisory: str
    package: str
    reason: str
    until: date


def read_allowed(file: Path = ALLOWED) -> tuple[Allowed, ...]:
    """Read the list; TypeError where a row lacks a member or has one too many."""
    return tuple(Allowed(**row) for row in yaml.safe_load(file.read_text())["allowed"])


def audit(source: str, requirements: Path, longest_s: float) -> list[dict[str, Any]] | None:
    """Give pip-audit's findings on exactly the pinned versions, None where the source can't be asked."""
    osv = ("--osv-url", url) if (url := os.environ.get("EB_OSV_URL")) else ()
    argv = [sys.executable, "-m", "pip_audit", "--disable-pip", "--no-deps", "--format", "json"]
    argv += ["--progress-spinner", "off", "--timeout", "5", "--vulnerability-service", source, *osv]
    try:
        done = subprocess.run(
            [*argv, "-r", str(requirements)], capture_output=True, text=True, check=False, timeout=longest_s
        )
        return list(json.loads(done.stdout)["dependencies"])
    except (subprocess.TimeoutExpired, ValueError):
        return None


def has_advisories(source: str) -> bool:
    """Tell whether a source knows what everybody knows."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(f"{KNOWN_BAD}\n")
        file.flush()
        found = audit(source, Path(file.name), ASK_S)
    return any(package.get("vulns") for package in found or ())


def judge(found: Iterable[Mapping[str, Any]], allowed: Iterable[Allowed], today: date) -> list[str]:
    """Say what is wrong: findings, packages that the source doesn't know, allowances that ended or serve nothing."""
    rows, wrong, used = tuple(allowed), [], set()
    for package in found:
        if "skip_reason" in package:
            wrong.append(f"{package['name']}: no such release is known, so nobody can say whether it is safe")
        for advisory in package.get("vulns", ()):
            names = {advisory["id"], *advisory.get("aliases", ())}
            row = next(
                (row for row in rows if row.advisory in names and row.package == package["name"]), None
            )
            used.add(row)
            if row is None or row.until < today:
                wrong.append(_finding(package, advisory, row))
    wrong += [
        f"{row.advisory} ({row.package}) is allowed and not found: take it off"
        for row in rows
        if row not in used
    ]
    return wrong


def _finding(package: Mapping[str, Any], advisory: Mapping[str, Any], row: Allowed | None) -> str:
    fixed = ", ".join(advisory.get("fix_versions", ())) or "no release yet"
    ended = f" (was allowed until {row.until})" if row else ""
    return f"{package['name']} {package['version']}: {advisory['id']}, fixed in {fixed}{ended}"


def look(today: date, pinned: Path = PINNED, allowed: Path = ALLOWED) -> tuple[list[str], str]:
    """Audit the pinned packages: what is wrong, and a sentence where no source could be asked."""
    for source in SOURCES:
        if has_advisories(source) and (found := audit(source, pinned, AUDIT_S)) is not None:
            return judge(found, read_allowed(allowed), today), ""
    sentence = (
        "Neither PyPI nor OSV gives advisories here, so nothing was audited (docs/security/dependencies.md)."
    )
    return ([sentence] if os.environ.get("EB_AUDIT") == "required" else []), sentence
