"""Thirty-two people rearrange the same organisations at once; then everything still fits together.

With EB_LONG=1 for a minute, else for five seconds.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from uuid import UUID

import pytest

from .conftest import AuthService, Person, an_org
from .test_hierarchy import assert_exact

PEOPLE = 32
ORGS = 60
DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
SECONDS = 60 if os.environ.get("EB_LONG") == "1" else 5


@pytest.fixture
def environ() -> dict[str, str]:
    """A connection for each of them: this is about locks, not about waiting for connections."""
    return {"EB_POOL_SIZE": str(PEOPLE + 4)}


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
    assert seen["unavailable"] <= sum(seen.values()) / 20, "waiting for one's turn for five seconds is rare"
    deepest = await auth.owner.fetchval("SELECT max(depth) FROM auth.org_hierarchy")
    assert 2 <= deepest <= 10
