"""Checks of what is written: metadata against the database, no clock in SQL, docstrings of revisions."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from kit_metadata import add_kit_tables
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import create_async_engine

from eb_kit.testing_db import ClonedDatabase
from kit_tables import PARTITION_NAMES, SCHEMAS

from .rows import tables

KIT_TABLES = {
    "outbox", "inbox", "bus_dead_letter", "idempotency_key", "known", "read_model", "coherence_cursor", "sent_window",
    "audit_entry", "audit_waiting", "assist_request",
}  # fmt: skip
MIGRATIONS = Path(__file__).resolve().parents[1]
ROOT = MIGRATIONS.parent
CLOCK = re.compile(
    r"\b(now\s*\(\s*\)|current_timestamp|current_date|current_time|localtimestamp|localtime|clock_timestamp"
    r"|statement_timestamp|transaction_timestamp)\b",
    re.IGNORECASE,
)


@pytest.mark.parametrize("schema", SCHEMAS)
async def test_the_services_metadata_says_what_the_database_has(
    fresh_db: ClonedDatabase, schema: str
) -> None:
    metadata: MetaData = importlib.import_module(f"eb_{schema}.tables").metadata
    add_kit_tables(metadata)
    engine = create_async_engine(fresh_db.owner_dsn.replace("postgresql://", "postgresql+asyncpg://"))
    async with engine.connect() as connection:
        found = await connection.run_sync(differences, metadata, schema)
    await engine.dispose()
    assert found == []


def differences(connection: Any, metadata: MetaData, schema: str) -> list[Any]:
    def include_name(name: str | None, kind: str, _: object) -> bool:
        if kind == "schema":
            return name == schema
        return kind != "table" or name is None or PARTITION_NAMES.fullmatch(name) is None

    options = {"include_schemas": True, "include_name": include_name, "compare_type": True}
    return compare_metadata(MigrationContext.configure(connection, opts=options), metadata)


def texts_in(path: Path) -> list[str]:
    """Give the string literals of a module that are no docstrings."""
    tree = ast.parse(path.read_text())
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, documented)]
    loose = {id(line.value) for body in bodies for line in body if isinstance(line, ast.Expr)}
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in loose
    ]


def test_no_statement_asks_the_database_for_the_time() -> None:
    paths = [*ROOT.glob("services/*/src/**/*.py"), *ROOT.glob("libs/service-kit/src/**/*.py")]
    assert len(paths) > 50
    guilty = [str(path.relative_to(ROOT)) for path in paths if any(map(CLOCK.search, texts_in(path)))]
    assert guilty == []


async def test_no_default_asks_the_database_for_the_time(fresh_db: ClonedDatabase) -> None:
    owner = await asyncpg.connect(fresh_db.owner_dsn)
    rows = await owner.fetch(
        "SELECT adrelid::regclass::text AS at, pg_get_expr(adbin, adrelid) AS is FROM pg_attrdef"
    )
    await owner.close()
    assert len(rows) > 10
    assert [row["at"] for row in rows if CLOCK.search(row["is"])] == []


async def test_the_data_schema_page_names_every_table(fresh_db: ClonedDatabase) -> None:
    owner = await asyncpg.connect(fresh_db.owner_dsn)
    page = (ROOT / "docs" / "shards" / "02-data-schema.md").read_text().splitlines()
    for schema in SCHEMAS:
        (line,) = [line for line in page if line.startswith(f"| `{schema}` |")]
        named = set(line.split("|")[3].strip().split(", "))
        own = {table.name for table in await tables(owner, schema)} - KIT_TABLES
        assert named == own, schema
    await owner.close()


@pytest.mark.parametrize("path", sorted((MIGRATIONS / "versions").glob("*.py")), ids=lambda path: path.stem)
def test_a_revision_says_what_its_downgrade_can_not_keep(path: Path) -> None:
    tree = ast.parse(path.read_text())
    told = ast.get_docstring(tree) or ""
    assert "Downgrade:" in told
    assert "ot kept:" in told or "othing is lost" in told
    named = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert {"upgrade", "downgrade"} <= named
    assert path.stem.startswith("20250920_")
