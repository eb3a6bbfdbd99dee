"""Thirty-two people rearrange the same organisations at once; then everything still fits together.

With EB_LONG=1 for a minute, else for five seconds.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from uuid import UUID

import pytest

from eb_auth.store import hierarchy, orgs
from eb_kit.service import ServiceContext
from eb_kit.tx import Tx

from .conftest import AuthService, Person, an_org
from .test_hierarchy import assert_exact

PEOPLE = 32
ORGS = 60
DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
GATE_MODE = """
    SELECT mode FROM pg_locks WHERE locktype = 'advisory' AND objid = $1::bigint::oid AND pid = pg_backend_pid()
"""
SECONDS = 60 if os.environ.get("EB_LONG") == "1" else 5


@pytest.fixture
def environ() -> dict[str, str]:
    """A connection for each of them: this is about locks, not about waiting for connections."""
    return {"EB_POOL_SIZE": str(PEOPLE + 4)}


async def test_who_waits_for_a_large_move_is_told_to_come_again(auth: AuthService) -> None:
    person = await auth.sign_in()
    org, other = [(await person.found_org())["org_id"] for _ in range(2)]
    operator = auth.client.auth(roles=["Operator"])
    async with auth.client.context.begin("system:test") as tx:
        await hierarchy.lock_roots(tx, UUID(org))
        started = time.monotonic()

        answer = await auth.call("POST", f"/orgs/{org}:move", {"parent_org_id": other}, **operator)

        assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
        assert 1.5 < time.monotonic() - started < 4.5
    again = await auth.call("POST", f"/orgs/{org}:move", {"parent_org_id": other}, **operator)
    assert again.status == 200


async def test_who_was_overtaken_thrice_has_the_next_turn_alone(auth: AuthService) -> None:
    """Others hang the root that one waits for below the next, three times; then who comes waits at the gate."""
    person = await auth.sign_in()
    *roots, bystander = [UUID((await person.found_org())["org_id"]) for _ in range(5)]
    org = UUID((await person.add_child(str(roots[0])))["org_id"])
    context, modes = auth.client.context, []

    async def take_turn(one: UUID) -> None:
        async with context.begin("system:test") as tx:
            await hierarchy.lock_roots(tx, one)
            modes.append((one, await tx.fetchval(GATE_MODE, hierarchy.GATE)))

    async with AsyncExitStack() as stack:
        others = [await stack.enter_async_context(opened(context, root)) for root in roots]
        waiting = asyncio.create_task(take_turn(org))
        for (tx, commit), (root, parent) in zip(others, pairwise(roots), strict=False):
            await asyncio.sleep(0.2)
            await hierarchy.update_parent(tx, root, parent)
            commit.set()
        await asyncio.sleep(0.2)
        late = asyncio.create_task(take_turn(bystander))
        await asyncio.sleep(0.2)
        assert modes == []
        others[-1][1].set()
        await asyncio.gather(waiting, late)
    assert modes == [(org, "ExclusiveLock"), (bystander, "ShareLock")]


@asynccontextmanager
async def opened(context: ServiceContext, root: UUID) -> AsyncIterator[tuple[Tx, asyncio.Event]]:
    """Somebody who holds a root, and the event that lets them commit."""
    commit, begun = asyncio.Event(), asyncio.get_running_loop().create_future()

    async def hold() -> None:
        async with context.begin("system:test") as tx:
            await orgs.lock_org(tx, root)
            begun.set_result(tx)
            await commit.wait()

    holding = asyncio.create_task(hold())
    yield await begun, commit
    await holding


async def rearrange(auth: AuthService, orgs: list[str], chance: random.Random, seen: Counter[str]) -> None:
    """Ask for one change at random, as the Operator may."""
    operator = auth.client.auth(roles=["Operator"])
    one, two = chance.choice(orgs), chance.choice(orgs)
    path, body = chance.choice(
        [
            (f"/orgs/{one}:move", {"parent_org_id": two}),
            (f"/orgs/{one}:move", {"parent_org_id": two}),
            (f"/orgs/{one}/children", {"link_org_id": two}),
            (f"/orgs/{one}:detach", None),
        ]
    )
    answer = await auth.call("POST", path, body, **operator)
    assert answer.status in (200, 201, 409, 503), answer.body
    seen[answer.body.get("code") or "done"] += 1


@pytest.mark.timeout(SECONDS + 120)
async def test_thirty_two_movers_leave_no_pair_wrong(auth: AuthService) -> None:
    person: Person = await auth.sign_in()
    founder = auth.client.auth(roles=["Operator"], user_id=UUID(person.user_id))
    made = [await auth.call("POST", "/orgs", an_org(), **founder) for _ in range(ORGS)]
    orgs = [answer.body["org_id"] for answer in made]
    seen: Counter[str] = Counter()
    until = time.monotonic() + SECONDS

    async def mover(number: int) -> None:
        chance = random.Random(number)
        while time.monotonic() < until:
            await rearrange(auth, orgs, chance, seen)

    await asyncio.gather(*map(mover, range(PEOPLE)))

    print(f"{sum(seen.values())} requests in {SECONDS} s: {dict(seen)}")
    assert seen["done"] > 50
    assert {"cycle", "self_parent", "already_has_parent"} <= seen.keys()
    await assert_exact(auth)
    assert await auth.owner.fetchval(DEADLOCKS) == 0
    assert seen["unavailable"] <= sum(seen.values()) / 200, "nobody is overtaken again and again"
    deepest = await auth.owner.fetchval("SELECT max(depth) FROM auth.org_hierarchy")
    assert 2 <= deepest <= 10
