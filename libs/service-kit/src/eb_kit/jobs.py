"""Clock doors: a job takes a bounded batch of due work in one transaction, again at once while there is more."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prometheus_client import Counter, Histogram

from .db import WEATHER
from .telemetry import span

if TYPE_CHECKING:
    from .service import ServiceContext
    from .supervisor import Supervisor
    from .tx import Tx

import structlog

log = structlog.get_logger(__name__)

Work = Callable[["Tx"], Awaitable[int]]
TAKEN = Counter("eb_job_rows_total", "Rows that jobs took.", ["job"])
SECONDS = Histogram("eb_job_seconds", "How long one batch of a job took.", ["job"])


@dataclass(frozen=True, slots=True)
class Job:
    """A named piece of due work and how often to look for it."""

    name: str
    every_s: float
    work: Work


@dataclass(slots=True)
class Jobs:
    """The jobs of a service; filled by decorators in its `jobs.py`."""

    jobs: list[Job] = field(default_factory=list)

    def every(self, seconds: float) -> Callable[[Work], Work]:
        """Run the function each so many seconds; it gives the number of rows it took."""

        def enter(work: Work) -> Work:
            self.jobs.append(Job(work.__name__, seconds, work))
            return work

        return enter


def start_jobs(context: ServiceContext, jobs: Jobs, supervisor: Supervisor) -> None:
    """Start each job as a task of its own."""
    for job in jobs.jobs:
        supervisor.start(f"job:{job.name}", lambda job=job: _repeat(context, job))  # type: ignore[misc]


async def _repeat(context: ServiceContext, job: Job) -> None:
    while True:
        try:
            taken = await run_once(context, job)
        except WEATHER as error:
            log.warning("job met bad weather, will try again", job=job.name, error=repr(error))
            taken = 0
        if not taken:
            await asyncio.sleep(job.every_s)


async def run_once(context: ServiceContext, job: Job) -> int:
    """Run one batch; give the number of rows it took."""
    with span(f"job {job.name}"), SECONDS.labels(job.name).time():
        async with context.begin(f"system:{context.service_name}") as tx:
            taken = await job.work(tx)
    TAKEN.labels(job.name).inc(taken)
    return taken
