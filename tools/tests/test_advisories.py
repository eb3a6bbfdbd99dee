"""The audit of pinned packages, with pip-audit itself and a small OSV server."""

from __future__ import annotations

import asyncio
import json
import zipfile
from collections.abc import AsyncIterator, Callable
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from aiohttp import web

from eb_tools import lint
from eb_tools.advisories import ALLOWED, PINNED, Allowed, judge, look, read_allowed, read_pins

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
    assert (wrong, "NOTHING WAS AUDITED" in sentence) == ([], True)

    monkeypatch.setenv("EB_AUDIT", "required")
    assert await asked(tmp_path) == ([sentence], sentence)


def write_file(folder: Path, *records: object) -> Path:
    """Make an archive as osv.dev publishes it."""
    place = folder / "all.zip"
    with zipfile.ZipFile(place, "w") as archive:
        for number, record in enumerate(records):
            archive.writestr(f"{number}.json", json.dumps(record))
    return place


def record(name: str = "thing", **changes: object) -> dict[str, object]:
    affected = {**ADVISORY["affected"][0], "package": {"name": name, "ecosystem": "PyPI"}}  # type: ignore[dict-item]
    return {**ADVISORY, "modified": "2026-11-20T10:00:00.5Z", "affected": [affected], **changes}


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[list[str], str]]:
    """Audit two pins by a file of these records, where nobody can be asked."""
    (tmp_path / "pinned.txt").write_text("Thing==1.0\ngood==1.0\n")
    (tmp_path / "allowed.yaml").write_text("allowed: []\n")

    def audited(*records: object, place: Path | None = None) -> tuple[list[str], str]:
        monkeypatch.setenv("EB_ADVISORIES", str(place or write_file(tmp_path, *records)))
        return look(TODAY, tmp_path / "pinned.txt", tmp_path / "allowed.yaml")

    return audited


FLASK = record("Flask", id="PYSEC-2018-66")


def test_a_file_of_advisories_is_as_good_as_asking(given: Callable[..., tuple[list[str], str]]) -> None:
    assert given(FLASK, record()) == (["thing 1.0: PYSEC-1-1, fixed in 2.0"], "")
    assert given(FLASK, record(withdrawn="2026-11-21T00:00:00Z"), record("another")) == ([], "")
    npm = [{"package": {"name": "thing", "ecosystem": "npm"}, "versions": ["1.0"]}]
    assert given(FLASK, record(affected=npm)) == ([], "")
    listed = [{"package": {"name": "thing", "ecosystem": "PyPI"}, "versions": ["1.0"]}]
    assert given(FLASK, record(affected=listed)) == (["thing 1.0: PYSEC-1-1, fixed in no release yet"], "")


def test_a_file_that_proves_nothing_fails(
    given: Callable[..., tuple[list[str], str]], tmp_path: Path
) -> None:
    (tmp_path / "note.txt").write_text("no archive")

    assert "doesn't know flask" in given(record())[0][0]
    assert "older than 7 days" in given({**FLASK, "modified": "2026-11-15T00:00:00Z"})[0][0]
    assert "neither a folder nor an archive" in given(place=tmp_path / "note.txt")[0][0]
    assert "No such file" in given(place=tmp_path / "missing.zip")[0][0]


@pytest.mark.parametrize(
    ("events", "hit"),
    [
        ([{"introduced": "0"}], True),
        ([{"introduced": "0"}, {"fixed": "1.0"}], False),
        ([{"introduced": "0"}, {"fixed": "0.9"}, {"introduced": "1.0"}, {"fixed": "1.1"}], True),
        ([{"introduced": "1.1"}], False),
        ([{"introduced": "0"}, {"last_affected": "1.0"}], True),
        ([{"introduced": "0"}, {"last_affected": "0.9"}], False),
        ([{"introduced": "not-a-version"}, {"fixed": "1.5"}], True),
    ],
)
def test_a_range_is_read_as_osv_means_it(
    events: list[dict[str, str]], hit: bool, given: Callable[..., tuple[list[str], str]]
) -> None:
    package = {"name": "thing", "ecosystem": "PyPI"}
    affected = [{"package": package, "ranges": [{"type": "ECOSYSTEM", "events": events}]}]

    assert bool(given(FLASK, record(affected=affected))[0]) is hit


def test_a_finding_fails_lint(
    given: Callable[..., tuple[list[str], str]], capsys: pytest.CaptureFixture[str]
) -> None:
    given(FLASK, record("aiohttp", affected=[{"package": {"name": "aiohttp", "ecosystem": "PyPI"},
        "versions": [read_pins(PINNED)["aiohttp"]]}], modified=datetime.now(UTC).isoformat()))  # fmt: skip

    assert lint.check("advisories") == 1
    assert "PYSEC-1-1" in capsys.readouterr().out


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
