"""The way of a batch: checked, queued, recorded once, followed by its request id."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
import zstandard

from eb_contracts.ids import new_id
from eb_kit.testing_db import ClonedDatabase

from .world import metering, until


async def test_an_accepted_event_is_recorded_and_its_usage_published(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    async with metering(fresh_db, fresh_bus) as world:
        minute = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=3)
        events = [
            world.event(time=(minute + timedelta(seconds=s)).isoformat(), quantity=2.5) for s in range(3)
        ]
        status, answer = await world.send(events)
        assert (status, answer["accepted"]) == (202, 3)

        first = await world.recorded(events[0]["request_id"])
        assert first["quantity"] == "2.5"
        assert first["trace_id"]
        found = await world.fetchval(
            "SELECT convert_from(body, 'utf8') FROM outbox WHERE type = 'metering_ingest.usage.recorded.v1'"
        )

    (record,) = json.loads(found)["usage"]
    assert record["usage_id"] == first["usage_id"]
    assert (Decimal(record["quantity"]), record["events"]) == (Decimal("7.5"), 3)
    assert record["minute"] == minute.isoformat().replace("+00:00", "Z")
    assert record["trace_ids"] == [first["trace_id"]]


async def test_the_same_event_again_is_a_duplicate_and_unlike_content_a_conflict(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    async with metering(fresh_db, fresh_bus) as world:
        event = world.event(quantity="1.50")
        alike = event | {"quantity": 1.5, "source": "form_submit", "metadata": {"x": 1}}
        unlike = event | {"quantity": "9"}
        status, answer = await world.send([event, alike, unlike])
        assert (status, answer["accepted"]) == (202, 3)
        await world.recorded(event["request_id"])
        assert (await world.send([unlike, alike]))[0] == 202

        async def both() -> bool:
            _, seen = await world.get(f"/metering/events/{event['request_id']}")
            return bool(seen["duplicates"] == 2 and len(seen["conflicts"]) == 2)

        await until(both)
        _, seen = await world.get(f"/metering/events/{event['request_id']}")
        assert seen["quantity"] == "1.5"
        assert [conflict["quantity"] for conflict in seen["conflicts"]] == ["9", "9"]
        assert await world.fetchval("SELECT count(*) FROM metering_event") == 1


async def test_a_bad_event_costs_its_neighbours_nothing_and_is_parked(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    async with metering(fresh_db, fresh_bus) as world:
        good, bad = world.event(), world.event(quantity="0", metadata={"email": "a@b.example", "n": 1})
        status, answer = await world.send([bad, good])
        assert status == 207
        assert answer["accepted"] == 1
        (rejected,) = answer["rejected"]
        assert (rejected["index"], rejected["request_id"]) == (0, bad["request_id"])
        assert rejected["errors"][0]["pointer"] == "/quantity"
        await world.recorded(good["request_id"])

        code, page = await world.get("/metering/dead-letters")
        assert code == 200
        (letter,) = page["items"]
        assert letter["request_id"] == bad["request_id"]
        assert letter["event"]["metadata"]["email"] == "[removed]"
        assert letter["reason"] == "not_positive"


async def test_strict_handling_takes_all_or_none(fresh_db: ClonedDatabase, fresh_bus: str) -> None:
    async with metering(fresh_db, fresh_bus) as world:
        batch = [world.event(), world.event(), world.event(), world.event(quantity="1.1234567")]
        status, problem = await world.send(batch, Prefer="handling=strict")
        assert status == 422
        assert problem["code"] == "batch_invalid"
        assert problem["errors"][0]["pointer"] == "/3/quantity"
        assert await world.fetchval("SELECT count(*) FROM dead_letter") == 0
        assert await world.fetchval("SELECT count(*) FROM metering_event") == 0


async def test_a_batch_that_names_a_foreign_organisation_is_refused_whole(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    async with metering(fresh_db, fresh_bus) as world:
        for foreign in (await world.client.org(), new_id()):
            status, problem = await world.send(
                [world.event(), world.event(org_id=str(foreign), quantity="x")]
            )
            assert (status, problem["code"]) == (403, "org_forbidden")
        assert await world.fetchval("SELECT count(*) FROM dead_letter") == 0


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{}", "not_a_batch"),
        (b"[]", "batch_size"),
        (json.dumps([{}] * 1001).encode(), "batch_size"),
        (b"[{", "malformed_json"),
        (b'[{"quantity": NaN}]', "malformed_json"),
        (b'[{"sku": "a", "sku": "b"}]', "duplicate_key"),
        (b"[" * 40 + b"]" * 40, "json_too_deep"),
    ],
)
async def test_a_body_that_is_no_batch_is_malformed(
    fresh_db: ClonedDatabase, fresh_bus: str, body: bytes, code: str
) -> None:
    async with metering(fresh_db, fresh_bus, doors=("api",)) as world:
        status, problem = await world.send(body)
        assert (status, problem["code"]) == (400, code)


async def test_compressed_batches_and_cloudevents_are_taken(fresh_db: ClonedDatabase, fresh_bus: str) -> None:
    async with metering(fresh_db, fresh_bus) as world:
        one, two, three = world.event(), world.event(), world.event()
        plain = json.dumps([one]).encode()
        assert (await world.send(gzip.compress(plain), Content_Encoding="gzip"))[0] == 202
        packed = zstandard.compress(json.dumps([two]).encode())
        assert (await world.send(packed, Content_Encoding="zstd"))[0] == 202
        cloud = {
            "specversion": "1.0",
            "id": three["request_id"],
            "source": "/forms",
            "type": "usage",
            "time": three["time"],
            "data": {k: three[k] for k in ("sku", "quantity", "org_id", "project_id")},
        }
        status, _ = await world.send([cloud], Content_Type="application/cloudevents-batch+json")
        assert status == 202
        for event in (one, two, three):
            await world.recorded(event["request_id"])
        assert (await world.send(plain, Content_Encoding="br"))[0] == 415
        assert (await world.send(b"nonsense", Content_Encoding="gzip"))[0] == 400


async def test_an_event_of_an_unknown_project_waits_and_is_recorded_when_the_project_arrives(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    async with metering(fresh_db, fresh_bus) as world:
        later = new_id()
        event = world.event(project_id=str(later))
        assert (await world.send([event, world.event()]))[0] == 202
        parked = await world.recorded(event["request_id"], "dead_lettered")
        assert parked["dead_letter_id"]

        await world.project(project_id=later)
        await world.recorded(event["request_id"])
        assert await world.fetchval("SELECT status FROM dead_letter") == "replayed"


async def test_a_dead_letter_is_replayed_once_its_reason_is_gone(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    async with metering(fresh_db, fresh_bus) as world:
        event = world.event(quantity="-1")
        await world.send([event])
        letter_id = await world.fetchval("SELECT dead_letter_id FROM dead_letter")
        headers = world.client.auth(roles=["Admin"], org_id=world.org_id)
        url = world.client.url("/metering/dead-letters:replay")

        async with world.client.http.post(url, json={"ids": [str(letter_id)]}, headers=headers) as answer:
            assert (answer.status, await answer.json()) == (202, {"replayed": 0, "still_bad": 1})
        corrected = {"event": {**event, "quantity": "2"}}
        path = f"/metering/dead-letters/{letter_id}"
        status, _ = await world.staff("PATCH", path, corrected, "Admin", org_id=world.org_id)
        assert status == 200
        async with world.client.http.post(
            url, json={"filter": {"org_id": str(world.org_id)}}, headers=headers
        ) as answer:
            assert (answer.status, await answer.json()) == (202, {"replayed": 1, "still_bad": 0})
        assert await world.fetchval("SELECT sum(quantity) FROM metering_event") == 2


async def test_usage_is_summed_by_window_in_the_organisations_time_zone(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    async with metering(fresh_db, fresh_bus) as world:
        org_id = await world.client.org(zone="Australia/Sydney")
        world.org_id, world.key = (
            org_id,
            await world.client.api_key(org_id, ("metering:write", "metering:read")),
        )
        world.project_id = await world.project(org_id)
        day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=2)
        times = [day + timedelta(hours=1), day + timedelta(hours=2), day + timedelta(hours=20)]
        events = [world.event(time=time.isoformat(), quantity="1.5") for time in times]
        await world.send(events)
        await world.recorded(events[-1]["request_id"])
        span = {"from": day.isoformat(), "to": (day + timedelta(days=2)).isoformat()}

        _, days = await world.get("/metering/usage", window="day", **span)
        assert [item["quantity"] for item in days["items"]] == ["3", "1.5"]
        _, hours = await world.get("/metering/usage", window="hour", **span)
        assert [item["events"] for item in hours["items"]] == [1, 1, 1]
        code, _ = await world.get("/metering/usage", **{"from": span["to"], "to": span["from"]})
        assert code == 400


async def test_events_are_listed_newest_first_with_a_cursor(fresh_db: ClonedDatabase, fresh_bus: str) -> None:
    async with metering(fresh_db, fresh_bus) as world:
        events = [world.event() for _ in range(5)]
        for event in events:
            await world.send([event])
            await world.recorded(event["request_id"])
        _, first = await world.get("/metering/events", limit=3)
        _, rest = await world.get("/metering/events", limit=3, cursor=first["next_cursor"])
        listed = [item["request_id"] for item in first["items"] + rest["items"]]
        assert listed == [event["request_id"] for event in reversed(events)]
        assert rest["next_cursor"] is None
        _, one = await world.get("/metering/events", usage_id=first["items"][0]["usage_id"])
        assert len(one["items"]) >= 1
