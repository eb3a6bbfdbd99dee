"""`make lint`: every check that needs no running stack; all of them run, then the exit status says whether all passed.

`python -m eb_tools.lint NAME…` runs some; `--write docs` generates the documents that the drift checks compare.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from eb_tools.paths import repository

ROOT = repository()
BIN = Path(sys.executable).parent
GENERATORS = ("eb_tools.contracts_docs", "eb_tools.openapi", "eb_tools.rbac", "eb_tools.settings_docs")
"""Each writes documents from the code, and with `--check` only compares."""


@dataclass(frozen=True)
class Outcome:
    """What a check said; no text and status 0 is best. `unable` says why it could not be done."""

    status: int
    text: str
    unable: str = ""


def command(*argv: str, **env: str) -> Outcome:
    """Run one program of the venv in the repository's root."""
    program = str(BIN / argv[0]) if (BIN / argv[0]).exists() else argv[0]
    done = subprocess.run(
        [program, *argv[1:]], cwd=ROOT, env={**os.environ, "NO_COLOR": "1", **env}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    return Outcome(done.returncode, (done.stdout + done.stderr).strip())


def style() -> Outcome:
    """Ruff's rules."""
    return command("ruff", "check", "--output-format", "concise", ".")


def formatting() -> Outcome:
    """Ruff's format."""
    return command("ruff", "format", "--check", ".")


def types() -> Outcome:
    """Mypy, strict, over all packages."""
    sources = [str(path.relative_to(ROOT)) for path in ROOT.glob("*/*/src")] + [
        "tools/src",
        "tools/bootstrap.py",
    ]
    return command("mypy", "--no-error-summary", *sorted(sources))


def imports() -> Outcome:
    """The import rules of pyproject.toml."""
    return command("lint-imports", "--no-logo")


def house() -> Outcome:
    """Rules about the tree that no linter knows: SQL in its place, lengths, rooms, words."""
    return command("python", "-m", "pytest", "-q", "--no-header", "tools/tests/test_house.py")


def migrations() -> Outcome:
    """Squawk over the SQL of the whole chain, both ways; exceptions are named in migrations/squawk*.toml."""
    up = _squawk(("upgrade", "head"), "squawk.toml")
    down = _squawk(("downgrade", "head:base"), "squawk-down.toml")
    return Outcome(up.status | down.status, f"{up.text}\n{down.text}".strip())


def _squawk(revisions: tuple[str, str], config: str) -> Outcome:
    sql = subprocess.run(
        [str(BIN / "python"), "-m", "alembic", "-c", "migrations/alembic.ini", *revisions, "--sql"],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "DATABASE_URL": "postgresql://nobody@localhost/none"},
    )  # fmt: skip
    if sql.returncode != 0:
        return Outcome(sql.returncode, sql.stderr)
    with tempfile.NamedTemporaryFile("w", suffix=".sql") as file:
        file.write(sql.stdout)
        file.flush()
        return _only_failures(command("squawk", "-c", f"migrations/{config}", "--reporter", "gcc", file.name))


def compose() -> Outcome:
    """The compose file against its schema, and the Dockerfile."""
    schema = command("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "deploy/compose.yml")
    docker = command("hadolint", "deploy/Dockerfile")
    return _only_failures(
        Outcome(
            schema.status | docker.status, f"{schema.text if schema.status else ''}\n{docker.text}".strip()
        )
    )


def kubernetes() -> Outcome:
    """Every manifest against the Kubernetes API and the model; put together with each component, where kubectl is."""
    from eb_tools.manifests import problems

    files = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "deploy/k8s").rglob("*.yaml"))
    files = [name for name in files if not name.endswith("kustomization.yaml")]
    schema = _only_failures(command("kubernetes-validate", "--strict", "--quiet", *files))
    stale = problems()
    built = _with_all_components() if shutil.which("kubectl") else Outcome(0, "")
    text = "\n".join([schema.text, built.text, *stale]).strip()
    return Outcome(schema.status or built.status or bool(stale), text)


def _with_all_components() -> Outcome:
    folder = ROOT / "deploy/k8s"
    with tempfile.TemporaryDirectory(dir=folder) as overlay:
        listed = [f"  - ../components/{path.name}" for path in sorted((folder / "components").iterdir())]
        (Path(overlay) / "kustomization.yaml").write_text(
            "\n".join(["resources: [../base]", "components:", *listed, ""])
        )
        return _only_failures(command("kubectl", "kustomize", overlay))


def documents() -> Outcome:
    """The committed generated documents are those of the code."""
    outcomes = [command("python", "-m", generator, "--check") for generator in GENERATORS]
    failed = [outcome for outcome in outcomes if outcome.status]
    return Outcome(int(bool(failed)), "\n".join(outcome.text for outcome in failed))


def advisories() -> Outcome:
    """The pinned packages against published advisories; without a network it says so and fails nothing."""
    from eb_tools.advisories import look

    wrong, unable = look(datetime.now(UTC).date())
    return Outcome(int(bool(wrong)), "\n".join(wrong), unable)


def _only_failures(outcome: Outcome) -> Outcome:
    """Drop what a passing program says."""
    return outcome if outcome.status else Outcome(0, "")


CHECKS: dict[str, Callable[[], Outcome]] = {
    "types": types,
    "style": style,
    "formatting": formatting,
    "imports": imports,
    "house": house,
    "migrations": migrations,
    "compose": compose,
    "kubernetes": kubernetes,
    "documents": documents,
    "advisories": advisories,
}


def write_docs() -> int:
    """Generate the committed documents again."""
    outcomes = [command("python", "-m", writer) for writer in (*GENERATORS, "eb_tools.manifests")]
    print("\n".join(outcome.text for outcome in outcomes))
    return max(outcome.status for outcome in outcomes)


def check(name: str) -> int:
    """Run one check and say how it went; give its status."""
    began = time.monotonic()
    outcome = CHECKS[name]()
    verdict = "failed" if outcome.status else "unable" if outcome.unable else "ok"
    details = (
        f"\n{outcome.text if outcome.status else outcome.unable}" if outcome.status or outcome.unable else ""
    )
    print(f"{name:12} {verdict:6} {time.monotonic() - began:5.1f} s{details}", flush=True)
    return int(outcome.status)


def main() -> int:
    """Run the named checks, or all."""
    arguments = sys.argv[1:]
    if arguments == ["--write", "docs"]:
        return write_docs()
    unknown = [name for name in arguments if name not in CHECKS]
    if unknown:
        print(f"No check is called {unknown[0]}; there are {', '.join(CHECKS)}.", file=sys.stderr)
        return 2
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 2) as pool:
        statuses = list(pool.map(check, arguments or CHECKS))
    return int(any(statuses))


if __name__ == "__main__":
    sys.exit(main())
