"""`eb`: what people do to a running platform beside its API, as the owner of its database (DATABASE_URL)."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import asyncpg

from eb_contracts.errors import Refusal
from eb_tools import audit_cli, bus_cli, coherence_cli, identity, invariants
from eb_tools.trouble import Trouble

Command = Callable[[argparse.Namespace], int]
LOCAL = "eb_tools.local_cli"


def owner_dsn() -> str:
    """Give the database owner's DSN: DATABASE_URL, which the local stack sets where nothing else does."""
    dsn = os.environ.get("DATABASE_URL")
    if not dsn:
        raise Trouble("No local stack is here and DATABASE_URL names no database.")
    return dsn


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
    if (local := _local()) is not None:
        local.register(commands)
    checking = commands.add_parser("invariants", help="check that nothing is lost or counted twice")
    checking.set_defaults(do=check_invariants)
    identity.register(commands, owner_dsn)
    audit_cli.register(commands, owner_dsn)
    bus_cli.register(commands, owner_dsn)
    coherence_cli.register(commands, owner_dsn)
    return root


def _local() -> ModuleType | None:
    """Give the commands of a local stack, which an image hasn't got."""
    return import_module(LOCAL) if find_spec(LOCAL) else None


def main() -> int:
    """Run one command; what goes wrong is said in a sentence, exit status 1."""
    options = parser().parse_args()
    do: Command = options.do
    try:
        if (local := _local()) is not None:
            local.know_local_stack()
        return do(options)
    except (Trouble, Refusal, ValueError, OSError, asyncpg.PostgresError) as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
