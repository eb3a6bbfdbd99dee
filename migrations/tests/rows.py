"""A valid row for every table, made from the database's own catalogue.

So a new table or column is covered by the tests without a word here, unless a CHECK ties columns together.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import asyncpg

from eb_contracts.ids import new_id

NOW = datetime.now(UTC).replace(second=0, microsecond=0)
TABLES = """
    SELECT c.oid, n.nspname AS schema, c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname = ANY($1) ORDER BY c.oid
"""
COLUMNS = """
    SELECT a.attname AS name, format_type(a.atttypid, NULL) AS type, t.typtype::text AS kind,
           (SELECT min(enumlabel) FROM pg_enum WHERE enumtypid = t.oid AND enumsortorder =
               (SELECT min(enumsortorder) FROM pg_enum WHERE enumtypid = t.oid)) AS first_label
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum
"""
REFERENCES = """
    SELECT a.attname AS name, f.confrelid AS target, b.attname AS target_name
    FROM pg_constraint f, unnest(f.conkey, f.confkey) AS k (here, there),
         pg_attribute a, pg_attribute b
    WHERE f.conrelid = $1 AND f.contype = 'f' AND f.conparentid = 0
      AND a.attrelid = f.conrelid AND a.attnum = k.here AND b.attrelid = f.confrelid AND b.attnum = k.there
    UNION ALL SELECT name, to_regclass('auth.organization')::oid, 'org_id'
    FROM unnest(ARRAY['ancestor_org_id', 'descendant_org_id']) AS pair (name)
    WHERE $1 = to_regclass('auth.org_hierarchy')::oid
"""
"""Foreign keys; the closure table refers without one."""
CHECKS = "SELECT pg_get_constraintdef(oid) AS text FROM pg_constraint WHERE conrelid = $1 AND contype = 'c'"
CHOICE = re.compile(r"\((\w+) = ANY \(ARRAY\['([^']*)'")
BY_TYPE: dict[str, Any] = {
    "text": "x", "public.citext": "a@example.com", "citext": "a@example.com", "boolean": True, "integer": 1,
    "smallint": 1, "bigint": 1, "numeric": Decimal("1.5"), "bytea": b"x", "jsonb": "{}", "text[]": ["x"], "uuid[]": [],
    "integer[]": [50],
    "timestamp with time zone": NOW, "interval": None, "date": NOW.date(),
}  # fmt: skip
BY_NAME: dict[str, Any] = {
    "currency": "AUD", "country": "AU", "jurisdiction": "AU", "period": "2026-11", "org_slug": "org-1", "end_at": None,
    "assignments": "[]", "parent_org_id": None,
}  # fmt: skip
BY_COLUMN: dict[str, Any] = {
    "domain_verify.inbound_mail.outcome": "verified", "domain_verify.inbound_mail.raw": None,
    "domain_verify.inbound_mail.next_attempt_at": None,
    "ledger.ledger.net": Decimal(0), "ledger.partner_of_record.billing_account_id": None,
    "auth.org_link.status": "accepted", "auth.org_link.parent_org_id": new_id(),
    "auth.assist_session.status": "ended",
    "ledger.org_billing_mapping.percent": None, "auth.org_hierarchy.depth": 0, "catalog.tax_rate.rate": Decimal("0.5"),
    "pricing.charge.tax_rate": Decimal("0.5"), "pricing.counter.tax_rate": Decimal("0.5"),
    "domain_verify.domain_claim.domain": "example.com",
    "domain_verify.domain_claim.organizational_domain": "example.com",
}  # fmt: skip
"""Columns that a CHECK ties to others."""


@dataclass(frozen=True)
class Table:
    """A table of a service."""

    oid: int
    schema: str
    name: str

    @property
    def full_name(self) -> str:
        """Give `schema.table` as people write it."""
        return f"{self.schema}.{self.name}"

    @property
    def sql(self) -> str:
        """Give the quoted name."""
        return f'{self.schema}."{self.name}"'


async def tables(owner: asyncpg.Connection[Any], *schemas: str) -> list[Table]:
    """Give the tables of these schemas, partitions left out, the older first: those referred to come before."""
    return [Table(**row) for row in await owner.fetch(TABLES, list(schemas))]


async def numeric_columns(owner: asyncpg.Connection[Any], table: Table) -> list[str]:
    """Name the numeric columns of a table."""
    return [row["name"] for row in await owner.fetch(COLUMNS, table.oid) if row["type"] == "numeric"]


class Rows:
    """Makes rows that refer to those made before."""

    def __init__(self, owner: asyncpg.Connection[Any]) -> None:
        self._owner = owner
        self._made: dict[int, dict[str, Any]] = {}
        self._read: dict[tuple[str, int], list[asyncpg.Record]] = {}

    async def row(self, table: Table) -> dict[str, Any]:
        """Give a valid row of a table, not inserted yet."""
        checks = " ".join(row["text"] for row in await self._catalogue(CHECKS, table))
        choices = dict(reversed(CHOICE.findall(checks)))
        values = {
            row["name"]: self._value(table, row, choices)
            for row in await self._owner.fetch(COLUMNS, table.oid)
        }
        for reference in await self._catalogue(REFERENCES, table):
            if values[reference["name"]] is not None:
                values[reference["name"]] = self._made.get(reference["target"], {}).get(
                    reference["target_name"]
                )
        return values

    async def _catalogue(self, query: str, table: Table) -> list[asyncpg.Record]:
        if (query, table.oid) not in self._read:
            self._read[query, table.oid] = await self._owner.fetch(query, table.oid)
        return self._read[query, table.oid]

    def _value(self, table: Table, column: asyncpg.Record, choices: dict[str, str]) -> Any:
        name, kind = column["name"], column["type"]
        for known, key in ((BY_COLUMN, f"{table.full_name}.{name}"), (choices, name), (BY_NAME, name)):
            if key in known:
                return known[key]
        if column["kind"] == "e":
            return column["first_label"]
        return new_id() if kind == "uuid" else BY_TYPE[kind]

    async def insert(self, table: Table, **members: Any) -> dict[str, Any]:
        """Insert a valid row, with some members otherwise; later rows refer to it."""
        values = await self.row(table) | members
        names = ", ".join(f'"{name}"' for name in values)
        places = ", ".join(f"${at}" for at in range(1, len(values) + 1))
        await self._owner.execute(f"INSERT INTO {table.sql} ({names}) VALUES ({places})", *values.values())
        self._made.setdefault(table.oid, values)
        return values
