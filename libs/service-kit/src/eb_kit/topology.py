"""The one model of exchanges, queues, bindings, policies and users, and the command that applies it.

`python -m eb_kit.topology apply` is idempotent. Services declare nothing. Rule: docs/rules/bus.md, Topology.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, Literal
from urllib.parse import quote, unquote, urlsplit

import aiohttp

from eb_contracts import audit, auth, base, catalog, ledger, metering, pricing
from eb_contracts.base import EVENTS, METERING, USAGE, EntityFact, Message
from eb_contracts.ids import PARTITIONS

RETRY: Final = "eb.retry"
BACK: Final = "eb.back"
DLX: Final = "eb.dlx"
UNROUTED: Final = "eb.unrouted"
PULSE: Final = "eb.pulse"
TIER_HEADER: Final = "eb-tier"
TIERS_MS: Final[Mapping[str, int]] = {"5s": 5_000, "30s": 30_000, "5m": 300_000, "30m": 1_800_000}
DELIVERY_LIMIT: Final = 20
UNROUTED_TTL_MS: Final = 7 * 24 * 3600 * 1000
COMPARING_TTL_MS: Final = 60_000
NEVER: Final = 1_000_000_000

EXCHANGES: Final[Mapping[str, str]] = {
    EVENTS: "topic",
    METERING: "direct",
    USAGE: "direct",
    RETRY: "headers",
    BACK: "direct",
    DLX: "topic",
    UNROUTED: "fanout",
    PULSE: "fanout",
}

STANDARD_FACTS: Final[tuple[type[EntityFact], ...]] = (
    auth.OrgChanged,
    auth.MemberChanged,
    auth.ApiKeyChanged,
    auth.SigningKeyChanged,
    auth.AccessRevoked,
)
"""What every service keeps to know callers and organisations."""

_PRICES: Final[tuple[type[EntityFact], ...]] = (
    auth.ProjectChanged,
    catalog.SkuChanged,
    catalog.TermsDefined,
    catalog.OrgTermsAssigned,
    catalog.RetailTermsAssigned,
)


@dataclass(frozen=True, slots=True)
class Stream:
    """A family of queues that carry work: what arrives, and from which exchange.

    A split family has one queue per partition, `<service>.<family>.p00` and so on.
    """

    service: str
    family: str
    messages: tuple[type[Message], ...]
    is_split: bool

    @property
    def queues(self) -> tuple[str, ...]:
        """Name the queues of the family."""
        name = f"{self.service}.{self.family}"
        return tuple(f"{name}.p{p:02d}" for p in range(PARTITIONS)) if self.is_split else (name,)

    def bindings(self) -> Iterator[tuple[str, str, str]]:
        """Give (exchange, key, queue) for each binding."""
        for message in self.messages:
            if issubclass(message, base.Partitioned):
                for p in range(PARTITIONS):
                    yield message.EXCHANGE, f"{message.KEY_PREFIX}p{p:02d}", self.queues[p % len(self.queues)]
            else:
                yield message.EXCHANGE, message.TYPE, self.queues[0]


STREAMS: Final[tuple[Stream, ...]] = (
    Stream("auth", "audit", (audit.AuditRecorded,), is_split=False),
    Stream("metering-ingest", "batches", (metering.BatchAccepted,), is_split=True),
    Stream("pricing", "usage", (metering.UsageRecorded,), is_split=True),
    Stream("ledger", "charges", (pricing.ChargePriced,), is_split=True),
    Stream("estimator", "counters", (pricing.ChargePriced,), is_split=False),
    Stream(
        "metering-ingest",
        "progress",
        (pricing.ChargePriced, pricing.UsageParked, ledger.EntriesPosted),
        is_split=False,
    ),
)

FACTS: Final[Mapping[str, tuple[type[EntityFact], ...]]] = {
    "auth": (ledger.PartnerChanged,),
    "domain-verify": STANDARD_FACTS,
    "catalog": (*STANDARD_FACTS, pricing.PeriodClosed),
    "metering-ingest": (*STANDARD_FACTS, auth.ProjectChanged),
    "pricing": (*STANDARD_FACTS, *_PRICES),
    "ledger": STANDARD_FACTS,
    "estimator": (*STANDARD_FACTS, *_PRICES, catalog.PlanTermsDefined),
}
"""Which facts each service's read models hear; what a service `keeps` must stand here."""

WRITES: Final[Mapping[str, tuple[str, ...]]] = {
    "metering-ingest": (METERING, USAGE),
    "pricing": (USAGE,),
}
"""Exchanges a service writes to besides those all write to."""

WRITTEN_BY_ALL: Final = (EVENTS, RETRY, DLX, PULSE)
SNAPSHOTS: Final = "kit.snapshot.#"
COMPARING: Final = "kit.coherence."
SERVICES: Final = tuple(FACTS)


def streams_of(service: str) -> dict[str, Stream]:
    """Give the work families of a service by name."""
    return {stream.family: stream for stream in STREAMS if stream.service == service}


def facts_queue(service: str) -> str:
    """Name the queue that fills a service's read models."""
    return f"{service}.facts"


def coherence_queue(service: str) -> str:
    """Name the queue in which a service compares what was sent and handled."""
    return f"{service}.coherence"


def dead_queue(service: str) -> str:
    """Name the queue of a service's dead letters."""
    return f"{service}.dead"


def retry_queue(tier: str) -> str:
    """Name the waiting room of a tier."""
    return f"retry.{tier}"


@dataclass(frozen=True, slots=True)
class Binding:
    """A binding; `arguments` matter to a headers exchange only."""

    source: str
    destination: str
    routing_key: str
    arguments: Mapping[str, str] = field(default_factory=dict)


@cache
def _routes() -> tuple[Mapping[tuple[str, str], tuple[str, ...]], Mapping[tuple[str, str], tuple[str, ...]]]:
    """Give the work queues by exchange and key, and by exchange and the start of a key."""
    whole: dict[tuple[str, str], tuple[str, ...]] = {}
    starts: dict[tuple[str, str], tuple[str, ...]] = {}
    wanted = {queue for service in SERVICES for queue in work_queues(service)}
    for binding in bindings():
        if binding.destination in wanted and binding.source != BACK:
            found = starts if binding.routing_key.endswith("#") else whole
            key = (binding.source, binding.routing_key.removesuffix("#"))
            found[key] = (*found.get(key, ()), binding.destination)
    return whole, starts


@cache
def queues_of(exchange: str, routing_key: str) -> tuple[str, ...]:
    """Name the work queues that a message goes to; what passes a retry tier goes to the queue its key names."""
    if exchange == RETRY:
        return (routing_key,)
    whole, starts = _routes()
    found = whole.get((exchange, routing_key), ())
    begun = (
        q
        for (source, start), qs in starts.items()
        if source == exchange and routing_key.startswith(start)
        for q in qs
    )
    return (*found, *begun)


def reader_of(queue: str) -> str:
    """Name the service that takes from a queue."""
    return queue.partition(".")[0]


@dataclass(frozen=True, slots=True)
class Policy:
    """A broker policy: what of a queue or exchange may change later."""

    name: str
    pattern: str
    applies_to: Literal["queues", "exchanges"]
    definition: Mapping[str, str | int]


def work_queues(service: str) -> Iterator[str]:
    """Name all queues whose messages must arrive: a service's streams, and what fills its read models."""
    for stream in streams_of(service).values():
        yield from stream.queues
    yield facts_queue(service)


def queues() -> Iterator[str]:
    """Name every queue."""
    for service in SERVICES:
        yield from work_queues(service)
        yield coherence_queue(service)
        yield dead_queue(service)
    yield from map(retry_queue, TIERS_MS)
    yield UNROUTED


def bindings() -> Iterator[Binding]:
    """Give every binding."""
    for stream in STREAMS:
        yield from (Binding(source, queue, key) for source, key, queue in stream.bindings())
    for service, facts in FACTS.items():
        for key in (SNAPSHOTS, *(fact.TYPE for fact in facts)):
            yield Binding(EVENTS, facts_queue(service), key)
        yield Binding(EVENTS, coherence_queue(service), f"{COMPARING}{service}")
        yield Binding(BACK, coherence_queue(service), coherence_queue(service))
        yield Binding(DLX, dead_queue(service), service)
        yield from (Binding(BACK, queue, queue) for queue in work_queues(service))
    for tier in TIERS_MS:
        yield Binding(RETRY, retry_queue(tier), "", {"x-match": "all", TIER_HEADER: tier})
    yield Binding(UNROUTED, UNROUTED, "")


def _safe_dead_lettering(exchange: str) -> dict[str, str | int]:
    return {
        "dead-letter-exchange": exchange,
        "dead-letter-strategy": "at-least-once",
        "overflow": "reject-publish",
    }


def policies(tiers_ms: Mapping[str, int] = TIERS_MS) -> Iterator[Policy]:
    """Give every policy; a queue takes exactly one, so patterns don't overlap."""
    yield Policy(
        "eb-alternate",
        r"^eb\.(events|metering|usage|retry|back|dlx)$",
        "exchanges",
        {"alternate-exchange": UNROUTED},
    )
    for service in SERVICES:
        definition = _safe_dead_lettering(DLX) | {"delivery-limit": DELIVERY_LIMIT}
        definition["dead-letter-routing-key"] = service
        yield Policy(f"eb-work-{service}", rf"^{service}\.(?!(dead|coherence)$)", "queues", definition)
    yield Policy("eb-dead", r"\.dead$", "queues", {"delivery-limit": NEVER})
    yield Policy("eb-coherence", r"\.coherence$", "queues", {"message-ttl": COMPARING_TTL_MS})
    for tier, milliseconds in tiers_ms.items():
        definition = _safe_dead_lettering(BACK) | {"message-ttl": milliseconds}
        yield Policy(f"eb-retry-{tier}", rf"^retry\.{tier}$", "queues", definition)
    yield Policy("eb-unrouted", r"^eb\.unrouted$", "queues", {"message-ttl": UNROUTED_TTL_MS})


def definitions(tiers_ms: Mapping[str, int] = TIERS_MS) -> dict[str, Any]:
    """Give the model as the management API's definitions of one virtual host."""
    return {
        "exchanges": [
            {"name": n, "type": t, "durable": True, "auto_delete": False, "internal": False, "arguments": {}}
            for n, t in EXCHANGES.items()
        ],
        "queues": [
            {"name": n, "durable": True, "auto_delete": False, "arguments": {"x-queue-type": "quorum"}}
            for n in queues()
        ],
        "bindings": [
            {
                "source": b.source,
                "destination": b.destination,
                "destination_type": "queue",
                "routing_key": b.routing_key,
                "arguments": dict(b.arguments),
            }
            for b in bindings()
        ],
        "policies": [
            {
                "name": p.name,
                "pattern": p.pattern,
                "apply-to": p.applies_to,
                "definition": dict(p.definition),
                "priority": 0,
            }
            for p in policies(tiers_ms)
        ],
    }


def permissions(service: str) -> dict[str, str]:
    """Give a service's rights: it declares nothing, writes to its exchanges, reads its own queues."""
    writable = (*WRITTEN_BY_ALL, *WRITES.get(service, ()))
    return {
        "configure": "^$",
        "write": "^(" + "|".join(name.replace(".", r"\.") for name in writable) + ")$",
        "read": rf"^{service}\.",
    }


def topic_permissions(service: str) -> list[dict[str, str]]:
    """Give the routing keys a service may use: its own facts, what every service says, its own dead letters."""
    own = service.replace("-", "_")
    return [
        {"exchange": EVENTS, "write": rf"^({own}|kit\.snapshot|kit\.audit|kit\.coherence)\.", "read": ".*"},
        {"exchange": DLX, "write": f"^{service}$", "read": ".*"},
    ]


class Refused(Exception):
    """The broker's management API said no."""


class Admin:
    """The management API of a broker, at `RABBITMQ_ADMIN_URL` (`http://user:password@host:port`)."""

    def __init__(self, url: str, vhost: str, http: aiohttp.ClientSession) -> None:
        parts = urlsplit(url)
        self._base = f"{parts.scheme}://{parts.hostname}:{parts.port or 15672}/api"
        who = aiohttp.encode_basic_auth(
            unquote(parts.username or "guest"), unquote(parts.password or "guest")
        )
        self._headers = {"Authorization": who}
        self._vhost = quote(vhost, safe="")
        self._http = http

    async def _call(self, method: str, path: str, body: object = None) -> Any:
        async with self._http.request(
            method,
            f"{self._base}{path}",
            json=body,
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(30),
        ) as answer:
            text = await answer.text()
            if answer.status >= 400:
                raise Refused(f"{method} {path}: {answer.status} {text[:300]}")
            return json.loads(text) if text.startswith(("{", "[")) else None

    async def make_vhost(self) -> None:
        """Make the virtual host."""
        await self._call("PUT", f"/vhosts/{self._vhost}", {})

    async def import_definitions(self, model: object) -> None:
        """Declare exchanges, queues, bindings and policies; what is there stays."""
        await self._call("POST", f"/definitions/{self._vhost}", model)

    async def make_user(self, service: str, password: str) -> None:
        """Make a service's user and set its rights here."""
        user = quote(service, safe="")
        await self._call("PUT", f"/users/{user}", {"password": password, "tags": ""})
        await self._call("PUT", f"/permissions/{self._vhost}/{user}", permissions(service))
        for permission in topic_permissions(service):
            await self._call("PUT", f"/topic-permissions/{self._vhost}/{user}", permission)

    async def drop_stale_bindings(self) -> int:
        """Remove bindings between our exchanges and queues that the model no longer has; give how many."""
        wanted = {(b.source, b.destination, b.routing_key) for b in bindings()}
        found = [
            b
            for b in await self._call("GET", f"/bindings/{self._vhost}")
            if b["source"] in EXCHANGES and (b["source"], b["destination"], b["routing_key"]) not in wanted
        ]
        for b in found:
            source, queue, key = (quote(b[k], safe="") for k in ("source", "destination", "properties_key"))
            await self._call("DELETE", f"/bindings/{self._vhost}/e/{source}/q/{queue}/{key}")
        return len(found)

    async def wrong_queues(self) -> list[str]:
        """Name queues of the model that are missing or aren't quorum queues."""
        found = {q["name"]: q.get("type") for q in await self._call("GET", f"/queues/{self._vhost}")}
        return sorted(name for name in queues() if found.get(name) != "quorum")


async def apply(
    admin_url: str,
    vhost: str = "/",
    passwords: Mapping[str, str] | None = None,
    tiers_ms: Mapping[str, int] = TIERS_MS,
) -> None:
    """Bring a broker to the model; users are made for `passwords` (service name to password).

    Raises Refused, aiohttp.ClientError where the management API can't be reached.
    """
    async with aiohttp.ClientSession() as http:
        admin = Admin(admin_url, vhost, http)
        await admin.make_vhost()
        await admin.import_definitions(definitions(tiers_ms))
        await admin.drop_stale_bindings()
        for service, password in (passwords or {}).items():
            await admin.make_user(service, password)
        if wrong := await admin.wrong_queues():
            raise Refused(f"queues that aren't quorum queues: {', '.join(wrong)}")


def _passwords(source: str | None) -> dict[str, str]:
    return {str(k): str(v) for k, v in json.loads(source or "{}").items()}


def main() -> int:
    """Apply or show the topology; settings RABBITMQ_ADMIN_URL, EB_AMQP_VHOST, EB_AMQP_PASSWORDS (JSON)."""
    parser = argparse.ArgumentParser(prog="python -m eb_kit.topology", description=main.__doc__)
    parser.add_argument("command", choices=["apply", "show"])
    if parser.parse_args().command == "show":
        print(json.dumps(definitions(), indent=2))  # noqa: T201 - the command's answer
        return 0
    admin_url = os.environ.get("RABBITMQ_ADMIN_URL", "")
    if not admin_url:
        print("RABBITMQ_ADMIN_URL must name the management API of RabbitMQ", file=sys.stderr)  # noqa: T201
        return 2
    vhost = os.environ.get("EB_AMQP_VHOST", "/")
    asyncio.run(apply(admin_url, vhost, _passwords(os.environ.get("EB_AMQP_PASSWORDS"))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
