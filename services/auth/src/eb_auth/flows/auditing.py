"""The chains of the audit: extended, read, proved. Rule: docs/rules/identity.md, Audit."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from uuid import UUID

import structlog
from prometheus_client import Counter

from eb_contracts.audit import AuditEntry
from eb_kit.tx import Tx

from ..domain import audit
from ..domain.sealing import derived_key
from ..settings import Settings, settings_of
from ..store import audit as store

log = structlog.get_logger(__name__)

ROLLBACKS = Counter("eb_auth_audit_rollbacks_total", "Audit chains found that lack what was noted of them.")
AUDIT_PURPOSE = "audit chain"
LINKS_A_PAGE = 2_000
HEADS_A_BATCH = 500

Opener = Callable[[], AbstractAsyncContextManager[Tx]]


def audit_keys(settings: Settings) -> list[bytes]:
    """Give the keys of the seals of audit chains' heads, the one in use first; they aren't in the database."""
    return [derived_key(secret, AUDIT_PURPOSE) for secret in settings.auth_secret]


async def chain_entries(tx: Tx, entries: Sequence[tuple[str, AuditEntry]]) -> None:
    """Put audit entries (with their services) at the end of their chains, each once.

    Locks the heads of the chains in the order of their ids. Rule: docs/rules/identity.md, Audit.
    """
    waiting: dict[UUID, dict[UUID, tuple[str, AuditEntry]]] = {}
    for service, entry in entries:
        waiting.setdefault(audit.chain_of(entry), {})[entry.audit_id] = (service, entry)
    heads = await store.lock_heads(tx, waiting)
    chained = await store.list_chained(tx, [entry.audit_id for _, entry in entries])
    key, moved = audit_keys(settings_of(tx))[0], []
    for chain_id, head in heads.items():
        new = [waiting[chain_id][audit_id] for audit_id in sorted(waiting[chain_id].keys() - chained)]
        after, links = audit.extend(head, new)
        if links:
            await store.insert_links(tx, chain_id, links)
            moved.append(store.Sealed(after, audit.seal(key, after)))
    await store.update_heads(tx, moved)


async def chain_pages(open_tx: Opener, chain_id: UUID, up_to: int) -> AsyncIterator[list[audit.Link]]:
    """Give a chain in pages, oldest first, each read in a transaction of its own: memory stays constant."""
    after = 0
    while after < up_to:
        async with open_tx() as tx:
            links = await store.list_links(tx, chain_id, after, up_to, LINKS_A_PAGE)
        if not links:
            return
        yield links
        after = links[-1].seq


async def note_heads(tx: Tx, after: UUID | None = None) -> UUID | None:
    """Note the heads that moved in the chain of heads, and log that one's own head; some at once, behind a chain.

    Give the chain to go on behind, None at the end. A head whose chain lacks what was noted before, or that nobody
    sealed, isn't noted but logged as an error: the older note stays the newest, for the proof to find. Locks the chain
    of heads, then heads in the order of their ids.
    """
    own = (await store.lock_heads(tx, [audit.HEADS]))[audit.HEADS]
    moved = await store.lock_unnoted(tx, after, HEADS_A_BATCH)
    keys = audit_keys(settings_of(tx))
    good = [one.sealed.head for one in moved if one.continues and audit.is_sealed(*one.sealed, keys)]
    service = tx.context.service_name
    noted, links = audit.extend(own, [(service, audit.note_of(head, service, tx.now)) for head in good])
    if links:
        await store.insert_links(tx, audit.HEADS, links)
        await store.update_heads(tx, [store.Sealed(noted, audit.seal(keys[0], noted))])
        log.info("audit heads noted", chains=len(links), seq=noted.seq, hash=noted.hash.hex())
    for one in moved:
        if one.sealed.head not in good:
            ROLLBACKS.inc()
            log.error("audit chain rolled back", chain_id=str(one.sealed.head.chain_id), noted=one.noted_seq)
    await store.update_noted(tx, [one.sealed.head for one in moved])
    return moved[-1].sealed.head.chain_id if len(moved) == HEADS_A_BATCH else None


async def check_chain(
    open_tx: Opener, settings: Settings, chain_id: UUID, kept: Collection[tuple[int, bytes]] = ()
) -> tuple[audit.Head, audit.Problem | None]:
    """Compute every hash of a chain again, up to its sealed head; the head, and the first thing that is wrong.

    The chain must hold its newest noted head, and what the caller `kept`: numbers and hashes of entries.
    """
    async with open_tx() as tx:
        known = await store.list_notes(tx, chain_id) | set(kept)
        sealed = await store.find_head(tx, chain_id)
    head = sealed.head if sealed else audit.Head(chain_id)
    check = audit.Check(audit.Head(chain_id), frozenset(known))
    async for links in chain_pages(open_tx, chain_id, head.seq):
        check.follow(links)
    check.finish(head, sealed.seal if sealed else None, audit_keys(settings))
    return head, check.problem


async def reseal(tx: Tx) -> int:
    """Seal anew with the secret in use the heads that an older one sealed; give how many.

    A head whose seal no secret made stays as it is, for the proof to find.
    """
    newest, *older = audit_keys(settings_of(tx))
    found = await store.take_heads_sealed_otherwise(tx, audit.fingerprint(newest), HEADS_A_BATCH)
    good = [one.head for one in found if audit.is_sealed(one.head, one.seal, older)]
    await store.update_heads(tx, [store.Sealed(head, audit.seal(newest, head)) for head in good])
    return len(good)
