"""Refusals, bad weather and bugs as RFC 9457 problems. The only place that turns an error into HTTP.

Rule: docs/rules/http.md, Problems.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, ClassVar
from uuid import UUID

from aiohttp import web

from eb_contracts.errors import Kind, Refusal
from eb_contracts.money import plain_text

from .telemetry import current_trace

MEDIA_TYPE = "application/problem+json"
SAFE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}
"""On every answer, unless it says otherwise itself: nothing is stored, run, framed or told to other sites."""
RETRY_AFTER_S = {429: 60, 503: 2}
STATUS = {
    Kind.MALFORMED: 400,
    Kind.UNAUTHENTICATED: 401,
    Kind.FORBIDDEN: 403,
    Kind.NOT_FOUND: 404,
    Kind.CONFLICT: 409,
    Kind.TOO_LARGE: 413,
    Kind.UNSUPPORTED: 415,
    Kind.INVALID: 422,
    Kind.LIMITED: 429,
    Kind.UNAVAILABLE: 503,
}


class HttpRefusal(Refusal):
    """A refusal of HTTP itself, with a status that no kind has."""

    status: ClassVar[int]
    kind = Kind.MALFORMED


class MalformedRequest(HttpRefusal):
    """No HTTP that could be read: a bad request line, header or method."""

    code = "malformed_request"
    status = 400
    title = "The request is not well-formed HTTP."


class MethodNotAllowed(HttpRefusal):
    """The path exists, the method doesn't."""

    code = "method_not_allowed"
    status = 405
    title = "This path does not take that method."


class BodyTooSlow(HttpRefusal):
    """The body didn't arrive in time; the connection is closed."""

    code = "request_timeout"
    status = 408
    title = "The request took too long to arrive."


class ExpectationFailed(HttpRefusal):
    """The only expectation met here is 100-continue."""

    code = "expectation_failed"
    status = 417
    title = "This expectation cannot be met."


class BodyTooLarge(Refusal):
    """More bytes than the route takes, as sent or as inflated."""

    code = "body_too_large"
    kind = Kind.TOO_LARGE
    title = "The body is too large."


class UnsupportedMediaType(Refusal):
    """No or another Content-Type, charset or Content-Encoding than the route takes."""

    code = "unsupported_media_type"
    kind = Kind.UNSUPPORTED
    title = "The body's type, charset or encoding is not supported here."


class BrokenBody(Refusal):
    """The body ended early, or its compression is broken."""

    code = "body_broken"
    kind = Kind.MALFORMED
    title = "The body is incomplete or its compression is broken."


class BodyInvalid(Refusal):
    """JSON of the wrong shape; `errors` points at each place."""

    code = "body_invalid"
    kind = Kind.INVALID
    title = "The body does not fit this route."


class ParameterInvalid(Refusal):
    """An unknown, repeated or bad query parameter."""

    code = "parameter_invalid"
    kind = Kind.MALFORMED
    title = "A query parameter is unknown, repeated or not valid."


class Unavailable(Refusal):
    """Something this service needs is away; the same request may work in a moment."""

    code = "unavailable"
    kind = Kind.UNAVAILABLE
    title = "The service cannot answer right now; try again."


class InternalError(HttpRefusal):
    """A defect of ours."""

    code = "internal_error"
    status = 500
    title = "Something went wrong here; the trace id helps to find it."


class RateLimited(Refusal):
    """More requests a minute than allowed; the gateway counts, and each process per organisation."""

    code = "rate_limited"
    kind = Kind.LIMITED
    title = "Too many requests; wait as long as Retry-After says."


class BadGateway(HttpRefusal):
    """A service broke off its answer to the gateway."""

    code = "bad_gateway"
    status = 502
    title = "The service broke off its answer; try again."


class GatewayTimeout(HttpRefusal):
    """A service didn't answer the gateway in time."""

    code = "gateway_timeout"
    status = 504
    title = "The service did not answer in time."


def status_of(refusal: Refusal | type[Refusal]) -> int:
    """Give the HTTP status of a refusal."""
    return getattr(refusal, "status", None) or STATUS[refusal.kind]


def instant_text(instant: datetime) -> str:
    """Write an instant as `YYYY-MM-DDTHH:MM:SS.ffffffZ`."""
    return instant.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def write_json(value: object) -> bytes:
    """Write JSON: instants with six decimals and Z, decimals plainly, ids as text. TypeError for others."""
    return _ENCODER.encode(value).encode()


def _plain(value: object) -> Any:
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, datetime):
        return instant_text(value)
    if isinstance(value, Decimal):
        return plain_text(value)
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


_ENCODER = json.JSONEncoder(default=_plain, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def problem_members(refusal: Refusal, instance: str) -> dict[str, Any]:
    """Give the members of the problem: the standard ones, `code`, `errors`, `trace_id`, and the facts."""
    members: dict[str, Any] = {
        "type": f"/docs#problem-{refusal.code}",
        "title": refusal.title,
        "status": status_of(refusal),
        "detail": refusal.detail,
        "instance": instance,
        "code": refusal.code,
        "errors": [
            {"pointer": fault.pointer, "code": fault.code, "detail": fault.detail} for fault in refusal.faults
        ],
        "trace_id": current_trace().trace_id,
    }
    return {**refusal.facts, **members}


def _challenge(refusal: Refusal, request: web.BaseRequest) -> str:
    """Give the challenge of RFC 6750, section 3, and RFC 9470, section 3: an error only where a token was shown."""
    challenge = 'Bearer realm="event-builder"'
    scheme = request.headers.get("Authorization", "").partition(" ")[0]
    if refusal.code == "token_invalid" and scheme.lower() == "bearer":
        return f'{challenge}, error="invalid_token"'
    if refusal.code == "step_up_required":
        max_age_s = refusal.facts["max_age_s"]
        return f'{challenge}, error="insufficient_user_authentication", max_age="{max_age_s}"'
    return challenge


def problem(
    refusal: Refusal, request: web.BaseRequest, headers: Mapping[str, str] | None = None
) -> web.Response:
    """Answer a refusal as problem+json, with WWW-Authenticate on 401 and Retry-After on 429 and 503.

    The fact `retry_after_s` sets Retry-After (whole seconds).
    """
    status = status_of(refusal)
    response = web.Response(
        body=write_json(problem_members(refusal, request.rel_url.raw_path)),
        status=status,
        headers={**SAFE_HEADERS, "Content-Type": MEDIA_TYPE, **(headers or {})},
    )
    if status == 401:
        response.headers["WWW-Authenticate"] = _challenge(refusal, request)
    if status in RETRY_AFTER_S:
        response.headers["Retry-After"] = str(refusal.facts.get("retry_after_s", RETRY_AFTER_S[status]))
    if status in (408, 413):
        response.force_close()
    return response
