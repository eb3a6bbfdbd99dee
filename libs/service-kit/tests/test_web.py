"""The edge on a real socket: paths, bodies, deadlines and errors as a client meets them."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import aiohttp
import pytest
import zstandard
from aiohttp import web
from yarl import URL

from eb_contracts.errors import Fault, Kind, NotFound, Refusal
from eb_kit import web as kit
from eb_kit.inputs import Input, MinuteInstant, Page, QuantityIn, View
from eb_kit.paging import page_of, read_cursor
from eb_kit.routing import Route, Routes
from eb_kit.service import Service, ServiceContext
from eb_kit.settings import ServiceSettings
from eb_kit.testing import keep_in_touch

ORG = UUID("0199b1f0-0000-7000-8000-000000000001")
routes = Routes("test")


class Thing(Input):
    name: str
    quantity: QuantityIn
    effective_at: MinuteInstant | None = None


class ThingView(View):
    thing_id: UUID
    quantity: Decimal
    at: datetime


class ThingTaken(Refusal):
    code = "thing_taken"
    kind = Kind.CONFLICT
    title = "That thing is taken."


class Things(Page):
    kind: str | None = None


@routes.post("/things", body=Thing, answer=ThingView, status=201, errors=(ThingTaken,))
async def create_thing(request: web.Request) -> web.Response:
    """Create a thing."""
    thing = await kit.read_body(request, Thing)
    if thing.name == "taken":
        raise ThingTaken(
            "Another one has it.", faults=(Fault("/name", "taken", "Taken."),), left=Decimal("1.50")
        )
    return kit.created(
        ThingView(
            thing_id=ORG, quantity=thing.quantity, at=datetime.fromisoformat("2026-11-04T12:00:00+10:00")
        )
    )


@routes.get("/things", query=Things)
async def list_things(request: web.Request) -> web.Response:
    """List numbers as things."""
    query = kit.read_query(request, Things)
    after = read_cursor(request, query) or {"number": 1000, "at": None}
    views = [ItemView(number=after["number"] - n) for n in range(1, query.limit + 2)]
    return page_of(request, query, views, lambda last: {"number": last.number, "at": None})


class ItemView(View):
    number: int


@routes.get("/things/{thing_id}")
async def get_thing(request: web.Request) -> web.Response:
    """Show one."""
    return kit.ok({"thing_id": kit.path_uuid(request, "thing_id")})


@routes.post("/things/{thing_id}:end")
async def end_thing(request: web.Request) -> web.Response:
    """End one."""
    return kit.ok({"ended": kit.path_uuid(request, "thing_id")})


@routes.post("/periods/{period}:close")
async def close_period(request: web.Request) -> web.Response:
    """Close one."""
    return kit.ok({"closed": kit.path_text(request, "period")})


@routes.post("/things:sweep")
async def sweep_things(request: web.Request) -> web.Response:
    """Sweep."""
    return kit.accepted({"swept": 0})


@routes.get("/events/{request_id}")
async def get_event(request: web.Request) -> web.Response:
    """Show one."""
    return kit.ok({"request_id": kit.path_text(request, "request_id")})


@routes.post("/events/{request_id}:void")
async def void_event(request: web.Request) -> web.Response:
    """Void one."""
    return kit.ok({"voided": kit.path_text(request, "request_id")})


@routes.post("/raw", raw_body=True, encodings=("gzip", "zstd"), body_limit=1000)
async def take_raw(request: web.Request) -> web.Response:
    """Take anything."""
    return kit.ok({"bytes": len(await kit.read_raw(request))})


@routes.get("/fails/{request_id}")
async def fail(request: web.Request) -> web.Response:
    """Fail as told."""
    error: dict[str, Exception] = {
        "bug": RuntimeError("SELECT secret FROM internals"),
        "weather": ConnectionRefusedError("10.1.2.3"),
        "hidden": NotFound(),
    }
    raise error[kit.path_text(request, "request_id")]


@routes.get("/slow")
async def be_slow(_: web.Request) -> web.Response:
    """Never answer."""
    await asyncio.sleep(3600)
    return kit.no_content()


def public(route: Route) -> Route:
    """Open a route of this test to all, since the policy file knows only the platform's own."""
    copied = replace(route)
    copied.__dict__["names"] = frozenset({"public"})
    return copied


class Door:
    """The running application and a client."""

    def __init__(self, context: ServiceContext, port: int, http: aiohttp.ClientSession) -> None:
        self.context, self.port, self.http = context, port, http

    async def call(
        self, method: str, raw_path: str, **options: Any
    ) -> tuple[int, Any, aiohttp.ClientResponse]:
        url = URL(f"http://127.0.0.1:{self.port}{raw_path}", encoded=True)
        async with self.http.request(method, url, **options) as response:
            body = await response.read()
            return response.status, json.loads(body) if body else None, response

    async def post(self, body: bytes, path: str = "/things", **headers: str) -> tuple[int, Any]:
        sent = {"Content-Type": "application/json"} | {k.replace("_", "-"): v for k, v in headers.items()}
        status, members, _ = await self.call("POST", path, data=body, headers=sent)
        return status, members


@pytest.fixture
async def door(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Door]:
    monkeypatch.setattr(kit, "BODY_DEADLINE_S", 0.3)
    monkeypatch.setattr(kit, "REQUEST_DEADLINE_S", 0.6)
    settings = ServiceSettings.model_validate(
        {"DATABASE_URL": "unused", "AMQP_URL": "unused", "http_port": 1, "admin_port": 2, "EB_ENV": "local"}
    )
    service = Service("test", "test", ServiceSettings, routes, handlers=None)  # type: ignore[arg-type]
    context = ServiceContext(service, settings)
    keep_in_touch(context)
    runner = kit.Runner(kit.make_app("test", [public(route) for route in routes], context))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    async with aiohttp.ClientSession(auto_decompress=False) as http:
        yield Door(context, port, http)
    await runner.cleanup()


JSON = {"Content-Type": "application/json"}
GOOD = b'{"name": "a", "quantity": "1.50"}'


async def test_a_create_answers_201_with_exact_shapes(door: Door) -> None:
    status, members, response = await door.call(
        "POST", "/things", data=GOOD, headers={"Content-Type": "application/json"}
    )

    assert status == 201
    assert members == {"thing_id": str(ORG), "quantity": "1.5", "at": "2026-11-04T02:00:00.000000Z"}
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "path", [f"/things/{ORG}", "/things/nothing", "/fails/bug", "/docs", "/openapi.json"]
)
async def test_every_answer_keeps_browsers_from_running_framing_and_telling_it(door: Door, path: str) -> None:
    async with door.http.get(f"http://127.0.0.1:{door.port}{path}") as answer:
        headers = answer.headers

    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize("method", ["TRACE", "OPTIONS", "HEAD", "PROPFIND"])
async def test_no_door_takes_a_method_that_tells_about_it(door: Door, method: str) -> None:
    async with door.http.request(method, f"http://127.0.0.1:{door.port}/things") as answer:
        assert answer.status == 405


U = str(ORG)


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", f"/things/{U}", {"thing_id": U}),
        ("GET", f"/things/{U.upper()}", {"thing_id": U}),
        ("POST", f"/things/{U}:end", {"ended": U}),
        ("POST", f"/things/{U}%3Aend", {"ended": U}),
        ("POST", f"/things/{U}%3aend", {"ended": U}),
        ("POST", "/periods/2026-11:close", {"closed": "2026-11"}),
        ("POST", "/periods/2026-11%3Aclose", {"closed": "2026-11"}),
        ("POST", "/things:sweep", {"swept": 0}),
        ("GET", "/events/plain", {"request_id": "plain"}),
        ("GET", "/events/a%2Fb%3Ac%20d%25", {"request_id": "a/b:c d%"}),
        ("GET", "/events/x%3Avoid", {"request_id": "x:void"}),
        ("GET", f"/events/{U}%3Avoid", {"request_id": f"{U}:void"}),
        ("GET", "/events/a+b", {"request_id": "a+b"}),
        ("POST", "/events/a%3Ab:void", {"voided": "a:b"}),
        ("POST", "/events/a:b:void", {"voided": "a:b"}),
        ("POST", f"/events/{U}%3Avoid:void", {"voided": f"{U}:void"}),
    ],
)
async def test_paths_are_matched_as_sent(door: Door, method: str, path: str, expected: object) -> None:
    status, members, _ = await door.call(method, path)

    assert (status, members) == (202 if "sweep" in path else 200, expected)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/nothing"),
        ("GET", "/things/"),
        ("GET", "//things"),
        ("GET", "/things/../things"),
        ("GET", "/%74hings"),
        ("GET", "/things/not-a-uuid"),
        ("GET", "/things/%00"),
        ("GET", "/events/%ff"),
        ("GET", "/events/a%00b"),
        ("GET", f"/things/{U}/more"),
        ("POST", f"/things/{U}:unknown"),
        ("POST", "/things%3Asweep"),
        ("POST", "/events/:void"),
        ("GET", "/events/a:b"),
        ("GET", "/fails/hidden"),
    ],
)
async def test_what_is_not_there_answers_404(door: Door, method: str, path: str) -> None:
    status, members, response = await door.call(method, path)

    assert (status, members["code"]) == (404, "not_found")
    assert response.headers["Content-Type"] == "application/problem+json"
    assert members["instance"] == path


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", "/things", "GET, POST"),
        ("GET", "/things:sweep", "POST"),
        ("PUT", f"/things/{U}", "GET"),
        ("GET", f"/things/{U}:end", "POST"),
        ("HEAD", "/things:sweep", "POST"),
        ("OPTIONS", "/things", "GET, POST"),
    ],
)
async def test_another_method_answers_405_with_allow(door: Door, method: str, path: str, allow: str) -> None:
    status, _, response = await door.call(method, path)

    assert status == 405
    assert response.headers["Allow"] == allow


async def test_a_refusal_carries_code_pointer_facts_and_trace(door: Door) -> None:
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    status, members = await door.post(
        b'{"name": "taken", "quantity": 1}', traceparent=f"00-{trace_id}-b7ad6b7169203331-01"
    )

    assert status == 409
    assert members == {
        "type": "/docs#problem-thing_taken",
        "title": "That thing is taken.",
        "status": 409,
        "detail": "Another one has it.",
        "instance": "/things",
        "code": "thing_taken",
        "errors": [{"pointer": "/name", "code": "taken", "detail": "Taken."}],
        "trace_id": trace_id,
        "left": "1.5",
    }


async def test_a_bug_answers_500_once_logged_and_tells_nothing(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    status, members, _ = await door.call("GET", "/fails/bug")

    assert (status, members["code"]) == (500, "internal_error")
    assert "secret" not in json.dumps(members)


async def test_bad_weather_answers_503_with_retry_after(door: Door) -> None:
    status, members, response = await door.call("GET", "/fails/weather")

    assert (status, members["code"]) == (503, "unavailable")
    assert int(response.headers["Retry-After"]) > 0
    assert "10.1.2.3" not in json.dumps(members)


async def test_a_handler_that_never_ends_answers_503(door: Door) -> None:
    status, members, _ = await door.call("GET", "/slow")

    assert (status, members["code"]) == (503, "unavailable")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "malformed_json"),
        (b"{", 400, "malformed_json"),
        (b'{"name": "a", "quantity": NaN}', 400, "malformed_json"),
        (b'{"name": "a", "name": "b", "quantity": 1}', 400, "duplicate_key"),
        (b"[" * 50_000, 400, "json_too_deep"),
        (b'{"name": "' + b"a" * 2 * 1024 * 1024 + b'"}', 413, "body_too_large"),
        (b"[]", 422, "body_invalid"),
        (b"null", 422, "body_invalid"),
        (b'{"name": "a", "quantity": 1, "more": 1}', 422, "body_invalid"),
    ],
)
async def test_a_bad_body_is_refused(door: Door, body: bytes, status: int, code: str) -> None:
    answered, members = await door.post(body)

    assert (answered, members["code"]) == (status, code)


async def test_a_chunked_body_over_the_limit_is_refused_without_a_length(door: Door) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(3000):
            yield b"x" * 1024

    status, members, _ = await door.call("POST", "/things", data=endless(), headers=JSON)

    assert (status, members["limit_bytes"]) == (413, 1024 * 1024)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": ""}, 415),
        ({"Content-Type": "application/json; charset=latin-1"}, 415),
        ({"Content-Type": "application/json; charset=UTF-8"}, 201),
        ({"Content-Type": 'application/json; charset="utf-8"'}, 201),
        ({"Content-Type": "Application/JSON"}, 201),
        ({"Content-Type": "application/json", "Content-Encoding": "identity"}, 201),
        ({"Content-Type": "application/json", "Content-Encoding": "gzip"}, 415),
        ({"Content-Type": "application/json", "Content-Encoding": "br"}, 415),
    ],
)
async def test_type_charset_and_encoding_are_checked(
    door: Door, headers: dict[str, str], status: int
) -> None:
    answered, _, _ = await door.call("POST", "/things", data=GOOD, headers=headers)

    assert answered == status


ZSTD = zstandard.ZstdCompressor()


@pytest.mark.parametrize(
    ("encoding", "body", "expected"),
    [
        ("gzip", gzip.compress(b"x" * 1000, mtime=0), 1000),
        ("gzip", gzip.compress(b"x" * 1001, mtime=0), "body_too_large"),
        ("gzip", gzip.compress(b"x" * 600, mtime=0) + gzip.compress(b"y" * 300, mtime=0), 900),
        ("gzip", gzip.compress(b"x" * 600, mtime=0) + gzip.compress(b"y" * 600, mtime=0), "body_too_large"),
        ("gzip", gzip.compress(b"\0" * 900_000, mtime=0), "body_too_large"),
        ("gzip", gzip.compress(b"x" * 900, mtime=0)[:-4], "body_broken"),
        ("gzip", b"no gzip", "body_broken"),
        ("gzip", b"", "body_broken"),
        ("zstd", ZSTD.compress(b"x" * 1000), 1000),
        ("zstd", ZSTD.compress(b"x" * 1001), "body_too_large"),
        ("zstd", ZSTD.compress(b"x" * 600) + ZSTD.compress(b"y" * 300), 900),
        ("zstd", ZSTD.compress(b"\0" * 20_000_000), "body_too_large"),
        ("zstd", ZSTD.compress(bytes(range(256)) * 3)[:-9], "body_broken"),
        ("zstd", b"no zstd", "body_broken"),
        ("zstd", b"", "body_broken"),
        ("gzip, zstd", b"x", "unsupported_media_type"),
        ("deflate", b"x", "unsupported_media_type"),
    ],
)
async def test_compressed_bodies_are_inflated_within_the_limit(
    door: Door, encoding: str, body: bytes, expected: object
) -> None:
    _, members, _ = await door.call("POST", "/raw", data=body, headers={"Content-Encoding": encoding})

    assert members.get("bytes", members.get("code")) == expected


async def _drip(door: Door, head: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    writer.write(head)
    answered = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    return answered


async def test_a_body_that_stops_arriving_answers_408_and_closes(door: Door) -> None:
    answered = await _drip(
        door,
        b'POST /things HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{"na',
    )

    assert answered.startswith(b"HTTP/1.1 408 ")
    assert b"Connection: close" in answered


async def test_an_unknown_expectation_answers_417_as_a_problem(door: Door) -> None:
    answered = await _drip(
        door, b"POST /things HTTP/1.1\r\nHost: a\r\nExpect: miracles\r\nContent-Length: 2\r\n\r\n{}"
    )

    assert answered.startswith(b"HTTP/1.1 417 ")
    assert b"application/problem+json" in answered


@pytest.mark.parametrize(
    "target", ["*", "http://other/things", "/things?a=%zz", "/th%C3%A4ngs", "/a%20b", "/;x", "/?"]
)
async def test_odd_targets_are_answered_and_never_break(door: Door, target: str) -> None:
    answered = await _drip(door, f"OPTIONS {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())

    assert answered.split()[1] in (b"404", b"405", b"400")


@pytest.mark.parametrize(
    "head",
    [
        b"FROB /things HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /things?limit=\xef\xbc\x91 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /things HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
        b"POST /things HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n",
        b"no http at all\r\n\r\n",
    ],
)
async def test_what_is_no_http_answers_400_as_a_problem(door: Door, head: bytes) -> None:
    answered = await _drip(door, head)

    assert answered.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 "))
    assert b"application/problem+json" in answered


async def test_a_client_that_hangs_up_harms_nobody(door: Door) -> None:
    raw = socket.create_connection(("127.0.0.1", door.port))
    raw.sendall(
        b"POST /things HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{"
    )
    raw.close()

    assert (await door.post(GOOD))[0] == 201


async def test_answers_while_draining_close_the_connection(door: Door) -> None:
    door.context.is_draining = True

    _, _, response = await door.call("GET", f"/things/{U}")

    assert response.headers["Connection"] == "close"


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=201",
        "limit=1.5",
        "limit=x",
        "limit=",
        "limit=1&limit=2",
        "unknown=1",
        "cursor=abc",
        "cursor=",
        "kind=%ff",
        "kind=%00",
        "limit=1e1",
        "limit=%EF%BC%91",
    ],
)
async def test_bad_query_parameters_answer_400(door: Door, query: str) -> None:
    status, members, _ = await door.call("GET", f"/things?{query}")

    assert (status, members["code"]) == (400, "parameter_invalid")


async def test_cursors_lead_through_the_list_and_fit_only_their_own_filters(door: Door) -> None:
    _, first, _ = await door.call("GET", "/things?limit=2&kind=a")
    cursor = first["next_cursor"]
    _, second, _ = await door.call("GET", f"/things?limit=3&kind=a&cursor={cursor}")
    status, _, _ = await door.call("GET", f"/things?limit=2&kind=b&cursor={cursor}")
    forged = ("B" if cursor[0] == "A" else "A") + cursor[1:]
    forged_status, _, _ = await door.call("GET", f"/things?limit=2&kind=a&cursor={forged}")

    assert [item["number"] for item in first["items"]] == [999, 998]
    assert [item["number"] for item in second["items"]] == [997, 996, 995]
    assert (status, forged_status) == (400, 400)


async def test_the_documents_are_shown_to_anybody(door: Door) -> None:
    status, document, _ = await door.call("GET", "/openapi.json")
    async with door.http.get(f"http://127.0.0.1:{door.port}/docs") as page:
        text = await page.text()

    assert (status, document["openapi"]) == (200, "3.1.0")
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "script-src 'sha256-" in page.headers["Content-Security-Policy"]
    assert "<script>" in text


async def test_a_setting_turns_the_documents_off(door: Door) -> None:
    settings = door.context.settings.model_copy(update={"docs_enabled": False})
    context = ServiceContext(door.context.service, settings)
    app = kit.make_app("test", [public(route) for route in routes], context)
    runner = kit.Runner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with door.http.get(f"http://127.0.0.1:{runner.addresses[0][1]}/docs") as response:
        assert response.status == 404
    await runner.cleanup()


def test_a_route_without_a_policy_row_fails_at_start(door: Door) -> None:
    with pytest.raises(KeyError):
        kit.make_app("test", routes, door.context)


def test_two_routes_on_one_path_fail_at_start() -> None:
    twice = Routes("test")
    twice.get("/a")(get_thing)
    twice.get("/a")(get_thing)

    with pytest.raises(ValueError, match="two routes"):
        kit.Table(list(twice))
