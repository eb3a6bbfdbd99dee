"""Usage alerts: ordinary weeks raise none; a spike and a silent stop raise one each, and say why."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from eb_contracts.ids import new_id, partition_of
from eb_contracts.pricing import Charge, ChargePriced, CounterState
from eb_kit.jobs import run_once
from eb_kit.testing_db import ClonedDatabase
from eb_metering_ingest.domain.alerts import (
    HOUR,
    WEEK,
    Finding,
    Hour,
    Past,
    Rule,
    hours_needed,
    hours_of,
    is_highest,
    judge,
    next_hour,
)
from eb_metering_ingest.jobs import jobs
from eb_metering_ingest.store import alerts as store

from .world import World, metering, until

RULE = Rule(weeks=6, least_weeks=3, least_events=50)
MONDAY = datetime(2026, 11, 2, tzinfo=UTC)
FIRST = MONDAY - 8 * WEEK


def ordinary(hour: datetime, chance: random.Random, scale: float = 400.0) -> int:
    """A working week: busy by day, quiet at night and at weekends, with noise."""
    is_day, is_weekend = 8 <= hour.hour < 20, hour.weekday() >= 5
    level = scale * (1.0 if is_day else 0.1) * (0.3 if is_weekend else 1.0)
    return max(0, round(chance.gauss(level, level * 0.15)))


def series(
    seed: int,
    until_: datetime,
    change: Callable[[datetime, int], int] = lambda _, value: value,
    scale: float = 400.0,
) -> dict[datetime, Hour]:
    """Hours from the first on; hours without usage are left out."""
    chance, hours, hour = random.Random(seed), {}, FIRST
    while hour < until_:
        if value := change(hour, ordinary(hour, chance, scale)):
            hours[hour] = Hour(Decimal(value), value)
        hour += HOUR
    return hours


def past_of(hours: dict[datetime, Hour], hour: datetime) -> Past:
    """All hours of the weeks before one, as the store looks at them."""
    past = {at: one.quantity for at, one in hours.items() if hour - 6 * WEEK <= at < hour}
    highest = sorted(past.values(), reverse=True)
    return Past(
        len({(hour - at - HOUR) // WEEK for at in past}), highest[10] if len(highest) > 10 else Decimal(0)
    )


def judged(hours: dict[datetime, Hour], begin: datetime, end: datetime) -> list[tuple[datetime, Finding]]:
    """Judge hour by hour, the second look of spikes included."""
    found, hour = [], begin
    while hour < end:
        finding = judge(hour, FIRST, hours, RULE)
        if finding and (finding.kind == "stop" or is_highest(finding, past_of(hours, hour), RULE)):
            found.append((hour, finding))
        hour += HOUR
    return found


def test_a_late_event_of_long_ago_is_no_history() -> None:
    hours = {MONDAY + n * HOUR: Hour(Decimal(500), 500) for n in range(72)} | {FIRST: Hour(Decimal(1), 1)}
    assert judge(MONDAY, FIRST, hours, RULE) is not None
    assert judged(hours, MONDAY, MONDAY + timedelta(hours=72)) == []


def test_ordinary_weeks_with_noise_raise_nothing() -> None:
    for seed, scale in ((1, 40.0), (2, 400.0), (3, 40_000.0)):
        assert judged(series(seed, MONDAY + WEEK, scale=scale), MONDAY - WEEK, MONDAY + WEEK) == []


def test_slow_growth_raises_nothing() -> None:
    def grow(hour: datetime, value: int) -> int:
        return round(value * 1.1 ** ((hour - FIRST) / WEEK))

    assert judged(series(1, MONDAY + WEEK, grow), MONDAY - WEEK, MONDAY + WEEK) == []


def test_a_spike_is_found_and_says_why() -> None:
    at = MONDAY + timedelta(days=1, hours=10)
    found = judged(
        series(1, MONDAY + WEEK, lambda hour, value: value * 20 if hour == at else value),
        MONDAY,
        MONDAY + WEEK,
    )
    assert [hour for hour, _ in found] == [at]
    (_, finding) = found[0]
    assert finding.kind == "spike"
    assert finding.seen > finding.threshold > finding.expected
    assert str(finding.seen) in finding.why
    assert "last 6 weeks" in finding.why


def test_a_past_spike_hides_no_other() -> None:
    at = MONDAY + timedelta(days=1, hours=10)
    spikes = {at, at - WEEK, at - 3 * WEEK}
    hours = series(1, MONDAY + WEEK, lambda hour, value: value * 20 if hour in spikes else value)
    assert at in [hour for hour, _ in judged(hours, MONDAY, MONDAY + WEEK)]


def test_a_silent_stop_is_found_within_the_hours_it_is_judged_by() -> None:
    at = MONDAY + timedelta(days=1, hours=9)
    found = judged(
        series(1, MONDAY + WEEK, lambda hour, value: 0 if hour >= at else value), MONDAY, MONDAY + WEEK
    )
    assert {finding.kind for _, finding in found} == {"stop"}
    assert at <= found[0][0] <= at + timedelta(hours=6)
    assert found[0][1].seen < found[0][1].threshold < found[0][1].expected


def test_little_usage_and_short_histories_are_left_alone() -> None:
    at = MONDAY + timedelta(days=1, hours=10)
    few = series(1, MONDAY + WEEK, lambda hour, value: 40 if hour == at else value // 100)
    assert judged(few, MONDAY, MONDAY + WEEK) == []
    young = series(1, MONDAY + WEEK, lambda h, v: v * 20 if h == at else v)
    assert judge(at, at - 2 * WEEK, young, RULE) is None


@given(
    st.dictionaries(
        st.integers(0, 50 * 24).map(lambda n: MONDAY - n * HOUR),
        st.builds(Hour, st.decimals(-(10**6), 10**6, places=2), st.integers(-1000, 100_000)),
        max_size=200,
    ),
    st.integers(0, 60),
)
def test_any_past_can_be_judged(hours: dict[datetime, Hour], weeks: int) -> None:
    finding = judge(MONDAY, MONDAY - weeks * WEEK, hours, RULE)
    needed = set(hours_needed(MONDAY, RULE))
    assert finding == judge(
        MONDAY, MONDAY - weeks * WEEK, {k: v for k, v in hours.items() if k in needed}, RULE
    )
    assert finding is None or (finding.seen > finding.threshold) == (finding.kind == "spike")


def test_the_next_hour_passes_over_what_cant_be_judged() -> None:
    late = MONDAY + 5 * WEEK
    assert next_hour(MONDAY, MONDAY, late, RULE) == late - 48 * HOUR
    assert next_hour(late - 2 * HOUR, FIRST, late, RULE) == late - HOUR
    assert next_hour(MONDAY, MONDAY, MONDAY + 5 * HOUR, RULE) == MONDAY + 5 * HOUR


def charge(org_id: UUID, time: datetime, quantity: str, **members: Any) -> Charge:
    """A charge of usage."""
    given = {
        "charge_id": str(new_id()), "org_id": org_id, "project_id": new_id(), "sku": "sms", "period": "2026-11",
        "time": time, "kind": "usage", "quantity": Decimal(quantity), "event_count": 1, "currency": "AUD",
        "amount_gross": Decimal(0), "waived_amount": Decimal(0), "credit_applied": Decimal(0), "tax_amount": Decimal(0),
        "tax_code": None, "terms_hash": "x",
        "counter": CounterState(quantity=Decimal(0), events=0, charged=Decimal(0), version=1),
    }  # fmt: skip
    return Charge.model_validate(given | members)


def test_charges_of_usage_are_summed_by_hour() -> None:
    org_id = new_id()
    charges = (
        charge(org_id, MONDAY + timedelta(minutes=59), "2"), charge(org_id, MONDAY, "-1", event_count=-1),
        charge(org_id, MONDAY + HOUR, "3"), charge(org_id, MONDAY, "9", kind="base"),
        charge(org_id, MONDAY - 20 * WEEK, "9"),
    )  # fmt: skip
    message = ChargePriced(partition=partition_of(org_id), charges=charges)
    assert hours_of([message, object()], MONDAY) == {
        (org_id, "sms", MONDAY): Hour(Decimal(1), 0), (org_id, "sms", MONDAY + HOUR): Hour(Decimal(3), 1),
    }  # fmt: skip


def set_clock(clock: Path, now: datetime) -> None:
    """Move the service's clock."""
    clock.write_text(str((now - datetime.now(UTC)).total_seconds()))


async def judge_until(world: World, clock: Path, now: datetime) -> None:
    """Move the clock, and judge all that is due."""
    set_clock(clock, now)
    await asyncio.sleep(0.15)
    (job,) = [job for job in jobs.jobs if job.name == "judge_usage"]
    while await run_once(world.client.context, job):
        pass


async def test_one_alert_each_for_a_spike_and_a_stop_and_none_for_the_rest(
    fresh_db: ClonedDatabase, fresh_bus: str, tmp_path: Path
) -> None:
    clock = tmp_path / "clock"
    clock.write_text("0")
    environ = {"EB_CLOCK_FILE": str(clock), "EB_ALERT_COOLDOWN_S": "7200"}
    async with metering(fresh_db, fresh_bus, doors=("api",), environ=environ) as world:
        begin = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=60)
        start = begin - 8 * WEEK
        spike, stop = begin + timedelta(hours=20), begin + timedelta(hours=30)

        def at(sku: str, hour: datetime) -> int:
            level = 400 + (hour - start) // HOUR % 7
            if sku == "spike" and spike <= hour < spike + 3 * HOUR:
                return level * 20
            if sku == "stop" and hour >= stop:
                return 0
            return round(level * 1.05 ** ((hour - start) / WEEK)) if sku == "growth" else level

        sums = {
            (world.org_id, sku, hour): Hour(Decimal(value), value)
            for sku in ("spike", "stop", "calm", "growth")
            for hour in (start + n * HOUR for n in range(8 * 168 + 58))
            if (value := at(sku, hour))
        }
        async with world.client.context.begin("system:test") as tx:
            for month in sorted({hour.date().replace(day=1) for _, _, hour in sums}):
                await store.ensure_month(tx, month)
            await store.add_hours(tx, sums)
        for hours in range(60):
            await judge_until(world, clock, begin + hours * HOUR)

        status, page = await world.get("/metering/alerts")
        assert status == 200
        assert [(one["sku"], one["kind"], one["closed_at"] is None) for one in page["items"]] == [
            ("stop", "stop", True), ("spike", "spike", False),
        ]  # fmt: skip
        stopped, spiked = page["items"]
        assert spiked["hour"].startswith(spike.strftime("%Y-%m-%dT%H"))
        assert Decimal(spiked["seen"]) > Decimal(spiked["threshold"]) > Decimal(spiked["expected"])
        assert "is a spike" in spiked["why"]
        assert "is a stop" in stopped["why"]
        _, page = await world.get("/metering/alerts", is_open="true")
        assert [one["sku"] for one in page["items"]] == ["stop"]
        facts = await world.client.context.pool.fetch(
            "SELECT convert_from(body, 'utf8') FROM outbox WHERE type = 'metering_ingest.usage_alert.raised.v1'"
        )
        assert {json.loads(fact[0])["alert_id"] for fact in facts} == {
            stopped["alert_id"],
            spiked["alert_id"],
        }


async def test_a_stop_is_none_while_events_come_that_are_not_priced(
    fresh_db: ClonedDatabase, fresh_bus: str, tmp_path: Path
) -> None:
    clock = tmp_path / "clock"
    clock.write_text("0")
    async with metering(fresh_db, fresh_bus, environ={"EB_CLOCK_FILE": str(clock)}) as world:
        now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
        past = {
            (world.org_id, sku, now - n * HOUR): Hour(Decimal(100), 100)
            for sku in ("sms.au", "other")
            for n in range(8, 5 * 168)
        }
        async with world.client.context.begin("system:test") as tx:
            for month in sorted({hour.date().replace(day=1) for _, _, hour in past}):
                await store.ensure_month(tx, month)
            await store.add_hours(tx, past)
        events = [world.event(time=(now - n * HOUR).isoformat(), quantity="90") for n in range(1, 8)]
        await world.send(events)
        await until(lambda: world.fetchval("SELECT count(*) = 7 FROM metering_event"))
        await judge_until(world, clock, now + timedelta(minutes=20))
        _, page = await world.get("/metering/alerts")
        assert [(one["sku"], one["kind"]) for one in page["items"]] == [("other", "stop")]


async def test_hours_are_summed_from_charges_and_alerts_are_for_those_who_may_read_usage(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    async with metering(fresh_db, fresh_bus) as world:
        bus = world.client.context.bus
        await until(lambda: asyncio.sleep(0, bus._publishing.is_up))
        time = datetime.now(UTC)
        charges = tuple(charge(world.org_id, time, "2", sku="sms.au") for _ in range(3))
        message = bus.wrap(ChargePriced(partition=partition_of(world.org_id), charges=charges))
        await bus.publish_now([message, message])
        await until(lambda: world.fetchval("SELECT sum(quantity) = 6 AND sum(events) = 3 FROM usage_hour"))
        headers = world.client.auth(roles=["Support"])
        for query, expected in ((f"?org_id={world.org_id}", 200), ("", 200), ("?org_id=x", 400)):
            url = world.client.url(f"/metering/alerts{query}")
            async with world.client.http.get(url, headers=headers) as answer:
                assert answer.status == expected
        url = world.client.url("/metering/alerts")
        async with world.client.http.get(url, headers={"Authorization": f"Bearer {world.key}"}) as answer:
            assert answer.status == 400
