"""Keeps long-lived tasks alive: what ends unasked is logged and started again after a growing pause.

Rule: docs/rules/bus.md, Connections. A hung broker can end a pending publish with a CancelledError that
nobody asked for; a task that swallowed it would be gone for good, so that case counts as a lost connection.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog

log = structlog.get_logger(__name__)

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0
"""Short enough for what was revoked during an outage to be felt within 5 s of its end."""
HEALTHY_AFTER_S = 10.0


def was_asked_to_stop(error: BaseException) -> bool:
    """Tell a real cancellation of the current task from a stray CancelledError out of a library."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def _end_if_cancelled() -> None:
    """Heed a cancellation that was lost on its way: wait_for of Python 3.11 swallows one now and then."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def keep_running(name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Run `work` for ever: start it again whenever it ends or fails; ends only by cancellation."""
    pause_s = FIRST_PAUSE_S
    loop = asyncio.get_running_loop()
    while True:
        started = loop.time()
        try:
            await work()
            log.info("task ended, starting again", task=name)
        except (Exception, asyncio.CancelledError) as error:
            if was_asked_to_stop(error):
                raise
            is_weather = isinstance(error, OSError | TimeoutError | asyncio.CancelledError)
            log.warning(
                "task failed, starting again",
                task=name,
                error=repr(error),
                exc_info=None if is_weather else error,
            )
        _end_if_cancelled()
        pause_s = (
            FIRST_PAUSE_S if loop.time() - started > HEALTHY_AFTER_S else min(pause_s * 2, LONGEST_PAUSE_S)
        )
        await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret


class Supervisor:
    """The long-lived tasks of one process."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, name: str, work: Callable[[], Awaitable[None]]) -> None:
        """Keep `work` running under `name` until `stop`; ValueError if the name is taken."""
        if name in self._tasks:
            raise ValueError(f"task {name} is running already")
        self._tasks[name] = asyncio.create_task(keep_running(name, work), name=name)

    async def stop(self, *names: str) -> None:
        """Cancel these tasks (all, if none is named) and wait until they have ended."""
        doomed = [self._tasks.pop(name) for name in names or tuple(self._tasks) if name in self._tasks]
        for task in doomed:
            task.cancel()
        await asyncio.gather(*doomed, return_exceptions=True)
