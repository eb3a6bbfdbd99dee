"""OpenAPI 3.1 from the routes themselves: shapes, statuses, codes and who may call.

Nothing is written by hand, so the document can't disagree with the code. Rule: docs/rules/http.md, OpenAPI.
"""

from __future__ import annotations

import inspect
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, Literal, get_args, get_origin

from pydantic import TypeAdapter

from eb_contracts.errors import NotFound, Refusal

from . import idempotency, strictjson
from .access import OPEN_ROWS, ContextMismatch, Forbidden, StepUpRequired, TokenInvalid
from .inputs import Page
from .problems import (
    MEDIA_TYPE,
    BodyInvalid,
    BodyTooLarge,
    BodyTooSlow,
    BrokenBody,
    InternalError,
    MalformedRequest,
    ParameterInvalid,
    RateLimited,
    Unavailable,
    UnsupportedMediaType,
    status_of,
)
from .routing import Route

Mode = Literal["validation", "serialization"]
Json = dict[str, Any]

VERSION = "1.0.0"
REF = "#/components/schemas/{model}"
JSON_BODY = (
    strictjson.MalformedJson,
    strictjson.DuplicateKey,
    strictjson.TooDeep,
    strictjson.NumberOutOfRange,
    strictjson.UnstorableText,
    BodyInvalid,
)
ANY_BODY = (BodyTooLarge, BodyTooSlow, BrokenBody, UnsupportedMediaType)
KEYED = (
    idempotency.KeyInvalid,
    idempotency.KeyReused,
    idempotency.StillRunning,
)
ALWAYS = (MalformedRequest, RateLimited, InternalError, Unavailable)
REASONS = {
    200: "Done.",
    201: "Created.",
    202: "Accepted; not done yet.",
    204: "Done; nothing to show.",
    207: "Some parts were taken, others refused.",
    302: "Go there.",
}
PROBLEM: Json = {
    "type": "object",
    "description": "RFC 9457 problem; `code` is stable, further members are the facts of the case.",
    "required": ["type", "title", "status", "detail", "instance", "code", "errors", "trace_id"],
    "properties": {
        "type": {"type": "string", "format": "uri-reference"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string"},
        "code": {"type": "string"},
        "errors": {"type": "array", "items": {"$ref": "#/components/schemas/Fault"}},
        "trace_id": {"type": "string"},
    },
    "additionalProperties": True,
}
FAULT: Json = {
    "type": "object",
    "description": "One wrong place: an RFC 6901 pointer into the body or query, a stable code, a sentence.",
    "required": ["pointer", "code", "detail"],
    "properties": {name: {"type": "string"} for name in ("pointer", "code", "detail")},
    "additionalProperties": False,
}
BYTES: Json = {"type": "string", "format": "binary"}
KEY_PARAMETER: Json = {
    "name": idempotency.HEADER,
    "in": "header",
    "description": "The same key and request again get the same answer, for 24 hours.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}


def document(title: str, routes: Iterable[Route]) -> Json:
    """Give the OpenAPI document of some routes, sorted by path; ValueError for two operations of one name."""
    ordered = sorted(routes, key=lambda route: (route.path, route.method))
    schemas = _Schemas(ordered)
    paths: dict[str, Json] = defaultdict(dict)
    for route in ordered:
        paths[route.path][route.method.lower()] = _operation(route, schemas)
    _refuse_same_names(paths)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": VERSION},
        "paths": dict(paths),
        "components": {
            "schemas": {"Fault": FAULT, "Problem": PROBLEM} | schemas.components,
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An access token or an API key.",
                }
            },
        },
    }


def codes_of(route: Route) -> set[str]:
    """Give every problem code that the document names for a route."""
    return {refusal.code for refusal in _refusals(route)}


class _Schemas:
    """The JSON Schemas of all shapes of some routes, with names that don't collide."""

    def __init__(self, routes: list[Route]) -> None:
        wanted = {(str(shape), mode): shape for route in routes for shape, mode in _shapes(route)}
        inputs: list[tuple[str, Mode, TypeAdapter[Any]]] = [
            (name, mode, TypeAdapter(shape)) for (name, mode), shape in wanted.items()
        ]
        self._by_shape, rest = TypeAdapter.json_schemas(inputs, ref_template=REF)
        self.components: Json = dict(sorted(rest.get("$defs", {}).items()))
        for component in self.components.values():
            _drop_empty_defaults(component)

    def of(self, shape: Any, mode: Mode) -> Json:
        """Give the schema of a shape, mostly a reference."""
        return dict(self._by_shape[(str(shape), mode)])

    def inlined(self, shape: Any) -> Json:
        """Give the schema of a query model itself."""
        schema = self.of(shape, "validation")
        return dict(self.components[schema["$ref"].rpartition("/")[2]]) if "$ref" in schema else schema


def _drop_empty_defaults(component: Json) -> None:
    """An empty text stands for a member left out of a PATCH; it may not be sent where it is too short."""
    for member in component.get("properties", {}).values():
        if member.get("default") == "":
            del member["default"]


def _shapes(route: Route) -> Iterator[tuple[Any, Mode]]:
    if route.body is not None:
        yield route.body, "validation"
    if route.query is not None:
        yield route.query, "validation"
    if route.answer is not None:
        yield _item_of(route), "serialization"


def _is_page(route: Route) -> bool:
    """Tell whether a route answers `{items, next_cursor}`: a page is asked for, and the answer names the item."""
    is_paged = isinstance(route.query, type) and issubclass(route.query, Page)
    return is_paged and "items" not in getattr(route.answer, "model_fields", ())


def _item_of(route: Route) -> Any:
    is_listed = _is_page(route) and get_origin(route.answer) is list
    return get_args(route.answer)[0] if is_listed else route.answer


def _operation(route: Route, schemas: _Schemas) -> Json:
    text = inspect.getdoc(route.handler) or ""
    operation: Json = {
        "operationId": f"{route.service.replace('-', '_')}_{route.handler.__name__}",
        "tags": [route.service],
        "summary": text.partition("\n")[0],
        "description": text,
        "security": [] if route.names & OPEN_ROWS else [{"bearer": []}],
        "x-allowed": sorted(route.names),
        "parameters": [*_path_parameters(route), *_query_parameters(route, schemas), *_key_parameter(route)],
        "responses": _answers(route, schemas) | _problems(route),
    }
    if route.body is not None or route.raw_body:
        operation["requestBody"] = _request_body(route, schemas)
    return operation


def _path_parameters(route: Route) -> Iterator[Json]:
    for name in re.findall(r"\{(\w+)\}", route.path):
        yield {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _query_parameters(route: Route, schemas: _Schemas) -> Iterator[Json]:
    if route.query is None:
        return
    schema = schemas.inlined(route.query)
    for name, member in schema.get("properties", {}).items():
        yield {
            "name": name,
            "in": "query",
            "required": name in schema.get("required", ()),
            "description": member.get("description", ""),
            "schema": member,
        }


def _key_parameter(route: Route) -> list[Json]:
    if route.idempotency == "none":
        return []
    return [KEY_PARAMETER | {"required": route.idempotency == "required"}]


def _request_body(route: Route, schemas: _Schemas) -> Json:
    schema = BYTES if route.body is None else schemas.of(route.body, "validation")
    return {
        "required": True,
        "description": f"At most {route.body_limit} bytes"
        + (f"; Content-Encoding {', '.join(route.encodings)} too." if route.encodings else "."),
        "content": {media_type: {"schema": schema} for media_type in route.media_types or ("*/*",)},
    }


def _answers(route: Route, schemas: _Schemas) -> Json:
    answers: Json = {}
    for status in (route.status, *route.other_statuses):
        answers[str(status)] = {"description": REASONS.get(status, "Answered.")}
        if route.answer is not None and status != 204:
            schema = _answer_schema(route, schemas)
            content = {route.answer_type: {"schema": schema}}
            content |= {other: {"schema": {"type": "string"}} for other in route.other_answer_types}
            answers[str(status)]["content"] = content
    return answers


def _answer_schema(route: Route, schemas: _Schemas) -> Json:
    schema = schemas.of(_item_of(route), "serialization")
    if not _is_page(route):
        return schema
    return {
        "type": "object",
        "required": ["items", "next_cursor"],
        "properties": {
            "items": {"type": "array", "items": schema},
            "next_cursor": {"type": ["string", "null"]},
        },
    }


def _problems(route: Route) -> Json:
    by_status: dict[int, set[str]] = defaultdict(set)
    for refusal in _refusals(route):
        by_status[status_of(refusal)].add(refusal.code)
    return {
        str(status): {
            "description": "Refused: " + ", ".join(f"`{code}`" for code in sorted(codes)) + ".",
            "x-codes": sorted(codes),
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status, codes in sorted(by_status.items())
    }


def _refusals(route: Route) -> Iterator[type[Refusal]]:
    yield from ALWAYS
    yield from route.errors
    if not route.names & OPEN_ROWS:
        yield from (TokenInvalid, Forbidden, ContextMismatch, NotFound)
    if route.step_up or route.may_step_up:
        yield StepUpRequired
    if "{" in route.path:
        yield NotFound
    if route.query is not None:
        yield ParameterInvalid
    if route.body is not None or route.raw_body:
        yield from ANY_BODY
    if route.body is not None:
        yield from JSON_BODY
    yield from _key_refusals(route)


def _key_refusals(route: Route) -> Iterator[type[Refusal]]:
    if route.idempotency != "none":
        yield from KEYED
    if route.idempotency == "required":
        yield idempotency.KeyRequired
    if route.stores_secret:
        yield idempotency.AnswerNotRepeatable


def _refuse_same_names(paths: dict[str, Json]) -> None:
    seen: set[str] = set()
    for methods in paths.values():
        for operation in methods.values():
            if operation["operationId"] in seen:
                raise ValueError(f"two operations are named {operation['operationId']}")
            seen.add(operation["operationId"])
