"""The topology: one model, applied twice without change, with rights that hold."""

from __future__ import annotations

import re
from urllib.parse import urlsplit, urlunsplit

import aio_pika
import aiohttp
import pytest

from eb_contracts.base import ALL, EVENTS, METERING, USAGE, EntityFact
from eb_kit import topology
from eb_tools.rabbitmq import PrivateRabbitMQ


def test_every_queue_takes_exactly_one_policy() -> None:
    policies = [policy for policy in topology.policies() if policy.applies_to == "queues"]
    for queue in topology.queues():
        found = [policy.name for policy in policies if re.search(policy.pattern, queue)]
        assert len(found) == 1, (queue, found)


def test_every_message_has_a_queue_that_wants_it() -> None:
    keys = {(binding.source, binding.routing_key) for binding in topology.bindings()}
    unheard = {
        "domain_verify.domain_claim.changed.v1",
        "metering_ingest.drift.found.v1",
        "metering_ingest.usage_alert.raised.v1",
        "pricing.budget.threshold_reached.v1",
        "pricing.period.closed.v1",
    }
    for name, message in ALL.items():
        if message.EXCHANGE == EVENTS and not name.startswith(("kit.snapshot.", "kit.coherence.")):
            assert (EVENTS, name) in keys or name in unheard, name
    for exchange, prefix in ((METERING, ""), (USAGE, "usage."), (USAGE, "charge.")):
        assert all((exchange, f"{prefix}p{p:02d}") in keys for p in range(16))


def test_a_service_keeps_only_facts_of_others() -> None:
    for service, facts in topology.FACTS.items():
        own = service.replace("-", "_")
        assert all(issubclass(fact, EntityFact) and not fact.TYPE.startswith(f"{own}.") for fact in facts)


async def test_applying_twice_changes_nothing_and_a_stale_binding_goes(broker: PrivateRabbitMQ) -> None:
    async with aiohttp.ClientSession() as http:
        admin = topology.Admin(broker.admin_url, "twice", http)
        await topology.apply(broker.admin_url, "twice")
        before = await admin._call("GET", "/definitions/twice")
        await topology.apply(broker.admin_url, "twice")
        after = await admin._call("GET", "/definitions/twice")
        for part in ("queues", "exchanges", "bindings", "policies"):
            assert sorted(map(str, before[part])) == sorted(map(str, after[part]))

        await admin._call(
            "POST", f"/bindings/twice/e/{EVENTS}/q/ledger.facts", {"routing_key": "old.fact.v1"}
        )
        await topology.apply(broker.admin_url, "twice")
        bindings = await admin._call("GET", "/bindings/twice/e/" + EVENTS + "/q/ledger.facts")
        assert "old.fact.v1" not in {binding["routing_key"] for binding in bindings}


async def test_a_service_writes_and_reads_only_what_is_its_own(broker: PrivateRabbitMQ) -> None:
    await topology.apply(broker.admin_url, "rights", {"ledger": "s3cret"})
    parts = urlsplit(broker.amqp_url)
    url = urlunsplit(parts._replace(netloc=f"ledger:s3cret@127.0.0.1:{parts.port}", path="/rights"))
    async with await aio_pika.connect(url) as connection:

        async def publish(exchange: str, key: str) -> None:
            channel = await connection.channel(on_return_raises=False)
            target = await channel.get_exchange(exchange, ensure=False)
            await target.publish(aio_pika.Message(b"{}"), key, timeout=5)

        async def consume(queue: str) -> None:
            channel = await connection.channel()
            found = await channel.get_queue(queue, ensure=False)
            await found.consume(print, timeout=5)

        await publish(EVENTS, "ledger.entries.posted.v1")
        await publish(topology.DLX, "ledger")
        await consume("ledger.charges.p00")
        for exchange, key in (
            (EVENTS, "auth.org.changed.v1"),
            (topology.DLX, "auth"),
            (USAGE, "charge.p00"),
            (METERING, "p00"),
            (topology.BACK, "pricing.usage.p00"),
        ):
            with pytest.raises(aio_pika.exceptions.AMQPError, match="ACCESS_REFUSED"):
                await publish(exchange, key)
        for queue in ("pricing.usage.p00", "auth.dead", topology.UNROUTED):
            with pytest.raises(aio_pika.exceptions.AMQPError, match="ACCESS_REFUSED"):
                await consume(queue)
        channel = await connection.channel()
        with pytest.raises(aio_pika.exceptions.AMQPError, match="ACCESS_REFUSED"):
            await channel.declare_queue("ledger.mine")
