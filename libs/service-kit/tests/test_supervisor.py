from __future__ import annotations

import asyncio

import pytest

from eb_kit.supervisor import Supervisor, was_asked_to_stop


async def until(condition: object, timeout_s: float = 5.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("error", [ValueError("broken"), asyncio.CancelledError(), None])
async def test_work_that_ends_unasked_is_started_again(error: BaseException | None) -> None:
    runs = 0

    async def work() -> None:
        nonlocal runs
        runs += 1
        if runs == 1 and error is not None:
            raise error
        if runs >= 2:
            await asyncio.Event().wait()

    supervisor = Supervisor()
    supervisor.start("work", work)
    await until(lambda: runs == 2)
    await supervisor.stop()

    assert runs == 2


async def test_stopping_ends_the_work_at_once() -> None:
    ended = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    supervisor = Supervisor()
    supervisor.start("work", work)
    await asyncio.sleep(0)
    await supervisor.stop("work")

    assert ended.is_set()


async def test_a_name_is_taken_once() -> None:
    supervisor = Supervisor()
    supervisor.start("work", asyncio.Event().wait)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="running already"):
        supervisor.start("work", asyncio.Event().wait)  # type: ignore[arg-type]
    await supervisor.stop()


async def test_a_stray_cancellation_is_told_from_a_real_one() -> None:
    verdicts: list[bool] = []

    async def stray() -> None:
        try:
            raise asyncio.CancelledError
        except asyncio.CancelledError as error:
            verdicts.append(was_asked_to_stop(error))

    async def cancelled() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            verdicts.append(was_asked_to_stop(error))
            raise

    await asyncio.create_task(stray())
    task = asyncio.create_task(cancelled())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert verdicts == [False, True]
