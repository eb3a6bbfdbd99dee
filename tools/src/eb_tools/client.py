"""A small client of the platform's public API: used by the demo, the tests and the benches.

It knows the local run's mailbox, so that it can sign people up; everything else goes through the gateway.
"""

from __future__ import annotations

import asyncio
import email
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from email.message import Message
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import aiohttp
from yarl import URL

Json = dict[str, Any]


class ApiProblem(Exception):
    """The platform answered with a problem. `problem` is its body, `status` the HTTP status."""

    def __init__(self, method: str, path: str, status: int, problem: Any) -> None:
        super().__init__(f"{method} {path}: {status} {problem}")
        self.status = status
        self.problem = problem if isinstance(problem, dict) else {}
        self.code = str(self.problem.get("code", ""))


class TimedOut(Exception):
    """A condition didn't come true in time."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What `.run/credentials.json` says."""

    gateway_url: str
    operator_token: str
    finance_token: str
    support_token: str
    service_token: str
    mailbox_dir: Path
    values: Json

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read the file that a local run wrote."""
        values = json.loads(file.read_text())
        return cls(
            gateway_url=values["gateway_url"],
            operator_token=values["operator_token"],
            finance_token=values["finance_token"],
            support_token=values["support_token"],
            service_token=values["service_token"],
            mailbox_dir=Path(values["mailbox_dir"]),
            values=values,
        )


@dataclass
class Api:
    """Requests to one gateway. `on_exchange(method, path, body, status, answer)` watches them."""

    base_url: str
    http: aiohttp.ClientSession
    on_exchange: Callable[[str, str, object, int, object], None] | None = None

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        token: str | None = None,
        query: Mapping[str, object] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Send a request; give the parsed answer (decimals exact), None for 204. Raises ApiProblem."""
        sent = dict(headers or {})
        if token:
            sent["Authorization"] = f"Bearer {token}"
        data = None
        if body is not None:
            data, sent["Content-Type"] = json.dumps(body, default=str).encode(), "application/json"
        params = {key: str(value) for key, value in (query or {}).items() if value is not None}
        url = URL(self.base_url + path, encoded=True).extend_query(params)
        async with self.http.request(method, url, data=data, headers=sent) as answer:
            text = await answer.text()
            parsed = json.loads(text, parse_float=Decimal) if text else None
        if self.on_exchange is not None:
            self.on_exchange(method, path, body, answer.status, parsed)
        if answer.status >= 400:
            raise ApiProblem(method, path, answer.status, parsed)
        return parsed

    async def get(self, path: str, **kwargs: Any) -> Any:
        """GET."""
        return await self.call("GET", path, **kwargs)

    async def post(self, path: str, body: object = None, **kwargs: Any) -> Any:
        """POST."""
        return await self.call("POST", path, body, **kwargs)

    async def put(self, path: str, body: object, **kwargs: Any) -> Any:
        """PUT."""
        return await self.call("PUT", path, body, **kwargs)

    async def everything(
        self, path: str, *, token: str, query: Mapping[str, object] | None = None
    ) -> list[Json]:
        """Follow a list's cursors to its end."""
        items: list[Json] = []
        cursor: str | None = None
        while True:
            page = await self.get(path, token=token, query={**(query or {}), "limit": 200, "cursor": cursor})
            items += page["items"]
            if (cursor := page["next_cursor"]) is None:
                return items


@dataclass
class Person:
    """Somebody signed in; `token_for(org_id)` changes the context."""

    api: Api
    email: str
    user_id: str
    refresh_token: str
    access_token: str

    async def token_for(self, org_id: str | None = None) -> str:
        """Rotate the session and give an access token in this organisation's context."""
        body: Json = {"grant_type": "refresh_token", "refresh_token": self.refresh_token}
        if org_id is not None:
            body["org_id"] = org_id
        answer = await self.api.post("/auth/token", body)
        self.refresh_token, self.access_token = answer["refresh_token"], answer["access_token"]
        return self.access_token


@dataclass
class Mailbox:
    """The local run's folder of mails, one .eml each."""

    folder: Path
    seen: set[str] = field(default_factory=set)

    def newest(self, kind: str, to: str) -> Message | None:
        """Give the newest unread mail of this `X-EB-Kind` to this address."""
        for file in sorted(self.folder.glob("*.eml"), key=lambda f: f.stat().st_mtime_ns, reverse=True):
            if file.name in self.seen:
                continue
            mail = email.message_from_bytes(file.read_bytes())
            if mail["X-EB-Kind"] == kind and mail["To"] == to:
                self.seen.add(file.name)
                return mail
        return None


async def sign_in(api: Api, mailbox: Mailbox, address: str) -> Person:
    """Sign somebody in (up, if new) with the code that comes by mail."""
    await api.post("/auth/login", {"email": address})
    mail = await wait_for(lambda: _now(mailbox.newest("login_code", address)), f"a code for {address}")
    answer = await api.post("/auth/sessions", {"email": address, "code": mail["X-EB-Code"]})
    return Person(api, address, answer["user_id"], answer["refresh_token"], answer["access_token"])


async def _now(value: Any) -> Any:
    return value


async def wait_for(
    look: Callable[[], Awaitable[Any]], what: str, *, timeout_s: float = 30.0, every_s: float = 0.1
) -> Any:
    """Look again and again until the answer is true, and give it; raises TimedOut, naming `what`."""
    until = time.monotonic() + timeout_s
    while True:
        if answer := await look():
            return answer
        if time.monotonic() > until:
            raise TimedOut(f"waited {timeout_s:.0f} s for {what}")
        await asyncio.sleep(every_s)


async def usage_status(api: Api, token: str, org_id: str, request_id: str) -> Json | None:
    """Give what became of one event, None while it isn't recorded."""
    try:
        found = await api.get(
            f"/metering/events/{quote(request_id, safe='')}", token=token, query={"org_id": org_id}
        )
    except ApiProblem as problem:
        if problem.status == 404:
            return None
        raise
    return dict(found)
