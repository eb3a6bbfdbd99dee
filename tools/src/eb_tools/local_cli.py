"""The commands of `eb` that only a working copy has: its local stack, found by `EB_RUN_DIR` or `.run`; its clock."""

from __future__ import annotations

import argparse
import os
from datetime import UTC, datetime
from typing import Any

from eb_tools import clock_cli
from eb_tools.files import read_json
from eb_tools.layout import Layout
from eb_tools.paths import run_dir
from eb_tools.stack import Stack


def clock(options: argparse.Namespace) -> int:
    """Move the business clock of the local run."""
    file, now = Layout(run_dir()).clock, datetime.now(UTC)
    if options.action == "set":
        told = clock_cli.set_to(file, options.value, now)
    elif options.action == "advance":
        told = clock_cli.advance(file, options.value, now)
    else:
        told = clock_cli.run(file, now)
    print(f"the platform's time is {told:%Y-%m-%dT%H:%M:%SZ}")
    return 0


def status(_: argparse.Namespace) -> int:
    """Say whether the local stack runs, and its processes; status 1 when it doesn't."""
    stack = Stack(run_dir())
    print(f"{stack.layout.folder}: {stack.state}")
    for name, pids in sorted(stack.pids().items() if stack.is_running else []):
        print(f"  {name:16} {' '.join(map(str, pids))}")
    return 0 if stack.state == "ready" else 1


def register(commands: Any) -> None:
    """Enter `eb clock` and `eb status`."""
    _add_clock(commands.add_parser("clock", help="move the business clock of a local run"))
    commands.add_parser("status", help="say whether the local stack runs").set_defaults(do=status)


def know_local_stack() -> None:
    """Let commands of the owner find the local stack's database and secret, unless DATABASE_URL names another."""
    layout = Layout(run_dir())
    facts = read_json(layout.facts)
    if facts and "DATABASE_URL" not in os.environ:
        os.environ |= {
            "DATABASE_URL": facts["owner_dsn"],
            "EB_ENV": "local",
            "EB_AUTH_SECRET": read_json(layout.secrets)["auth_seal"],
        }
    os.environ.setdefault("EB_CLOCK_FILE", str(layout.clock))


def _add_clock(clock_parser: argparse.ArgumentParser) -> None:
    actions = clock_parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    setting = actions.add_parser("set", help="set it to an instant, as 2026-11-04T02:00:00Z")
    setting.add_argument("value", metavar="INSTANT")
    advancing = actions.add_parser("advance", help="move it on, as 3d, 36h, 15m")
    advancing.add_argument("value", metavar="LENGTH")
    actions.add_parser("run", help="let it be the machine's time again")
    clock_parser.set_defaults(do=clock)
