"""What each process keeps in memory of the read model: organisations, keys, signing keys, revocations.

Loaded at start and refreshed every 300 ms from the rows of `known` that changed in the last 10 s.
Rule: docs/rules/bus.md, Read models.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import asyncpg
import structlog

from eb_contracts.ids import made_at

from .clock import Clock
from .db import WEATHER
from .policy import GROUP_ROLES, ORG_ROLES
from .touch import DATABASE, Touch

log = structlog.get_logger(__name__)

REFRESH_S = 0.3
ASK_S = 2.0
LOOK_BACK = timedelta(seconds=10)
YOUNG = timedelta(seconds=10)
WAIT_S = 2.0
POLL_S = 0.05
MOST_WAITING = 200
MOST_WAITING_EACH = 5
Found = TypeVar("Found")
MEMBERS_ROLES = ORG_ROLES | GROUP_ROLES
ENTITIES = ("org", "api_key", "signing_key", "revocation")


class Org(NamedTuple):
    """An organisation as far as access and periods need it."""

    org_id: UUID
    parent_org_id: UUID | None
    default_timezone: str
    country: str


class ApiKey(NamedTuple):
    """A live machine credential; `org_id` is None for a trusted system's."""

    key_id: UUID
    kind: str
    org_id: UUID | None
    name: str
    scopes: frozenset[str]
    expires_at: datetime | None


class Directory:
    """The in-memory copy. Synchronous look-ups see what was refreshed last; `find_…` waits for young ids."""

    def __init__(self, clock: Clock, touch: Touch) -> None:
        self._clock = clock
        self._touch = touch
        self._pool: asyncpg.Pool[Any] | None = None
        self._orgs: dict[UUID, Org] = {}
        self._keys: dict[str, ApiKey] = {}
        self._digests: dict[UUID, str] = {}
        self._signing_keys: dict[str, str] = {}
        self._revoked: dict[str, float] = {}
        self._waiting: dict[str, int] = {}
        self._awaited: dict[tuple[str, str], asyncio.Task[None]] = {}
        self.refreshed_at: datetime | None = None

    async def load(self, pool: asyncpg.Pool[Any]) -> None:
        """Read everything once; raises the weather of the database."""
        self._pool = pool
        started, asked_at = self._clock.machine_now(), time.monotonic()
        async with pool.acquire() as connection, connection.transaction(readonly=True):
            async for row in connection.cursor(
                "SELECT entity, entity_id, is_deleted, body FROM known WHERE entity = ANY($1)",
                ENTITIES,
                prefetch=2000,
            ):
                self._take(row)
        self.refreshed_at = started
        self._touch.note(DATABASE, asked_at)

    async def refresh_for_ever(self) -> None:
        """Follow the changes, every 300 ms, and as soon as the database is back where it was away."""
        while True:
            await asyncio.sleep(REFRESH_S)
            try:
                await self.refresh()
            except WEATHER as error:
                log.warning("what changed can't be read", error=repr(error))

    async def refresh(self) -> None:
        """Read what changed since 10 s before the last refresh."""
        if self._pool is None or self.refreshed_at is None:
            return
        started, asked_at = self._clock.machine_now(), time.monotonic()
        rows = await self._ask(
            "SELECT entity, entity_id, is_deleted, body FROM known WHERE changed_at > $1 AND entity = ANY($2)",
            self.refreshed_at - LOOK_BACK,
            ENTITIES,
        )
        for row in rows:
            self._take(row)
        self.refreshed_at = started
        self._touch.note(DATABASE, asked_at)

    def _take(self, row: Any) -> None:
        _TAKERS[row["entity"]](self, row["body"], row["is_deleted"])

    def _take_org(self, body: Mapping[str, Any], is_deleted: bool) -> None:
        org_id = UUID(body["org_id"])
        if is_deleted:
            self._orgs.pop(org_id, None)
            return
        parent = body["parent_org_id"]
        self._orgs[org_id] = Org(
            org_id, UUID(parent) if parent else None, body["default_timezone"], body["country"]
        )

    def _take_api_key(self, body: Mapping[str, Any], is_deleted: bool) -> None:
        key_id = UUID(body["key_id"])
        self._keys.pop(self._digests.pop(key_id, ""), None)
        if is_deleted or body["revoked_at"] is not None:
            return
        org_id, expires_at = body["org_id"], body["expires_at"]
        self._digests[key_id] = body["secret_sha256"]
        self._keys[body["secret_sha256"]] = ApiKey(
            key_id,
            body["kind"],
            UUID(org_id) if org_id else None,
            body.get("name") or "",
            frozenset(body["scopes"]),
            datetime.fromisoformat(expires_at) if expires_at else None,
        )

    def _take_signing_key(self, body: Mapping[str, Any], is_deleted: bool) -> None:
        if is_deleted or body["retired_at"] is not None:
            self._signing_keys.pop(body["kid"], None)
        else:
            self._signing_keys[body["kid"]] = body["x"]

    def _take_revocation(self, body: Mapping[str, Any], is_deleted: bool) -> None:
        if is_deleted:
            self._revoked.pop(body["subject_key"], None)
        else:
            self._revoked[body["subject_key"]] = datetime.fromisoformat(body["not_before"]).timestamp()

    def org(self, org_id: UUID) -> Org | None:
        """Give a known organisation."""
        return self._orgs.get(org_id)

    def ancestors(self, org_id: UUID) -> Iterator[Org]:
        """Walk from the organisation itself to its root."""
        seen: set[UUID] = set()
        here = self._orgs.get(org_id)
        while here is not None and here.org_id not in seen:
            seen.add(here.org_id)
            yield here
            here = self._orgs.get(here.parent_org_id) if here.parent_org_id else None

    def is_ancestor_or_self(self, ancestor_id: UUID, org_id: UUID) -> bool:
        """Tell whether `ancestor_id` is the organisation or stands above it."""
        return any(org.org_id == ancestor_id for org in self.ancestors(org_id))

    async def roles_of(self, user_id: UUID, org_id: UUID, connection: Any = None) -> frozenset[str]:
        """Give somebody's membership role in an organisation and the group roles that reach it, in any context.

        One look-up by key, as long for an organisation that nobody knows: memberships stay in the table, since
        only requests outside of their token's context ask. `connection` spares a second one inside a Tx. Platform
        roles are in tokens only: no fact gives them.
        """
        if (source := connection or self._pool) is None:
            return frozenset()
        above = [org.org_id for org in self.ancestors(org_id)] or [org_id]
        rows = await source.fetch(
            "SELECT body FROM known WHERE entity = 'member' AND entity_id = ANY($1) AND NOT is_deleted",
            [f"{each}:{user_id}" for each in above],
        )
        return frozenset(
            role
            for body in (row["body"] for row in rows)
            for role in (body["group_role"], body["role"] if body["org_id"] == str(org_id) else None)
            if role in MEMBERS_ROLES
        )

    def key_by_digest(self, digest: str) -> ApiKey | None:
        """Give the live key of this SHA-256 (hex); expiry is the caller's to judge."""
        return self._keys.get(digest)

    def signing_key(self, kid: str) -> str | None:
        """Give the public key (RFC 8037 `x`) of a live signing key."""
        return self._signing_keys.get(kid)

    def is_revoked(self, subject_key: str, issued_at: float) -> bool:
        """Tell whether what was issued at this instant (Unix seconds) about the subject is void."""
        return issued_at <= self._revoked.get(subject_key, float("-inf"))

    async def find_org(self, org_id: UUID, waiter: str) -> Org | None:
        """Give the organisation, waiting up to 2 s for one whose id is younger than 10 s."""
        return await self._find(lambda: self._orgs.get(org_id), "org", org_id, waiter)

    async def find_key(self, digest: str, key_id: UUID, waiter: str) -> ApiKey | None:
        """Give the live key of this digest, waiting as `find_org` does."""
        return await self._find(lambda: self._keys.get(digest), "api_key", key_id, waiter)

    async def find_right(
        self, look: Callable[[], frozenset[str]], org_id: UUID, waiter: str
    ) -> frozenset[str]:
        """Give what somebody goes by towards an organisation, waiting as `find_org` does while that is nothing.

        A young organisation that is known and stays hidden is waited for just as long as one that nobody knows.
        """
        if (names := look()) or not self.is_young(org_id):
            return names
        until = asyncio.get_running_loop().time() + WAIT_S
        if await self.find_org(org_id, waiter) is None or not self._has_room(waiter):
            return look()
        with self._counted(waiter):
            while not (names := look()) and asyncio.get_running_loop().time() < until:  # noqa: ASYNC110
                await asyncio.sleep(POLL_S)
        return names

    async def _find(
        self, look: Callable[[], Found | None], entity: str, entity_id: UUID, waiter: str
    ) -> Found | None:
        """Look, and wait for a young id. All who want the same one wait together and count as one."""
        if (found := look()) is not None or not self.is_young(entity_id):
            return found
        key = (entity, str(entity_id))
        if key not in self._awaited and await self._read_one(*key):
            return look()
        if key not in self._awaited:
            if not self._has_room(waiter):
                return None
            self._awaited[key] = asyncio.create_task(self._wait(key, waiter))
        await asyncio.shield(self._awaited[key])
        return look()

    async def _wait(self, key: tuple[str, str], waiter: str) -> None:
        """Read until it is known, 2 s at most; bad weather ends it, too."""
        until = asyncio.get_running_loop().time() + WAIT_S
        try:
            with self._counted(waiter):
                is_known = False
                while not is_known and asyncio.get_running_loop().time() < until:
                    await asyncio.sleep(POLL_S)
                    is_known = await self._read_one(*key)
        except WEATHER as error:
            log.warning("a young id can't be looked up", error=repr(error))
        finally:
            del self._awaited[key]

    @contextmanager
    def _counted(self, waiter: str) -> Iterator[None]:
        self._waiting[waiter] = self._waiting.get(waiter, 0) + 1
        try:
            yield
        finally:
            self._waiting[waiter] -= 1
            if not self._waiting[waiter]:
                del self._waiting[waiter]

    def is_young(self, entity_id: UUID) -> bool:
        """Tell whether an id was made so lately that its fact may be under way yet."""
        born = made_at(entity_id)
        return born is not None and abs(self._clock.machine_now() - born) < YOUNG

    def _has_room(self, waiter: str) -> bool:
        return sum(self._waiting.values()) < MOST_WAITING and self._waiting.get(waiter, 0) < MOST_WAITING_EACH

    async def _read_one(self, entity: str, entity_id: str) -> bool:
        if self._pool is None:
            return False
        rows = await self._ask(
            "SELECT entity, entity_id, is_deleted, body FROM known WHERE entity = $1 AND entity_id = $2",
            entity,
            entity_id,
        )
        for row in rows:
            self._take(row)
        return bool(rows)

    async def _ask(self, sql: str, *args: object) -> list[asyncpg.Record]:
        """Give rows within a bounded time; a hung database would keep a connection's return waiting, too."""
        assert self._pool is not None
        async with self._pool.acquire(timeout=ASK_S) as connection:
            return list(await connection.fetch(sql, *args, timeout=ASK_S))


_TAKERS = {
    "org": Directory._take_org,
    "api_key": Directory._take_api_key,
    "signing_key": Directory._take_signing_key,
    "revocation": Directory._take_revocation,
}
