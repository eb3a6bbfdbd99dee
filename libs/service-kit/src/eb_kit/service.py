"""One process of one service: settings, pool, directory, bus, doors; start, readiness and drain.

`main(SERVICE)` is the whole `__main__.py` of a service. Doors: `api` (HTTP), `consumers` (bus), `jobs` (clock).
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog
import uvloop
from aiohttp import web
from pydantic import ValidationError

from . import cores, failpoints, telemetry
from .clock import Clock
from .db import WEATHER, open_pool
from .directory import Directory
from .jobs import Jobs, start_jobs
from .maintenance import make_partitions, upkeep
from .settings import ServiceSettings, SettingsFiles, load
from .supervisor import Supervisor
from .touch import CONSUME, DATABASE, PUBLISH, Touch

if TYPE_CHECKING:
    import asyncpg

    from .bus import Bus, Handlers
    from .tx import Tx
    from .web import Routes

log = structlog.get_logger(__name__)

COLLECT_AFTER = (50_000, 20, 20)
"""A take makes tens of thousands of objects that live until it ends: looking for cycles among them every 700
takes a fifth of its time."""
FILES_S = 1.0
FIRST_TOUCH_S, FIRST_LOOK_S = 1.0, 0.02
ANSWER_S = 0.5
DOORS = frozenset({"api", "consumers", "jobs"})
CONTEXT: web.AppKey[ServiceContext]
Closer = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Service:
    """What makes a service: its name, its schema, its settings and what stands behind each door.

    `outlives_database`: its door has work that needs no PostgreSQL, so a process that was ready stays so without.
    """

    name: str
    schema: str
    settings: type[ServiceSettings]
    routes: Routes
    handlers: Handlers
    jobs: Jobs = field(default_factory=Jobs)
    on_start: Callable[[ServiceContext], Awaitable[Closer | None]] | None = None
    outlives_database: bool = False


class ServiceContext:
    """What one running process holds; every Tx leads to it. `extras` is the service's own."""

    settings: Any

    def __init__(self, service: Service, settings: ServiceSettings, doors: frozenset[str] = DOORS) -> None:
        self.service = service
        self.service_name = service.name
        self.schema = service.schema
        self.settings = settings
        self.doors = doors
        self.clock = Clock(settings.clock_file if settings.eb_env == "local" else None)
        self.touch = Touch(service.name, {DATABASE, PUBLISH} | ({CONSUME} if "consumers" in doors else set()))
        self.directory = Directory(self.clock, self.touch)
        self.supervisor = Supervisor()
        self.pool: asyncpg.Pool[Any]
        self.bus: Bus
        self.extras: dict[str, Any] = {}
        self.is_draining = False
        self.is_started = False
        self._was_ready = False

    def begin(self, actor: str) -> AbstractAsyncContextManager[Tx]:
        """Open a transaction for a job or a tool; HTTP doors use `eb_kit.tx.begin(request)`."""
        from .tx import open_tx

        return open_tx(self, actor)

    async def readiness(self) -> dict[str, bool]:
        """Say, by name, what this process needs and whether it has it."""
        state = {"started": self.is_started, "not_draining": not self.is_draining}
        if self.is_started:
            state["database"] = await self._database_answers()
            state |= await self.bus.readiness() if state["database"] else {"read_models": False}
        return state

    def is_ready(self, checks: dict[str, bool]) -> bool:
        """Tell whether work may be sent here: all checks hold, or those that this service outlives did once."""
        if all(checks.values()):
            self._was_ready = True
        is_without = self._was_ready and self.service.outlives_database and not checks.get("database", True)
        outlived = {"database", "read_models"} if is_without else frozenset()
        return all(holds for name, holds in checks.items() if name not in outlived)

    async def _database_answers(self) -> bool:
        try:
            async with self.pool.acquire(timeout=ANSWER_S) as connection:
                await connection.fetchval("SELECT 1", timeout=ANSWER_S)
        except WEATHER:
            return False
        return True


CONTEXT = web.AppKey("eb_context", ServiceContext)


class Process:
    """The running process: `start`, then `stop`, which drains."""

    def __init__(
        self,
        service: Service,
        settings: ServiceSettings,
        doors: frozenset[str],
        files: SettingsFiles | None = None,
    ) -> None:
        self.context = ServiceContext(service, settings, doors)
        self._files = files
        self._service = service
        self._runners: list[web.AppRunner] = []
        self._closer: Closer | None = None
        self.http_port = self.admin_port = 0

    async def start(self) -> None:
        """Open the admin port at once, then wait for the database, then open the doors."""
        from .web import admin_app

        context, settings = self.context, self.context.settings
        failpoints.start(
            settings.failpoints, settings.failpoints_dir, context.service_name, context.supervisor
        )
        self.admin_port = await self._listen(admin_app(context), settings.admin_port)
        if self._files is not None:
            context.supervisor.start("settings", self._follow_files)
        await self._open_database()
        await self._open_bus()
        if self._service.on_start is not None:
            self._closer = await self._service.on_start(context)
        if "jobs" in context.doors:
            for jobs in (self._service.jobs, upkeep):
                start_jobs(context, jobs, context.supervisor)
        if "api" in context.doors:
            await context.bus.caught_up_or_cut_off()
            await self._open_api()
        context.is_started = True
        gc.freeze()
        gc.set_threshold(*COLLECT_AFTER)
        log.info("service started", doors=sorted(context.doors), http_port=self.http_port)

    async def _open_database(self) -> None:
        context = self.context
        while True:
            try:
                context.pool = await open_pool(
                    lambda: str(context.settings.database_url), context.settings.pool_size
                )
                await make_partitions(context)
                await context.directory.load(context.pool)
                break
            except WEATHER as error:
                log.warning("waiting for the database", error=repr(error))
                await asyncio.sleep(0.5)
        context.supervisor.start("directory", context.directory.refresh_for_ever)

    async def _follow_files(self) -> None:
        """Take up what the files of settings say when they are written again: secrets change without a restart."""
        assert self._files is not None
        while True:
            await asyncio.sleep(FILES_S)
            try:
                changed = self._files.load_changed()
            except (OSError, ValidationError) as error:
                log.error("a setting's file can't be taken up", error=type(error).__name__)
                continue
            if changed is not None:
                self.context.settings = changed
                log.info("settings were read again")

    async def _open_bus(self) -> None:
        from .bus import Bus

        self.context.bus = Bus(self.context, self._service.handlers)
        await self.context.bus.start(consume="consumers" in self.context.doors)
        if "api" in self.context.doors:
            await self._first_touch()

    async def _first_touch(self) -> None:
        """Wait a moment for the broker, so that the first requests find us in touch; without it, open all the same."""
        until = time.monotonic() + FIRST_TOUCH_S
        while True:
            if self.context.touch.holds or time.monotonic() > until:
                return
            await asyncio.sleep(FIRST_LOOK_S)

    async def _open_api(self) -> None:
        from .web import make_app

        context = self.context
        app = make_app(context.service_name, self._service.routes, context)
        self.http_port = await self._listen(app, context.settings.http_port)

    async def _listen(self, app: web.Application, port: int) -> int:
        """Open a port (0: any free one) and give it."""
        from .web import Runner

        runner = Runner(app)
        await runner.setup()
        await web.TCPSite(runner, self.context.settings.http_host, port, backlog=1024).start()
        self._runners.append(runner)
        return int(runner.addresses[0][1])

    async def stop(self) -> None:
        """Drain: not ready, finish what is in hand, then close. The admin port closes last."""
        context = self.context
        context.is_draining = True
        with suppress(TimeoutError):
            async with asyncio.timeout(context.settings.drain_timeout_s):
                await self._drain()
        await context.supervisor.stop()
        for runner in self._runners[:1]:
            await runner.cleanup()
        if hasattr(context, "pool"):
            context.pool.terminate()

    async def _drain(self) -> None:
        for runner in reversed(self._runners[1:]):
            await runner.cleanup()
        if self._closer is not None:
            await self._closer()
        if hasattr(self.context, "bus"):
            await self.context.bus.stop()


def main(service: Service) -> None:
    """Run a service until SIGTERM or SIGINT; exit 2 where a setting is wrong."""
    parser = argparse.ArgumentParser(prog=f"eb_{service.schema}", description=f"The {service.name} service.")
    parser.add_argument("--doors", default="api,consumers,jobs", help="which doors to open, with commas")
    doors = frozenset(parser.parse_args().doors.split(","))
    if not doors <= DOORS:
        parser.error(f"--doors takes {', '.join(sorted(DOORS))}")
    settings = load(service.settings, os.environ)
    if settings.eb_env == "production":
        cores.leave_none()
    telemetry.start_logging(service.name, settings.log_level)
    telemetry.start_exporting(service.name, settings.otlp_endpoint)
    uvloop.run(_serve(service, settings, doors, SettingsFiles(service.settings, os.environ)))


async def _serve(
    service: Service, settings: ServiceSettings, doors: frozenset[str], files: SettingsFiles
) -> None:
    stopped = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stopped.set)
    process = Process(service, settings, doors, files)
    starting = asyncio.create_task(process.start())
    waiting = asyncio.create_task(stopped.wait())
    await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if starting.done():
        starting.result()
        await waiting
    starting.cancel()
    await process.stop()
