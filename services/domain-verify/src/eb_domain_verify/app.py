"""The wiring of domain-verify: settings, doors, and the desk that judges mails."""

from __future__ import annotations

from eb_kit.service import Closer, Service, ServiceContext

from .api import routes
from .consumers import handlers
from .jobs import JudgeDesk, jobs
from .outside.judge import Judge
from .outside.resolver import TxtResolver
from .settings import Settings

DESK = "judge-mails"


async def open_desk(context: ServiceContext) -> Closer:
    """Start judging mails if this process opens the clock doors."""
    settings: Settings = context.settings
    resolver = TxtResolver(settings.dns_servers, context.clock.machine_now)
    judge = Judge(resolver, cpu_s=settings.judge_cpu_s, wall_s=settings.judge_wall_s)
    desk = JudgeDesk(context, judge, settings)
    context.extras |= {"judge": judge, "desk": desk}
    if "jobs" in context.doors:
        context.supervisor.start(DESK, desk.work)

    async def close() -> None:
        await context.supervisor.stop(DESK)
        await judge.close()

    return close


SERVICE = Service(
    name="domain-verify",
    schema="domain_verify",
    settings=Settings,
    routes=routes,
    handlers=handlers,
    jobs=jobs,
    on_start=open_desk,
)
