"""Loading a provider's log: as it arrives, whole or not at all, once, in constant memory."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import time
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import psutil
import pytest
import zstandard

from eb_contracts.ids import new_id
from eb_kit import streaming
from eb_kit.jobs import run_once
from eb_kit.testing_db import ClonedDatabase
from eb_metering_ingest.jobs import jobs, reconciling

from .reconciled import HEADING, ask, line, load, reconcile
from .world import World, metering, until

MIB = 1024 * 1024
LINES = 1_000_000 if os.environ.get("EB_LONG") else 40_000
YESTERDAY = (datetime.now(UTC) - timedelta(days=1)).replace(hour=10, minute=0, second=0, microsecond=0)


async def loaded_rows(world: World) -> int:
    """How many rows count."""
    return int(
        await world.fetchval(
            "SELECT count(*) FROM provider_row JOIN provider_log USING (log_id) WHERE status = 'loaded'"
        )
    )


@asynccontextmanager
async def highest_memory() -> AsyncIterator[list[int]]:
    """Watch how much memory this process, which is service and client in one, holds at most meanwhile."""
    process, peak = psutil.Process(), [0]

    async def watch() -> None:
        while True:
            peak[0] = max(peak[0], process.memory_info().rss)
            await asyncio.sleep(0.02)

    watching = asyncio.create_task(watch())
    yield peak
    watching.cancel()


async def sweep(world: World, name: str) -> int:
    """Run a job until nothing is left."""
    (job,) = [job for job in jobs.jobs if job.name == name]
    taken = 0
    while found := await run_once(world.client.context, job):
        taken += found
    return taken


async def test_how_long_ago_a_provider_sent_its_newest_log_is_measured(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    async with metering(fresh_db, fresh_bus, doors=("api",)) as world:
        await sweep(world, "measure_logs")
        assert ages() == {}

        await load(world, (HEADING + line(world, "m-1", YESTERDAY.isoformat())).encode())
        await world.client.context.pool.execute(
            "UPDATE provider_log SET finished_at = finished_at - interval '2 days'"
        )
        await load(world, b"nothing of a log")
        await sweep(world, "measure_logs")

        assert list(ages().values()) == [pytest.approx(2 * 86_400, abs=60)]


def ages() -> dict[str, float]:
    """Give the gauge's value per provider."""
    return {one.labels["provider"]: one.value for one in reconciling.LOG_AGE.collect()[0].samples}


async def test_a_log_is_loaded_once_however_often_and_however_packed_it_comes(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    async with metering(fresh_db, fresh_bus, doors=("api",)) as world:
        stamp = YESTERDAY.isoformat()
        lines = [line(world, f"m-{n}", stamp) for n in range(5)] + [
            line(world, "m-x", stamp, quantity="0"),
            line(world, "m-y", "never"),
            "short\n",
        ]
        body = (HEADING + "".join(lines)).encode()
        status, first = await load(world, body)
        assert (status, first["rows"], first["rejected"]) == (202, 5, 3)
        for packed, encoding in (
            (gzip.compress(body), "gzip"),
            (zstandard.compress(body), "zstd"),
            (body, "identity"),
        ):
            status, again = await load(world, packed, **{"Content-Encoding": encoding})
            assert (status, again) == (202, first)
        assert await loaded_rows(world) == 5
        await sweep(world, "clear_logs")
        assert await world.fetchval("SELECT count(*) FROM provider_row") == 5

        _, page = await ask(world, "GET", "/metering/provider-logs")
        assert [item["status"] for item in page["items"]] == ["abandoned"] * 3 + ["loaded"]
        status, log = await ask(world, "GET", f"/metering/provider-logs/{first['log_id']}")
        assert log["rejects"] == [
            {"line": 7, "reason": "quantity_invalid"},
            {"line": 8, "reason": "time_invalid"},
            {"line": 9, "reason": "wrong_number_of_columns"},
        ]
        assert (log["status"], log["format"], log["rejected"]) == ("loaded", "rows", 3)


UNREADABLE: list[tuple[str, dict[str, str], bytes, tuple[int, str]]] = [
    ("", {"content_type": "text/csv"}, b"", (400, "log_empty")),
    ("", {"content_type": "text/csv"}, HEADING.encode(), (400, "log_empty")),
    ("", {"content_type": "text/plain"}, b"x", (415, "unsupported_media_type")),
    ("", {"Content-Encoding": "br"}, b"x", (415, "unsupported_media_type")),
    ("", {"Content-Encoding": "gzip"}, b"x", (400, "body_broken")),
    ("", {"Content-Encoding": "gzip"}, gzip.compress(b"a,b\n" * 99)[:-9], (400, "body_broken")),
    ("", {"Content-Encoding": "zstd"}, zstandard.compress(b"a,b\n" * 99)[:-3], (400, "body_broken")),
    ("", {"Content-Encoding": "zstd"}, b"", (400, "body_broken")),
    ("?format=other", {}, b"x", (400, "parameter_invalid")),
    ("?sku=sms", {}, b"x", (400, "parameter_invalid")),
    ("?places=MG1", {}, b"x", (400, "parameter_invalid")),
    ("?places=MG1:7:sms", {}, b"x", (400, "parameter_invalid")),
    ("?org_id=0199b1f0-0000-7000-8000-000000000001", {}, b"x", (404, "not_found")),
]  # fmt: skip


async def test_a_log_that_cant_be_read_is_refused(fresh_db: ClonedDatabase, fresh_bus: str) -> None:
    async with metering(fresh_db, fresh_bus, doors=("api",)) as world:
        for query, headers, body, expected in UNREADABLE:
            status, problem = await load(world, body, query, **headers)
            assert (status, problem["code"]) == expected, (query, headers, body)
        assert await loaded_rows(world) == 0


async def test_only_finance_operators_and_services_load_logs(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    async with metering(fresh_db, fresh_bus, doors=("api",)) as world:
        body = (HEADING + line(world, "m", YESTERDAY.isoformat())).encode()
        service = {"Authorization": f"Bearer {await world.client.api_key(None, kind='service')}"}
        for headers, expected in ((service, 202), ({"Authorization": f"Bearer {world.key}"}, 403)):
            url = world.client.url("/metering/provider-logs")
            headers = headers | {"Content-Type": "text/csv"}
            async with world.client.http.post(url, data=body, headers=headers) as answer:
                assert answer.status == expected
        assert (await ask(world, "GET", "/metering/provider-logs", role="Support"))[0] == 403


async def test_a_log_that_is_cut_off_counts_for_nothing(fresh_db: ClonedDatabase, fresh_bus: str) -> None:
    async with metering(fresh_db, fresh_bus, doors=("api",)) as world:
        context, stamp = world.client.context, YESTERDAY.isoformat()
        lines = "".join(line(world, f"m-{n}", stamp) for n in range(12_000))
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", int(world.client.base_url.rsplit(":", 1)[1])
        )
        del reader
        token = world.client.auth(roles=["Operator"])["Authorization"]
        head = f"POST /metering/provider-logs HTTP/1.1\r\nHost: x\r\nAuthorization: {token}\r\n"
        head += "Content-Type: text/csv\r\n"
        writer.write((head + "Content-Length: 99999999\r\n\r\n" + HEADING + lines).encode())
        await writer.drain()
        await until(lambda: world.fetchval("SELECT count(*) > 0 FROM provider_row"))
        writer.close()
        await until(lambda: world.fetchval("SELECT status = 'abandoned' FROM provider_log"))
        assert await loaded_rows(world) == 0
        run = await ask(
            world, "POST", "/metering/reconciliations",
            {"from": str(YESTERDAY.date()), "to": str(YESTERDAY.date() + timedelta(days=1))},
        )  # fmt: skip
        assert run[0] == 201
        for name in ("plan_reconciliations", "walk_slices", "announce_drifts", "clear_logs"):
            await sweep(world, name)
        assert await world.fetchval("SELECT sum(provider_messages) = 0 FROM reconciliation")
        assert await world.fetchval("SELECT count(*) FROM provider_row") == 0
        assert await world.fetchval("SELECT status FROM provider_log") == "cleared"
        assert context.pool.get_idle_size() >= 1


async def test_a_log_whose_process_died_is_given_up_after_a_while(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    async with metering(
        fresh_db, fresh_bus, doors=("api",), environ={"EB_PROVIDER_LOG_QUIET_S": "60"}
    ) as world:
        await load(world, [line(world, "m", YESTERDAY.isoformat())])
        await world.client.context.pool.execute(
            "UPDATE provider_log SET status = 'loading', heard_at = heard_at - interval '2 minutes'"
        )
        await sweep(world, "clear_logs")
        assert await world.fetchval("SELECT status FROM provider_log") == "cleared"
        assert await world.fetchval("SELECT count(*) FROM provider_row") == 0


async def test_a_slow_sender_is_cut_off_and_a_steady_one_is_not(
    fresh_db: ClonedDatabase, fresh_bus: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "IDLE_S", 0.3)
    monkeypatch.setattr(streaming, "GRACE_S", 0.5)
    async with metering(fresh_db, fresh_bus, doors=("api",)) as world:

        async def dribble(pause_s: float, size: int) -> AsyncIterator[bytes]:
            yield HEADING.encode()
            for n in range(12):
                await asyncio.sleep(pause_s)
                yield b"".join(line(world, f"m-{n}-{k}", YESTERDAY.isoformat()).encode() for k in range(size))

        codes = []
        for pause_s, size in ((0.6, 1), (0.1, 1), (0.1, 50)):
            media_type = {"Content-Type": "text/csv"}
            status, answer = await ask(
                world, "POST", "/metering/provider-logs", dribble(pause_s, size), **media_type
            )
            codes.append((status, answer.get("code")))
        assert codes == [(408, "request_timeout"), (408, "request_timeout"), (202, None)]


async def test_a_bomb_is_refused_before_it_is_inflated(
    fresh_db: ClonedDatabase, fresh_bus: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with metering(fresh_db, fresh_bus, doors=("api",)) as world:
        (route,) = [
            one for one in world.client.context.service.routes if one.name == "POST /metering/provider-logs"
        ]
        monkeypatch.setitem(route.__dict__, "body_limit", 8 * MIB)
        blanks = b" " * (64 * MIB)
        for packed, encoding in ((gzip.compress(blanks), "gzip"), (zstandard.compress(blanks), "zstd")):
            tracemalloc.start()
            status, problem = await load(world, packed, **{"Content-Encoding": encoding})
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert (status, problem["code"]) == (413, "body_too_large")
            assert peak < 40 * MIB


@pytest.mark.timeout(600)
async def test_a_long_log_takes_no_more_memory_than_a_short_one(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    async with metering(fresh_db, fresh_bus, doors=("api",)) as world:
        peaks = []
        for count in (LINES // 10, LINES):

            async def log(count: int = count) -> AsyncIterator[bytes]:
                yield HEADING.encode()
                for begin in range(0, count, 500):
                    yield "".join(
                        line(world, f"m-{n}", (YESTERDAY + timedelta(milliseconds=n)).isoformat())
                        for n in range(begin, min(begin + 500, count))
                    ).encode()

            started = time.perf_counter()
            async with highest_memory() as peak:
                status, answer = await ask(
                    world, "POST", "/metering/provider-logs", log(), **{"Content-Type": "text/csv"}
                )
            seconds = time.perf_counter() - started
            peaks.append(peak[0])
            assert (status, answer["rows"], answer["rejected"]) == (202, count, 0)
            print(f"{count} lines: {count / seconds:.0f} rows/s, resident {peaks[-1] / MIB:.1f} MiB")
        assert await loaded_rows(world) == LINES + LINES // 10
        assert peaks[1] < peaks[0] + 24 * MIB


async def test_newer_logs_correct_older_ones(fresh_db: ClonedDatabase, fresh_bus: str) -> None:
    async with metering(fresh_db, fresh_bus) as world:
        stamp, day = YESTERDAY.isoformat(), YESTERDAY.date()
        await load(world, [line(world, "m-1", stamp, "5"), line(world, "m-2", stamp)])
        await load(world, [line(world, "m-1", stamp, "2"), line(world, "m-3", stamp)])
        run = await reconcile(world, **{"from": str(day), "to": str(day + timedelta(days=1))})
        assert (run["provider_messages"], run["drift_messages"]) == (3, 3)
        assert await world.fetchval("SELECT provider_quantity FROM reconciliation_day") == 4


async def test_own_formats_are_loaded_with_their_places_and_once_even_at_once(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    async with metering(fresh_db, fresh_bus, doors=("api",)) as world:
        message = {
            "sid": "SM1", "account_sid": "AC1", "messaging_service_sid": "MG1", "status": "delivered",
            "direction": "outbound-api", "num_segments": "2", "date_sent": YESTERDAY.isoformat(), "body": "x\ny",
        }  # fmt: skip
        sent = [message | {"sid": f"SM{n}"} for n in range(40)]
        others = [message | {"status": "failed"}, message | {"messaging_service_sid": "MG2"}]
        page = json.dumps({"messages": [*sent, *others], "next_page_uri": None}).encode()
        query = (
            f"?format=twilio&places=MG1:{world.org_id}:sms.au:{world.project_id},MG9:{world.org_id}:sms.us"
        )
        headers = {"content_type": "application/json"}
        answers = await asyncio.gather(*(load(world, page, query, **headers) for _ in range(4)))
        assert len({json.dumps(answer) for answer in answers}) == 1
        assert answers[0][0] == 202
        assert await loaded_rows(world) == 40
        _, log = await ask(world, "GET", f"/metering/provider-logs/{answers[0][1]['log_id']}")
        assert (log["provider"], log["skipped"]) == ("twilio", 1)
        assert log["rejects"] == [{"line": 1, "reason": "org_id_missing"}]
        row = await world.client.context.pool.fetchrow("SELECT * FROM provider_row LIMIT 1")
        assert (row["org_id"], row["sku"], row["quantity"], row["project_id"]) == (
            world.org_id, "sms.au", 2, world.project_id,
        )  # fmt: skip


async def test_an_organisation_that_was_just_made_is_waited_for(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    async with metering(fresh_db, fresh_bus, doors=("api",)) as world:
        young, never = new_id(), new_id()

        async def hear() -> None:
            await asyncio.sleep(0.3)
            await world.client.org(org_id=young)

        lines = [
            line(world, f"m-{n}", YESTERDAY.isoformat(), org_id=str(org))
            for n, org in enumerate((young, never))
        ]
        (status, loaded), _ = await asyncio.gather(load(world, lines), hear())
        assert (status, loaded["rows"], loaded["rejected"]) == (202, 1, 1)
        _, log = await ask(world, "GET", f"/metering/provider-logs/{loaded['log_id']}")
        assert log["rejects"] == [{"line": 3, "reason": "org_id_unknown"}]
