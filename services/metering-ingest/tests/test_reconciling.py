"""Reconciliation on the real database: seeded drift of every kind, random sides, what is missing made events."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

from eb_contracts.metering import AcceptedEvent
from eb_kit.jobs import run_once
from eb_kit.testing_db import ClonedDatabase
from eb_metering_ingest import flows
from eb_metering_ingest.domain.reconciling import span_of
from eb_metering_ingest.domain.recording import Received
from eb_metering_ingest.jobs import jobs

from .reconciled import ask, done, drifts, line, load, reconcile, told
from .world import World, metering, until

SYDNEY = ZoneInfo("Australia/Sydney")
DAY = timedelta(days=1)
SMALL = {"EB_RECONCILE_BATCH": "100"}


def changed_day() -> date:
    """The last day on which Sydney's clocks were changed, two days ago or earlier."""
    day = datetime.now(UTC).date() - 2 * DAY
    while True:
        begins, ends = span_of(day, day + DAY, "Australia/Sydney")
        if ends - begins != DAY:
            return day
        day -= DAY


async def sydney(world: World) -> World:
    """The same world, its organisation by Sydney's clocks."""
    await world.client.org(
        zone="Australia/Sydney", org_id=(new := (await world.client.org(zone="Australia/Sydney")))
    )
    world.org_id = new
    world.project_id = await world.project()
    return world


async def record(world: World, *events: dict[str, Any]) -> int:
    """Record events as the writer does, of any age."""
    received = [
        Received(AcceptedEvent.model_validate(world.event(**event)), None, datetime.now(UTC), None)
        for event in events
    ]
    async with world.client.context.begin("system:test") as tx:
        return await flows.record_events(tx, received)


def event(request_id: str, time: str, quantity: str = "1", **members: Any) -> dict[str, Any]:
    """An event of a provider's message."""
    return {"request_id": request_id, "time": time, "quantity": quantity} | members


def found_of(found: Iterable[dict[str, Any]]) -> set[tuple[str, str, str, str]]:
    """Give (kind, id, day there, day here)."""
    return {(one["kind"], i, one["day"], one["metered_day"]) for one in found for i in one["sample_ids"]}


async def test_seeded_drift_of_every_kind_is_found_and_none_is_invented(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    async with metering(fresh_db, fresh_bus, environ=SMALL) as world:
        await sydney(world)
        day = changed_day()
        begins, ends = span_of(day, day + DAY, "Australia/Sydney")
        first, last = begins.isoformat(), (ends - timedelta(microseconds=1)).isoformat()
        before, after = (begins - timedelta(seconds=1)).isoformat(), ends.isoformat()
        noon = (begins + timedelta(hours=12)).isoformat()
        same = [f"same-{n}" for n in range(250)]
        lines = [
            *(line(world, m, noon) for m in same),
            line(world, "first", first), line(world, "last", last),
            line(world, "gone-here", first), line(world, "gone-here-2", last, "3"),
            line(world, "early", first), line(world, "late", last),
            line(world, "more", noon, "5"), line(world, "other", noon, sku="sms.us"),
            line(world, "twice", noon), line(world, "twice", noon), line(world, "voided", noon),
            line(world, "before", before), line(world, "after", after),
        ]  # fmt: skip
        assert (await load(world, lines))[1]["rejected"] == 0
        own = {"metadata": {"provider_message_id": "first"}}
        await record(
            world,
            *(event(m, noon) for m in same), event("mine", first, **own), event("last", last),
            event("gone-there", last), event("gone-there-2", first, "2"),
            event("early", before), event("late", after), event("more", noon), event("other", noon),
            event("twice", noon), event("voided", noon), event("before", before), event("after", after),
            event("elsewhere", noon, sku="form.submit"),
        )  # fmt: skip
        headers = world.client.auth(roles=["Admin"], org_id=world.org_id) | {
            "Content-Type": "application/json"
        }
        path = world.client.url(f"/metering/events/voided:void?org_id={world.org_id}")
        async with world.client.http.post(
            path, data=b'{"reason": "a test sends it"}', headers=headers
        ) as answer:
            assert answer.status == 200, await answer.text()

        run = await reconcile(world, **{"from": str(day), "to": str(day + DAY)})
        found, today = await drifts(world, run), str(day)
        yesterday, tomorrow = str(day - DAY), str(day + DAY)
        assert found_of(found) == {
            ("missing_here", "gone-here", today, today), ("missing_here", "gone-here-2", today, today),
            ("missing_there", "gone-there", today, today), ("missing_there", "gone-there-2", today, today),
            ("wrong_day", "early", today, yesterday), ("wrong_day", "late", today, tomorrow),
            ("wrong_quantity", "more", today, today), ("wrong_sku", "other", today, today),
            ("double_there", "twice", today, today), ("voided", "voided", today, today),
        }  # fmt: skip
        (here,) = [one for one in found if one["kind"] == "missing_here"]
        assert (here["messages"], here["provider_quantity"], here["metered_quantity"]) == (2, "4", "0")
        assert here["day_provider"] == {"messages": 259, "quantity": "265"}
        assert here["day_metered"] == {"messages": 257, "quantity": "258"}
        assert here["is_over_tolerance"]
        assert (run["drift_messages"], run["is_over_tolerance"]) == (9, True)
        assert {one["kind"]: one["messages"] for one in run["drifts"]}["missing_here"] == 2

        facts = await world.client.context.pool.fetch(
            "SELECT convert_from(body, 'utf8') FROM outbox WHERE type = 'metering_ingest.drift.found.v1'"
        )
        bodies = [json.loads(fact[0]) for fact in facts]
        assert {one["drift_id"] for one in bodies} == {one["drift_id"] for one in found}

        around = await reconcile(
            world, **{"from": yesterday, "to": str(day + 2 * DAY)}, org_id=str(world.org_id)
        )
        assert told(await drifts(world, around)) == told(found)
        quiet = await reconcile(world, **{"from": yesterday, "to": today})
        assert found_of(await drifts(world, quiet)) == {("wrong_day", "early", today, yesterday)}


async def test_random_sides_are_told_apart_exactly(fresh_db: ClonedDatabase, fresh_bus: str) -> None:
    async with metering(fresh_db, fresh_bus, environ=SMALL) as world:
        await sydney(world)
        day = changed_day()
        begins, ends = span_of(day, day + DAY, "Australia/Sydney")
        for seed in range(3):
            chance = random.Random(seed)
            edges = [begins, ends - timedelta(seconds=1), begins + timedelta(hours=chance.random() * 22)]
            lines, events, expected = [], [], set()
            for n in range(300):
                message_id, time = f"s{seed}-{n}", chance.choice(edges)
                text = time.isoformat()
                kind = chance.choice(
                    ["same"] * 20
                    + ["missing_here", "missing_there", "double_there", "wrong_day", "wrong_quantity"]
                )
                if kind != "missing_there":
                    lines += [line(world, message_id, text)] * (2 if kind == "double_there" else 1)
                moved = (
                    begins - timedelta(seconds=1) if time < begins + timedelta(hours=11) else ends
                ).isoformat()
                if kind != "missing_here":
                    events.append(
                        event(
                            message_id,
                            moved if kind == "wrong_day" else text,
                            "2" if kind == "wrong_quantity" else "1",
                        )
                    )
                if kind != "same":
                    expected.add((kind, message_id))
            chance.shuffle(lines)
            await load(world, lines)
            await record(world, *events)
            run = await reconcile(world, **{"from": str(day - DAY), "to": str(day + 2 * DAY)})
            seen = {one for one in told(await drifts(world, run)) if one[1].startswith(f"s{seed}-")}
            assert {(kind, i) for kind, i in seen} <= expected
            counted = {item["kind"]: item["messages"] for item in run["drifts"]}
            assert sum(counted.values()) >= len(expected)
            if seed == 0:
                assert counted == {
                    kind: sum(one[0] == kind for one in expected) for kind in {one[0] for one in expected}
                }


async def test_missing_messages_become_events_once_even_if_the_real_one_comes_later(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    async with metering(fresh_db, fresh_bus, environ=SMALL) as world:
        yesterday = (datetime.now(UTC) - DAY).replace(hour=10, minute=0, second=0, microsecond=0)
        stamp, days = (
            yesterday.isoformat(),
            {"from": str(yesterday.date()), "to": str(yesterday.date() + DAY)},
        )
        await load(world, [line(world, f"m-{n}", stamp, "2") for n in range(230)])
        await record(world, event("m-0", stamp, "2"))
        run = await reconcile(world, **days)
        fill = f"/metering/reconciliations/{run['reconciliation_id']}:fill"
        assert (await ask(world, "POST", fill, {"project_id": str(world.project_id)}))[0] == 422
        status, _ = await ask(world, "POST", fill, {})
        assert status == 202
        filled = await done(world, run["reconciliation_id"])
        assert (filled["filled"], filled["unfilled"]) == (0, 229)

        body = {"org_id": str(world.org_id), "project_id": str(world.project_id)}
        answers = await asyncio.gather(*(ask(world, "POST", fill, body) for _ in range(4)))
        assert sorted(status for status, _ in answers) == [202, 409, 409, 409]
        filled = await done(world, run["reconciliation_id"])
        assert filled["filled"] == 229
        again = await reconcile(world, **days)
        assert (again["drift_messages"], again["metered_events"]) == (0, 230)

        event_view = await world.recorded("m-7")
        assert (event_view["source"], event_view["metadata"]["provider"]) == ("replay", "acme")
        real = [
            world.event(request_id="m-7", time=stamp, quantity="2"),
            world.event(request_id="m-8", time=stamp),
        ]
        assert (await world.send(real))[0] == 202
        await until(
            lambda: world.fetchval("SELECT sum(duplicates) = 1 AND sum(conflicts) = 1 FROM event_key")
        )
        assert await world.fetchval("SELECT sum(quantity) FROM metering_event") == 460
        usage = await world.client.context.pool.fetch(
            "SELECT convert_from(body, 'utf8') FROM outbox WHERE type = 'metering_ingest.usage.recorded.v1'"
        )
        sent = [record for row in usage for record in json.loads(row[0])["usage"]]
        assert sum(Decimal(one["quantity"]) for one in sent) == 460
        assert (await ask(world, "POST", fill, body))[0] == 202
        assert (await done(world, run["reconciliation_id"]))["filled"] == 229


async def test_a_night_is_reconciled_once_and_only_where_logs_reach(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    environ = SMALL | {"EB_RECONCILE_HOUR": "0", "EB_RECONCILE_DAYS": "5"}
    async with metering(fresh_db, fresh_bus, doors=("api",), environ=environ) as world:
        noon = (datetime.now(UTC) - 3 * DAY).replace(hour=12)
        await load(world, [line(world, "m-1", noon.isoformat()), line(world, "gone", noon.isoformat())])
        times = (noon, noon + timedelta(hours=1), noon + DAY, noon - DAY)
        await record(world, *(event(f"m-{n}", time.isoformat()) for n, time in enumerate(times, 1)))
        for name in (
            "begin_nightly",
            "begin_nightly",
            "plan_reconciliations",
            "walk_slices",
            "announce_drifts",
        ):
            (job,) = [job for job in jobs.jobs if job.name == name]
            while await run_once(world.client.context, job):
                pass
        _, page = await ask(world, "GET", "/metering/reconciliations")
        (run,) = page["items"]
        assert (run["status"], run["asked_by"]) == ("done", "system:metering-ingest")
        entries = "SELECT array_agg(action || ' ' || entity) FROM audit_entry"
        assert await world.fetchval(entries) == ["update provider_log"]
        assert told(await drifts(world, run)) == {("missing_here", "gone"), ("missing_there", "m-2")}


async def test_reconciling_is_for_finance_and_operators(fresh_db: ClonedDatabase, fresh_bus: str) -> None:
    async with metering(fresh_db, fresh_bus, doors=("api",)) as world:
        today = datetime.now(UTC).date()
        days = {"from": str(today - DAY), "to": str(today)}
        assert (await ask(world, "POST", "/metering/reconciliations", days, role="Support"))[0] == 403
        for begin, code in (
            ("0001-01-01", "time_too_old"),
            ("9999-12-30", "time_in_future"),
            ("2020-02-01", "time_too_old"),
        ):
            day = date.fromisoformat(begin)
            status, problem = await ask(
                world, "POST", "/metering/reconciliations", {"from": begin, "to": str(day + DAY)}
            )
            assert (status, problem["errors"][0]["code"]) == (422, code)
        for body in (
            {"from": "2026-11-02", "to": "2026-11-02"},
            {"from": "2026-10-01", "to": "2026-11-20"},
            {},
        ):
            assert (await ask(world, "POST", "/metering/reconciliations", body))[0] == 422
        unknown = {"org_id": "0199b1f0-0000-7000-8000-000000000001"}
        assert (await ask(world, "POST", "/metering/reconciliations", days | unknown))[0] == 404
        path = "/metering/reconciliations/0199b1f0-0000-7000-8000-000000000001"
        assert (await ask(world, "GET", f"{path}/drifts"))[0] == 404
        assert (await ask(world, "POST", f"{path}:fill", {}))[0] == 404
        status, run = await ask(world, "POST", "/metering/reconciliations", days, role="Operator")
        assert (status, run["from"], run["to"], run["drifts"]) == (201, days["from"], days["to"], [])
        assert (await ask(world, "POST", f"/metering/reconciliations/{run['reconciliation_id']}:fill", {}))[
            0
        ] == 409
