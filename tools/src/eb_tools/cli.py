"""`eb`: what people do to a running platform beside its API. It finds the local stack by `EB_RUN_DIR` or `.run`."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime

import asyncpg

from eb_contracts.errors import Refusal
from eb_tools import audit_cli, bus_cli, clock_cli, coherence_cli, identity, invariants
from eb_tools.files import read_json
from eb_tools.layout import Layout
from eb_tools.paths import run_dir
from eb_tools.stack import Stack
from eb_tools.trouble import Trouble

Command = Callable[[argparse.Namespace], int]


def owner_dsn() -> str:
    """Give the database owner's DSN: DATABASE_URL, which the local stack sets where nothing else does."""
    dsn = os.environ.get("DATABASE_URL")
    if not dsn:
        raise Trouble("No local stack is here and DATABASE_URL names no database.")
    return dsn


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


def check_invariants(_: argparse.Namespace) -> int:
    """Look for broken invariants of the money; status 1 and the rows when one is broken."""

    async def look() -> dict[str, list[dict[str, object]]]:
        connection = await asyncpg.connect(owner_dsn())
        try:
            return dict(await invariants.broken(connection))
        finally:
            await connection.close()

    found = asyncio.run(look())
    for name, rows in found.items():
        print(f"broken: {name}")
        for row in rows:
            print(f"  {row}")
    print(
        "every invariant holds" if not found else f"{len(found)} of {len(invariants.CHECKS) + 1} are broken"
    )
    return int(bool(found))


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    root = argparse.ArgumentParser(prog="eb", description=__doc__)
    commands = root.add_subparsers(required=True, metavar="COMMAND")
    _add_clock(commands.add_parser("clock", help="move the business clock of a local run"))
    commands.add_parser("status", help="say whether the local stack runs").set_defaults(do=status)
    checking = commands.add_parser("invariants", help="check that nothing is lost or counted twice")
    checking.set_defaults(do=check_invariants)
    identity.register(commands, owner_dsn)
    audit_cli.register(commands, owner_dsn)
    bus_cli.register(commands, owner_dsn)
    coherence_cli.register(commands, owner_dsn)
    return root


def _know_local_stack() -> None:
    """Let commands of the owner find the local stack's database and secret, unless DATABASE_URL names another."""
    layout = Layout(run_dir())
    facts = read_json(layout.facts)
    if facts and "DATABASE_URL" not in os.environ:
        os.environ |= {
            "DATABASE_URL": facts["owner_dsn"],
            "EB_ENV": "local",
            "EB_AUTH_SECRET": read_json(layout.secrets)["auth_seal"],
            "EB_CLOCK_FILE": str(layout.clock),
        }


def _add_clock(clock_parser: argparse.ArgumentParser) -> None:
    actions = clock_parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    setting = actions.add_parser("set", help="set it to an instant, as 2026-11-04T02:00:00Z")
    setting.add_argument("value", metavar="INSTANT")
    advancing = actions.add_parser("advance", help="move it on, as 3d, 36h, 15m")
    advancing.add_argument("value", metavar="LENGTH")
    actions.add_parser("run", help="let it be the machine's time again")
    clock_parser.set_defaults(do=clock)


def main() -> int:
    """Run one command; what goes wrong is said in a sentence, exit status 1."""
    options = parser().parse_args()
    do: Command = options.do
    try:
        _know_local_stack()
        return do(options)
    except (Trouble, Refusal, ValueError, OSError, asyncpg.PostgresError) as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
