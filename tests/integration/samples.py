"""Requests made from the routes' own shapes: readable, and about a given organisation."""

from __future__ import annotations

import re
from typing import Any

from pydantic import TypeAdapter

from eb_contracts.ids import new_id
from eb_kit.routing import Route


def parameter_of(name: str, org_id: str) -> str:
    """Fill a path's parameter: this organisation, or an id of nothing."""
    if name in ("org_id", "ancestor_org_id"):
        return org_id
    return str(new_id()) if name.endswith("_id") else "x"


def sample_of(schema: Any, root: Any) -> Any:
    """Make something small of a JSON Schema; enough to be read, not to make sense."""
    if "$ref" in schema:
        return sample_of(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if "default" in schema:
        return schema["default"]
    for some in ("anyOf", "oneOf"):
        if some in schema:
            return sample_of(schema[some][0], root)
    if "enum" in schema or "const" in schema:
        return schema.get("enum", [schema.get("const")])[0]
    return _of_type(schema, root)


def _of_type(schema: Any, root: Any) -> Any:
    match schema.get("type"):
        case "object":
            required = schema.get("required", ())
            return {name: sample_of(schema["properties"][name], root) for name in required}
        case "array":
            return [sample_of(schema["items"], root)]
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
    return _text_of(schema)


def _text_of(schema: Any) -> str:
    by_format = {"uuid": str(new_id()), "date-time": "2026-01-01T00:00:00Z", "date": "2026-01-01"}
    if schema.get("format") in by_format:
        return by_format[schema["format"]]
    pattern = schema.get("pattern", "")
    candidates = ("AUD", "1", "ab", "2026-01", "a" * max(2, schema.get("minLength", 2)))
    return next((text for text in candidates if re.search(pattern, text)), "ab")


def body_of(route: Route, org_id: str) -> Any:
    """Make a body that can be read, about this organisation."""
    schema = TypeAdapter(route.body).json_schema()
    body = sample_of(schema, schema)
    for part in body if isinstance(body, list) else [body]:
        part.update({name: org_id for name in part if name.endswith("org_id")})
    return body
