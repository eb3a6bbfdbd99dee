"""`eb dead-letters` and `eb rebuild`: what an operator does about messages given up and about read models.

Runs with the database owner's DSN in the service's schema; what is published leaves by the service's own relay.
Rule: docs/rules/bus.md, Dead letters and Read models.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from eb_kit import deadletters, readmodels, topology
from eb_kit.bus import Bus, Handlers
from eb_kit.clock import Clock
from eb_kit.db import open_pool
from eb_kit.service import Service, ServiceContext
from eb_kit.settings import ServiceSettings
from eb_kit.tx import Tx
from eb_kit.web import Routes
from eb_tools.trouble import Trouble

ACTOR = "system:cli"
MOST = 1000


@asynccontextmanager
async def service_tx(dsn: str, service: str) -> AsyncIterator[Tx]:
    """Open a transaction in a service's schema as the database's owner."""
    schema = service.replace("-", "_")
    settings = ServiceSettings.model_validate(
        {
            "EB_ENV": "local",
            "DATABASE_URL": dsn,
            "AMQP_URL": "amqp://127.0.0.1",
            "http_port": 0,
            "admin_port": 0,
        }
    )
    made = Service(service, schema, ServiceSettings, Routes(service), Handlers())
    context = ServiceContext(made, settings)
    context.pool = await open_pool(f"{dsn}{'&' if '?' in dsn else '?'}search_path={schema},public", 1)
    try:
        context.bus = Bus(context, made.handlers)
        async with context.begin(ACTOR) as tx:
            yield tx
    finally:
        await context.pool.close()


async def list_letters(dsn: str, service: str, status: str) -> list[Any]:
    """Give a service's dead letters, newest first, 1,000 at most."""
    async with service_tx(dsn, service) as tx:
        return await deadletters.list_letters(tx, status=status, limit=MOST)


async def show(dsn: str, service: str, letter_id: UUID) -> bytes:
    """Give the body of a letter; Trouble if there is none."""
    async with service_tx(dsn, service) as tx:
        body = await deadletters.get_body(tx, letter_id)
    if body is None:
        raise Trouble(f"{service} has no dead letter {letter_id}.")
    return body


async def settle(dsn: str, service: str, action: str, letter_ids: list[UUID]) -> int:
    """Replay or discard letters; give how many."""
    do = deadletters.replay if action == "replay" else deadletters.discard
    async with service_tx(dsn, service) as tx:
        return await do(tx, letter_ids)


async def rebuild(dsn: str, service: str, entity: str) -> None:
    """Have a service fill a read model from its owner again; Trouble where it keeps no such entity."""
    kept = {fact.ENTITY for fact in topology.FACTS[service]}
    if entity not in kept:
        raise Trouble(f"{service} keeps {', '.join(sorted(kept)) or 'nothing'}.")
    async with service_tx(dsn, service) as tx:
        await readmodels.rebuild(tx, entity, Clock.machine_now())


def register(commands: Any, owner_dsn: Callable[[], str]) -> None:
    """Enter the commands."""
    letters = commands.add_parser("dead-letters", help="list, show, replay or discard messages given up")
    letters.add_argument("action", choices=["list", "show", "replay", "discard"])
    letters.add_argument("service", choices=sorted(topology.SERVICES))
    letters.add_argument("ids", nargs="*", type=UUID, metavar="ID", help="none: all that are open")
    letters.set_defaults(do=lambda options: _letters(owner_dsn(), options))
    again = commands.add_parser("rebuild", help="have a service fill a read model from its owner again")
    again.add_argument("service", choices=sorted(topology.SERVICES))
    again.add_argument("entity")
    again.set_defaults(do=lambda options: _rebuild(owner_dsn(), options))


def _letters(dsn: str, options: argparse.Namespace) -> int:
    if options.action == "list":
        for row in asyncio.run(list_letters(dsn, options.service, "open")):
            print(
                row["dead_letter_id"],
                row["queue"],
                row["type"],
                row["error_class"],
                row["attempts"],
                row["detail"],
            )
        return 0
    if options.action == "show":
        for letter_id in options.ids:
            print(asyncio.run(show(dsn, options.service, letter_id)).decode(errors="replace"))
        return 0
    ids = options.ids or [
        row["dead_letter_id"] for row in asyncio.run(list_letters(dsn, options.service, "open"))
    ]
    print(f"{options.action}: {asyncio.run(settle(dsn, options.service, options.action, ids))}")
    return 0


def _rebuild(dsn: str, options: argparse.Namespace) -> int:
    asyncio.run(rebuild(dsn, options.service, options.entity))
    print(f"{options.service} asks for {options.entity} again")
    return 0
