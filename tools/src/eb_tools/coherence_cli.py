"""`eb coherence`: what was sent and not handled yet, and a comparison that goes back in time.

Runs with the database owner's DSN; the comparing itself is done by the services. Rule: docs/rules/bus.md, Coherence.
"""

from __future__ import annotations

import argparse
import asyncio
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from eb_kit import coherence, topology
from eb_kit.outbox import REDRIVE
from eb_tools.trouble import Trouble

UNITS = {"m": "minutes", "h": "hours"}
STATE = """
    SELECT compared_to, (SELECT count(*) FROM {0}.sent_window) AS windows,
           (SELECT coalesce(sum(greatest(sent - handled, 0)), 0) FROM {0}.sent_window) AS missing,
           (SELECT coalesce(sum(resent), 0) FROM {0}.sent_window) AS resent,
           (SELECT string_agg(DISTINCT queue, ' ') FROM {0}.sent_window) AS queues
      FROM {0}.coherence_cursor
"""


def length(text: str) -> timedelta:
    """Read `90m` or `24h`, 72 hours at most; Trouble otherwise."""
    found = re.fullmatch(r"([1-9]\d*)([mh])", text)
    if found is None:
        raise Trouble(f"{text} is no length of time; write it as 90m or 24h.")
    span = timedelta(**{UNITS[found[2]]: int(found[1])})
    if span > REDRIVE:
        raise Trouble("The outbox keeps 72 h; nothing older can be compared or sent again.")
    return span


async def look(dsn: str, services: Sequence[str], back: timedelta | None) -> list[dict[str, Any]]:
    """Give each sending service's state; with `back` the services compare that stretch again first."""
    connection = await asyncpg.connect(dsn)
    try:
        states = []
        for service in services:
            schema = service.replace("-", "_")
            if back is not None:
                await connection.execute(f"SET search_path = {schema}")
                since = coherence.floor(datetime.now(UTC) - back, timedelta(minutes=1))
                await coherence.look_back(connection, since)
            row = await connection.fetchrow(STATE.format(schema))
            states.append({"service": service, **(dict(row) if row else {"compared_to": None, "windows": 0})})
        return states
    finally:
        await connection.close()


def register(commands: Any, owner_dsn: Callable[[], str]) -> None:
    """Enter the command."""
    parser = commands.add_parser("coherence", help="compare what was sent with what was handled")
    parser.add_argument("services", nargs="*", metavar="SERVICE", help="senders; none: all")
    parser.add_argument(
        "--since", metavar="LENGTH", help="compare again from so long ago, as 24h (72h at most)"
    )
    parser.set_defaults(do=lambda options: _coherence(owner_dsn(), options))


def _coherence(dsn: str, options: argparse.Namespace) -> int:
    """Print a line per sender; status 1 where messages are missing."""
    services = options.services or list(topology.SERVICES)
    if unknown := sorted(set(services) - set(topology.SERVICES)):
        raise Trouble(f"There is no service {', '.join(unknown)}.")
    back = length(options.since) if options.since else None
    is_missing = False
    for state in asyncio.run(look(dsn, services, back)):
        if state["compared_to"] is None:
            print(f"{state['service']:16} hasn't compared anything yet")
            continue
        is_missing |= state["missing"] > 0
        print(
            f"{state['service']:16} compared to {state['compared_to']:%Y-%m-%dT%H:%M:%SZ},"
            f" {state['windows']} windows open, {state['missing']} messages missing, {state['resent']} resends"
            f" {state['queues'] or ''}".rstrip()
        )
    return int(is_missing)
