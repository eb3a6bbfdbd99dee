"""The web shell of a service: one edge that finds the route, names the caller, keeps the deadlines and maps
every error; and what handlers need to read requests and write answers.

Rule: docs/rules/http.md.
"""

from __future__ import annotations

import asyncio
import re
import zlib
from collections.abc import Iterable
from functools import cache
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import structlog
import zstandard
from aiohttp import web
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_urldispatcher import UrlMappingMatchInfo
from prometheus_client import CONTENT_TYPE_LATEST, Histogram, generate_latest
from pydantic import BaseModel, ValidationError

from eb_contracts.errors import Fault, NotFound, Refusal
from eb_contracts.ids import new_id

from . import browse, idempotency, strictjson
from .access import (
    Authenticator,
    OutOfReach,
    authenticate,
    caller_or_none,
    require_recent_sign_in,
    take_as_long,
)
from .db import WEATHER
from .inputs import Input, Page, View, faults_of, validate
from .paging import page_members, page_of, read_cursor
from .problems import (
    SAFE_HEADERS,
    BodyInvalid,
    BodyTooLarge,
    BodyTooSlow,
    BrokenBody,
    ExpectationFailed,
    InternalError,
    MalformedRequest,
    MethodNotAllowed,
    ParameterInvalid,
    Unavailable,
    UnsupportedMediaType,
    problem,
    write_json,
)
from .refused import Refusals
from .routing import (
    JSON_TYPE,
    PARAMETERS,
    ROUTE,
    Route,
    Routes,
    Table,
    path_text,
    path_uuid,
)
from .service import CONTEXT, ServiceContext
from .telemetry import parse_traceparent, span

__all__ = [
    "Input",
    "Page",
    "Route",
    "Routes",
    "Runner",
    "View",
    "accepted",
    "admin_app",
    "answer",
    "body_of",
    "created",
    "make_app",
    "no_content",
    "ok",
    "page_members",
    "page_of",
    "path_text",
    "path_uuid",
    "problem",
    "read_body",
    "read_cursor",
    "read_json",
    "read_query",
    "read_raw",
]

log = structlog.get_logger(__name__)

BODY_DEADLINE_S = 30.0
REQUEST_DEADLINE_S = 30.0
LINGER_S = 2.0
LONGEST_HEADER = 16 * 1024
ORG_HEADER = "X-EB-Org"
OUT_OF_TOUCH = "The broker or the database is away: what changes money or rights waits until both are back."
MOST_PARAMETERS = 64
LARGEST_WINDOW = 8 * 1024 * 1024
DEADLINE: web.RequestKey[asyncio.Timeout] = web.RequestKey("eb_deadline", asyncio.Timeout)
SECONDS = Histogram(
    "eb_http_request_seconds",
    "How long requests took, by route and status.",
    ["route", "status"],
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
_JSON_HEADERS = {**SAFE_HEADERS, "Content-Type": JSON_TYPE}
_CHARSET = re.compile(r'charset="?utf-?8"?\Z', re.IGNORECASE)

M = TypeVar("M", bound=BaseModel)


class _Everything(web.Resource):
    """Takes every request, whatever its path; the kit's own table looks at the raw one."""

    def __init__(self, handler: Any) -> None:
        super().__init__()
        self._only = self.add_route("*", handler, expect_handler=_meet_expectation)

    @property
    def canonical(self) -> str:
        return "/"

    async def resolve(self, request: web.Request) -> tuple[UrlMappingMatchInfo, set[str]]:
        return UrlMappingMatchInfo({}, self._only), {"*"}

    def _match(self, path: str) -> dict[str, str]:
        return {}

    def raw_match(self, path: str) -> bool:
        return True

    def get_info(self) -> Any:
        return {"path": "/"}

    def url_for(self, **_: str) -> Any:
        raise TypeError("one resource takes every path: it has no address of its own")

    def add_prefix(self, prefix: str) -> None:
        raise TypeError("one resource takes every path: it has no address of its own")

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Any:
        return iter([self._only])


async def _meet_expectation(request: web.Request) -> web.StreamResponse | None:
    if request.headers.get("Expect", "").lower() != "100-continue":
        return problem(ExpectationFailed(), request)
    if request.version >= (1, 1) and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    return None


def make_app(service_name: str, routes: Iterable[Route], context: ServiceContext) -> web.Application:
    """Make the web application of a service; KeyError where a route has no row in the policy table.

    Every service also shows the documents of the API, unless the settings say no.
    """
    app = web.Application()
    app[CONTEXT] = context
    shown = [*routes, *(browse.routes if context.settings.docs_enabled else ())]
    edge = _Edge(service_name, shown, context)
    app.router.register_resource(_Everything(edge.answer))
    app.on_response_prepare.append(_tell_org)
    app.on_cleanup.append(edge.close)
    return app


async def _tell_org(request: web.Request, response: web.StreamResponse) -> None:
    """Tell the gateway whose request it was, so that it can count an organisation's; it tells nobody else."""
    who = caller_or_none(request)
    if who is not None and who.org_id is not None:
        response.headers[ORG_HEADER] = str(who.org_id)


class _Protocol(RequestHandler):
    """aiohttp's connection, but what its HTTP parser refuses is answered as a problem, and not logged."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            raise ConnectionError("the answer was under way already")
        if status == 400:
            response = problem(MalformedRequest(), request)
        else:
            log.error("request failed outside of the edge", exc_info=exc)
            response = problem(InternalError(), request)
        response.force_close()
        return response


class _Server(web.Server):
    def __call__(self) -> RequestHandler:
        return _Protocol(self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """Runs an application with the kit's limits: bodies stay compressed, headers up to 16 KiB, no access log."""

    def __init__(self, app: web.Application) -> None:
        super().__init__(
            app,
            access_log=None,
            auto_decompress=False,
            handler_cancellation=False,
            shutdown_timeout=10,
            lingering_time=LINGER_S,
            max_line_size=LONGEST_HEADER,
            max_field_size=LONGEST_HEADER,
        )

    async def _make_server(self) -> web.Server:
        made = await super()._make_server()
        return _Server(made.request_handler, request_factory=made.request_factory, **made._kwargs)


class _Edge:
    """The one place where requests come in and errors become answers."""

    def __init__(self, service_name: str, routes: list[Route], context: ServiceContext) -> None:
        for route in routes:
            if not route.names:
                raise ValueError(f"{service_name}: nobody may call {route.name}")
        self._table = Table(routes)
        self._context = context
        self._authenticator = Authenticator(context)
        self._refusals = Refusals()

    async def close(self, _: web.Application) -> None:
        """Write what is still to be logged."""
        self._refusals.flush()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer any request; raises nothing but cancellation."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        found = self._table.find(request.rel_url.raw_path)
        route = found.methods.get(request.method)
        request[PARAMETERS] = found.parameters
        parent = parse_traceparent(request.headers.get("traceparent"))
        with span(route.name if route else "unknown", parent, request_id=request_id_of(request)):
            if route is None:
                response: web.StreamResponse = _no_route(request, sorted(found.methods))
            else:
                request[ROUTE] = route
                response = await self._respond(request, route)
        _finish(response, is_last=self._context.is_draining)
        _seconds(route.path if route else "unknown", response.status).observe(loop.time() - started)
        return response

    async def _respond(self, request: web.Request, route: Route) -> web.StreamResponse:
        try:
            async with asyncio.timeout(REQUEST_DEADLINE_S) as deadline:
                request[DEADLINE] = deadline
                await authenticate(request, self._authenticator, route.names)
                if route.needs_touch and not self._context.touch.holds:
                    raise Unavailable(OUT_OF_TOUCH)
                if route.step_up:
                    require_recent_sign_in(request)
                if route.idempotency == "required":
                    idempotency.key_of(request)
                return await _handle(request, route)
        except Refusal as refusal:
            self._refusals.note(refusal, request)
            return problem(refusal, request)
        except idempotency.Replayed as replayed:
            return replayed.response
        except WEATHER as error:
            log.warning("request met bad weather", route=route.name, error=repr(error))
            return problem(Unavailable(), request)
        except Exception:
            log.exception("request failed", route=route.name)
            return problem(InternalError(), request)


async def _handle(request: web.Request, route: Route) -> web.StreamResponse:
    try:
        return await route.handler(request)
    except OutOfReach:
        raise
    except NotFound:
        await take_as_long(request)
        raise


@cache
def _seconds(route: str, status: int) -> Histogram:
    return SECONDS.labels(route, status)


def _no_route(request: web.Request, methods: list[str]) -> web.Response:
    if not methods:
        return problem(NotFound(), request)
    return problem(MethodNotAllowed(), request, {"Allow": ", ".join(methods)})


def _finish(response: web.StreamResponse, *, is_last: bool) -> None:
    if response.prepared:
        return
    for name, value in SAFE_HEADERS.items():
        response.headers.setdefault(name, value)
    if is_last:
        response.force_close()


def request_id_of(request: web.BaseRequest) -> str:
    """Give the id that the gateway gave the request, or a new one."""
    given = request.headers.get("X-Request-Id", "")
    return given if _REQUEST_ID.match(given) else str(new_id())


async def read_raw(request: web.Request, limit: int | None = None) -> bytes:
    """Give the body, inflated where the route takes compressed ones; `limit` in bytes holds before and after.

    Raises BodyTooLarge, BodyTooSlow (30 s), BrokenBody, UnsupportedMediaType (by Content-Type or -Encoding).
    """
    route = request[ROUTE]
    limit = limit or route.body_limit
    check_media_type(request, route.media_types)
    encoding = encoding_of(request, route.encodings)
    body = await _receive(request, limit)
    if encoding != "identity":
        body = inflate(body, encoding, limit)
    idempotency.keep_body(request, body)
    return body


def check_media_type(request: web.Request, accepted: tuple[str, ...]) -> None:
    """Refuse a Content-Type that isn't accepted, or a charset other than utf-8; none accepted: any will do."""
    if not accepted:
        return
    header = request.headers.get("Content-Type", "")
    media_type, *parameters = (part.strip() for part in header.split(";"))
    if media_type.lower() not in accepted:
        raise UnsupportedMediaType(f"Content-Type must be {' or '.join(accepted)}.")
    for parameter in parameters:
        if parameter.lower().startswith("charset=") and not _CHARSET.match(parameter):
            raise UnsupportedMediaType("The charset must be utf-8.")


def encoding_of(request: web.Request, accepted: tuple[str, ...]) -> str:
    """Give the Content-Encoding, `identity` without one; raises UnsupportedMediaType."""
    encoding = ",".join(request.headers.getall("Content-Encoding", ())).strip().lower() or "identity"
    if encoding != "identity" and encoding not in accepted:
        raise UnsupportedMediaType(f"Content-Encoding must be {' or '.join((*accepted, 'identity'))}.")
    return encoding


async def _receive(request: web.Request, limit: int) -> bytes:
    if (request.content_length or 0) > limit:
        raise BodyTooLarge(limit_bytes=limit)
    try:
        if request.content.is_eof():
            body = request.content.read_nowait()
        else:
            body = await _receive_slowly(request, limit)
    except (ConnectionError, web.RequestPayloadError):
        raise BrokenBody from None
    if len(body) > limit:
        raise BodyTooLarge(limit_bytes=limit)
    return body


async def _receive_slowly(request: web.Request, limit: int) -> bytes:
    """Gather a body that is still arriving, with its own deadline; the request's begins after it."""
    deadline = request[DEADLINE]
    deadline.reschedule(None)
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_DEADLINE_S):
            while len(body) <= limit and (chunk := await request.content.readany()):
                body += chunk
    except TimeoutError:
        raise BodyTooSlow from None
    deadline.reschedule(asyncio.get_running_loop().time() + REQUEST_DEADLINE_S)
    return bytes(body)


def inflate(body: bytes, encoding: str, limit: int) -> bytes:
    """Give a gzip or zstd body inflated; BodyTooLarge as soon as it passes `limit` bytes, BrokenBody."""
    try:
        inflated = _gunzip(body, limit) if encoding == "gzip" else _unzstd(body, limit)
    except (zlib.error, zstandard.ZstdError):
        raise BrokenBody from None
    if len(inflated) > limit:
        raise BodyTooLarge(limit_bytes=limit)
    return inflated


def _gunzip(body: bytes, limit: int) -> bytes:
    inflated = b""
    while True:
        member = zlib.decompressobj(wbits=31)
        inflated += member.decompress(body, limit + 1 - len(inflated))
        if len(inflated) > limit:
            return inflated
        if not member.eof:
            raise BrokenBody
        body = member.unused_data
        if not body:
            return inflated


def _unzstd(body: bytes, limit: int) -> bytes:
    """Measure first with a bounded reader, then inflate: only the second tells a cut-off frame."""
    maker = zstandard.ZstdDecompressor(max_window_size=LARGEST_WINDOW)
    with maker.stream_reader(body, read_across_frames=True) as reader:
        measured = reader.read(limit + 1)
    if len(measured) > limit:
        return measured
    rest = body
    while rest or not body:
        frame = maker.decompressobj()
        frame.decompress(rest)
        if not frame.eof:
            raise BrokenBody
        rest = frame.unused_data
    return measured


async def read_json(request: web.Request) -> Any:
    """Give the body as strict JSON; raises what `read_raw` and `strictjson.parse` do."""
    return strictjson.parse(await read_raw(request))


async def read_body(request: web.Request, model: type[M]) -> M:
    """Give the body as `model`; BodyInvalid points at each fault, besides what `read_json` raises."""
    return body_of(await read_json(request), model)


def body_of(value: Any, model: type[M]) -> M:
    """Give a parsed body as `model`, where what it says decides which; BodyInvalid points at each fault."""
    try:
        body: M = validate(model, value)
    except ValidationError as error:
        raise BodyInvalid(faults=faults_of(error, value)) from None
    return body


def read_query(request: web.Request, model: type[M]) -> M:
    """Give the query parameters as `model`; ParameterInvalid for unknown, repeated and bad ones."""
    values = _parameters(request.rel_url.raw_query_string)
    try:
        query: M = validate(model, values, is_text=True)
    except ValidationError as error:
        raise ParameterInvalid(faults=faults_of(error, values)) from None
    return query


def _parameters(raw: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(raw, keep_blank_values=True, errors="strict", max_num_fields=MOST_PARAMETERS)
    except ValueError:
        raise ParameterInvalid("The query string can't be read.") from None
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ParameterInvalid("A parameter is repeated.")
    for name, value in pairs:
        if "\0" in name + value:
            fault = Fault("", "unstorable_text", "A parameter holds U+0000.")
            raise ParameterInvalid(faults=(fault,))
    return values


def answer(view: BaseModel | dict[str, Any] | list[Any], status: int = 200) -> web.Response:
    """Answer a view, or plain members, as JSON."""
    members = view.model_dump() if isinstance(view, BaseModel) else view
    return web.Response(body=write_json(members), status=status, headers=_JSON_HEADERS)


def ok(view: BaseModel | dict[str, Any] | list[Any]) -> web.Response:
    """Answer 200 with the resource."""
    return answer(view)


def created(view: BaseModel | dict[str, Any]) -> web.Response:
    """Answer 201 with the resource as GET shows it."""
    return answer(view, 201)


def accepted(view: BaseModel | dict[str, Any]) -> web.Response:
    """Answer 202: taken, not done yet."""
    return answer(view, 202)


def no_content() -> web.Response:
    """Answer 204."""
    return web.Response(status=204, headers=SAFE_HEADERS)


def admin_app(context: ServiceContext) -> web.Application:
    """Make the application of the admin port: livez, readyz and metrics; never behind the gateway."""

    async def livez(_: web.Request) -> web.Response:
        return answer({"status": "ok"})

    async def readyz(_: web.Request) -> web.Response:
        checks = await context.readiness()
        return answer({"checks": checks}, 200 if context.is_ready(checks) else 503)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/livez", livez), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    return app
