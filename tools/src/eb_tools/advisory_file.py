"""Advisories from a file, where no service of them can be asked: OSV records, as osv.dev publishes them for PyPI.

The file is that archive (`all.zip`) or a folder of records, fetched where there is a network. It counts as a source
only while its newest record is young. Format: OSV schema 1.x, `affected` with `versions` and `ranges`.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

LONGEST_AGE = timedelta(days=7)
Record = Mapping[str, Any]


def read_records(place: Path) -> Iterator[Record]:
    """Give every record of an archive or a folder; OSError or ValueError where it is neither."""
    if place.is_dir():
        yield from (json.loads(file.read_bytes()) for file in sorted(place.glob("*.json")))
        return
    try:
        with zipfile.ZipFile(place) as archive:
            yield from (
                json.loads(archive.read(name)) for name in archive.namelist() if name.endswith(".json")
            )
    except zipfile.BadZipFile as error:
        raise ValueError(f"{place} is neither a folder nor an archive of OSV records") from error


def is_young(records: Iterable[Record], today: date) -> bool:
    """Tell whether the newest record was written in the last days; an old file knows nothing of new advisories."""
    newest = max((str(record["modified"]) for record in records), default="")
    return bool(newest) and datetime.fromisoformat(newest).date() >= today - LONGEST_AGE


def audit(records: Iterable[Record], pins: Mapping[str, str]) -> list[dict[str, Any]]:
    """Give what is known of each pin (canonical name to version), in the form of pip-audit's findings."""
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in pins}
    for record in records:
        for affected in () if record.get("withdrawn") else record.get("affected", ()):
            name = _name_of(affected)
            if name in pins and _is_hit(affected, pins[name]):
                found[name].append(_finding(record, affected))
    return [{"name": name, "version": pins[name], "vulns": vulns} for name, vulns in found.items()]


def _name_of(affected: Record) -> str:
    package = affected.get("package", {})
    return canonicalize_name(str(package.get("name", ""))) if package.get("ecosystem") == "PyPI" else ""


def _finding(record: Record, affected: Record) -> dict[str, Any]:
    fixed = [event["fixed"] for events in _ranges(affected) for event in events if "fixed" in event]
    return {"id": record["id"], "aliases": list(record.get("aliases", ())), "fix_versions": fixed}


def _ranges(affected: Record) -> Iterator[list[dict[str, str]]]:
    for stretch in affected.get("ranges", ()):
        if stretch.get("type") == "ECOSYSTEM":
            yield stretch["events"]


def _is_hit(affected: Record, version: str) -> bool:
    return version in affected.get("versions", ()) or any(
        _lies_in(events, Version(version)) for events in _ranges(affected)
    )


def _lies_in(events: list[dict[str, str]], version: Version) -> bool:
    """Tell whether a version lies in a range: its events in order, the last one at or before it decides."""
    is_in = False
    for at, kind in sorted(_steps(events), key=lambda step: (step[0], step[1] != "introduced")):
        if at < version or (at == version and kind != "last_affected"):
            is_in = kind == "introduced"
    return is_in


def _steps(events: list[dict[str, str]]) -> Iterator[tuple[Version, str]]:
    for event in events:
        for kind, text in event.items():
            if kind in ("introduced", "fixed", "last_affected"):
                yield _version(text), kind


def _version(text: str) -> Version:
    """Read a version; one that isn't PEP 440's counts as older than all, so that its range stays open."""
    try:
        return Version(text)
    except InvalidVersion:
        return Version("0.dev0")
