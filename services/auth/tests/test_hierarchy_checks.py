"""The checks of the hierarchy's tests can fail."""

from __future__ import annotations

import pytest

from .conftest import AuthService
from .test_hierarchy import assert_exact


@pytest.mark.parametrize(
    "harm",
    [
        "DELETE FROM auth.org_hierarchy WHERE depth = 1",
        "UPDATE auth.org_hierarchy SET depth = 2 WHERE depth = 1",
        "INSERT INTO auth.org_hierarchy SELECT descendant_org_id, ancestor_org_id, depth"
        " FROM auth.org_hierarchy WHERE depth = 1",
        "UPDATE auth.organization SET parent_org_id = NULL",
    ],
)
async def test_a_wrong_closure_is_noticed(auth: AuthService, harm: str) -> None:
    person = await auth.sign_in()
    root = await person.found_org()
    await person.add_child(root["org_id"])
    async with auth.owner.transaction():
        await auth.owner.execute("SELECT set_config('eb.actor', 'system:test', true)")
        await auth.owner.execute(harm)

    with pytest.raises(AssertionError):
        await assert_exact(auth)
