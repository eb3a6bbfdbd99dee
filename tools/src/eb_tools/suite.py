"""`make test`: pytest with a stack of its own in `.run/test`, on free ports, beside a running one."""

from __future__ import annotations

import os
import sys

from eb_tools.paths import repository
from eb_tools.stack import Stack

EVERYTHING = (
    "libs", "services", "tools", "migrations", "tests/integration", "tests/chaos/test_smoke.py",
    "tests/chaos/test_outage.py",
)  # fmt: skip

MOST_WORKERS = 4


def main() -> None:
    """Forget what an earlier run left, then become pytest; arguments replace the list of folders."""
    root = repository()
    os.chdir(root)
    Stack(root / ".run" / "test").clean()
    os.environ["EB_PORTS"] = "any"
    chosen = sys.argv[1:] if any(not argument.startswith("-") for argument in sys.argv[1:]) else [
        *[name for name in EVERYTHING if (root / name).exists()], *sys.argv[1:]
    ]  # fmt: skip
    workers = str(min(os.cpu_count() or 1, MOST_WORKERS))
    shared = ["-p", "eb_tools.grouping", "-n", workers, "--dist", "loadscope", "--no-loadscope-reorder"]
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *shared, *chosen])  # noqa: S606


if __name__ == "__main__":
    main()
