"""Where a value stands: in which columns of all databases' tables, lines of all logs, files of the broker, metrics."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg

SERVICES = ("auth", "domain-verify", "catalog", "metering-ingest", "pricing", "ledger", "estimator")
LOGS = {f"logs/{name}.log" for name in (*SERVICES, "gateway", "supervisor", "migrate")} | {
    "postgres/server.log"
}
"""What every stack has; the broker's are called after its node."""

COLUMNS = """
    SELECT n.nspname AS schema, c.relname AS "table", a.attname AS "column", a.atttypid = 'bytea'::regtype AS is_bytes
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_type t ON t.oid = a.atttypid
    WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
      AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
      AND t.typcategory NOT IN ('N', 'D', 'B', 'T') AND a.atttypid <> 'uuid'::regtype
    ORDER BY 1, 2, a.attnum
"""
"""Whatever can hold text: all but numbers, times, booleans and ids."""


def pattern_of(value: str) -> str:
    """Give the regular expression of a value; short digits stand alone, or they would be found in other numbers."""
    return rf"(^|[^0-9A-Za-z]){value}([^0-9A-Za-z]|$)" if value.isdecimal() else re.escape(value)


def patterns_of(values: Iterable[str]) -> str:
    """Give the regular expression of any of these."""
    return "|".join(map(pattern_of, values))


async def text_columns(owner: asyncpg.Connection[Any]) -> dict[str, list[tuple[str, str]]]:
    """Give each table's columns that can hold text, as (name, SQL that reads it)."""
    found: dict[str, list[tuple[str, str]]] = {}
    for schema, table, column, is_bytes in await owner.fetch(COLUMNS):
        read = f"encode(\"{column}\", 'escape')" if is_bytes else f'"{column}"::text'
        found.setdefault(f'{schema}."{table}"', []).append((column, read))
    return found


async def columns_with(owner: asyncpg.Connection[Any], values: Mapping[str, str]) -> dict[str, set[str]]:
    """Give, for each value by its name, the columns that hold it, as `schema.table.column`.

    Every table is read once for all values together; only columns with some are asked for each.
    """
    found: dict[str, set[str]] = {name: set() for name in values}
    anything = patterns_of(values.values())
    for table, columns in (await text_columns(owner)).items():
        asked = ", ".join(f"bool_or({read} ~ $1)" for _, read in columns)
        for (column, read), holds in zip(
            columns, await owner.fetchrow(f"SELECT {asked} FROM {table}", anything) or (), strict=True
        ):
            for name, value in values.items() if holds else ():
                query = f"SELECT EXISTS (SELECT 1 FROM {table} WHERE {read} ~ $1)"
                if await owner.fetchval(query, pattern_of(value)):
                    found[name].add(f"{table}.{column}".replace('"', ""))
    return found


def log_files(run_dir: Path) -> dict[str, Path]:
    """Give every log of a stack by its name in the run's folder."""
    files = [*run_dir.glob("logs/*"), *run_dir.glob("postgres/*.log*"), *run_dir.glob("rabbitmq/log/*")]
    return {str(file.relative_to(run_dir)): file for file in files if file.is_file()}


def broker_files(run_dir: Path) -> list[Path]:
    """Give the files in which the broker keeps what is in its queues."""
    return [file for file in (run_dir / "rabbitmq" / "mnesia").rglob("*") if file.is_file()]


def files_with(files: Iterable[Path], values: Collection[str]) -> list[str]:
    """Give the lines (of logs; of others the beginnings) in which any of the values stands."""
    wanted = re.compile(patterns_of(values).encode())
    plain = [value.encode() for value in values]
    found = []
    for file in files:
        content = file.read_bytes()
        if any(value in content for value in plain):
            found += [
                f"{file.name}: {line[:200].decode(errors='replace')}"
                for line in content.splitlines()
                if wanted.search(line)
            ]
    return found


async def metrics(ports: Mapping[str, int]) -> dict[str, str]:
    """Give what every process shows to a collector of metrics, by its port's name."""
    shown = {}
    async with aiohttp.ClientSession() as http:
        for name, port in ports.items():
            if name.endswith(("-admin", "-metrics")):
                async with http.get(f"http://127.0.0.1:{port}/metrics") as answer:
                    shown[name] = await answer.text()
    return shown
