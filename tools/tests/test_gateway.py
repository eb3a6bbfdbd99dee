"""The gateway as clients meet it: a real HAProxy with the generated configuration, before small echoing servers."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from yarl import URL

from eb_kit.problems import MEDIA_TYPE, SAFE_HEADERS
from eb_kit.routing import Route
from eb_kit.web import ORG_HEADER
from eb_tools import manifests
from eb_tools.debian import find_programs
from eb_tools.gateway import EARLY, Backend, Options, RouteTable, early_answers, read_routes, render
from eb_tools.haproxy import Gateway
from eb_tools.openapi import all_routes
from eb_tools.ports import free_port

TABLE = read_routes()
SERVICES = sorted({entry.service for entry in TABLE.entries})
U = "0199b1f0-0000-7000-8000-000000000001"


def _sample(route: Route) -> str:
    return re.sub(r"\{\w+\}", "x", route.path)


def test_every_route_of_a_service_is_reached_through_the_gateway() -> None:
    astray = []
    for route in all_routes():
        entry = TABLE.entry_of(route.method, _sample(route))
        service = "auth" if route.service == "gateway" else route.service
        if entry is None or entry.service != service or entry.body_limit_bytes < route.body_limit:
            astray.append(route.name)

    assert astray == []


def test_every_entry_leads_to_a_route_and_takes_no_larger_body_than_its_routes() -> None:
    wrong = []
    for entry in TABLE.entries:
        led = [route for route in all_routes() if TABLE.entry_of(route.method, _sample(route)) is entry]
        largest = max((route.body_limit for route in led), default=0)
        if not led or entry.body_limit_bytes != max(largest, TABLE.body_limit_bytes):
            wrong.append((entry.path, largest))

    assert wrong == []


def test_an_entry_that_names_no_rate_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "routes.yaml"
    file.write_text(
        "{defaults: {body_limit_bytes: 1}, rates: {}, routes: [{path: /a, service: auth, rate: missing}]}"
    )

    with pytest.raises(ValueError, match="there is no rate missing"):
        read_routes(file)


BROKEN: list[str] = []
REVOKED: set[str] = set()


def _verified(authorization: str) -> dict[str, str]:
    """Tell whose a credential is, as services do: `Bearer <name>@<organisation>` is good."""
    _, _, org = authorization.partition("@")
    return {ORG_HEADER: org} if org else {}


async def _echo(request: web.BaseRequest) -> web.StreamResponse:
    if request.path == "/catalog/hang":
        await asyncio.sleep(30)
    if request.path == "/catalog/break" and request.method not in BROKEN:
        BROKEN.append(request.method)
        assert request.transport is not None
        request.transport.abort()
    if request.path == "/catalog/slow":
        return web.Response(status=408)
    body = await request.content.read()
    if request.headers.get("Authorization", "") in REVOKED:
        return web.json_response({}, status=401)
    return web.json_response(
        {
            "target": request.raw_path,
            "headers": {name.lower(): value for name, value in request.headers.items()},
            "bytes": len(body),
        },
        headers={"Server": "secret/1.0"} | _verified(request.headers.get("Authorization", "")),
    )


async def _alive(_: web.BaseRequest) -> web.StreamResponse:
    return web.Response()


@asynccontextmanager
async def _listening(handler: Any, port: int = 0) -> AsyncIterator[int]:
    made = web.Server(handler, max_line_size=16384)
    server = await asyncio.get_running_loop().create_server(made, "127.0.0.1", port)
    yield server.sockets[0].getsockname()[1]
    server.close()


class Front:
    """A running gateway and a client."""

    def __init__(self, port: int, http: aiohttp.ClientSession, port_of_ledger: int) -> None:
        self.port, self.http, self.port_of_ledger = port, http, port_of_ledger

    async def call(
        self, method: str, raw_path: str, **options: Any
    ) -> tuple[int, Any, aiohttp.ClientResponse]:
        url = URL(f"http://127.0.0.1:{self.port}{raw_path}", encoded=True)
        async with self.http.request(method, url, **options) as response:
            return response.status, json.loads(await response.read()), response

    async def raw(self, sent: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(sent)
        answered = await reader.read()
        writer.close()
        return answered


@asynccontextmanager
async def gateway(folder: Path, options: Options, table: RouteTable = TABLE) -> AsyncIterator[Front]:
    port = free_port(0)
    async with _listening(_echo) as door, _listening(_echo) as other, _listening(_alive) as admin:
        doors = itertools.cycle((door, other))
        backends = {name: Backend(f"127.0.0.1:{next(doors)}", admin) for name in SERVICES}
        away = free_port(0)
        backends["ledger"] = Backend(f"127.0.0.1:{away}", admin)
        (folder / "logs").mkdir()
        config = render(table, backends, replace(options, bind=f"127.0.0.1:{port}"))
        unit = Gateway(folder / "gateway", config)
        await unit.start()
        try:
            async with aiohttp.ClientSession() as http:
                yield Front(port, await _until_open(port, http), away)
        finally:
            await unit.stop()


async def _until_open(port: int, http: aiohttp.ClientSession) -> aiohttp.ClientSession:
    async with asyncio.timeout(10):
        while True:
            try:
                (await asyncio.open_connection("127.0.0.1", port))[1].close()
            except OSError:
                await asyncio.sleep(0.02)
            else:
                return http


@pytest.fixture
async def front(tmp_path: Path) -> AsyncIterator[Front]:
    async with gateway(
        tmp_path, Options(headers_within_s=0.5, answer_within_s=1, idle_s=1, tries_to_connect=1)
    ) as running:
        yield running


@pytest.mark.parametrize(
    "target",
    [
        "/metering/events/a%2Fb%3Ac?org_id=1",
        f"/orgs/{U}:detach",
        f"/orgs/{U}%3Adetach",
        "/catalog/../orgs",
        "/catalog//skus",
        "/catalog/skus/%C3%A4%20",
    ],
)
async def test_paths_arrive_as_sent(front: Front, target: str) -> None:
    _, echoed, _ = await front.call("GET", target)

    assert echoed["target"] == target


async def test_a_request_gets_an_id_of_ours_and_a_trace(front: Front) -> None:
    _, echoed, response = await front.call("GET", "/catalog/skus", headers={"X-Request-Id": "forged"})
    headers = echoed["headers"]

    assert headers["x-request-id"] == response.headers["X-Request-Id"] != "forged"
    version, trace_id, span_id, flags = headers["traceparent"].split("-")
    assert (version, len(trace_id), len(span_id), flags) == ("00", 32, 16, "01")
    int(trace_id + span_id, 16)


async def test_the_trace_of_a_client_is_kept_and_addresses_cannot_be_forged(front: Front) -> None:
    parent = f"00-{'a' * 32}-{'b' * 16}-01"
    sent = {
        "traceparent": parent,
        "X-Forwarded-For": "8.8.8.8",
        "Forwarded": "for=8.8.8.8",
        "X-Real-IP": "8.8.8.8",
    }
    _, echoed, response = await front.call("GET", "/catalog/skus", headers=sent)

    assert echoed["headers"]["traceparent"] == parent
    assert echoed["headers"]["x-forwarded-for"] == "127.0.0.1"
    assert "forwarded" not in echoed["headers"]
    assert "Server" not in response.headers


async def test_whoever_stands_in_front_names_the_client_and_nobody_else(tmp_path: Path) -> None:
    async with gateway(tmp_path, Options(fronts=("10.0.0.0/8", "127.0.0.0/8"))) as front:
        seen = []
        for said in ("8.8.8.8, 9.9.9.9", "2001:db8::7", "nonsense", None):
            headers = {"X-Forwarded-For": said} if said else {}
            _, echoed, _ = await front.call("GET", "/catalog/skus", headers=headers)
            seen.append(echoed["headers"]["x-forwarded-for"])

    assert seen == ["9.9.9.9", "2001:db8::7", "127.0.0.1", "127.0.0.1"]


async def test_clients_behind_one_front_have_a_rate_each(tmp_path: Path) -> None:
    options = Options(has_rate_limits=True, rate_scale=0.005, fronts=("127.0.0.0/8",))
    async with gateway(tmp_path, options) as front:
        answers = [
            (await front.call("POST", "/auth/login", headers={"X-Forwarded-For": address}))[0]
            for address in ("9.9.9.9", "9.9.9.8", "9.9.9.9")
        ]

    assert answers == [200, 200, 429]


def _is_problem(response: aiohttp.ClientResponse, members: Any, status: int, code: str) -> bool:
    return (
        (response.status, members["status"], members["code"]) == (status, status, code)
        and response.headers["Content-Type"] == "application/problem+json"
        and set(members) == {"type", "title", "status", "detail", "instance", "code", "errors", "trace_id"}
    )


@pytest.mark.parametrize("path", ["/", "/nothing", "/orgsx", "/livez", "/readyz", "/metrics", '/a"b', "/%ff"])
async def test_a_path_of_nobody_answers_404(front: Front, path: str) -> None:
    _, members, response = await front.call("GET", path)

    assert _is_problem(response, members, 404, "not_found")
    assert members["instance"] == path
    assert len(members["trace_id"]) == 32


async def test_a_body_over_the_limit_of_its_route_answers_413(front: Front) -> None:
    body = b"x" * (1024 * 1024 + 1)
    _, members, response = await front.call("POST", "/catalog/skus", data=body)
    taken, _, _ = await front.call("POST", "/metering/events", data=body)

    assert _is_problem(response, members, 413, "body_too_large")
    assert taken == 200


async def test_a_service_that_is_down_answers_503_with_retry_after(front: Front) -> None:
    _, members, response = await front.call("POST", "/ledger/entries")

    assert _is_problem(response, members, 503, "unavailable")
    assert response.headers["Retry-After"] == "2"


async def test_the_restart_of_a_service_is_waited_for(tmp_path: Path) -> None:
    async with gateway(tmp_path, Options()) as front:
        asked = asyncio.create_task(front.call("POST", "/ledger/entries", data=b"once"))
        await asyncio.sleep(0.5)
        assert not asked.done()
        async with _listening(_echo, front.port_of_ledger):
            status, echoed, _ = await asked

    assert (status, echoed["bytes"]) == (200, 4)


async def test_a_service_that_hangs_answers_504(front: Front) -> None:
    _, members, response = await front.call("GET", "/catalog/hang")

    assert _is_problem(response, members, 504, "gateway_timeout")


async def test_what_a_service_broke_off_is_sent_again_only_if_it_is_a_get(front: Front) -> None:
    BROKEN.clear()
    _, members, response = await front.call("POST", "/catalog/break")
    assert _is_problem(response, members, 502, "bad_gateway")
    assert BROKEN == ["POST"]

    status, _, _ = await front.call("GET", "/catalog/break")
    assert status == 200
    assert BROKEN == ["POST", "GET"]


def _read(answered: bytes) -> tuple[int, dict[str, str], bytes]:
    """Take a raw answer apart: status, headers by their names in lower case, body."""
    head, _, body = answered.replace(b"\r\n", b"\n").partition(b"\n\n")
    first, *lines = head.decode().splitlines()
    headers = dict(line.split(": ", 1) for line in lines)
    return int(first.split()[1]), {name.lower(): value for name, value in headers.items()}, body


def _is_whole_problem(answered: bytes, status: int) -> bool:
    found, headers, body = _read(answered)
    members = json.loads(body)
    wanted = {"content-type": MEDIA_TYPE, "connection": "close", "content-length": str(len(body))}
    wanted |= {name.lower(): value for name, value in SAFE_HEADERS.items()}
    return (
        (found, members["status"], members["code"]) == (status, status, EARLY[status].code)
        and wanted.items() <= headers.items()
        and set(members) == {"type", "title", "status", "detail", "instance", "code", "errors", "trace_id"}
    )


def _haproxy_version() -> tuple[int, ...]:
    programs = find_programs()
    argv = [str(programs.haproxy), "-v"]
    said = subprocess.run(argv, env=programs.environment(), capture_output=True, text=True, check=True).stdout
    found = re.search(r"version (\d+)[.](\d+)[.](\d+)", said)
    assert found, said
    return tuple(map(int, found.groups()))


def _must_be_early(answered: bytes, *statuses: int) -> None:
    """Expect a refusal by the protocol layer: a problem from 3.2.3 on, before that the same status in plain words."""
    status, headers, body = _read(answered)
    assert status in statuses
    assert headers["connection"] == "close"
    if _haproxy_version() >= (3, 2, 3):
        assert _is_whole_problem(answered, status)
    else:
        assert re.fullmatch(rb"<html><body><h1>4\d\d [\w -]+</h1>\n[\w ',.]+\n</body></html>\n", body)


@pytest.mark.parametrize("name", sorted(early_answers()))
def test_what_never_became_a_request_is_answered_by_a_whole_problem(name: str) -> None:
    plain, strict = early_answers()[name].encode(), early_answers(is_https=True)[name].encode()

    assert _is_whole_problem(plain, int(name.removesuffix(".http")))
    assert _is_whole_problem(strict, int(name.removesuffix(".http")))
    assert _read(strict)[1]["strict-transport-security"] == "max-age=31536000; includeSubDomains"


def test_the_gateways_image_takes_these_answers() -> None:
    version = tuple(map(int, manifests.HAPROXY.removeprefix("haproxy:").split(".")))
    config, *_ = manifests.front()

    assert version >= (3, 2)
    assert set(config["data"]) == {"haproxy.cfg", *early_answers()}


async def test_slow_headers_are_cut_off_with_408(front: Front) -> None:
    answered = await front.raw(b"GET /catalog/skus HTTP/1.1\r\nHost: a\r\nX-Slow: ")

    _must_be_early(answered, 408)


async def test_a_sender_that_a_service_gave_up_is_cut_off(front: Front) -> None:
    sent = b"POST /catalog/slow HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\nx"
    answered = await front.raw(sent)

    assert answered.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in answered.lower()


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /catalog/skus HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /catalog/skus HTTP/1.1\r\nHost: a\r\n"
        + b"".join(b"X%d: 1\r\n" % n for n in range(200))
        + b"\r\n",
        b"GET /catalog\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /catalog HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /catalog HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        b"POST /catalog HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"POST /catalog HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET /catalog HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 40,
        b"nonsense\r\n\r\n",
    ],
)
async def test_what_is_no_http_or_too_long_answers_400(front: Front, sent: bytes) -> None:
    answered = await front.raw(sent)

    _must_be_early(answered, 400, 414, 422, 431)


async def test_a_second_request_that_is_none_is_refused_like_a_first(front: Front) -> None:
    answered = await front.raw(b"GET /nothing HTTP/1.1\r\nHost: a\r\n\r\nnonsense\r\n\r\n")
    second = answered.index(b"HTTP/1.1 400")

    assert answered.startswith(b"HTTP/1.1 404")
    _must_be_early(answered[second:], 400)


async def test_trace_and_connect_are_refused(front: Front) -> None:
    for method in ("TRACE", "CONNECT"):
        answered = await front.raw(
            f"{method} /catalog HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()
        )

        assert b" 405 " in answered.split(b"\r\n")[0] or answered.startswith(b"HTTP/1.1 400 "), answered


async def test_what_the_gateway_itself_says_is_as_safe_as_what_services_say(front: Front) -> None:
    _, _, response = await front.call("GET", "/nothing")

    assert {name: response.headers[name] for name in SAFE_HEADERS} == SAFE_HEADERS
    assert "Strict-Transport-Security" not in response.headers


async def test_behind_https_every_answer_insists_on_it(tmp_path: Path) -> None:
    async with gateway(tmp_path, Options(is_https=True)) as front:
        for path in ("/catalog/skus", "/nothing"):
            _, _, response = await front.call("GET", path)

            assert response.headers["Strict-Transport-Security"] == "max-age=31536000; includeSubDomains"


async def test_an_upgrade_is_not_offered_to_services(front: Front) -> None:
    headers = {"Connection": "Upgrade", "Upgrade": "h2c"}
    status, echoed, _ = await front.call("GET", "/catalog/skus", headers=headers)

    assert status == 200
    assert "upgrade" not in echoed["headers"]


async def test_rates_are_counted_per_credential_and_class_and_address(tmp_path: Path) -> None:
    options = Options(has_rate_limits=True, rate_scale=0.005)
    async with gateway(tmp_path, options) as front:
        a, b = {"Authorization": "Bearer a"}, {"Authorization": "Bearer b"}
        writes = [(await front.call("POST", "/catalog/skus", headers=a))[0] for _ in range(4)]
        _, members, response = await front.call("POST", "/catalog/skus", headers=a)
        others = [
            (await front.call("POST", "/catalog/skus", headers=b))[0],
            (await front.call("GET", "/catalog/skus", headers=a))[0],
            (await front.call("POST", "/metering/events", headers=a))[0],
        ]
        sign_in = [(await front.call("POST", "/auth/login", headers=header))[0] for header in (a, b)]

    assert writes == [200, 200, 200, 429]
    assert _is_problem(response, members, 429, "rate_limited")
    assert response.headers["Retry-After"] == "60"
    assert others == [200, 200, 200]
    assert sign_in == [200, 429]


async def test_an_address_is_bounded_whatever_credentials_it_shows(tmp_path: Path) -> None:
    table = replace(TABLE, rates=dict(TABLE.rates) | {"address": replace(TABLE.rates["address"], limit=5)})
    async with gateway(tmp_path, Options(has_rate_limits=True), table) as front:
        answers = [
            (await front.call("GET", "/catalog/skus", headers={"Authorization": f"Bearer {n}"}))[0]
            for n in range(7)
        ]

    assert answers == [200] * 5 + [429] * 2


def of_orgs(limit: int) -> tuple[Options, RouteTable]:
    """Give a table in which organisations have few requests a minute, everything else has many."""
    rates = dict(TABLE.rates) | {"org": replace(TABLE.rates["org"], limit=limit)}
    return Options(has_rate_limits=True), replace(TABLE, rates=rates)


async def statuses(front: Front, calls: list[tuple[str, str, str]]) -> list[int]:
    """Send requests of (method, path, credential) one after the other."""
    return [
        (await front.call(method, path, headers={"Authorization": f"Bearer {credential}"}))[0]
        for method, path, credential in calls
    ]


PLACES = (("GET", "/catalog/skus"), ("GET", "/metering/events"), ("GET", "/orgs/x"))
"""Services behind both doors."""


async def test_an_organisation_has_one_share_whatever_it_shows_wherever(tmp_path: Path) -> None:
    async with gateway(tmp_path, *of_orgs(10)) as front:
        keys = [f"key{n}@own" for n in range(5)]
        taken = await statuses(front, [(*PLACES[n % 3], key) for n, key in enumerate(keys * 2)])
        more = await statuses(front, [(*place, key) for place in PLACES for key in keys])
        # a credential is known by its first answer in each class
        new_key = await statuses(front, [(*PLACES[0], "new@own")] * 3)
        others = await statuses(front, [(*PLACES[0], key) for key in ("key0@other", "key0", "key0@")])
        _, members, response = await front.call(
            "GET", "/catalog/skus", headers={"Authorization": "Bearer key0@own"}
        )

    assert taken == [200] * 10
    assert more == [429] * 15
    assert new_key == [200, 429, 429]
    assert others == [200] * 3
    assert _is_problem(response, members, 429, "rate_limited")
    assert response.headers["Retry-After"] == "60"


async def test_reads_writes_and_events_of_an_organisation_count_together(tmp_path: Path) -> None:
    calls = [("GET", "/catalog/skus"), ("POST", "/catalog/skus"), ("POST", "/metering/events")]
    async with gateway(tmp_path, *of_orgs(6)) as front:
        answers = await statuses(front, [(*call, "key@own") for call in calls * 3])

    assert answers == [200] * 6 + [429] * 3


async def test_a_credential_that_is_not_good_uses_up_nobodys_share(tmp_path: Path) -> None:
    REVOKED.clear()
    async with gateway(tmp_path, *of_orgs(8)) as front:
        before = await statuses(front, [(*PLACES[0], "stolen@own")] * 2)
        REVOKED.add("Bearer stolen@own")
        after = await statuses(front, [(*PLACES[0], "stolen@own")] * 20)
        own = await statuses(front, [(*PLACES[0], "key@own")] * 7)

    assert before == [200] * 2
    assert after == [401] * 20
    # two of it while it was good, and the one that told that it isn't any more
    assert own == [200] * 5 + [429] * 2


@pytest.mark.parametrize("has_limits", [True, False])
async def test_whose_a_credential_is_stays_inside(tmp_path: Path, has_limits: bool) -> None:
    async with gateway(tmp_path, Options(has_rate_limits=has_limits)) as front:
        status, _, response = await front.call(
            "GET", "/catalog/skus", headers={"Authorization": "Bearer key@own", ORG_HEADER: "forged"}
        )

    assert status == 200
    assert ORG_HEADER not in response.headers
