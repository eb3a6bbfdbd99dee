"""Who has an account, and which organisations there are, can't be learnt from status, body or time.

Each pair is asked one right after the other, in random order. Whatever else runs on the machine can only make an answer
later, so the quicker quarters of both kinds are compared.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from eb_contracts.ids import new_id
from eb_kit.testing_db import TestDatabase

from .conftest import AuthService, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")
PAIRS = 200
BOUND_S = 0.0015
"""A difference of two milliseconds is one that somebody could use; a millisecond drowns on the way."""
Call = tuple[str, str, Any, dict[str, str]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def auth(
    database: TestDatabase, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[AuthService]:
    """A service without limits of attempts, which would end the measurement: they are tested on their own."""
    clone = await database.clone()
    async with serving(clone, tmp_path_factory.mktemp("auth"), {"EB_RATE_LIMITS": "off"}) as service:
        yield service
    await database.drop(clone)


async def ask(auth: AuthService, call: Call, later_s: float) -> tuple[float, str]:
    """Send a request; give how long it took, and what of the answer isn't about this one request."""
    method, path, body, headers = call
    began = time.perf_counter()
    answer = await auth.call(method, path, body, **headers)
    if later_s:
        await asyncio.sleep(later_s)
    took = time.perf_counter() - began
    told = {name: value for name, value in answer.body.items() if name not in ("trace_id", "instance")}
    return took, f"{answer.status} {told}"


async def compared(
    auth: AuthService, ones: Sequence[Call], others: Sequence[Call], later_s: float = 0
) -> tuple[set[str], float]:
    """Ask pairs; give every kind of answer, and by how much the quicker quarter of `ones` comes later.

    `later_s` delays them on purpose.
    """
    took: dict[bool, list[float]] = {True: [], False: []}
    answers = set()
    for pair in zip(ones, others, strict=True):
        for is_one in random.sample((True, False), 2):
            seconds, answer = await ask(auth, pair[not is_one], later_s if is_one else 0)
            took[is_one].append(seconds)
            answers.add(answer)
    quarter = {kind: statistics.quantiles(times)[0] for kind, times in took.items()}
    return answers, quarter[True] - quarter[False]


async def accounts(auth: AuthService, tag: str) -> tuple[list[str], list[str]]:
    """Give addresses that have an account, and as many that have none."""
    known = [f"{tag}-k{n:03}@example.org" for n in range(PAIRS)]
    now = auth.client.context.clock.now()
    await auth.owner.executemany(
        'INSERT INTO auth."user" (user_id, email, created_at) VALUES ($1, $2, $3)',
        [(new_id(), address, now) for address in known],
    )
    return known, [f"{tag}-u{n:03}@example.org" for n in range(PAIRS)]


def steps(path: str, addresses: Sequence[str], **more: str) -> list[Call]:
    """Describe one step of a sign-in for each address."""
    return [("POST", path, {"email": address, **more}, {}) for address in addresses]


async def test_asking_for_a_code_does_not_tell_who_has_an_account(auth: AuthService) -> None:
    known, unknown = await accounts(auth, "login")

    answers, later_s = await compared(auth, steps("/auth/login", known), steps("/auth/login", unknown))

    assert len(answers) == 1
    assert abs(later_s) < BOUND_S


@pytest.mark.parametrize("has_asked", [True, False])
async def test_a_wrong_code_does_not_tell_who_has_an_account(auth: AuthService, has_asked: bool) -> None:
    known, unknown = await accounts(auth, f"code-{has_asked}")
    for call in steps("/auth/login", [*known, *unknown]) if has_asked else ():
        await ask(auth, call, 0)

    guess = {"code": "00000000"}
    answers, later_s = await compared(
        auth, steps("/auth/sessions", known, **guess), steps("/auth/sessions", unknown, **guess)
    )

    assert len(answers) == 1
    assert abs(later_s) < BOUND_S


@pytest.mark.parametrize("path", ["/orgs/{}", "/orgs/{}/members", "/orgs/{}/descendants"])
async def test_a_foreign_organisation_is_like_none(auth: AuthService, path: str) -> None:
    await auth.owner.execute("DELETE FROM auth.mail_waiting")
    owner, stranger = await auth.sign_in(), await auth.sign_in()
    there = str((await owner.found_org(visibility="partners"))["org_id"])
    await stranger.found_org()
    bearer = {"Authorization": f"Bearer {stranger.tokens['access_token']}"}

    answers, later_s = await compared(
        auth,
        [("GET", path.format(there), None, bearer)] * PAIRS,
        [("GET", path.format(uuid4()), None, bearer) for _ in range(PAIRS)],
    )

    assert len(answers) == 1
    assert abs(later_s) < BOUND_S


async def test_two_milliseconds_would_be_seen(auth: AuthService) -> None:
    known, unknown = await accounts(auth, "late")

    _, later_s = await compared(
        auth, steps("/auth/login", known), steps("/auth/login", unknown), later_s=0.002
    )

    assert later_s > BOUND_S
