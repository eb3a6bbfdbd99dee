"""The audit of pinned packages, with pip-audit itself and a small OSV server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path

import pytest
from aiohttp import web

from eb_tools.advisories import ALLOWED, Allowed, judge, look, read_allowed

TODAY = date(2026, 11, 23)
ADVISORY = {
    "id": "PYSEC-1-1",
    "aliases": ["CVE-1-1"],
    "summary": "bad",
    "affected": [
        {
            "package": {"name": "thing", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "2.0"}]}],
        }
    ],
}
FOUND = [
    {
        "name": "thing",
        "version": "1.0",
        "vulns": [{"id": "PYSEC-1-1", "aliases": ["CVE-1-1"], "fix_versions": ["2.0"]}],
    },
    {"name": "good", "version": "1.0", "vulns": []},
]


class Osv:
    """Knows advisories by package name."""

    def __init__(self) -> None:
        self.known = {"flask": [{**ADVISORY, "id": "PYSEC-2018-66"}], "thing": [ADVISORY]}

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one query."""
        asked = json.loads(await request.read())["package"]["name"]
        return web.json_response({"vulns": self.known[asked]} if asked in self.known else {})


@pytest.fixture
async def osv(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Osv]:
    known = Osv()
    server = await asyncio.get_running_loop().create_server(web.Server(known.answer), "127.0.0.1", 0)
    monkeypatch.setenv("EB_OSV_URL", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/query")
    monkeypatch.setattr("eb_tools.advisories.SOURCES", ("osv",))
    (tmp_path / "pinned.txt").write_text("thing==1.0\ngood==1.0\n")
    (tmp_path / "allowed.yaml").write_text("allowed: []\n")
    yield known
    server.close()


async def asked(folder: Path) -> tuple[list[str], str]:
    return await asyncio.to_thread(look, TODAY, folder / "pinned.txt", folder / "allowed.yaml")


async def test_a_vulnerable_pin_is_found_and_may_be_borne_until_a_day(osv: Osv, tmp_path: Path) -> None:
    assert await asked(tmp_path) == (["thing 1.0: PYSEC-1-1, fixed in 2.0"], "")

    row = "{advisory: CVE-1-1, package: thing, reason: not reached, until: 2026-11-23}"
    (tmp_path / "allowed.yaml").write_text(f"allowed:\n  - {row}\n")
    assert await asked(tmp_path) == ([], "")


async def test_a_source_that_knows_nothing_is_no_proof(
    osv: Osv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    osv.known.clear()
    wrong, sentence = await asked(tmp_path)
    assert (wrong, "nothing was audited" in sentence) == ([], True)

    monkeypatch.setenv("EB_AUDIT", "required")
    assert await asked(tmp_path) == ([sentence], sentence)


def test_an_allowance_ends_and_must_serve_something() -> None:
    def row(**changes: object) -> Allowed:
        members = {"advisory": "PYSEC-1-1", "package": "thing", "reason": "r", "until": TODAY}
        return Allowed(**{**members, **changes})  # type: ignore[arg-type]

    assert judge(FOUND, [row()], TODAY) == []
    assert "was allowed until 2026-11-22" in judge(FOUND, [row(until=date(2026, 11, 22))], TODAY)[0]
    assert len(judge(FOUND, [row(package="another")], TODAY)) == 2
    assert judge([], [row()], TODAY) == ["PYSEC-1-1 (thing) is allowed and not found: take it off"]


def test_a_pin_that_nobody_knows_is_said() -> None:
    assert "nobody can say" in judge([{"name": "odd", "skip_reason": "not found"}], [], TODAY)[0]


def test_the_committed_allowances_can_be_read() -> None:
    assert all(row.reason for row in read_allowed(ALLOWED))
