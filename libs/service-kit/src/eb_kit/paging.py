"""Lists: opaque cursors, bound by an HMAC to the caller, the path and the filters.

Rule: docs/rules/http.md, Lists.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any, TypeVar
from uuid import UUID

from aiohttp import web
from pydantic import BaseModel

from eb_contracts.errors import Fault

from .access import caller_or_none
from .inputs import Page
from .problems import SAFE_HEADERS, ParameterInvalid, write_json
from .service import CONTEXT

V = TypeVar("V", bound=BaseModel)
MAC_BYTES = 16
_WRITERS: dict[type, tuple[str, Callable[[Any], Any]]] = {
    datetime: ("t", datetime.isoformat),
    date: ("d", date.isoformat),
    UUID: ("u", str),
    Decimal: ("n", str),
    str: ("s", str),
    int: ("i", int),
    type(None): ("0", lambda _: None),
}
_READERS: dict[str, Callable[[Any], Any]] = {
    "t": datetime.fromisoformat,
    "d": date.fromisoformat,
    "u": UUID,
    "n": Decimal,
    "s": str,
    "i": int,
    "0": lambda _: None,
}


def read_cursor(request: web.Request, query: Page) -> dict[str, Any] | None:
    """Give the last key of the page before, with the types it had; None on the first page.

    ParameterInvalid for a cursor that isn't ours, or was made for another caller or other filters.
    """
    if query.cursor is None:
        return None
    try:
        sealed = base64.urlsafe_b64decode(query.cursor + "=" * (-len(query.cursor) % 4))
    except (binascii.Error, ValueError):
        raise _bad_cursor() from None
    mac, payload = sealed[:MAC_BYTES], sealed[MAC_BYTES:]
    secrets = request.app[CONTEXT].settings.cursor_secret
    if not any(hmac.compare_digest(mac, _mac(request, query, payload, secret)) for secret in secrets):
        raise _bad_cursor()
    return {name: _READERS[kind](value) for name, (kind, value) in json.loads(payload).items()}


def page_of(
    request: web.Request, query: Page, items: Sequence[V], key_of_last: Callable[[V], Mapping[str, object]]
) -> web.Response:
    """Answer `{items, next_cursor}`. `items` holds up to `limit + 1` views, newest first: one more means
    there is a next page, which begins after `key_of_last` of the last one shown.
    """
    return web.Response(body=write_json(page_members(request, query, items, key_of_last)), headers=_HEADERS)


def page_members(
    request: web.Request, query: Page, items: Sequence[V], key_of_last: Callable[[V], Mapping[str, object]]
) -> dict[str, Any]:
    """Give the members of a page, for answers that hold more than items."""
    shown = items[: query.limit]
    has_more = len(items) > query.limit
    return {
        "items": [item.model_dump() for item in shown],
        "next_cursor": _write_cursor(request, query, key_of_last(shown[-1])) if has_more else None,
    }


_HEADERS = {**SAFE_HEADERS, "Content-Type": "application/json"}


def _write_cursor(request: web.Request, query: Page, key: Mapping[str, object]) -> str:
    tagged = {}
    for name, value in key.items():
        kind, write = next(entry for made, entry in _WRITERS.items() if isinstance(value, made))
        tagged[name] = (kind, write(value))
    payload = json.dumps(tagged, separators=(",", ":")).encode()
    newest = request.app[CONTEXT].settings.cursor_secret[0]
    return base64.urlsafe_b64encode(_mac(request, query, payload, newest) + payload).decode().rstrip("=")


def _mac(request: web.Request, query: Page, payload: bytes, secret: str) -> bytes:
    caller = caller_or_none(request)
    bound_to = write_json(
        {
            "caller": [caller.actor, caller.org_id] if caller else None,
            "path": request.rel_url.raw_path,
            "filters": query.model_dump(exclude={"limit", "cursor"}),
        }
    )
    return hmac.digest(secret.encode(), hashlib.sha256(bound_to).digest() + payload, "sha256")[:MAC_BYTES]


def _bad_cursor() -> ParameterInvalid:
    fault = Fault("/cursor", "cursor_invalid", "Not a cursor of this list, this caller and these filters.")
    return ParameterInvalid("The cursor can't be used here.", faults=(fault,))
