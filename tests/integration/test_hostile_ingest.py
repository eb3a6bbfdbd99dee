"""Hostile bodies at the ingest door: each is answered exactly, none costs its neighbours anything.

After all of them every good event is billed, once, and every bad one is a dead letter or was refused aloud.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest
from billing import billed_org, posted, recent
from hostile import JSON, NO_EVENTS, Bad, Odd, Whole, bad_events, bodies, odd_events

from eb_tools.invariants import broken
from eb_tools.world import Member, World, event

PATH = "/metering/events"


@dataclass
class Door:
    """The door through the gateway, and the good events that were let in by it."""

    world: World
    member: Member
    sku: str
    sent: Decimal = Decimal(0)
    parked: list[str] = field(default_factory=list)

    def event(self, **members: Any) -> dict[str, Any]:
        """A good event; two cases never share an id."""
        return event(self.member, self.sku, recent(secrets.randbelow(150))) | members

    async def send(self, body: bytes, headers: Mapping[str, str] = {}) -> tuple[int, Any]:
        """POST raw bytes; give status and answer, which is a problem wherever it should be."""
        sent = {"Content-Type": JSON, "Authorization": f"Bearer {self.member.api_key}", **headers}
        async with self.world.api.http.post(
            self.world.api.base_url + PATH, data=body, headers=sent
        ) as answer:
            kind = "application/problem+json" if answer.status >= 400 else "application/json"
            assert answer.content_type == kind
            return answer.status, await answer.json(content_type=None)


def raw(good: Mapping[str, Any], members: Mapping[str, str | None]) -> bytes:
    """An event with some members as raw JSON texts, or left out."""
    texts = {name: json.dumps(value) for name, value in good.items()} | dict(members)
    inside = (f"{quoted(name)}:{value}" for name, value in texts.items() if value is not None)
    return ("{" + ",".join(inside) + "}").encode()


def quoted(name: str) -> str:
    """A member's name; one with an escape in it stays as it is."""
    return f'"{name}"' if "\\" in name else json.dumps(name)


@pytest.fixture
async def door(world: World) -> Door:
    member, skus, _ = await billed_org(world, "Fortress")
    return Door(world, member, skus["form"])


async def test_no_hostile_body_breaks_the_door_or_costs_its_neighbours(door: Door, owner: Any) -> None:
    cases = [*bad_events(), *odd_events(), *bodies(door.event), *NO_EVENTS]
    assert len(cases) >= 150
    wrong = []
    for case in cases:
        try:
            await check(door, case)
        except AssertionError as error:
            wrong.append(f"{getattr(case, 'name', case)}: {error}")
    assert not wrong, "\n".join(wrong)

    totals = await posted(owner, door.member, door.sent)
    assert totals["metered"] == totals["priced"] == totals["posted"]
    letters = await owner.fetch(
        "SELECT request_id FROM metering_ingest.dead_letter WHERE request_id = ANY($1) AND status = 'open'",
        door.parked,
    )
    assert {row["request_id"] for row in letters} == set(door.parked)
    assert await broken(owner) == {}


async def check(door: Door, case: Bad | Odd | Whole | str) -> None:
    """Send one case and compare its answer."""
    if isinstance(case, Whole):
        await check_whole(door, case)
    elif isinstance(case, Odd):
        good = door.event(quantity="1")
        body = b"[" + raw(good, case.members) + b"," + json.dumps(door.event()).encode() + b"]"
        status, answer = await door.send(body)
        assert (status, answer.get("accepted")) == (202, 2), answer
        door.sent += Decimal(case.quantity) + 1
    else:
        await check_between_neighbours(door, case)


async def check_between_neighbours(door: Door, case: Bad | str) -> None:
    """A bad event between two good ones: alone refused when lenient, all refused when strict."""
    first, good, last = (door.event() for _ in range(3))
    pointer, code = ("", "wrong_type") if isinstance(case, str) else (case.pointer, case.code)
    bad = case.encode() if isinstance(case, str) else raw(good, case.members)
    body = b"[" + b",".join((json.dumps(first).encode(), bad, json.dumps(last).encode())) + b"]"
    status, answer = await door.send(body, {"Prefer": "handling=strict"})
    assert (status, answer["code"]) == (422, "batch_invalid"), answer
    assert (f"/1{pointer}", code) in [(e["pointer"], e["code"]) for e in answer["errors"]], answer["errors"]

    status, answer = await door.send(body)
    assert (status, answer.get("accepted")) == (207, 2), answer
    door.sent += 2
    (rejected,) = answer["rejected"]
    assert rejected["index"] == 1
    assert (pointer, code) in [(e["pointer"], e["code"]) for e in rejected["errors"]], rejected
    if isinstance(case, Bad) and "request_id" not in case.members:
        assert rejected["request_id"] == good["request_id"]
        door.parked.append(good["request_id"])


async def check_whole(door: Door, case: Whole) -> None:
    """A body as a whole."""
    status, answer = await door.send(case.body, case.headers)
    door.sent += answer.get("accepted", 0)
    assert (status, answer.get("code")) == (case.status, case.code), answer
    assert answer.get("accepted", 0) == case.accepted, answer


@dataclass(frozen=True)
class Wire:
    """Bytes on the wire: a head's lines besides the usual ones, what follows, and the answer's status and code.

    No code: the gateway takes it for no HTTP at all, and some of its versions say so in their own words.
    """

    name: str
    lines: tuple[str, ...]
    body: bytes
    status: int
    code: str | None


def wires(good: bytes) -> list[Wire]:
    """Bodies that lie about their own length."""
    chunked, rest = ("Transfer-Encoding: chunked",), b"\r\n" + good + b"\r\n0\r\n\r\n"
    long, no_http = b"x" * 5_000_000, None
    return [
        Wire("too long by its head", ("Content-Length: 5000000",), b"", 413, "body_too_large"),
        Wire("endless by its head", ("Content-Length: 99999999999999999999",), good, 400, no_http),
        Wire("negative length", ("Content-Length: -1",), good, 400, no_http),
        Wire("length with a sign", (f"Content-Length: +{len(good)}",), good, 400, no_http),
        Wire("length in words", ("Content-Length: many",), good, 400, no_http),
        Wire("two lengths", (f"Content-Length: {len(good)}", "Content-Length: 3"), good, 400, no_http),
        Wire("shorter by its head", (f"Content-Length: {len(good) - 3}",), good, 400, "malformed_json"),
        Wire("no length at all", (), b"", 400, "malformed_json"),
        Wire("chunk size of letters", chunked, b"zz" + rest, 400, no_http),
        Wire("chunk size below zero", chunked, b"-1" + rest, 400, no_http),
        Wire("chunk longer than said", chunked, b"3" + rest, 400, no_http),
        Wire("huge chunk size", chunked, b"ffffffffffffffffffff" + rest, 400, no_http),
        Wire(
            "chunks over the limit", chunked, b"4c4b40\r\n" + long + b"\r\n0\r\n\r\n", 413, "body_too_large"
        ),
    ]


async def raw_answer(
    door: Door, lines: tuple[str, ...], body: bytes, *, wait_s: float = 20
) -> tuple[int, Any]:
    """Send bytes over a socket of our own; give status and problem."""
    address = urlsplit(door.world.api.base_url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    head = (
        f"POST {PATH} HTTP/1.1", f"Host: {address.netloc}", f"Authorization: Bearer {door.member.api_key}",
        f"Content-Type: {JSON}", *lines, "", "",
    )  # fmt: skip
    try:
        writer.write("\r\n".join(head).encode() + body)
        async with asyncio.timeout(wait_s):
            answer = await reader.readuntil(b"\r\n\r\n")
            status = int(answer.split(b" ", 2)[1])
            length = re.search(rb"content-length: ([0-9]+)", answer, re.IGNORECASE)
            assert length is not None
            body = await reader.readexactly(int(length[1]))
            return status, json.loads(body) if b"problem+json" in answer else {"code": None}
    finally:
        writer.close()


async def test_a_body_that_lies_about_its_length_is_refused(door: Door, owner: Any) -> None:
    good = json.dumps([door.event()]).encode()
    wrong = []
    for wire in wires(good):
        status, problem = await raw_answer(door, wire.lines, wire.body)
        if status != wire.status or wire.code not in (None, problem["code"]):
            wrong.append(f"{wire.name}: {status} {problem['code']}")
    assert not wrong, "\n".join(wrong)
    assert (await door.send(json.dumps([door.event()]).encode()))[0] == 202
    totals = await posted(owner, door.member, Decimal(1))
    assert totals["metered"] == totals["priced"] == 1


async def test_a_body_that_never_comes_is_cut_off_and_one_that_stops_is_forgotten(
    door: Door, owner: Any
) -> None:
    good = json.dumps([door.event()]).encode()
    head = (f"Content-Length: {len(good)}",)

    async def slow(body: bytes) -> tuple[int, str, float]:
        started = time.monotonic()
        status, problem = await raw_answer(door, head, body, wait_s=45)
        return status, problem["code"], time.monotonic() - started

    async def hangs_up() -> None:
        with pytest.raises((aiohttp.ClientError, TimeoutError, OSError, asyncio.IncompleteReadError)):
            await raw_answer(door, head, good[:-1], wait_s=0.5)

    *_, one, two = await asyncio.gather(*(hangs_up() for _ in range(5)), slow(good[:-1]), slow(b""))
    for status, code, seconds in (one, two):
        assert (status, code) == (408, "request_timeout")
        assert 25 < seconds < 40
    await door.send(json.dumps([door.event(quantity="3")]).encode())
    totals = await posted(owner, door.member, Decimal(3))
    assert totals["metered"] == 3
