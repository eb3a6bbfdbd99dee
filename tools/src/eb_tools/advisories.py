"""The pinned packages against the published advisories, with pip-audit; part of `make lint`.

pip-audit takes a package that its source doesn't know for a skipped one, and ends with "no known vulnerabilities"
behind a mirror that has no advisories at all. So a source counts only once it has told of a release that is known to
be vulnerable. Rule: docs/security/dependencies.md.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import yaml
from packaging.utils import canonicalize_name

from eb_tools import advisory_file
from eb_tools.paths import repository

PINNED = repository() / "constraints.txt"
ALLOWED = repository() / "docs" / "security" / "advisories.yaml"
KNOWN_BAD = "flask==0.5"
"""Has public advisories since 2018 (PYSEC-2018-66, PYSEC-2019-179); isn't installed here."""
SOURCES = ("pypi", "osv")
PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)$", re.MULTILINE)
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


def look_into(place: Path, today: date, pinned: Path, allowed: Path) -> list[str]:
    """Audit the pinned packages by a file; one that can't be read, is old or knows nothing is itself what is wrong."""
    try:
        records = list(advisory_file.read_records(place))
    except (OSError, ValueError) as error:
        return [f"EB_ADVISORIES: {error}"]
    name, _, version = KNOWN_BAD.partition("==")
    (known,) = advisory_file.audit(records, {name: version})
    if not known["vulns"]:
        return [
            f"EB_ADVISORIES: {place} doesn't know {KNOWN_BAD}, so it isn't the whole of PyPI's advisories"
        ]
    if not advisory_file.is_young(records, today):
        return [f"EB_ADVISORIES: {place} is older than {advisory_file.LONGEST_AGE.days} days; fetch it again"]
    return judge(advisory_file.audit(records, read_pins(pinned)), read_allowed(allowed), today)


def read_pins(pinned: Path) -> dict[str, str]:
    """Give the version of each pinned package by its canonical name."""
    return {canonicalize_name(name): version for name, version in PIN.findall(pinned.read_text())}


def look(today: date, pinned: Path = PINNED, allowed: Path = ALLOWED) -> tuple[list[str], str]:
    """Audit the pinned packages: what is wrong, and a sentence where no source could be asked.

    `EB_ADVISORIES` names a file of advisories to be taken instead of asking.
    """
    if place := os.environ.get("EB_ADVISORIES"):
        return look_into(Path(place), today, pinned, allowed), ""
    for source in SOURCES:
        if has_advisories(source) and (found := audit(source, pinned, AUDIT_S)) is not None:
            return judge(found, read_allowed(allowed), today), ""
    sentence = (
        "Neither PyPI nor OSV gives advisories here, so NOTHING WAS AUDITED: no pin is known to be safe."
        " EB_ADVISORIES may name a file of them (docs/security/dependencies.md)."
    )
    return ([sentence] if os.environ.get("EB_AUDIT") == "required" else []), sentence
