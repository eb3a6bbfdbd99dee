"""Run the migrations: asyncpg through SQLAlchemy's async engine, one transaction per revision.

Two runs at once wait for each other on an advisory lock. With `--sql` the statements are written out instead
(the linter reads them so). The database is DATABASE_URL, the owner's, or the config's attribute `database_url`.
"""

from __future__ import annotations

import asyncio
import os

import asyncpg
from alembic import context
from sqlalchemy import MetaData
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from kit_tables import PARTITION_NAMES, SCHEMAS

MIGRATION_LOCK = 7_205_209_202_509_200


DIALECT = "postgresql+asyncpg://"


def database_url() -> str:
    """Give the owner's DSN."""
    given: str | None = context.config.attributes.get("database_url")
    return given or os.environ.get("DATABASE_URL", "postgresql://localhost/eb")


def run_offline() -> None:
    """Write the SQL of the asked revisions to stdout."""
    context.configure(url=DIALECT, literal_binds=True, transaction_per_migration=False)
    with context.begin_transaction():
        context.run_migrations()


def include_name(name: str | None, kind: str, parents: object) -> bool:
    """Compare our schemas only, and no partition: partitions come and go by themselves."""
    if kind == "schema":
        return name in SCHEMAS
    return kind != "table" or name is None or PARTITION_NAMES.fullmatch(name) is None


def run_on(connection: Connection) -> None:
    """Run the asked revisions on an open connection."""
    context.configure(
        connection=connection,
        target_metadata=context.config.attributes.get("metadata", MetaData()),
        include_schemas=True,
        include_name=include_name,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


async def run_online() -> None:
    """Connect, hold the migration lock on a connection of its own, and run.

    asyncpg reads the DSN itself: SQLAlchemy would not take `sslmode`.
    """
    engine = create_async_engine(
        DIALECT, async_creator=lambda: asyncpg.connect(database_url()), poolclass=NullPool
    )
    try:
        async with engine.connect() as guard, engine.connect() as connection:
            await guard.exec_driver_sql(f"SELECT pg_advisory_lock({MIGRATION_LOCK})")
            await connection.run_sync(run_on)
    finally:
        await engine.dispose()


if context.is_offline_mode():
    run_offline()
else:
    asyncio.run(run_online())
