"""`python -m eb_tools.migrate`: quick where nothing is to be done, and a sentence where it can't work."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eb_kit.testing_db import ClonedDatabase

HEAD = max(path.name[:11] for path in (Path(__file__).parents[1] / "versions").glob("2*.py"))


def migrate(dsn: str | None, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"}
    return subprocess.run(
        [sys.executable, "-m", "eb_tools.migrate", *arguments],
        env=environ | ({"DATABASE_URL": dsn} if dsn else {}),
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_database_at_head_is_left_alone_at_once(fresh_db: ClonedDatabase) -> None:
    started = time.monotonic()
    done = migrate(fresh_db.owner_dsn, "upgrade", "head")
    assert (done.returncode, done.stdout) == (0, f"the database is at {HEAD} already\n")
    assert time.monotonic() - started < 5


def test_a_database_behind_is_brought_to_head_whatever_its_address_says_of_tls(
    fresh_db: ClonedDatabase,
) -> None:
    dsn = f"{fresh_db.owner_dsn}{'&' if '?' in fresh_db.owner_dsn else '?'}sslmode=prefer"
    assert migrate(dsn, "downgrade", "20250920_05").returncode == 0
    assert migrate(dsn, "upgrade", "head").returncode == 0
    assert "already" in migrate(fresh_db.owner_dsn, "upgrade", "head").stdout


@pytest.mark.parametrize(
    ("dsn", "arguments", "sentence"),
    [
        (None, ("upgrade", "head"), "DATABASE_URL is not set"),
        ("postgresql://x@127.0.0.1:1/x", ("upgrade", "head"), "can't be used"),
        (None, ("sideways",), "usage:"),
    ],
)
def test_what_can_not_work_is_said_in_a_sentence(
    dsn: str | None, arguments: tuple[str, ...], sentence: str
) -> None:
    done = migrate(dsn, *arguments)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_database_or_revision_is_said_in_a_sentence(fresh_db: ClonedDatabase) -> None:
    for dsn, revision in ((f"{fresh_db.owner_dsn}_gone", "head"), (fresh_db.owner_dsn, "20250920_99")):
        done = migrate(dsn, "upgrade", revision)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
