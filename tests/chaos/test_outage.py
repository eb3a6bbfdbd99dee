"""While broker or PostgreSQL is away: metering and reads go on, what moves money or rights answers 503, in time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import aiohttp
import psutil
import pytest
from billing import billed_org

from eb_tools.client import wait_for
from eb_tools.files import read_json
from eb_tools.world import World

from .doors import BACK_S, CHANGING, GOING_ON, ONE_OF_EACH, READING, Doors, all_work

pytestmark = pytest.mark.timeout(150)

NOTICED_S = 6.5
"""Five seconds, and what a busy machine adds."""
AT_ONCE_S = 2.0
READS_WITHIN_S = 9.0
OF_ADMINS = [
    next(route for route in CHANGING if route.service == one.service and "Admin" in route.names)
    for one in ONE_OF_EACH
    if one.service != "catalog"
]
AT_A_TIME = 8


@pytest.fixture
async def doors(stack: Any, world: World) -> AsyncIterator[Doors]:
    await all_work(world)
    member, skus, _ = await billed_org(world, "Outage")
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=15)) as http:
        made = Doors(world, http, member, skus)
        assert (await made.meter()).status == 202, "its key is known before anything goes away"
        yield made


async def noticed(doors: Doors) -> None:
    """Wait until every service knows that something is away."""
    began = time.monotonic()

    async def look() -> bool:
        answers = await asyncio.gather(*(doors.ask(route) for route in ONE_OF_EACH))
        return all(answer.is_out_of_touch for answer in answers)

    await wait_for(look, "all services out of touch", timeout_s=15, every_s=0.1)
    assert time.monotonic() - began <= NOTICED_S


async def assert_no_change_goes_on(doors: Doors) -> None:
    wrong = []
    for at in range(0, len(CHANGING), AT_A_TIME):
        some = CHANGING[at : at + AT_A_TIME]
        for route, answer in zip(some, await asyncio.gather(*map(doors.ask, some)), strict=True):
            if not answer.is_out_of_touch or answer.after_s > AT_ONCE_S:
                wrong.append(f"{route.name}: {answer.status} {answer.code} after {answer.after_s:.1f} s")
    assert not wrong, "\n".join(wrong)


async def assert_reads(doors: Doors, *, without_database: bool = False) -> None:
    """Reads answer; without PostgreSQL those that need it say 503, in time."""
    answers = await asyncio.gather(*map(doors.ask, READING))
    wrong = [
        f"{route.name}: {answer.status} {answer.code} after {answer.after_s:.1f} s"
        for route, answer in zip(READING, answers, strict=True)
        if answer.after_s > READS_WITHIN_S
        or (answer.status >= 500 and not (without_database and answer.code == "unavailable"))
    ]
    assert not wrong, "\n".join(wrong)


@contextmanager
def nobody_restarts(stack: Any) -> Iterator[None]:
    """Have the supervisor sleep, so that what is killed stays so."""
    supervisor = psutil.Process(read_json(stack.control.layout.state)["pid"])
    supervisor.suspend()
    try:
        yield
    finally:
        supervisor.resume()


@contextmanager
def hung(stack: Any, name: str) -> Iterator[None]:
    """Stop a server with all its processes: PostgreSQL has one for each connection."""
    first = psutil.Process(stack.control.pids()[name][0])
    found = [first, *first.children(recursive=True)]
    for process in found:
        process.suspend()
    try:
        yield
    finally:
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.resume()


async def test_while_the_broker_is_away_only_what_says_why_goes_on(
    doors: Doors, stack: Any, world: World
) -> None:
    person, leaver = await world.person(), await world.person("leaver")
    revoked = (await world.org(leaver, "Leaver")).admin_token
    assert all([(await doors.ask(route, revoked)).status not in (401, 403) for route in OF_ADMINS])
    with nobody_restarts(stack):
        with hung(stack, "rabbitmq"):
            assert not (await doors.ask(ONE_OF_EACH[0])).is_out_of_touch, "a short silence is none"
            await noticed(doors)
            await assert_no_change_goes_on(doors)
            await assert_reads(doors)
            answers = await doors.all_going_on(person.refresh_token, revoked)
            assert answers.keys() == GOING_ON
            assert {name: a.status for name, a in answers.items() if a.status >= 400} == {
                "POST /auth/sessions": 401
            }
        stack.control.kill("rabbitmq")
        await assert_no_change_goes_on(doors)
        assert (await doors.meter()).status == 202
    stopped_at = time.monotonic()
    await assert_never_lets_in(doors, revoked)
    await all_work(doors.world)
    assert time.monotonic() - stopped_at <= BACK_S


async def assert_never_lets_in(doors: Doors, revoked: str) -> None:
    """No service does anything for who signed out while the broker was away; in the end each says 401."""

    async def look() -> bool:
        answers = await asyncio.gather(*(doors.ask(route, revoked) for route in OF_ADMINS))
        assert {answer.status for answer in answers} <= {401, 503}
        return all(answer.status == 401 for answer in answers)

    await wait_for(look, "401 everywhere", timeout_s=BACK_S, every_s=0.1)


async def test_while_the_database_is_away_metering_goes_on_and_the_rest_says_so_in_time(
    doors: Doors, stack: Any
) -> None:
    await is_asked_and_ready(doors, stack, "metering-ingest")
    with ExitStack() as asleep:
        with hung(stack, "postgres"):
            own, body = doors.member, b'{"name": "too late"}'
            early = asyncio.create_task(
                doors.send("POST", f"/orgs/{own.org_id}/projects", own.admin_token, body)
            )
            reading = asyncio.create_task(assert_reads(doors, without_database=True))
            before = stack.control.kill("estimator")
            await noticed(doors)
            await assert_no_change_goes_on(doors)
            assert (await doors.meter()).status == 202
            await reading
            await asyncio.to_thread(stack.control.wait_for_new, "estimator", before, 20)
            assert await ready_of(doors, stack, "estimator") in (0, 503)
            assert await ready_of(doors, stack, "ledger") == 503
            assert await ready_of(doors, stack, "metering-ingest") == 200
            assert (await early).code == "unavailable"
            assert (await early).after_s <= READS_WITHIN_S
            asleep.enter_context(nobody_restarts(stack))
            stack.control.kill("postgres")
        await assert_no_change_goes_on(doors)
        assert (await doors.meter()).status == 202
        await assert_reads(doors, without_database=True)
    began = time.monotonic()
    await all_work(doors.world)
    assert time.monotonic() - began <= BACK_S

    await is_asked_and_ready(doors, stack, "estimator")


async def is_asked_and_ready(doors: Doors, stack: Any, name: str) -> None:
    """Ask until a service is ready, as a cluster does: another test may have begun it anew, and only who was ready once
    stays so."""

    async def is_ready() -> bool:
        return await ready_of(doors, stack, name) == 200

    await wait_for(is_ready, f"{name} to be ready")


async def ready_of(doors: Doors, stack: Any, name: str) -> int:
    """Give the status of a service's readyz, 0 where its admin port isn't open yet."""
    url = f"http://127.0.0.1:{stack.facts['ports'][f'{name}-admin']}/readyz"
    try:
        async with doors.http.get(url) as answer:
            return answer.status
    except aiohttp.ClientConnectionError:
        return 0
