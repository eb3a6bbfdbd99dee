"""`Tx`: one PostgreSQL transaction that carries actor, trace and outbox.

The door opens it and leaving the block commits; nothing inside does. A fact leaves exactly when its
change is kept. Rule: docs/rules/bus.md, Outbox.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from aiohttp import web

from eb_contracts.base import EntityFact, Message

from . import idempotency, outbox, readmodels
from .clock import minute
from .telemetry import current_request_id, current_trace

if TYPE_CHECKING:
    import asyncpg

    from .access import Caller
    from .bus import Envelope
    from .service import ServiceContext

CUT_AFTER_S = 5.0
ACQUIRE_S = 2.0
SET_CONTEXT = """
    SELECT set_config('eb.actor', $1, true), set_config('eb.request_id', $2, true),
           set_config('eb.trace_id', $3, true), set_config('eb.on_behalf_of', $4, true),
           set_config('eb.now', $5, true)
"""


class Tx:
    """The open transaction. `now` is the business time of its start, `minute` the whole minute of it.

    `actor` is `user:<id>`, `key:<id>`, `service:<name>` or `system:<service>`; `caller` is set at an
    HTTP door only.
    """

    def __init__(
        self, context: ServiceContext, connection: Any, actor: str, caller: Caller | None = None
    ) -> None:
        self.context = context
        self.connection = connection
        self.actor = actor
        self.caller = caller
        self.now: datetime = context.clock.now()
        self.minute: datetime = minute(self.now)
        self.outgoing: list[Message | Envelope] = []
        self.replay: idempotency.Claim | None = None
        self._answer: web.Response | None = None

    async def act_as(self, actor: str) -> None:
        """From here on be somebody who has just proved who they are: what is audited carries their name."""
        self.actor = actor
        await self.connection.execute("SELECT set_config('eb.actor', $1, true)", actor)

    async def execute(self, sql: str, *args: object) -> str:
        """Run a statement; give its command tag."""
        return str(await self.connection.execute(sql, *args))

    async def executemany(self, sql: str, rows: Iterable[Sequence[object]]) -> None:
        """Run one statement for each row."""
        await self.connection.executemany(sql, rows)

    async def fetch(self, sql: str, *args: object) -> list[asyncpg.Record]:
        """Give all rows."""
        return list(await self.connection.fetch(sql, *args))

    async def fetchrow(self, sql: str, *args: object) -> asyncpg.Record | None:
        """Give the first row, or None."""
        return await self.connection.fetchrow(sql, *args)  # type: ignore[no-any-return]

    async def fetchval(self, sql: str, *args: object) -> Any:
        """Give the first value of the first row, or None."""
        return await self.connection.fetchval(sql, *args)

    async def copy(self, table: str, columns: Sequence[str], records: Iterable[Sequence[object]]) -> None:
        """COPY records into a table of the own schema."""
        await self.connection.copy_records_to_table(
            table, columns=list(columns), records=records, schema_name=self.context.schema
        )

    def publish(self, *messages: Message | Envelope) -> None:
        """Put messages into the outbox; they leave once this transaction is kept."""
        self.outgoing.extend(messages)

    async def announce(self, *facts: EntityFact) -> None:
        """Publish facts and keep them in the own read model at once, so that the owner reads its writes."""
        self.publish(*facts)
        await readmodels.keep(self.connection, facts, self.context.clock.machine_now())

    def answer(self, response: web.Response) -> web.Response:
        """Say what to answer; the same Idempotency-Key gets it again."""
        self._answer = response
        return response

    async def flush(self) -> None:
        """Write what the block collected: the outbox rows and the answer to repeat."""
        if self.outgoing:
            await outbox.insert(
                self.connection, self.outgoing, trace=current_trace(), now=self.context.clock.machine_now()
            )
        if self.replay is not None:
            await idempotency.remember(self, self.replay, self._answer)


@asynccontextmanager
async def open_tx(
    context: ServiceContext, actor: str, *, caller: Caller | None = None, readonly: bool = False
) -> AsyncIterator[Tx]:
    """Open a transaction and commit it when the block ends well; TimeoutError after 5 s."""
    async with (
        context.pool.acquire(timeout=ACQUIRE_S) as connection,
        asyncio.timeout(CUT_AFTER_S),
        connection.transaction(readonly=readonly),
    ):
        tx = Tx(context, connection, actor, caller)
        if not readonly:
            await _set_context(tx)
        yield tx
        await tx.flush()
    if tx.outgoing:
        context.bus.wake()


async def _set_context(tx: Tx) -> None:
    on_behalf_of = tx.caller.on_behalf_of if tx.caller else ""
    await tx.connection.execute(
        SET_CONTEXT,
        tx.actor,
        current_request_id() or "",
        current_trace().trace_id,
        on_behalf_of,
        tx.now.isoformat(),
    )


@asynccontextmanager
async def begin(request: web.Request) -> AsyncIterator[Tx]:
    """Open the transaction of an HTTP request: read only for GET, with the Idempotency-Key's claim for POST.

    Raises idempotency.Replayed with the stored answer when the same request was answered before.
    """
    from .access import CONNECTION, caller_or_none
    from .service import CONTEXT

    context = request.app[CONTEXT]
    caller = caller_or_none(request)
    actor = caller.actor if caller else f"system:{context.service_name}"
    async with open_tx(context, actor, caller=caller, readonly=request.method == "GET") as tx:
        tx.replay = await idempotency.claim(tx, request)
        request[CONNECTION] = tx.connection
        try:
            yield tx
        finally:
            del request[CONNECTION]
