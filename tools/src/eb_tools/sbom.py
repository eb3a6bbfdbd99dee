"""The software bill of materials: every pinned package as CycloneDX JSON. `make sbom` writes sbom.json.

What the services' image holds is `required`, what the operators' image and local runs hold beside is `optional`, and
what only tests and checks need is `excluded`.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from eb_tools.advisories import read_pins
from eb_tools.paths import repository

ROOT = repository()
NAME = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)", re.MULTILINE)
INCLUDED = re.compile(r"^-r (\S+)$", re.MULTILINE)


def pins() -> dict[str, str]:
    """Give the version of each pinned package by its canonical name."""
    return read_pins(ROOT / "constraints.txt")


def brought_in_by(file: str) -> set[str]:
    """Name what a file of requirements brings in, directly, by a file that it names or not, as installed here."""
    waiting = list(_named_in(file))
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _requirements_of(name)
    return found


def _named_in(file: str) -> Iterator[str]:
    text = (ROOT / file).read_text()
    yield from (canonicalize_name(name) for name in NAME.findall(text))
    for other in INCLUDED.findall(text):
        yield from _named_in(other)


def _requirements_of(name: str) -> list[str]:
    try:
        written = [Requirement(line) for line in requires(name) or ()]
    except PackageNotFoundError:
        return []
    return [
        canonicalize_name(requirement.name)
        for requirement in written
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    ]


def _scope(is_of_services: bool, is_of_a_run: bool) -> ComponentScope:
    if is_of_services:
        return ComponentScope.REQUIRED
    return ComponentScope.OPTIONAL if is_of_a_run else ComponentScope.EXCLUDED


def bill() -> Bom:
    """Make the bill."""
    services, run = brought_in_by("requirements-services.txt"), brought_in_by("requirements-run.txt")
    components = [
        Component(
            name=name,
            version=version,
            type=ComponentType.LIBRARY,
            purl=PackageURL("pypi", name=name, version=version),
            scope=_scope(name in services, name in run),
        )
        for name, version in sorted(pins().items())
    ]
    return Bom(components=components)


def main() -> None:
    """Write it to a file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "sbom.json")
    given = parser.parse_args()
    text = JsonV1Dot6(bill()).output_as_string(indent=2)
    given.output.write_text(text + "\n")
    print(f"{given.output}: {len(pins())} packages")


if __name__ == "__main__":
    main()
