"""The checks of the hierarchy can fail: each is shown what it is there to find."""

from __future__ import annotations

import pytest

from eb_tools.invariants import HIERARCHY, broken

from .conftest import AuthService
from .test_hierarchy import assert_exact

PARENT = "an organisation's parent is its closure row of depth 1"
CLOSURE = "the closure table is the transitive closure of the parents"
CYCLE = "no organisation stands above itself, none deeper than ten"
ORPHAN = "each organisation has itself at depth 0 and one root"
HISTORY = "the newest parent link is the parent"
FACT = "what services know of a parent is the parent"
ELEVEN_EDGES = """
    INSERT INTO auth.organization
        (org_id, legal_name, org_slug, billing_email, default_timezone, created_at, parent_org_id)
    SELECT lpad(n::text, 32, '0')::uuid, 'Deep', 'deep-' || n, 'b@example.org', 'UTC', '2026-01-01Z',
        CASE WHEN n > 1 THEN lpad((n - 1)::text, 32, '0')::uuid END
    FROM generate_series(1, 12) AS n
"""
HARMS = {
    "UPDATE auth.organization SET parent_org_id = NULL WHERE org_slug = 'leaf'": PARENT,
    "DELETE FROM auth.org_hierarchy WHERE depth = 1": PARENT,
    "DELETE FROM auth.org_hierarchy WHERE depth = 2": CLOSURE,
    "UPDATE auth.org_hierarchy SET depth = 3 WHERE depth = 2": CLOSURE,
    "INSERT INTO auth.org_hierarchy SELECT descendant_org_id, ancestor_org_id, 5 FROM auth.org_hierarchy"
    " WHERE depth = 2": CLOSURE,
    "UPDATE auth.organization SET parent_org_id = (SELECT org_id FROM auth.organization WHERE org_slug = 'leaf')"
    " WHERE org_slug = 'top'": CYCLE,
    ELEVEN_EDGES: CYCLE,
    "INSERT INTO auth.org_hierarchy VALUES (gen_random_uuid(), (SELECT org_id FROM auth.organization"
    " WHERE org_slug = 'top'), 1)": CLOSURE,
    "INSERT INTO auth.org_hierarchy SELECT id, id, 0 FROM (SELECT gen_random_uuid() AS id) AS nobody": CLOSURE,
    "DELETE FROM auth.org_hierarchy WHERE depth = 0": ORPHAN,
    "UPDATE auth.organization SET parent_org_id = (SELECT org_id FROM auth.organization WHERE org_slug = 'mid')"
    " WHERE parent_org_id IS NULL AND org_slug <> 'mid'": ORPHAN,
    "UPDATE auth.org_parent_link SET parent_org_id = NULL": HISTORY,
    "DELETE FROM auth.org_parent_link": HISTORY,
    "UPDATE auth.known SET body = jsonb_set(body, '{parent_org_id}', 'null') WHERE entity = 'org'": FACT,
    "UPDATE auth.organization SET version = version + 1": FACT,
}


def test_each_check_has_a_harm() -> None:
    assert set(HARMS.values()) == set(HIERARCHY)


@pytest.mark.asyncio(loop_scope="module")
async def test_whatever_goes_wrong_is_noticed(shared_auth: AuthService) -> None:
    auth = shared_auth
    person = await auth.sign_in()
    top = await person.found_org(org_slug="top")
    mid = await person.add_child(top["org_id"], org_slug="mid")
    await person.add_child(mid["org_id"], org_slug="leaf")
    await assert_exact(auth)
    for harm, name in HARMS.items():
        harmed = auth.owner.transaction()
        await harmed.start()
        await auth.owner.execute("SELECT set_config('eb.actor', 'system:test', true)")
        await auth.owner.execute(harm)
        assert name in await broken(auth.owner, HIERARCHY), harm
        await harmed.rollback()
    await assert_exact(auth)
