"""The pool of PostgreSQL connections: exact codecs, own schema, bounded statements."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from decimal import Decimal
from functools import partial
from typing import Any

import asyncpg

WEATHER = (
    asyncpg.PostgresConnectionError,
    asyncpg.exceptions.InvalidAuthorizationSpecificationError,
    asyncpg.InterfaceError,
    asyncpg.exceptions.OperatorInterventionError,
    asyncpg.exceptions.InsufficientResourcesError,
    asyncpg.exceptions.TransactionRollbackError,
    asyncpg.exceptions.QueryCanceledError,
    asyncpg.exceptions.IdleInTransactionSessionTimeoutError,
    asyncpg.exceptions.LockNotAvailableError,
    ConnectionError,
    OSError,
    TimeoutError,
)
"""What a working statement can meet on a bad day: worth trying again, never the caller's fault."""

STATEMENT_TIMEOUT_S = 5
PASSWORD_S, AGAIN_S = 1.8, 0.1
"""A changed password comes in a file that is looked at each second: so long a wrong one is tried again."""
JSONB_VERSION = b"\x01"
"""The first byte of jsonb on the wire; COPY takes the binary form only."""
IDLE_TIMEOUT_S = 6


def write_json(value: object) -> str:
    """Write jsonb; decimals become strings, so no digit is lost."""
    return json.dumps(value, default=_plain, separators=(",", ":"))


def _plain(value: object) -> str:
    if isinstance(value, Decimal):
        return format(value, "f")
    return str(value)


def read_json(text: str) -> Any:
    """Read jsonb exactly: fractions as Decimal."""
    return json.loads(text, parse_float=Decimal)


async def _prepare(connection: asyncpg.Connection[Any]) -> None:
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        format="binary",
        encoder=lambda value: JSONB_VERSION + write_json(value).encode(),
        decoder=lambda data: read_json(data[1:].decode()),
    )


async def _keep(_: object) -> None:
    """Nothing outlives a transaction here (settings and locks are its own), so nothing is to be reset."""


async def _connect(dsn: Callable[[], str], *_: object, **how: Any) -> asyncpg.Connection[Any]:
    """Connect with the newest DSN, again for a while where the password is refused: it may be changing."""
    loop = asyncio.get_running_loop()
    until = loop.time() + PASSWORD_S
    while True:
        try:
            opened: asyncpg.Connection[Any] = await asyncpg.connect(dsn(), **how)
        except asyncpg.InvalidPasswordError:
            if loop.time() > until:
                raise
            await asyncio.sleep(AGAIN_S)
        else:
            return opened


async def open_pool(dsn: str | Callable[[], str], size: int) -> asyncpg.Pool[Any]:
    """Open a pool of up to `size` connections; raises one of WEATHER when PostgreSQL can't be reached.

    A function is asked for the DSN at each new connection: the password in it may have changed.
    """
    pool = asyncpg.create_pool(
        connect=partial(_connect, dsn if callable(dsn) else lambda: dsn),
        min_size=1,
        max_size=size,
        init=_prepare,
        reset=_keep,
        timeout=3,
        command_timeout=STATEMENT_TIMEOUT_S,
        max_inactive_connection_lifetime=300,
        server_settings={
            "application_name": "eb",
            "timezone": "UTC",
            "idle_in_transaction_session_timeout": f"{IDLE_TIMEOUT_S}s",
            "statement_timeout": f"{STATEMENT_TIMEOUT_S}s",
            "jit": "off",
        },
    )
    try:
        return await asyncio.wait_for(pool, 5)
    except BaseException:
        pool.terminate()
        raise
