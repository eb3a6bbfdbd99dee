"""`python -m eb_tools.migrate upgrade head`: run the migrations as the owner of DATABASE_URL.

An upgrade that has nothing to do is answered from one query, without loading alembic.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
from pathlib import Path

import asyncpg

MIGRATIONS = Path(os.environ.get("EB_MIGRATIONS") or Path(__file__).resolve().parents[3] / "migrations")
"""The folder of alembic.ini; an image names its own."""
HEAD = "head"
UNUSABLE = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InterfaceError,
)


def head_revision(versions: Path = MIGRATIONS / "versions") -> str:
    """Give the newest revision of the files: the one that no other names as its predecessor."""
    sources = [path.read_text() for path in versions.glob("*.py")]
    names: set[str] = {
        match for text in sources for match in re.findall(r'^revision = "(.+)"', text, re.MULTILINE)
    }
    before = {
        match for text in sources for match in re.findall(r'^down_revision = "(.+)"', text, re.MULTILINE)
    }
    (head,) = names - before
    return head


async def current_revision(dsn: str) -> str | None:
    """Give the revision a database is at; None for an empty one."""
    connection = await asyncpg.connect(dsn)
    try:
        if await connection.fetchval("SELECT to_regclass('public.alembic_version')") is None:
            return None
        revision: str | None = await connection.fetchval("SELECT version_num FROM public.alembic_version")
        return revision
    finally:
        await connection.close()


def run_alembic(command: str, revision: str) -> None:
    """Run `upgrade` or `downgrade` with alembic; DATABASE_URL names the database."""
    import alembic.command
    from alembic.config import Config
    from alembic.util import CommandError

    try:
        getattr(alembic.command, command)(Config(str(MIGRATIONS / "alembic.ini")), revision)
    except CommandError as reason:
        sys.exit(str(reason))


def migrate(command: str, revision: str) -> None:
    """Bring the database of DATABASE_URL to a revision; at head already, nothing is loaded or run."""
    if (command, revision) == ("upgrade", HEAD):
        found = asyncio.run(current_revision(os.environ["DATABASE_URL"]))
        if found == head_revision():
            print(f"the database is at {found} already")
            return
    run_alembic(command, revision)


def main() -> None:
    """Read the command line: `upgrade REVISION` or `downgrade REVISION`."""
    arguments = sys.argv[1:]
    if len(arguments) != 2 or arguments[0] not in ("upgrade", "downgrade"):
        sys.exit("usage: python -m eb_tools.migrate upgrade|downgrade REVISION")
    if "DATABASE_URL" not in os.environ:
        sys.exit("DATABASE_URL is not set: it names the database, as its owner")
    try:
        migrate(*arguments)
    except (OSError, TimeoutError, *UNUSABLE) as reason:
        sys.exit(f"the database of DATABASE_URL can't be used: {reason}")


if __name__ == "__main__":
    main()
