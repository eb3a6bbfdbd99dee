"""Fixtures of pricing's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from eb_kit.testing_db import ClonedDatabase, TestDatabase

from .world import World, a_world


@pytest.fixture
async def world(fresh_db: ClonedDatabase) -> AsyncIterator[World]:
    """A running pricing service on a database of its own."""
    async with a_world(fresh_db) as running_world:
        yield running_world


@pytest.fixture(scope="module")
async def shared_world(database: TestDatabase) -> AsyncIterator[World]:
    """A running pricing service for all tests of a module that only touch what they made."""
    clone = await database.clone()
    async with a_world(clone) as running_world:
        yield running_world
    await database.drop(clone)
