"""The hierarchy against a plain model: whatever is asked in whatever order, both say the same."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Coroutine
from typing import Any
from uuid import UUID

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from .conftest import Answer, AuthService, Person, an_org
from .test_hierarchy import assert_exact

IS_LONG = os.environ.get("EB_LONG") == "1"
EXAMPLES, STEPS = (1_000, 40) if IS_LONG else (30, 20)
PAIRS = "SELECT ancestor_org_id, descendant_org_id, depth FROM auth.org_hierarchy WHERE descendant_org_id = ANY($1)"
MOST_DEPTH = 10
ANY = st.integers(0, 10_000)


class Model:
    """Who stands below whom, and nothing else."""

    def __init__(self) -> None:
        self.parents: dict[str, str | None] = {}

    def above(self, org: str) -> list[str]:
        """Give the organisation and all above it, the nearest first."""
        found, here = [], self.parents.get(org)
        while here is not None:
            found.append(here)
            here = self.parents[here]
        return [org, *found]

    def height(self, org: str) -> int:
        return max(self.above(each).index(org) for each in self.parents if org in self.above(each))

    def why_not(self, org: str, parent: str) -> str:
        """Say why an organisation can't stand below another; empty if it can."""
        if org == parent:
            return "self_parent"
        if org in self.above(parent):
            return "cycle"
        return "max_depth" if len(self.above(parent)) + self.height(org) > MOST_DEPTH else ""

    def pairs(self) -> set[tuple[str, str, int]]:
        return {(up, org, depth) for org in self.parents for depth, up in enumerate(self.above(org))}


def machine_of(
    auth: AuthService, person: Person, loop: asyncio.AbstractEventLoop, done: Counter[str]
) -> type[RuleBasedStateMachine]:
    """Make the machine that asks the running service, as the Operator; it counts what it does."""
    user_id = UUID(person.user_id)

    class Hierarchy(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.model = Model()
            done["examples"] += 1

        def wait(self, work: Coroutine[Any, Any, Any]) -> Any:
            return asyncio.run_coroutine_threadsafe(work, loop).result(30)

        def post(self, path: str, body: object = None) -> Answer:
            operator = auth.client.auth(roles=["Operator"], user_id=user_id)
            done["requests"] += 1
            answer: Answer = self.wait(auth.call("POST", path, body, **operator))
            return answer

        def pick(self, number: int) -> str:
            return list(self.model.parents)[number % len(self.model.parents)]

        @initialize(length=st.integers(1, 11))
        def begin(self, length: int) -> None:
            """A chain, so that the deepest places are met."""
            self.found()
            for _ in range(length - 1):
                self.bear(len(self.model.parents) - 1)

        @rule()
        def found(self) -> None:
            made = self.post("/orgs", an_org())
            assert made.status == 201
            self.model.parents[made.body["org_id"]] = None

        @rule(at=ANY)
        def bear(self, at: int) -> None:
            parent = self.pick(at)
            made = self.post(f"/orgs/{parent}/children", an_org())
            if len(self.model.above(parent)) > MOST_DEPTH:
                assert (made.status, made.body["code"]) == (409, "max_depth")
            else:
                assert made.status == 201
                self.model.parents[made.body["org_id"]] = parent

        @rule(one=ANY, two=ANY)
        def link(self, one: int, two: int) -> None:
            child, parent = self.pick(one), self.pick(two)
            answer = self.post(f"/orgs/{parent}/children", {"link_org_id": child})
            present = self.model.parents[child]
            reason = self.model.why_not(child, parent)
            if present == parent:
                assert answer.status == 200
            elif present is not None and child != parent:
                assert (answer.status, answer.body["code"]) == (409, "already_has_parent")
            else:
                self.expect(answer, 201, reason, child, parent)

        @rule(one=ANY, two=ANY)
        def move(self, one: int, two: int) -> None:
            org, parent = self.pick(one), self.pick(two)
            answer = self.post(f"/orgs/{org}:move", {"parent_org_id": parent})
            is_there = self.model.parents[org] == parent
            self.expect(answer, 200, "" if is_there else self.model.why_not(org, parent), org, parent)

        @precondition(lambda self: len(self.model.parents) > 1)
        @rule(at=ANY)
        def detach(self, at: int) -> None:
            org = self.pick(at)
            answer = self.post(f"/orgs/{org}:detach")
            self.expect(answer, 200, "" if self.model.parents[org] else "already_root", org, None)

        def expect(self, answer: Answer, status: int, reason: str, org: str, parent: str | None) -> None:
            if reason:
                assert (answer.status, answer.body["code"]) == (409, reason)
            else:
                assert (answer.status, answer.body["parent_org_id"]) == (status, parent)
                self.model.parents[org] = parent

        def teardown(self) -> None:
            rows = self.wait(auth.owner.fetch(PAIRS, [UUID(org) for org in self.model.parents]))
            assert {(str(up), str(org), depth) for up, org, depth in rows} == self.model.pairs()

    return Hierarchy


@pytest.mark.timeout(1_800 if IS_LONG else 120)
@pytest.mark.asyncio(loop_scope="module")
async def test_the_hierarchy_is_what_a_plain_model_says(shared_auth: AuthService) -> None:
    person = await shared_auth.sign_in()
    done: Counter[str] = Counter()
    machine = machine_of(shared_auth, person, asyncio.get_running_loop(), done)
    wanted = settings(settings.default, max_examples=EXAMPLES, stateful_step_count=STEPS)

    await asyncio.to_thread(run_state_machine_as_test, machine, settings=wanted)

    print(f"{done['examples']} examples of up to {STEPS} steps, {done['requests']} requests")
    await assert_exact(shared_auth)
