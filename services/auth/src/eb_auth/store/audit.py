"""The chains of audit entries, and the personal values that entries only commit to."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg

from eb_contracts.audit import AuditEntry
from eb_kit.tx import Tx

from ..domain.audit import HEAD, HEADS, Head, Link

ENTRY = (
    'audit_id, entity, entity_id, action, actor, on_behalf_of, session_user_name AS "session_user", request_id,'
    " trace_id, at, before::text AS before, after::text AS after"
)


class Sealed(NamedTuple):
    """A head as it is kept, with its seal."""

    head: Head
    seal: bytes


class Unnoted(NamedTuple):
    """A head that moved since it was noted, and the newest note of its chain: where, its hash, what is there now."""

    sealed: Sealed
    noted_seq: int
    noted: bytes
    found: bytes | None

    @property
    def continues(self) -> bool:
        """Tell whether the chain still holds what was noted."""
        return self.noted_seq == 0 or self.found == self.noted


async def list_chained(tx: Tx, audit_ids: Collection[UUID]) -> set[UUID]:
    """Give those of the entries that are in a chain already."""
    rows = await tx.fetch("SELECT audit_id FROM audit_chain WHERE audit_id = ANY($1)", list(audit_ids))
    return {row["audit_id"] for row in rows}


async def lock_heads(tx: Tx, chain_ids: Collection[UUID]) -> dict[UUID, Head]:
    """Lock the heads of chains until `tx` ends, in the order of their ids; new ones start empty."""
    await tx.execute(
        "INSERT INTO audit_chain_head (chain_id, seq, hash, seal)"
        " SELECT id, 0, decode(repeat('00', 32), 'hex'), '' FROM unnest($1::uuid[]) AS id ON CONFLICT DO NOTHING",
        sorted(chain_ids),
    )
    rows = await tx.fetch(
        "SELECT chain_id, seq, hash FROM audit_chain_head WHERE chain_id = ANY($1) ORDER BY chain_id FOR UPDATE",
        list(chain_ids),
    )
    return {row["chain_id"]: Head(UUID(int=row["chain_id"].int), row["seq"], row["hash"]) for row in rows}


async def insert_links(tx: Tx, chain_id: UUID, links: Sequence[Link]) -> None:
    """Keep new links of a chain."""
    entries = [link.entry for link in links]
    await tx.execute(
        "INSERT INTO audit_chain (chain_id, seq, audit_id, service, entity, entity_id, action, actor, on_behalf_of,"
        " session_user_name, request_id, trace_id, at, before, after, hash)"
        " SELECT $1, n.seq, n.audit_id, n.service, n.entity, n.entity_id, n.action, n.actor, n.on_behalf_of,"
        " n.session, n.request_id, n.trace_id, n.at, n.before::jsonb, n.after::jsonb, n.hash"
        " FROM unnest($2::bigint[], $3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],"
        " $10::text[], $11::text[], $12::text[], $13::timestamptz[], $14::text[], $15::text[], $16::bytea[])"
        " AS n (seq, audit_id, service, entity, entity_id, action, actor, on_behalf_of, session, request_id,"
        " trace_id, at, before, after, hash)",
        chain_id,
        [link.seq for link in links],
        [entry.audit_id for entry in entries],
        [link.service for link in links],
        *([getattr(entry, name) for entry in entries] for name in _TEXTS[:6]),
        *([getattr(entry, name) for entry in entries] for name in _TEXTS[6:]),
        [link.hash for link in links],
    )


_TEXTS = (
    "entity", "entity_id", "action", "actor", "on_behalf_of", "session_user",
    "request_id", "trace_id", "at", "before", "after",
)  # fmt: skip


async def update_heads(tx: Tx, heads: Sequence[Sealed]) -> None:
    """Move locked heads on."""
    await tx.executemany(
        "UPDATE audit_chain_head SET seq = $2, hash = $3, seal = $4 WHERE chain_id = $1",
        [(one.head.chain_id, one.head.seq, one.head.hash, one.seal) for one in heads],
    )


async def find_head(tx: Tx, chain_id: UUID) -> Sealed | None:
    """Give the head of a chain; None where nothing was ever chained."""
    row = await tx.fetchrow("SELECT seq, hash, seal FROM audit_chain_head WHERE chain_id = $1", chain_id)
    return Sealed(Head(chain_id, row["seq"], row["hash"]), row["seal"]) if row else None


async def take_heads_sealed_otherwise(tx: Tx, fingerprint: bytes, limit: int) -> list[Sealed]:
    """Take heads whose seal another key than this one made; those that somebody moves are left out."""
    rows = await tx.fetch(
        "SELECT chain_id, seq, hash, seal FROM audit_chain_head WHERE seq > 0 AND substring(seal FROM 1 FOR 4) <> $1"
        " ORDER BY chain_id LIMIT $2 FOR UPDATE SKIP LOCKED",
        fingerprint,
        limit,
    )
    return [Sealed(Head(UUID(int=row["chain_id"].int), row["seq"], row["hash"]), row["seal"]) for row in rows]


NOTE = f"""
    SELECT (after ->> 'seq')::bigint AS seq, decode(after ->> 'hash', 'hex') AS hash FROM audit_chain
     WHERE chain_id = '{HEADS}' AND entity = '{HEAD}' AND entity_id = {{}}::text ORDER BY audit_chain.seq DESC LIMIT 1
"""
UNNOTED = f"""
    SELECT h.*, coalesce(n.seq, 0) AS noted_seq, coalesce(n.hash, '') AS noted, c.hash AS found
      FROM (SELECT chain_id, seq, hash, seal FROM audit_chain_head WHERE anchored_seq < seq AND chain_id <> '{HEADS}'
               AND ($1::uuid IS NULL OR chain_id > $1) ORDER BY chain_id LIMIT $2 FOR UPDATE) AS h
      LEFT JOIN LATERAL ({NOTE.format("h.chain_id")}) AS n ON true
      LEFT JOIN audit_chain AS c ON c.chain_id = h.chain_id AND c.seq = n.seq ORDER BY h.chain_id
"""


async def lock_unnoted(tx: Tx, after: UUID | None, limit: int) -> list[Unnoted]:
    """Lock heads that moved since they were noted, in the order of their ids and behind one, until `tx` ends."""
    return [
        Unnoted(
            Sealed(Head(UUID(int=row["chain_id"].int), row["seq"], row["hash"]), row["seal"]),
            *(row[name] for name in ("noted_seq", "noted", "found")),
        )
        for row in await tx.fetch(UNNOTED, after, limit)
    ]


async def update_noted(tx: Tx, heads: Sequence[Head]) -> None:
    """Take heads off the list of those to be noted, until they move again."""
    await tx.execute(
        "UPDATE audit_chain_head AS h SET anchored_seq = n.seq FROM unnest($1::uuid[], $2::bigint[]) AS n (id, seq)"
        " WHERE h.chain_id = n.id",
        [head.chain_id for head in heads],
        [head.seq for head in heads],
    )


async def list_notes(tx: Tx, chain_id: UUID) -> set[tuple[int, bytes]]:
    """Give number and hash of the newest head that was noted of a chain; empty where none was."""
    return {(row["seq"], row["hash"]) for row in await tx.fetch(NOTE.format("$1"), str(chain_id))}


async def list_chains(tx: Tx, after: UUID | None, limit: int) -> list[UUID]:
    """Give the ids of chains in order, after one: those with a head, and those that a head was noted of."""
    rows = await tx.fetch(
        "(SELECT chain_id FROM audit_chain_head WHERE $1::uuid IS NULL OR chain_id > $1 ORDER BY chain_id LIMIT $2)"
        " UNION (SELECT DISTINCT entity_id::uuid FROM audit_chain WHERE chain_id = $3 AND entity = $4"
        " AND ($1::uuid IS NULL OR entity_id > $1::text) ORDER BY 1 LIMIT $2) ORDER BY 1 LIMIT $2",
        after,
        limit,
        HEADS,
        HEAD,
    )
    return [UUID(int=row["chain_id"].int) for row in rows]


async def list_links(tx: Tx, chain_id: UUID, after_seq: int, up_to: int, limit: int) -> list[Link]:
    """Give links of a chain in their order, after a number and up to another."""
    rows = await tx.fetch(
        f"SELECT seq, service, hash, {ENTRY} FROM audit_chain WHERE chain_id = $1 AND seq > $2"
        " AND seq <= $3 ORDER BY seq LIMIT $4",
        chain_id,
        after_seq,
        up_to,
        limit,
    )
    return [_link(chain_id, row) for row in rows]


async def list_newest_links(
    tx: Tx, chain_id: UUID, filters: Mapping[str, Any], before_seq: int | None, limit: int
) -> list[Link]:
    """Give a page of a chain's links, newest first.

    Filters (None for any): entity, entity_id, actor, action, service, start and end of `at` (half open).
    """
    rows = await tx.fetch(
        f"SELECT seq, service, hash, {ENTRY} FROM audit_chain"
        " WHERE chain_id = $1 AND ($2::bigint IS NULL OR seq < $2) AND ($3::text IS NULL OR entity = $3)"
        " AND ($4::text IS NULL OR entity_id = $4) AND ($5::text IS NULL OR actor = $5)"
        " AND ($6::text IS NULL OR action = $6) AND ($7::text IS NULL OR service = $7)"
        " AND ($8::timestamptz IS NULL OR at >= $8) AND ($9::timestamptz IS NULL OR at < $9)"
        " ORDER BY seq DESC LIMIT $10",
        chain_id,
        before_seq,
        *(filters[name] for name in ("entity", "entity_id", "actor", "action", "service", "start", "end")),
        limit,
    )
    return [_link(chain_id, row) for row in rows]


def _link(chain_id: UUID, row: asyncpg.Record) -> Link:
    members = dict(row)
    seq, service, digest = members.pop("seq"), members.pop("service"), members.pop("hash")
    return Link(
        seq, service, AuditEntry.trusted(org_id=chain_id if chain_id.int else None, **members), digest
    )


async def list_personal(
    tx: Tx, audit_ids: Collection[UUID]
) -> dict[UUID, dict[str, tuple[str | None, str | None]]]:
    """Give the personal values of entries that weren't erased: by entry, by column, before and after."""
    rows = await tx.fetch(
        "SELECT audit_id, name, before, after FROM audit_personal WHERE audit_id = ANY($1)", list(audit_ids)
    )
    found: dict[UUID, dict[str, tuple[str | None, str | None]]] = {}
    for row in rows:
        found.setdefault(row["audit_id"], {})[row["name"]] = (row["before"], row["after"])
    return found


async def delete_personal_of(tx: Tx, entity: str, entity_ids: Sequence[str]) -> int:
    """Erase the personal values of all entries about some things (owner only); give from how many entries."""
    done = await tx.execute(
        "DELETE FROM audit_personal AS p USING audit_entry AS e"
        " WHERE e.audit_id = p.audit_id AND e.entity = $1 AND e.entity_id = ANY($2)",
        entity,
        list(entity_ids),
    )
    return int(done.split()[-1])


async def delete_personal(tx: Tx, value: str) -> int:
    """Erase a personal value from all entries (owner only); give from how many."""
    done = await tx.execute("DELETE FROM audit_personal WHERE before = $1 OR after = $1", value)
    return int(done.split()[-1])
