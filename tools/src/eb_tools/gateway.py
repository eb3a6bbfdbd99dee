"""The gateway's configuration, generated from `deploy/gateway/routes.yaml`.

The gateway routes on the raw path, bounds headers, bodies and senders, counts requests a minute, and answers its
own refusals as problems. It is never the authority on who somebody is. Rule: docs/rules/http.md, Gateway.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

import yaml

from eb_contracts.errors import NotFound, Refusal
from eb_kit import problems
from eb_kit.access import Forbidden
from eb_kit.web import ORG_HEADER

ROUTES = Path(__file__).resolve().parents[3] / "deploy" / "gateway" / "routes.yaml"
REFUSALS: tuple[type[Refusal], ...] = (
    problems.MalformedRequest,
    Forbidden,
    NotFound,
    problems.MethodNotAllowed,
    problems.BodyTooSlow,
    problems.BodyTooLarge,
    problems.RateLimited,
    problems.InternalError,
    problems.BadGateway,
    problems.Unavailable,
    problems.GatewayTimeout,
)
EARLY: Mapping[int, type[Refusal]] = {
    400: problems.MalformedRequest,
    408: problems.BodyTooSlow,
    413: problems.BodyTooLarge,
    414: problems.MalformedRequest,
    422: problems.MalformedRequest,
    431: problems.MalformedRequest,
    500: problems.InternalError,
    501: problems.MalformedRequest,
}
"""What HAProxy's protocol layer answers before there is a request with a path or a trace, by status."""
SINCE_3_3 = (414, 431)
"""Statuses that older HAProxies refuse in their configuration; they say 400 instead."""
CONFIG = "haproxy.cfg"
SPAN_ID = "%[uuid,field(5,-)]%[uuid,field(2,-)]"
STRICT = f"max-age={365 * 24 * 3600}; includeSubDomains"
READ_METHODS = ("GET", "HEAD", "OPTIONS")


@dataclass(frozen=True)
class Entry:
    """One line of the routes file. `rate` None: by the method."""

    path: str
    is_prefix: bool
    service: str
    methods: tuple[str, ...]
    rate: str | None
    body_limit_bytes: int

    def fits(self, method: str, path: str) -> bool:
        """Tell whether a request of this method and raw path is this entry's."""
        if self.methods and method not in self.methods:
            return False
        continues = path.startswith((f"{self.path}/", f"{self.path}:"))
        return path == self.path or (self.is_prefix and continues)

    @property
    def condition(self) -> str:
        """Write it as an HAProxy condition, to be joined with and."""
        methods = f"{{ method {' '.join(self.methods)} }} " if self.methods else ""
        if self.is_prefix:
            return f"{methods}{{ path -m reg ^{self.path.replace('.', '[.]')}([/:]|$) }}"
        return f"{methods}{{ path -m str {self.path} }}"


@dataclass(frozen=True)
class Rate:
    """Requests a minute, counted `per` network address, hash of the Authorization value, or organisation."""

    name: str
    per: str
    limit: int


@dataclass(frozen=True)
class Counted:
    """By what requests are counted: the key, and the table of the counts."""

    key: str
    kind: str
    stored: str = "http_req_rate(60s)"


COUNTED = {
    "address": Counted("src", "ipv6"),
    # gpt0: the organisation that the services said it is of, 32 bits of a hash; 0 as long as nobody said so
    "credential": Counted("var(txn.who)", "string len 64", "http_req_rate(60s),gpt0"),
    "organisation": Counted("sc_get_gpt0(0)", "integer"),
}
OVER_ALL = {"address": (1, ""), "org": (2, "{ sc_get_gpt0(0) gt 0 }")}
"""The rates that count whatever the class of a request: their number as a counter, and when."""


@dataclass(frozen=True)
class RouteTable:
    """The routes file, read."""

    entries: tuple[Entry, ...]
    rates: Mapping[str, Rate]
    body_limit_bytes: int

    def entry_of(self, method: str, path: str) -> Entry | None:
        """Give the entry that a request falls to."""
        return next((entry for entry in self.entries if entry.fits(method, path)), None)


@dataclass(frozen=True)
class Backend:
    """Where a service listens: `host:port` of its door, and the port of its livez."""

    address: str
    admin_port: int


@dataclass(frozen=True)
class Options:
    """How one gateway runs; times in seconds. Refused connections are tried again once a second."""

    bind: str = "127.0.0.1:8080"
    has_rate_limits: bool = False
    metrics_bind: str | None = None
    headers_within_s: float = 10
    idle_s: float = 35
    answer_within_s: float = 40
    tries_to_connect: int = 6
    rate_scale: float = 1.0
    is_https: bool = False
    fronts: tuple[str, ...] = ()
    """Ranges of the proxies that stand in front, whose word on the client's address is taken."""


def read_routes(file: Path = ROUTES) -> RouteTable:
    """Read the routes file; KeyError or ValueError where it isn't one."""
    text = yaml.safe_load(file.read_text())
    limit = int(text["defaults"]["body_limit_bytes"])
    rates = {name: Rate(name, str(rate["per"]), int(rate["limit"])) for name, rate in text["rates"].items()}
    entries = tuple(_entry(row, limit) for row in text["routes"])
    for entry in entries:
        if entry.rate is not None and entry.rate not in rates:
            raise ValueError(f"{entry.path}: there is no rate {entry.rate}")
    return RouteTable(entries, rates, limit)


def _entry(row: Mapping[str, Any], limit: int) -> Entry:
    return Entry(
        path=str(row.get("prefix") or row["path"]),
        is_prefix="prefix" in row,
        service=str(row["service"]),
        methods=tuple(row.get("methods", ())),
        rate=row.get("rate"),
        body_limit_bytes=int(row.get("body_limit_bytes", limit)),
    )


def render(table: RouteTable, backends: Mapping[str, Backend], options: Options) -> str:
    """Write haproxy.cfg; KeyError where a service of the table has no backend."""
    parts = [_global(), _defaults(options), _frontend(table, options)]
    parts += [
        _backend(name, backends[name]) for name in dict.fromkeys(entry.service for entry in table.entries)
    ]
    if options.has_rate_limits:
        parts += [_counter(rate) for rate in table.rates.values()]
    if options.metrics_bind:
        parts.append(_metrics(options.metrics_bind))
    return "\n\n".join("\n  ".join(lines) for lines in parts) + "\n"


def _global() -> list[str]:
    return [
        "# Generated from routes.yaml by eb_tools.gateway; changes here are lost.\nglobal",
        "maxconn 4000",
        "log stdout format raw local0",
        "# Request line and headers together must fit; more is a 400.",
        "tune.bufsize 16384",
        "tune.http.maxhdr 100",
        "# Files named below lie beside this one.",
        "default-path config",
    ]


def _defaults(options: Options) -> list[str]:
    return [
        "defaults",
        "mode http",
        "log global",
        "option dontlog-normal",
        "option http-keep-alive",
        "# Refused connections are tried again; what a service may have seen is sent again only if it is a GET.",
        f"retries {options.tries_to_connect}",
        "retry-on conn-failure empty-response",
        "http-reuse safe",
        f"timeout http-request {_ms(options.headers_within_s)}",
        "timeout connect 2s",
        "timeout queue 5s",
        "timeout http-keep-alive 60s",
        f"timeout client {_ms(options.idle_s)}",
        f"timeout server {_ms(options.answer_within_s)}",
        "timeout client-fin 5s",
        *map(_error, REFUSALS),
    ]


def _ms(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms"


def _error(refusal: type[Refusal]) -> str:
    """Write the answer for one status; the words are those of the services."""
    status = problems.status_of(refusal)
    return f"http-error status {status} {_answer(refusal)}"


def _answer(refusal: type[Refusal]) -> str:
    """Write type, body and headers of an answer about a request that has a path and a trace."""
    status = problems.status_of(refusal)
    body = _members(refusal, status, "%[var(txn.path)]", "%[var(txn.trace_id)]")
    written = " ".join(f"hdr {name} {_quoted(value)}" for name, value in _headers(status).items())
    return f"content-type {problems.MEDIA_TYPE} lf-string '{body}' {written}"


def _members(refusal: type[Refusal], status: int, instance: str, trace_id: str) -> str:
    members = {
        "type": f"/docs#problem-{refusal.code}",
        "title": refusal.title,
        "status": status,
        "detail": refusal.title,
        "instance": instance,
        "code": refusal.code,
        "errors": [],
        "trace_id": trace_id,
    }
    return json.dumps(members, separators=(",", ":"))


def _headers(status: int) -> dict[str, str]:
    headers = dict(problems.SAFE_HEADERS)
    if status in problems.RETRY_AFTER_S:
        headers["Retry-After"] = str(problems.RETRY_AFTER_S[status])
    return headers


def early_answers(*, is_https: bool = False) -> dict[str, str]:
    """Give the files that lie beside haproxy.cfg: whole answers for what never became a request.

    HAProxy takes them from 3.2 on; older ones say these few in words of their own.
    """
    insisted = {"Strict-Transport-Security": STRICT} if is_https else {}
    return {f"{status}.http": _whole(status, refusal, insisted) for status, refusal in EARLY.items()}


def _whole(status: int, refusal: type[Refusal], more: Mapping[str, str]) -> str:
    body = _members(refusal, status, "", "")
    headers = {"Content-Type": problems.MEDIA_TYPE, "Content-Length": str(len(body)), "Connection": "close"}
    lines = [f"{name}: {value}" for name, value in (headers | _headers(status) | dict(more)).items()]
    return "\n".join([f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *lines, "", body])


def _quoted(value: str) -> str:
    return f'"{value}"' if " " in value else value


def _frontend(table: RouteTable, options: Options) -> list[str]:
    return [
        "frontend front",
        f"bind {options.bind}",
        *_early(),
        'log-format \'{"at":"%tr","status":%ST,"method":"%[var(txn.method),json(utf8s)]","path":"%[var(txn.path)]",'
        '"service":"%b","ms":%Ta,"ended":"%tsc","request_id":"%[var(txn.request_id)]"}\'',
        *_know_the_client(options.fronts),
        *_identify(),
        *_clean(),
        *_limit_bodies(table),
        *(_count(table, options.rate_scale) if options.has_rate_limits else ()),
        *(f"use_backend {entry.service} if {entry.condition}" for entry in table.entries),
        "http-after-response set-header X-Request-Id %[var(txn.request_id)] if { var(txn.request_id) -m found }",
        *(_learn_orgs() if options.has_rate_limits else ()),
        "http-after-response del-header Server",
        f"http-after-response del-header {ORG_HEADER}",
        "http-after-response set-header Connection close if { status 408 413 }",
        *(_insist_on_tls() if options.is_https else ()),
        "default_backend nowhere\n\nbackend nowhere\n  http-request deny deny_status 404",
    ]


def _early() -> Iterator[str]:
    yield from (f"errorfile {status} {status}.http" for status in EARLY if status not in SINCE_3_3)
    yield ".if version_atleast(3.3)"
    yield from (f"errorfile {status} {status}.http" for status in SINCE_3_3)
    yield ".endif"


def _know_the_client(fronts: tuple[str, ...]) -> Iterator[str]:
    """Take the client's address from whoever ended its TLS: the last one named, as those before are the client's."""
    if fronts:
        said = "req.hdr_ip(X-Forwarded-For,-1)"
        yield f"http-request set-src {said} if {{ src {' '.join(fronts)} }} {{ {said} -m found }}"


def _identify() -> Iterator[str]:
    """Give the request an id of ours, and a trace: the client's, or one made from the id."""
    yield "http-request set-var(txn.request_id) uuid"
    yield "http-request set-var(txn.method) method"
    yield "http-request set-var(txn.path) path,json(utf8s)"
    yield "http-request set-header X-Request-Id %[var(txn.request_id)]"
    yield "acl has_trace req.hdr(traceparent) -m reg ^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"
    yield "http-request set-var(txn.trace_id) req.hdr(traceparent),field(2,-) if has_trace"
    yield 'http-request set-var(txn.trace_id) var(txn.request_id),regsub(-,"",g) unless has_trace'
    yield f"http-request set-header traceparent 00-%[var(txn.trace_id)]-{SPAN_ID}-01 unless has_trace"


def _clean() -> Iterator[str]:
    """Drop what a client could lie with, and what isn't spoken here."""
    yield "http-request set-header X-Forwarded-For %[src]"
    for name in ("Forwarded", "X-Real-IP", "X-Forwarded-Host", "X-Forwarded-Proto", "Proxy", "Upgrade"):
        yield f"http-request del-header {name}"
    yield "http-request disable-l7-retry unless METH_GET"
    yield "http-request deny deny_status 405 if METH_CONNECT || METH_TRACE"


def _insist_on_tls() -> Iterator[str]:
    """Tell browsers to come by https only, for a year (RFC 6797); for gateways that clients reach by https."""
    yield f'http-after-response set-header Strict-Transport-Security "{STRICT}"'


def _limit_bodies(table: RouteTable) -> Iterator[str]:
    """Refuse too long a Content-Length at once; bodies without one are bounded by the services."""
    yield f"http-request set-var(txn.limit) int({table.body_limit_bytes})"
    for entry in reversed(table.entries):
        if entry.body_limit_bytes != table.body_limit_bytes:
            yield f"http-request set-var(txn.limit) int({entry.body_limit_bytes}) if {entry.condition}"
    too_long = "{ req.hdr_val(content-length),sub(txn.limit) gt 0 }"
    yield f"http-request deny deny_status 413 {_answer(problems.BodyTooLarge)} if {too_long}"


def _count(table: RouteTable, scale: float) -> Iterator[str]:
    """Name the class of the request, count it there, and count address and organisation over all classes."""
    yield f"http-request set-var(txn.rate) str(write) unless {{ method {' '.join(READ_METHODS)} }}"
    yield f"http-request set-var(txn.rate) str(read) if {{ method {' '.join(READ_METHODS)} }}"
    for entry in reversed(table.entries):
        if entry.rate is not None:
            yield f"http-request set-var(txn.rate) str({entry.rate}) if {entry.condition}"
    yield "http-request set-var(txn.who) req.hdr(authorization),sha2(256),hex if { req.hdr(authorization) -m found }"
    yield "http-request set-var(txn.who) src unless { req.hdr(authorization) -m found }"
    for rate in table.rates.values():
        yield from _count_in(rate, max(1, round(rate.limit * scale)))


def _count_in(rate: Rate, limit: int) -> Iterator[str]:
    number, condition = OVER_ALL.get(rate.name, (0, f"{{ var(txn.rate) -m str {rate.name} }}"))
    table = f"rate_{rate.name}"
    yield f"http-request track-sc{number} {COUNTED[rate.per].key} table {table}" + (
        f" if {condition}" if condition else ""
    )
    yield (
        f"http-request deny deny_status 429 if {{ sc_http_req_rate({number},{table}) gt {limit} }} {condition}"
    ).rstrip()


def _learn_orgs() -> Iterator[str]:
    """Remember of each credential whose it is, as the services say: only they can verify it.

    The first answer is counted here, the following requests when they come. A credential that isn't good any more
    is nobody's, so nobody uses up another's share with it.
    """
    says = f"{{ res.hdr({ORG_HEADER}) -m found }}"
    org = f"res.hdr({ORG_HEADER}),xxh32"
    yield f"http-response track-sc2 {org} table rate_org if {says}"
    yield f"http-response sc-set-gpt0(0) {org} if {says}"
    yield f"http-response sc-set-gpt0(0) 0 if {{ status 401 }} !{says}"


def _counter(rate: Rate) -> list[str]:
    kind, stored = COUNTED[rate.per].kind, COUNTED[rate.per].stored
    return [f"backend rate_{rate.name}", f"stick-table type {kind} size 100k expire 2m store {stored}"]


def _backend(name: str, backend: Backend) -> list[str]:
    """One service. Alive is enough: what it needs, it answers for itself, and ingest works without its database."""
    return [
        f"backend {name}",
        "option httpchk",
        "http-check send meth GET uri /livez",
        "http-check expect status 200",
        f"server one {backend.address} check port {backend.admin_port} inter 2s fastinter 1s downinter 500ms"
        " rise 1 fall 4",
    ]


def _metrics(bind: str) -> list[str]:
    return [
        "frontend metrics",
        f"bind {bind}",
        "http-request use-service prometheus-exporter if { path /metrics }",
        "http-request deny deny_status 404",
    ]


def main() -> int:
    """Print the configuration for services given as name=host:port,admin_port."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    rendering = commands.add_parser("render", help="print haproxy.cfg")
    rendering.add_argument("--bind", default="127.0.0.1:8080")
    rendering.add_argument("--metrics-bind")
    rendering.add_argument("--rate-limits", action="store_true")
    rendering.add_argument("--https", action="store_true", help="clients reach it by https")
    rendering.add_argument("--service", action="append", default=[], metavar="NAME=HOST:PORT,ADMIN_PORT")
    given = parser.parse_args()
    backends = {}
    for text in given.service:
        name, _, address = text.partition("=")
        door, _, admin_port = address.partition(",")
        backends[name] = Backend(door, int(admin_port))
    options = Options(given.bind, given.rate_limits, given.metrics_bind, is_https=given.https)
    sys.stdout.write(render(read_routes(), backends, options))
    return 0


if __name__ == "__main__":
    sys.exit(main())
