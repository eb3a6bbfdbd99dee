"""What the chaos tests share: usage flows while something is broken, and then everything has to be exact again.

A trial sends usage all the time, each batch until its 202, some of them twice. When its fault has ended, sending
stops, and the time is taken until metered = priced = ledger = what was accepted, and every invariant holds.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import psutil
from billing import estimate, quantity_of, usage_of

from eb_kit import topology
from eb_tools.client import Json, wait_for
from eb_tools.debian import find_programs
from eb_tools.invariants import broken, totals
from eb_tools.rabbitmq import NODE
from eb_tools.stack import Stack
from eb_tools.world import Member, World

from .proxy import Proxy

HEALED_S = 30.0
"""The rule: healed by itself so soon after the fault's end."""
GIVEN_UP_S = 120.0
BATCH = 40
EVERY_S = 0.1
TAKEN = (202, 207)


@dataclass
class Result:
    """A line of the table."""

    fault: str
    lasted_s: float
    healed_s: float
    accepted: int
    refused: int
    slowest_s: float

    @property
    def row(self) -> str:
        return (
            f"| {self.fault} | {self.lasted_s:.1f} | {self.healed_s:.1f} | {self.accepted:,} | {self.refused} |"
            f" {self.slowest_s:.2f} |"
        )


@dataclass
class Flow:
    """Usage on its way: what was accepted, and what the door answered."""

    world: World
    member: Member
    skus: dict[str, str]
    accepted: list[Json] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    waits_s: list[float] = field(default_factory=list)
    retry_afters: list[str | None] = field(default_factory=list)
    every_s: float = EVERY_S
    is_over: bool = False
    _counted: set[str] = field(default_factory=set)

    async def run(self) -> None:
        """Send a batch every tenth of a second; every fifth one twice, as a nervous client does."""
        async with asyncio.TaskGroup() as tasks:
            number = 0
            while not self.is_over:
                batch = usage_of(self.member, self.skus, BATCH)
                for _ in range(2 if number % 5 == 0 else 1):
                    tasks.create_task(self._send(batch, number))
                number += 1
                await asyncio.sleep(self.every_s)

    async def _send(self, batch: list[Json], number: int) -> None:
        """Send until it is accepted; only then does it count, and only once."""
        while (status := await self.post(batch)) not in TAKEN:
            assert status >= 500 or status == 0, f"refused with {status}"
            await asyncio.sleep(0.3)
        if batch[0]["request_id"] not in self._counted:
            self._counted.add(batch[0]["request_id"])
            self.accepted += batch

    async def post(self, batch: list[Json]) -> int:
        """Send once; give the status, 0 where nothing answered."""
        began = time.monotonic()
        api = self.world.api
        try:
            async with api.http.post(
                f"{api.base_url}/metering/events",
                data=json.dumps(batch).encode(),
                headers={
                    "Authorization": f"Bearer {self.member.api_key}",
                    "Content-Type": "application/json",
                },
            ) as answer:
                await answer.read()
                status = answer.status
                if status == 503:
                    self.retry_afters.append(answer.headers.get("Retry-After"))
        except (aiohttp.ClientError, TimeoutError, OSError):
            status = 0
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.waits_s.append(time.monotonic() - began)
        return status

    @property
    def refused(self) -> int:
        return sum(count for status, count in self.statuses.items() if status not in TAKEN)


class Arena:
    """A stack behind proxies, one organisation that uses it, and the table of what was tried."""

    def __init__(self, control: Stack, database: Proxy, broker: Proxy) -> None:
        self.control = control
        self.database = database
        self.broker = broker
        self.results: list[Result] = []
        self.sent: list[Json] = []
        self.disk: Path | None = None
        self.member: Member
        self.skus: dict[str, str]

    @property
    def facts(self) -> dict[str, Any]:
        return dict(json.loads(self.control.layout.facts.read_text()))

    async def resent(self, sender: str) -> float:
        """Give how many messages a service has found missing and sent again, since its process started."""
        url = f"http://127.0.0.1:{self.facts['ports'][f'{sender}-admin']}/metrics"
        async with aiohttp.ClientSession() as http, http.get(url) as answer:
            lines = (await answer.text()).splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("eb_coherence_resent_total{"))

    def arm(self, service: str, step: str, action: str = "die") -> Path:
        """Arm a fail point in a running service; its file goes when it has happened."""
        folder = self.control.layout.failpoints / service
        folder.mkdir(parents=True, exist_ok=True)
        (folder / step).write_text(action)
        return folder / step

    @contextmanager
    def hung(self, *names: str) -> Iterator[None]:
        """Stop these parts with all their processes: PostgreSQL has one for each connection."""
        found = [psutil.Process(self.control.pids()[name][0]) for name in names]
        found += [child for process in found for child in process.children(recursive=True)]
        for process in found:
            process.suspend()
        try:
            yield
        finally:
            for process in found:
                with suppress(psutil.NoSuchProcess):
                    process.resume()

    async def ctl(self, *command: str) -> None:
        """Run rabbitmqctl against the node."""
        folder = self.control.layout.folder / "rabbitmq"
        programs = find_programs()
        environment = programs.environment() | {
            "HOME": str(folder / "home"),
            "ERL_EPMD_PORT": str(self.facts["ports"]["rabbitmq-epmd"]),
            "RABBITMQ_NODENAME": NODE,
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        }
        program = str(Path(programs.rabbitmq_server).with_name("rabbitmqctl"))
        running = await asyncio.create_subprocess_exec(
            program, *command, env=os.environ | environment, stdout=asyncio.subprocess.DEVNULL
        )
        assert await running.wait() == 0

    async def purge(self, *services: str) -> None:
        """Empty the work queues of these services."""
        async with aiohttp.ClientSession() as http:
            for service in services:
                for queue in topology.work_queues(service):
                    url = f"{self.facts['rabbitmq_admin_url']}/api/queues/%2F/{queue}/contents"
                    async with http.delete(url) as answer:
                        assert answer.status == 204, answer.status

    async def restarted(self, name: str, killed: int, timeout_s: float = 60) -> None:
        """Wait until a part runs again under another pid."""
        await asyncio.to_thread(self.control.wait_for_new, name, killed, timeout_s)

    @asynccontextmanager
    async def trial(
        self, world: World, fault: str, *, must_accept: bool = True, within_s: float = HEALED_S
    ) -> AsyncIterator[Flow]:
        """Send usage while the block breaks something; its end is the fault's end.

        `must_accept`: no batch may be refused with 503, since the database or the broker is up.
        """
        flow = Flow(world, self.member, self.skus)
        sending = asyncio.create_task(flow.run())
        await asyncio.sleep(0.5)
        began = time.monotonic()
        try:
            yield flow
        finally:
            ended = time.monotonic()
            flow.is_over = True
            await sending
            self.sent += flow.accepted
        await self._settle(world, flow, fault, ended)
        result = Result(
            fault,
            ended - began,
            time.monotonic() - ended,
            len(flow.accepted),
            flow.refused,
            max(flow.waits_s),
        )
        self.results.append(result)
        print(f"\n{result.row}", flush=True)
        assert result.healed_s <= within_s, result
        if must_accept:
            assert flow.statuses.get(503, 0) == 0, flow.statuses

    async def _settle(self, world: World, flow: Flow, fault: str, ended: float) -> None:
        expected = quantity_of(self.sent)
        found: dict[str, Any] = {}

        async def look() -> bool:
            nonlocal found
            found = await self._totals() or {}
            return bool(found) and found["metered"] == found["priced"] == found["posted"] == expected

        try:
            await wait_for(look, f"{expected} in the ledger", timeout_s=GIVEN_UP_S, every_s=0.25)
        except Exception as error:
            raise AssertionError(f"{fault}: wanted {expected}, found {found}") from error

        async def holds() -> bool:
            return await self.broken() == {}

        await wait_for(holds, "the invariants", timeout_s=max(1.0, ended + GIVEN_UP_S - time.monotonic()))

    async def _totals(self) -> dict[str, Any] | None:
        try:
            connection = await asyncpg.connect(self.facts["owner_dsn"], timeout=3)
        except (OSError, asyncpg.PostgresError, TimeoutError):
            return None
        try:
            return await totals(connection, [self.member.org_id])
        finally:
            await connection.close()

    async def broken(self) -> dict[str, Any]:
        connection = await asyncpg.connect(self.facts["owner_dsn"])
        try:
            return dict(await broken(connection))
        finally:
            await connection.close()

    async def assert_estimate(self, world: World) -> None:
        """The bill of everything sent so far is what it would have been without any fault."""
        found = await self._totals()
        wanted = await estimate(world, self.member, self.sent)
        assert found is not None
        assert found["gross"] == Decimal(wanted["grand_total"])

    def table(self) -> str:
        """Give the table of the faults tried, as Markdown."""
        head = (
            "| fault | lasted s | healed after s | events accepted | answers other than 202 | slowest answer s |\n"
            "| --- | --- | --- | --- | --- | --- |"
        )
        return "\n".join([head, *(result.row for result in self.results), "", self._summary()])

    def _summary(self) -> str:
        times = [result.healed_s for result in self.results] or [0.0]
        return (
            f"{len(self.results)} faults, {len(self.sent):,} events accepted; healed after"
            f" {statistics.median(times):.1f} s in the median and {max(times):.1f} s at most."
        )


async def eventually(condition: Callable[[], Any], what: str, timeout_s: float = 30) -> None:
    """Wait for something to become true."""

    async def look() -> bool:
        found = condition()
        return bool(await found if asyncio.iscoroutine(found) else found)

    await wait_for(look, what, timeout_s=timeout_s)
