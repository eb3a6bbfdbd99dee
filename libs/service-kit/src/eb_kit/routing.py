"""Routes as data, and the table that finds one by the raw path of a request.

aiohttp decodes a path before it matches, so an encoded `/` or `:` inside an id would be taken for the
real one; this table matches the bytes as sent. Rule: docs/rules/http.md, Paths.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeVar
from urllib.parse import unquote_to_bytes
from uuid import UUID

from aiohttp import web

from eb_contracts.errors import NotFound, Refusal

from .policy import row_of

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
H = TypeVar("H", bound=Handler)
Idempotency = Literal["none", "optional", "required"]

MIB = 1024 * 1024
JSON_TYPE = "application/json"
MERGE_PATCH = "application/merge-patch+json"
TEXT_PARAMETERS = frozenset({"request_id", "charge_id", "sku", "provider"})
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\Z")
_ACTED_ON = re.compile(
    r"([0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[0-9]{4}-[0-9]{2})%3[aA]([a-z-]+)\Z"
)


@dataclass(frozen=True)
class Route:
    """One method and path template with its shapes. `body_limit` is in bytes, as sent and as inflated.

    `step_up` routes need a recent sign-in, `may_step_up` ones for some requests: the handler tells which.
    `goes_on` says why a route that changes something does so too while the process is out of touch; without a reason
    it doesn't.
    """

    service: str
    method: str
    path: str
    handler: Handler
    body: Any = None
    query: type[Any] | None = None
    answer: Any = None
    status: int = 200
    other_statuses: tuple[int, ...] = ()
    idempotency: Idempotency = "none"
    stores_secret: bool = False
    errors: tuple[type[Refusal], ...] = ()
    raw_body: bool = False
    media_types: tuple[str, ...] = ()
    encodings: tuple[str, ...] = ()
    body_limit: int = MIB
    answer_type: str = JSON_TYPE
    other_answer_types: tuple[str, ...] = ()
    step_up: bool = False
    may_step_up: bool = False
    goes_on: str = ""

    @property
    def needs_touch(self) -> bool:
        """Tell whether the process has to be in touch: for all but GET, where the route gives no reason not to."""
        return self.method != "GET" and not self.goes_on

    @property
    def name(self) -> str:
        """Give `METHOD /path`, as the policy table names it."""
        return f"{self.method} {self.path}"

    @cached_property
    def names(self) -> frozenset[str]:
        """Give who may call it; KeyError for a route without a row in the policy table."""
        return row_of(self.service, self.method, self.path)


ROUTE: web.RequestKey[Route] = web.RequestKey("eb_route", Route)
PARAMETERS: web.RequestKey[dict[str, str]] = web.RequestKey("eb_parameters", dict)


class Routes:
    """The routes of one service, filled by decorators in its `api.py`."""

    def __init__(self, service: str) -> None:
        self.service = service
        self.routes: list[Route] = []

    def __iter__(self) -> Iterator[Route]:
        return iter(self.routes)

    def get(self, path: str, **options: Any) -> Callable[[H], H]:
        """Enter a handler for GET; options are the fields of `Route`."""
        return self.add("GET", path, **options)

    def post(self, path: str, *, idempotency: Idempotency = "optional", **options: Any) -> Callable[[H], H]:
        """Enter a handler for POST; `idempotency` says what an Idempotency-Key does."""
        return self.add("POST", path, idempotency=idempotency, **options)

    def put(self, path: str, **options: Any) -> Callable[[H], H]:
        """Enter a handler for PUT."""
        return self.add("PUT", path, **options)

    def patch(self, path: str, **options: Any) -> Callable[[H], H]:
        """Enter a handler for PATCH; bodies may also be application/merge-patch+json."""
        options.setdefault("media_type", (JSON_TYPE, MERGE_PATCH))
        return self.add("PATCH", path, **options)

    def delete(self, path: str, *, status: int = 204, **options: Any) -> Callable[[H], H]:
        """Enter a handler for DELETE."""
        return self.add("DELETE", path, status=status, **options)

    def add(
        self, method: str, path: str, *, media_type: str | tuple[str, ...] | None = None, **options: Any
    ) -> Callable[[H], H]:
        """Enter a handler. `media_type` names the accepted Content-Types; a raw body takes any by default."""
        if media_type is None:
            media_type = () if options.get("raw_body") else JSON_TYPE
        accepted = (media_type,) if isinstance(media_type, str) else media_type

        def enter(handler: H) -> H:
            self.routes.append(Route(self.service, method, path, handler, media_types=accepted, **options))
            return handler

        return enter


@dataclass
class _Node:
    """One place in the tree of path segments."""

    literals: dict[str, _Node] = field(default_factory=dict)
    other: _Node | None = None
    parameters: tuple[str, ...] = ()
    by_action: dict[str, dict[str, Route]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Found:
    """What stands at a path: its routes by method (none: nothing there), and the raw path parameters."""

    methods: dict[str, Route]
    parameters: dict[str, str]


NOTHING = Found({}, {})


class Table:
    """Finds a route by method and raw path; literal segments win over parameters.

    An action is what follows the last unencoded colon of a path. After a UUID or a month an encoded
    colon does too, but not where the segment is free text (`request_id`): there it belongs to the id.
    """

    def __init__(self, routes: list[Route]) -> None:
        self._root = _Node()
        self._exact: dict[str, Found] = {}
        for route in routes:
            self._enter(route)

    def _enter(self, route: Route) -> None:
        path, action = _split_template(route.path)
        node, names = self._root, []
        for segment in path[1:].split("/"):
            if segment.startswith("{"):
                names.append(segment[1:-1])
                node.other = node.other or _Node()
                node = node.other
            else:
                node = node.literals.setdefault(segment, _Node())
        if node.by_action and node.parameters != tuple(names):
            raise ValueError(f"{route.path} names its parameters otherwise than its sisters")
        node.parameters = tuple(names)
        methods = node.by_action.setdefault(action, {})
        if methods.setdefault(route.method, route) is not route:
            raise ValueError(f"two routes for {route.name}")
        if not names:
            self._exact[route.path] = Found(methods, {})

    def find(self, raw_path: str) -> Found:
        """Give what stands at a raw path, `NOTHING` where nothing does."""
        exact = self._exact.get(raw_path)
        if exact is not None:
            return exact
        segments = raw_path[1:].split("/")
        last, colon, action = segments[-1].rpartition(":")
        if colon:
            return self._find_in([*segments[:-1], last], action) or NOTHING
        return self._find_encoded_action(segments) or self._find_in(segments, "") or NOTHING

    def _find_encoded_action(self, segments: list[str]) -> Found | None:
        acted_on = _ACTED_ON.match(segments[-1])
        if acted_on is None:
            return None
        found = self._find_in([*segments[:-1], acted_on[1]], acted_on[2])
        is_text = found is not None and next(reversed(found.parameters), "") in TEXT_PARAMETERS
        return None if is_text else found

    def _find_in(self, segments: list[str], action: str) -> Found | None:
        for node, values in _walk(self._root, segments, 0):
            if methods := node.by_action.get(action):
                return Found(methods, dict(zip(node.parameters, values, strict=True)))
        return None


def _walk(node: _Node, segments: list[str], at: int) -> Iterator[tuple[_Node, tuple[str, ...]]]:
    if at == len(segments):
        yield node, ()
        return
    segment = segments[at]
    if segment in node.literals:
        yield from _walk(node.literals[segment], segments, at + 1)
    if node.other is not None and segment:
        for leaf, values in _walk(node.other, segments, at + 1):
            yield leaf, (segment, *values)


def _split_template(template: str) -> tuple[str, str]:
    head, slash, last = template.rpartition("/")
    last, _, action = last.partition(":")
    return head + slash + last, action


def path_text(request: web.Request, name: str) -> str:
    """Give a path parameter, percent-decoded; NotFound where it is no text."""
    try:
        text = unquote_to_bytes(request[PARAMETERS][name]).decode("utf-8")
    except UnicodeDecodeError:
        raise NotFound from None
    if "\0" in text:
        raise NotFound
    return text


def path_uuid(request: web.Request, name: str) -> UUID:
    """Give a path parameter that is a UUID; NotFound where it isn't one."""
    text = path_text(request, name)
    if not _UUID.match(text):
        raise NotFound
    return UUID(text)
