"""Every service hears exactly what it keeps, and handles exactly what its queues are bound to."""

from __future__ import annotations

import importlib

import pytest

from eb_kit import topology
from eb_kit.service import Service


@pytest.mark.parametrize("name", topology.SERVICES)
def test_a_service_and_the_topology_agree(name: str) -> None:
    service: Service = importlib.import_module(f"eb_{name.replace('-', '_')}.app").SERVICE
    heard = {fact.TYPE for fact in topology.FACTS[name]}
    standard = {fact.TYPE for fact in topology.STANDARD_FACTS}
    assert heard - standard == set(service.handlers.kept) - standard
    streams = topology.streams_of(name)
    assert {family: set(found.handlers) for family, found in service.handlers.families.items()} == {
        family: {message.TYPE for message in stream.messages} for family, stream in streams.items()
    }
    owned = set(service.handlers.owned)
    assert owned.isdisjoint(fact.ENTITY for fact in topology.FACTS[name])
