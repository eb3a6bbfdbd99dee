"""The load of the ingest benches: a world of many organisations, bodies made beforehand, and a lean HTTP sender.

The sender speaks just enough HTTP/1.1 to post a body and read a status: a general client would cost as much a request
as the door does, on the same two cores.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from eb_contracts.ids import new_id
from eb_tools.client import ApiProblem, Json
from eb_tools.world import Member, World

SKUS = ("bench-form", "bench-sms", "bench-check", "bench-render", "bench-query")
PRICES: dict[str, Json] = {
    "bench-form": {"included_qty": "100", "overage_price": "0.05"},
    "bench-sms": {"included_qty": "0", "overage_price": "0.0793"},
    "bench-check": {"included_qty": "0", "overage_price": "0.001"},
    "bench-render": {
        "included_qty": "0",
        "tiers": {
            "mode": "graduated",
            "tiers": [
                {"up_to": "100", "unit_price": "0.10"},
                {"up_to": "1000", "unit_price": "0.05"},
                {"up_to": "10000", "unit_price": "0.02"},
                {"up_to": "100000", "unit_price": "0.01"},
                {"up_to": None, "unit_price": "0.005"},
            ],
        },
    },
    "bench-query": {
        "included_qty": "0",
        "tiers": {"mode": "package", "package_size": "100", "package_price": "1"},
    },
}


def price_of(number: int) -> tuple[str, Json]:
    """Name SKU `number` and give its price; from the sixth on they repeat."""
    name = SKUS[number % len(SKUS)]
    return (name if number < len(SKUS) else f"{name}-{number}"), PRICES[name]


async def make_members(world: World, count: int, skus: int = len(SKUS)) -> tuple[str, list[Member]]:
    """Make one group of `count` children with a plan each; give the group's key (`:tree`) and the members."""
    admin = await world.person("bench")
    root = await world.org(admin, "Bench Group")
    scopes = ["metering:write:tree", "metering:read:tree", "pricing:estimate:tree"]
    made = await world.api.post(
        f"/orgs/{root.org_id}/api-keys", {"name": "bench", "scopes": scopes}, token=root.admin_token
    )
    prices = dict(price_of(number) for number in range(skus))
    for sku in prices:
        await world.sku(sku)
    model = await world.model()
    plan = await world.plan(model, prices)
    operator = world.staff.operator_token

    async def child(number: int) -> str:
        body = {
            "legal_name": f"Bench {number}",
            "org_slug": f"bench-{world.tag}-{number}",
            "billing_email": "bench@example.net",
            "default_timezone": "UTC",
        }
        org = await world.api.post(f"/orgs/{root.org_id}/children", body, token=root.admin_token)
        return str(org["org_id"])

    async def project(org_id: str) -> Member:
        made_here = await world.api.post(f"/orgs/{org_id}/projects", {"name": "bench"}, token=operator)
        return Member(org_id, made_here["project_id"], made["key"], operator)

    orgs = await each(child, range(count))
    members = await each(project, orgs)
    await each(lambda org_id: world.assign(org_id, model, plan), orgs)
    return made["key"], members


async def each(work: Callable[[Any], Awaitable[Any]], items: Iterable[Any]) -> list[Any]:
    """Do it for each item, 8 at a time; a platform that is too busy is asked again."""
    gate = asyncio.Semaphore(8)

    async def one(item: Any) -> Any:
        async with gate:
            for pause_s in (0.5, 1, 2, 4):
                try:
                    return await work(item)
                except ApiProblem as problem:
                    if problem.status != 503:
                        raise
                    await asyncio.sleep(pause_s)
            return await work(item)

    return list(await asyncio.gather(*map(one, items)))


@dataclass(frozen=True)
class Shape:
    """What batches look like: who sends, how many events, and over how long their times are spread.

    `is_mixed`: each event is of an organisation of its own, not the whole batch of one.
    """

    spread: str = "zipf"
    batch: int = 100
    skus: int = len(SKUS)
    is_mixed: bool = False
    minutes: int = 4


def weights(count: int, spread: str) -> list[float]:
    """Give how often each org sends: a Zipf law (s = 1.1), all alike, or one alone."""
    if spread == "uniform":
        return [1.0] * count
    if spread == "hot":
        return [1.0] + [0.0] * (count - 1)
    return [1 / (rank**1.1) for rank in range(1, count + 1)]


def make_bodies(members: list[Member], shape: Shape, batches: int) -> list[bytes]:
    """Write bodies beforehand, so that the generator costs little while it sends; request ids are unique."""
    tag = str(new_id())[-12:]
    now = datetime.now(UTC) - timedelta(minutes=shape.minutes, seconds=60)
    times = [(now + timedelta(seconds=s)).isoformat() for s in range(0, shape.minutes * 60, 7)]
    skus = itertools.cycle(
        [price_of(number)[0] for number in range(1 if shape.spread == "hot" else shape.skus)]
    )
    senders = _senders(members, shape)
    bodies = []
    for number in range(batches):
        one = next(senders)
        parts = [
            f'{{"request_id":"{tag}-{number}-{n}","sku":"{next(skus)}{_place(next(senders) if shape.is_mixed else one)}'
            f'{random.choice(times)}"}}'
            for n in range(shape.batch)
        ]
        bodies.append(f"[{','.join(parts)}]".encode())
    return bodies


def _place(member: Member) -> str:
    return f'","org_id":"{member.org_id}","project_id":"{member.project_id}","quantity":"1","time":"'


def _senders(members: list[Member], shape: Shape) -> Iterator[Member]:
    laws = weights(len(members), shape.spread)
    while True:
        yield from random.choices(members, laws, k=1000)


class Wire(asyncio.Protocol):
    """One connection that posts a body at a time."""

    def __init__(self) -> None:
        self._transport: Any = None
        self._answered: asyncio.Future[int] | None = None
        self._buffer = b""
        self.is_lost = True

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._buffer = b""
        self.is_lost = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(ConnectionError("the gateway closed the connection"))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, found, body = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return
        lower = head.lower()
        at = lower.index(b"content-length:") + 15
        length = int(lower[at : lower.find(b"\r", at) if lower.find(b"\r", at) > 0 else None])
        if len(body) >= length and self._answered is not None and not self._answered.done():
            self._buffer = b""
            self._answered.set_result(int(head[9:12]))

    async def post(self, head: bytes, body: bytes) -> int:
        """Post a body; give the status."""
        if self.is_lost:
            raise ConnectionError("the connection was cut")
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body))
        return await self._answered


@dataclass
class Sent:
    """What came of a load: seconds, latencies (s) of what was accepted, how often it was put off."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    put_off: int = 0
    late: int = 0


class Sender:
    """Sends bodies to the gateway of a stack."""

    def __init__(self, url: str, key: str) -> None:
        address = urlsplit(url)
        self._host, self._port = str(address.hostname), int(address.port or 80)
        self._head = (
            f"POST /metering/events HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: Bearer {key}\r\n"
            "Content-Type: application/json\r\n"
        ).encode()

    async def connect(self, again: Wire | None = None) -> Wire:
        """Open a connection, for a new wire or for one that was cut."""
        wire = again or Wire()
        await asyncio.get_running_loop().create_connection(lambda: wire, self._host, self._port)
        return wire

    async def send(self, wire: Wire, body: bytes, sent: Sent) -> float:
        """Send a body until its 202; give the instant of that."""
        started = time.perf_counter()
        await self._until_accepted(wire, body, sent)
        now = time.perf_counter()
        sent.latencies.append(now - started)
        return now

    async def _until_accepted(self, wire: Wire, body: bytes, sent: Sent) -> None:
        """Send again what was answered 5xx or not at all: the ids in the body count once."""
        while True:
            try:
                status = await wire.post(self._head, body)
            except ConnectionError:
                status = 0
            if status == 202:
                return
            if 0 < status < 500:
                raise SystemExit(f"a batch was answered {status}")
            sent.put_off += 1
            await asyncio.sleep(1)
            if wire.is_lost:
                await self.connect(wire)

    async def closed_loop(self, bodies: list[bytes], connections: int, seconds: float) -> Sent:
        """Send over so many connections, each its next body after the last one's 202, for so long."""
        sent, waiting = Sent(), iter(bodies)
        wires = [await self.connect() for _ in range(connections)]
        started = time.perf_counter()

        async def go(wire: Wire) -> None:
            for body in waiting:
                await self.send(wire, body, sent)
                if time.perf_counter() - started > seconds:
                    return

        await asyncio.gather(*map(go, wires))
        sent.seconds = time.perf_counter() - started
        return sent

    async def open_loop(self, bodies: list[bytes], per_s: float) -> Sent:
        """Send a body every so often, whatever became of those before; latencies count from the planned instant."""
        sent = Sent()
        free: list[Wire] = []
        started = time.perf_counter()

        async def go(body: bytes, planned: float) -> None:
            wire = free.pop() if free else await self.connect()
            await self._until_accepted(wire, body, sent)
            sent.latencies.append(time.perf_counter() - planned)
            free.append(wire)

        async with asyncio.TaskGroup() as group:
            for number, body in enumerate(bodies):
                planned = started + number / per_s
                if (ahead := planned - time.perf_counter()) > 0:
                    await asyncio.sleep(ahead)
                group.create_task(go(body, planned))
        sent.seconds = time.perf_counter() - started
        return sent
