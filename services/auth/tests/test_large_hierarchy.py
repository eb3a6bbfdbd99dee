"""A page of descendants costs the same however many there are, and wherever in the list it begins.

With EB_LONG=1 among 100,000 organisations ten levels deep, else among 10,000.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest

from eb_contracts.ids import new_id

from .conftest import AuthService
from .test_hierarchy import assert_exact

IS_LONG = os.environ.get("EB_LONG") == "1"
LEVELS = 10
SIZE = 100_000 if IS_LONG else 10_000
PAGES = 500 if IS_LONG else 100
P99_MS = 20 if IS_LONG else 100
"""The short one runs beside other tests and looks for the wrong order of magnitude only."""
NO_CHECKS = """
    ALTER TABLE auth.organization DISABLE TRIGGER audit;
    ALTER TABLE auth.org_hierarchy DROP CONSTRAINT org_hierarchy_ancestor_org_id_fkey,
        DROP CONSTRAINT org_hierarchy_descendant_org_id_fkey;
"""
LARGEST_BRANCH = """
    SELECT c.descendant_org_id, count(*) FROM auth.org_hierarchy c
    JOIN auth.org_hierarchy d ON d.ancestor_org_id = c.descendant_org_id
    WHERE c.ancestor_org_id = $1 AND c.depth = 1 GROUP BY 1 ORDER BY 2 DESC LIMIT 1
"""
KNOW = """
    INSERT INTO auth.known SELECT 'org', org_id::text, version, false, jsonb_build_object('version', version,
        'is_deleted', false, 'org_id', org_id, 'parent_org_id', parent_org_id, 'parent_links', '[]'::jsonb,
        'default_timezone', 'UTC', 'country', 'AU'), created_at - interval '1 hour'
    FROM auth.organization ON CONFLICT DO NOTHING
"""


def levels_below(root: UUID) -> list[list[tuple[UUID, tuple[UUID, ...]]]]:
    """Make the levels of a tree: each organisation with all above it, the nearest first."""
    chance = random.Random(1)
    made: list[list[tuple[UUID, tuple[UUID, ...]]]] = [[(root, ())]]
    for _ in range(LEVELS):
        above = made[-1]
        level = []
        for _ in range(SIZE // LEVELS):
            parent, ancestors = chance.choice(above)
            level.append((new_id(), (parent, *ancestors)))
        made.append(level)
    return made[1:]


async def fill(auth: AuthService, root: UUID) -> None:
    """Put the tree below the root by COPY."""
    now = auth.client.context.clock.now()
    minute = now.replace(second=0, microsecond=0)
    orgs = [org for level in levels_below(root) for org in level]
    await auth.owner.execute(NO_CHECKS)
    tables: dict[tuple[str, tuple[str, ...]], Any] = {
        (
            "organization",
            (
                "org_id",
                "legal_name",
                "org_slug",
                "billing_email",
                "default_timezone",
                "created_at",
                "parent_org_id",
            ),
        ): (
            (org, "Copied", f"c-{n}", "b@example.org", "UTC", now, above[0])
            for n, (org, above) in enumerate(orgs)
        ),
        ("org_hierarchy", ("ancestor_org_id", "descendant_org_id", "depth")): (
            (up, org, depth) for org, above in orgs for depth, up in enumerate((org, *above))
        ),
        ("org_parent_link", ("org_id", "effective_at", "parent_org_id")): (
            (org, minute, above[0]) for org, above in orgs
        ),
    }
    for (table, columns), rows in tables.items():
        await auth.owner.copy_records_to_table(table, schema_name="auth", columns=columns, records=rows)
    await auth.owner.execute(KNOW)
    await auth.owner.execute("ANALYZE auth.organization; ANALYZE auth.org_hierarchy")


@pytest.mark.timeout(900 if IS_LONG else 120)
async def test_a_page_of_descendants_is_one_look_into_an_index(auth: AuthService) -> None:
    person = await auth.sign_in()
    root = (await person.found_org())["org_id"]
    await fill(auth, UUID(root))
    path = f"/orgs/{root}/descendants?limit=200"
    cursors, seen, took = [""], 0, []
    while cursors[-1] is not None and len(cursors) <= PAGES:
        started = time.perf_counter()
        page = (await person.call("GET", path + (f"&cursor={cursors[-1]}" if cursors[-1] else ""))).body
        took.append(time.perf_counter() - started)
        seen += len(page["items"])
        assert all(one["org_id"] > two["org_id"] for one, two in pairwise(page["items"]))
        assert {each["depth"] for each in page["items"]} <= set(range(1, LEVELS + 1))
        cursors.append(page["next_cursor"])
        await asyncio.sleep(0)

    p50, p99 = (sorted(took)[int(len(took) * share)] * 1000 for share in (0.5, 0.99))
    print(f"{SIZE} organisations, {len(took)} pages of 200: p50 {p50:.1f} ms, p99 {p99:.1f} ms")
    assert seen == min(SIZE, PAGES * 200)
    assert p99 <= P99_MS
    await move_a_branch(auth, root)
    await assert_exact(auth)


async def move_a_branch(auth: AuthService, root: str) -> None:
    """Take a branch of about a tenth of the tree off, and hang it back."""
    operator = auth.client.auth(roles=["Operator"])
    branch, size = await auth.owner.fetchrow(LARGEST_BRANCH, UUID(root))
    for path, body in ((":detach", None), (":move", {"parent_org_id": root})):
        started = time.perf_counter()
        answer = await auth.call("POST", f"/orgs/{branch}{path}", body, **operator)
        took = time.perf_counter() - started
        assert answer.status == 200, answer.body
        print(f"{path[1:]} of {size} organisations: {took:.2f} s")
