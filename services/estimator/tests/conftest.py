"""Fixtures of the estimator's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from eb_kit.testing_db import TestDatabase

from .world import World, a_world


@pytest.fixture(scope="module")
async def world(database: TestDatabase) -> AsyncIterator[World]:
    """A running estimator for all tests of a module that only touch what they made."""
    clone = await database.clone()
    async with a_world(clone) as running_world:
        yield running_world
    await database.drop(clone)
