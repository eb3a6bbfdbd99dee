"""Idempotency-Key: the answer is kept in the transaction that made it, so it exists exactly when its effect does.

Rule: docs/rules/http.md, Idempotency.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import structlog
from aiohttp import web

from eb_contracts.errors import Kind, Refusal

from .routing import ROUTE, Route

if TYPE_CHECKING:
    from .tx import Tx

log = structlog.get_logger(__name__)

HEADER = "Idempotency-Key"
KEPT = timedelta(hours=24)
FORGET_AT_ONCE = 1000
_KEY = re.compile(r"[\x21-\x7e]{1,255}\Z")
_KEPT_HEADERS = ("Content-Type", "Location", "ETag")

BODY: web.RequestKey[bytes] = web.RequestKey("eb_body", bytes)
CLAIMED: web.RequestKey[bool] = web.RequestKey("eb_claimed", bool)


class KeyRequired(Refusal):
    """This route moves money: without a key a retry could move it twice."""

    code = "idempotency_key_required"
    kind = Kind.MALFORMED
    title = "This request needs an Idempotency-Key."


class KeyInvalid(Refusal):
    """Not 1 to 255 visible ASCII characters."""

    code = "idempotency_key_invalid"
    kind = Kind.MALFORMED
    title = "An Idempotency-Key is 1 to 255 visible ASCII characters."


class KeyReused(Refusal):
    """The key came before with another request."""

    code = "idempotency_key_reused"
    kind = Kind.INVALID
    title = "This Idempotency-Key was used with another request."


class StillRunning(Refusal):
    """The first request with this key hasn't ended."""

    code = "idempotency_key_in_progress"
    kind = Kind.CONFLICT
    title = "A request with this Idempotency-Key is still running."


class AnswerNotRepeatable(Refusal):
    """The answer held a secret and wasn't kept."""

    code = "answer_not_repeatable"
    kind = Kind.CONFLICT
    title = "The request was done, and its answer cannot be shown again."


class Replayed(Exception):
    """Carries the kept answer past the handler to the edge."""

    def __init__(self, response: web.Response) -> None:
        super().__init__()
        self.response = response


@dataclass(frozen=True, slots=True)
class Claim:
    """A key that this transaction holds; `fingerprint` is a SHA-256 of the request and the caller's rights."""

    scope: str
    route: str
    key: str
    fingerprint: bytes
    stores_secret: bool


def key_of(request: web.Request) -> str | None:
    """Give the request's Idempotency-Key, None without one; raises KeyInvalid, and KeyRequired by the route."""
    route = request[ROUTE]
    if route.idempotency == "none":
        return None
    keys = request.headers.getall(HEADER, ())
    if not keys:
        if route.idempotency == "required":
            raise KeyRequired
        return None
    if len(keys) > 1 or not _KEY.match(keys[0]):
        raise KeyInvalid
    return keys[0]


def keep_body(request: web.Request, body: bytes) -> None:
    """Remember the body for the fingerprint, where the request has a key."""
    if HEADER in request.headers:
        request[BODY] = body


async def claim(tx: Tx, request: web.Request) -> Claim | None:
    """Hold the request's key until `tx` ends; None where the route or the request has none.

    Raises Replayed with the kept answer, KeyReused for another request, AnswerNotRepeatable, and
    StillRunning at once where another transaction holds the key: never a wait.
    """
    key = key_of(request)
    if key is None or request.get(CLAIMED):
        return None
    request[CLAIMED] = True
    made = _claim_of(tx, request, request[ROUTE], key)
    text = "/".join((tx.context.schema, made.scope, made.route, made.key))
    if not await tx.fetchval("SELECT pg_try_advisory_xact_lock(hashtextextended($1, 0))", text):
        raise StillRunning(retry_after_s=1)
    kept = await tx.fetchrow(
        "SELECT request_sha256, status, headers, body FROM idempotency_key"
        " WHERE scope = $1 AND route = $2 AND key = $3 AND created_at > $4",
        made.scope,
        made.route,
        made.key,
        tx.now - KEPT,
    )
    if kept is not None:
        _repeat(made, kept)
    return made


def _claim_of(tx: Tx, request: web.Request, route: Route, key: str) -> Claim:
    caller = tx.caller
    scope = f"org:{caller.org_id}" if caller and caller.org_id else tx.actor
    rights = sorted(caller.roles | caller.scopes) if caller else []
    head = "\n".join((request.method, request.rel_url.raw_path_qs, *rights, ""))
    fingerprint = hashlib.sha256(head.encode("utf-8", "surrogateescape") + request.get(BODY, b"")).digest()
    return Claim(scope, route.name, key, fingerprint, route.stores_secret)


def _repeat(made: Claim, kept: Any) -> None:
    if kept["request_sha256"] != made.fingerprint:
        raise KeyReused
    if kept["body"] is None:
        raise AnswerNotRepeatable
    raise Replayed(web.Response(status=kept["status"], headers=kept["headers"], body=kept["body"]))


async def remember(tx: Tx, made: Claim, response: web.Response | None) -> None:
    """Keep the answer for 24 h, in `tx`; of a route that answers a secret only that it was answered."""
    if response is None:
        log.error("a route with an Idempotency-Key gave no answer to keep", route=made.route)
        return
    body = None if made.stores_secret else bytes(response.body or b"")  # type: ignore[arg-type]
    await tx.execute(
        "INSERT INTO idempotency_key (scope, route, key, request_sha256, status, headers, body, created_at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (scope, route, key) DO UPDATE SET"
        " request_sha256 = excluded.request_sha256, status = excluded.status, headers = excluded.headers,"
        " body = excluded.body, created_at = excluded.created_at",
        made.scope,
        made.route,
        made.key,
        made.fingerprint,
        response.status,
        {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers},
        body,
        tx.now,
    )


async def forget_old_keys(tx: Tx) -> int:
    """Delete up to 1,000 keys older than 24 h; give how many. A job of every service."""
    tag = await tx.execute(
        "DELETE FROM idempotency_key WHERE (scope, route, key) IN (SELECT scope, route, key"
        " FROM idempotency_key WHERE created_at <= $1 LIMIT $2 FOR UPDATE SKIP LOCKED)",
        tx.now - KEPT,
        FORGET_AT_ONCE,
    )
    return int(tag.rpartition(" ")[2])
