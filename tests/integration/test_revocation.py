"""What is revoked is refused by all seven services in time, and by one that was down from its first answer on.

A bench does it 1,000 times for sessions and 200 times for each other kind.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import aiohttp
import pytest
from revocable import KINDS, Maker, Revocable, maker_at
from revocation import GIVE_UP_S, Doors, measure, measured

from eb_tools.client import Api, wait_for
from eb_tools.world import World

pytestmark = pytest.mark.timeout(180)

TIMES = 4
SOON_S, ALWAYS_S = 1.0, 5.0
DOWN_FOR_KINDS = ("session", "membership", "platform_role", "api_key", "service_credential", "assist")
KILLED = ("estimator", "metering-ingest")
SEVEN = 7


@pytest.fixture
async def doors(stack: Any) -> AsyncIterator[Doors]:
    async with aiohttp.ClientSession() as http:
        yield Doors(http, stack.facts["ports"])


@pytest.fixture(scope="module")
async def maker(stack: Any) -> AsyncIterator[Maker]:
    async with aiohttp.ClientSession() as http:
        world = World.at(Api(stack.staff.gateway_url, http), stack.staff)
        async with maker_at(stack.run_dir, world) as made:
            made.lets_age = False
            yield made


@pytest.fixture(scope="module", autouse=True)
async def detachable(maker: Maker) -> list[Revocable]:
    """Organisations that grow old meanwhile: a young one, once detached, is waited for with each question."""
    return await maker.some("ancestor", len(KILLED))


async def one_of_each(maker: Maker, doors: Doors, kinds: Sequence[str]) -> list[Revocable]:
    """Make a credential of each kind, and see each taken by every service."""
    made = [(await maker.some(kind, 1))[0] for kind in kinds]
    for revocable in made:
        await doors.must_take(revocable)
    return made


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_revoked_is_refused_everywhere_in_time(maker: Maker, doors: Doors, kind: str) -> None:
    found, _ = await measured(maker, doors, kind, TIMES, at_once=2)

    assert {name: len(latencies) for name, latencies in found.items()} == dict.fromkeys(found, TIMES)
    assert len(found) == SEVEN
    assert max(max(latencies) for latencies in found.values()) <= ALWAYS_S
    assert max(statistics.median(latencies) for latencies in found.values()) <= SOON_S


class Comeback:
    """What a service that was killed answers from its first answer on, and whether it was ready before."""

    def __init__(self, stack: Any, doors: Doors, service: str) -> None:
        self._admin = f"http://127.0.0.1:{stack.facts['ports'][f'{service}-admin']}/readyz"
        self._doors = doors
        self._service = service
        self.seen: list[tuple[bool, bool]] = []

    async def is_ready(self, http: aiohttp.ClientSession) -> bool:
        try:
            async with http.get(self._admin) as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    async def watch(self, revoked: Sequence[Revocable]) -> None:
        """Ask until it has been ready for ten questions about each; note (ready, refused) of every answer."""
        until = time.monotonic() + 60
        async with aiohttp.ClientSession() as http:
            ready = 0
            while ready < 10 and time.monotonic() < until:
                is_ready = await self.is_ready(http)
                ready += is_ready
                for one in revoked:
                    await self._note(one, is_ready)
                await asyncio.sleep(0.01)
        assert ready, f"{self._service} didn't get ready"

    async def _note(self, one: Revocable, is_ready: bool) -> None:
        try:
            answer = await self._doors.ask(self._service, one.asks[self._service], one.credential)
        except aiohttp.ClientError:
            assert not is_ready, "ready, with its door shut"
            return
        self.seen.append((is_ready, answer == one.refused))


@pytest.mark.parametrize("service", KILLED)
async def test_a_service_that_was_down_refuses_from_its_first_answer_on(
    stack: Any, maker: Maker, doors: Doors, detachable: list[Revocable], service: str
) -> None:
    revoked = [*await one_of_each(maker, doors, DOWN_FOR_KINDS), detachable.pop()]
    comeback = Comeback(stack, doors, service)

    killed = stack.control.kill(service)
    await asyncio.gather(*(one.revoke() for one in revoked))
    await comeback.watch(revoked)

    assert stack.control.pids()[service] != [killed]
    assert len(comeback.seen) >= 10 * len(revoked)
    assert comeback.seen == [(is_ready, True) for is_ready, _ in comeback.seen]


async def test_a_rebuilt_read_model_lets_nothing_through_while_ready(
    stack: Any, maker: Maker, doors: Doors, owner: Any
) -> None:
    kinds = ("session", "membership", "platform_role", "assist")
    revoked = await one_of_each(maker, doors, kinds)
    for one in revoked:
        await one.revoke()
    since = time.perf_counter()
    for one in revoked:
        await doors.until_refused("estimator", one, since)
    async with owner.transaction():
        await owner.execute("DELETE FROM estimator.known WHERE entity = 'revocation'")
        await owner.execute("DELETE FROM estimator.read_model WHERE entity = 'revocation'")
    comeback = Comeback(stack, doors, "estimator")

    stack.control.kill("estimator")
    await comeback.watch(revoked)

    assert {is_refused for is_ready, is_refused in comeback.seen if is_ready} == {True}


async def test_what_is_revoked_while_the_broker_is_away_is_refused_once_it_is_back(
    stack: Any, maker: Maker, doors: Doors
) -> None:
    """By command, since the doors that change rights wait then; and by a door just before."""
    by_door = (await maker.some("session", 1))[0]
    revoked = [by_door, *[(await maker.some(kind, 1))[0] for kind in ("platform_role", "service_credential")]]
    for one in revoked:
        await doors.must_take(one)
    folder = stack.control.layout.failpoints / "auth"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "relay.before_send").write_text("sleep:0.6")
    await asyncio.sleep(0.15)

    await by_door.revoke()
    killed = stack.control.kill("rabbitmq")
    for one in revoked[1:]:
        await one.revoke()
    await asyncio.to_thread(stack.control.wait_for_new, "rabbitmq", killed, 60)
    await wait_for(
        lambda: accepts(stack.facts["ports"]["rabbitmq"]), "the broker", timeout_s=60, every_s=0.02
    )
    since = time.perf_counter()
    latencies = await asyncio.gather(
        *(doors.until_refused(service, one, since) for one in revoked for service in one.asks)
    )

    print(f"refused everywhere {max(latencies):.2f} s after the broker was back")
    assert max(latencies) <= ALWAYS_S < GIVE_UP_S
    await maker.new_child()  # the doors that change rights are open again: other tests go on


async def accepts(port: int) -> bool:
    """Tell whether somebody listens."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True


async def test_a_late_refusal_would_be_seen(maker: Maker, doors: Doors) -> None:
    one = (await maker.some("session", 1))[0]

    async def revoke_late() -> None:
        asyncio.get_running_loop().call_later(1.5, lambda: tasks.append(asyncio.ensure_future(one.revoke())))

    tasks: list[Any] = []
    found: dict[str, list[float]] = {}
    await measure(doors, [Revocable(one.credential, one.asks, revoke_late)], 1, found)
    await asyncio.gather(*tasks)
    assert min(latencies[0] for latencies in found.values()) > SOON_S
