"""Dead letters: corrected whole, replayed one, some or all, never in part and never twice."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from eb_contracts.ids import new_id
from eb_kit.testing_db import ClonedDatabase

from .world import World, metering, until

LETTERS = "/metering/dead-letters"


async def letters_of(world: World, **query: Any) -> list[dict[str, Any]]:
    """All letters of the organisation."""
    code, page = await world.get(LETTERS, limit=200, **query)
    assert code == 200
    return list(page["items"])


async def correct(world: World, letter: dict[str, Any], event: Any, *roles: str) -> tuple[int, Any]:
    """PATCH a letter, as the organisation's Admin."""
    path = f"{LETTERS}/{letter['dead_letter_id']}"
    return await world.staff("PATCH", path, {"event": event}, *(roles or ("Admin",)), org_id=world.org_id)


async def replay(world: World, body: dict[str, Any], *roles: str) -> tuple[int, Any]:
    """Replay, as the organisation's Admin."""
    return await world.staff("POST", f"{LETTERS}:replay", body, *(roles or ("Admin",)), org_id=world.org_id)


async def test_a_corrected_letter_is_recorded_by_its_replay(fresh_db: ClonedDatabase, fresh_bus: str) -> None:
    async with metering(fresh_db, fresh_bus) as world:
        bad = world.event(quantity="-4")
        await world.send([bad, bad, world.event()])
        (letter,) = await letters_of(world)
        assert (letter["reason"], letter["count"], letter["status"]) == ("number_out_of_bounds", 2, "open")

        status, still_bad = await correct(world, letter, bad | {"quantity": "x"})
        assert (status, still_bad["reason"]) == (200, "number_out_of_bounds")
        assert still_bad["errors"][0]["pointer"] == "/quantity"
        assert await replay(world, {"ids": [letter["dead_letter_id"]]}) == (
            202,
            {"replayed": 0, "still_bad": 1},
        )

        status, fine = await correct(world, letter, bad | {"quantity": "4"})
        assert (status, fine["errors"], fine["event"]["quantity"]) == (200, [], "4")
        assert (await world.get(f"/metering/events/{bad['request_id']}"))[1]["status"] == "dead_lettered"
        for _ in range(2):
            assert (await replay(world, {"ids": [letter["dead_letter_id"]]}))[0] == 202
        _, seen = await world.get(f"/metering/events/{bad['request_id']}")
        assert (seen["status"], seen["quantity"], seen["duplicates"]) == ("recorded", "4", 0)
        assert (await correct(world, letter, bad))[0] == 409
        one, other, end = await audited(world)
        assert (one["quantity"], other["quantity"], end["status"]) == (
            ("-4", "x"),
            ("x", "4"),
            ("open", "replayed"),
        )


async def audited(world: World) -> list[dict[str, tuple[Any, Any]]]:
    """What the audit tells of letters, oldest first: each member before and after, the event's among them."""
    async with world.client.context.begin("system:test") as tx:
        rows = await tx.fetch("SELECT actor, before, after FROM audit_entry ORDER BY audit_id")
    assert all(row["actor"].startswith("user:") for row in rows)
    told = [[{**row[when].pop("event"), **row[when]} for when in ("before", "after")] for row in rows]
    return [{name: (before.get(name), after[name]) for name in after} for before, after in told]


async def test_the_audit_of_a_letter_holds_what_decides_the_bill_and_nothing_else_of_the_event(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    async with metering(fresh_db, fresh_bus) as world:
        said = {"note": "call ada@example.com"}
        bad = world.event(quantity="no number", metadata=said)
        await world.send([bad, world.event()])
        (letter,) = await letters_of(world)
        assert (await correct(world, letter, bad | {"quantity": "2", "sku": "s" * 999}))[0] == 200
        (entry,) = await audited(world)
        assert entry.keys() >= {
            "org_id",
            "project_id",
            "request_id",
            "sku",
            "quantity",
            "time",
            "status",
            "reason",
        }
        assert not entry.keys() & {"metadata", "errors", "content_hash", "event"}
        assert entry["sku"] == ("sms.au", "s" * 200)
        everything = await world.fetchval("SELECT string_agg(e::text, '') FROM audit_entry AS e")
        assert "ada@" not in everything


async def test_what_was_recorded_meanwhile_is_not_recorded_again(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    async with metering(fresh_db, fresh_bus) as world:
        good = world.event(quantity="3")
        await world.send([good | {"quantity": "zero"}, world.event()])
        await world.send([good])
        await world.recorded(good["request_id"])
        (letter,) = await letters_of(world)
        await correct(world, letter, good)
        assert await replay(world, {"ids": [letter["dead_letter_id"]]}) == (
            202,
            {"replayed": 1, "still_bad": 0},
        )
        assert await world.fetchval("SELECT sum(quantity) FROM metering_event WHERE quantity > 1") == 3


@pytest.mark.parametrize(
    ("members", "code"),
    [
        ({"org_id": "foreign"}, "other_organisation"),
        ({"project_id": "foreign"}, "unknown_project"),
        ({"time": "2001-01-01T00:00:00Z"}, "time_too_old"),
        ({"metadata": {"email": "a@b.example"}}, "personal_data"),
        ({"surprise": 1}, "unknown_field"),
    ],
)
async def test_a_correction_is_judged_like_a_batch(
    fresh_db: ClonedDatabase, fresh_bus: str, members: dict[str, Any], code: str
) -> None:
    async with metering(fresh_db, fresh_bus) as world:
        bad = world.event(quantity="0")
        await world.send([bad])
        (letter,) = await letters_of(world)
        members = {name: str(new_id()) if value == "foreign" else value for name, value in members.items()}
        status, seen = await correct(world, letter, bad | {"quantity": "1"} | members)
        assert (status, seen["errors"][0]["code"], seen["reason"]) == (200, code, code)
        assert "a@b.example" not in str(seen)
        assert await replay(world, {"ids": [letter["dead_letter_id"]]}) == (
            202,
            {"replayed": 0, "still_bad": 1},
        )
        assert await world.fetchval("SELECT count(*) FROM metering_event") == 0


async def test_two_letters_never_hold_the_same_event(fresh_db: ClonedDatabase, fresh_bus: str) -> None:
    async with metering(fresh_db, fresh_bus) as world:
        one = world.event(quantity="0")
        await world.send([one, one | {"quantity": "-1"}])
        second, first = await letters_of(world)
        status, problem = await correct(world, first, one | {"quantity": "-1"})
        assert (status, problem["code"]) == (409, "dead_letter_exists")
        assert (await correct(world, second, "no event"))[0] == 422


async def test_letters_whose_organisation_can_not_be_read_are_for_operators(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    async with metering(fresh_db, fresh_bus) as world:
        good = world.event()
        await world.send([good | {"org_id": 7}, "nonsense", world.event()])
        assert await letters_of(world) == []
        _, support = await world.staff("GET", LETTERS, None, "Support")
        assert support["items"] == []
        assert (await world.staff("GET", LETTERS, None, "Admin", org_id=world.org_id))[0] == 400
        _, page = await world.staff("GET", LETTERS)
        assert [item["org_id"] for item in page["items"]] == [None, None]

        (letter,) = (item for item in page["items"] if item["event"] != "nonsense")
        assert (await correct(world, letter, good))[0] == 404
        assert (await replay(world, {"ids": [letter["dead_letter_id"]]}))[0] == 404
        assert (await replay(world, {"ids": [letter["dead_letter_id"]]}, "Support"))[0] in (403, 404)
        assert (await correct(world, letter, good, "Operator"))[0] == 200
        _, done = await replay(world, {"ids": [letter["dead_letter_id"]]}, "Operator")
        assert done == {"replayed": 1, "still_bad": 0}
        await world.recorded(good["request_id"])


async def test_a_replay_by_filter_goes_through_all_in_bounded_batches(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    async with metering(fresh_db, fresh_bus) as world:
        for _ in range(3):
            batch = [world.event(quantity="0") for _ in range(900)]
            assert (await world.send(batch))[0] == 422
        await world.send([world.event(sku="")])
        mended = """
            WITH mended AS (UPDATE dead_letter SET event = jsonb_set(event, '{quantity}', '"2"')
            WHERE reason = 'not_positive' AND dead_letter_id NOT IN (
                SELECT dead_letter_id FROM dead_letter ORDER BY dead_letter_id LIMIT 1200) RETURNING 1)
            SELECT count(*) FROM mended
        """
        async with world.client.context.begin("system:test") as tx:
            assert await tx.fetchval(mended) == 1500
        body = {"filter": {"org_id": str(world.org_id), "reason": "not_positive"}}
        assert await replay(world, body) == (202, {"replayed": 0, "still_bad": 1000})
        await until(lambda: world.fetchval("SELECT count(*) = 0 FROM letter_replay"))
        assert await world.fetchval("SELECT count(*) FROM metering_event") == 1500
        assert await world.fetchval("SELECT count(*) FROM dead_letter WHERE status = 'open'") == 1201
        assert (await replay(world, {"ids": [str(new_id()) for _ in range(1001)]}))[0] == 422
        asked = await world.fetchval("SELECT array_agg(action || ' ' || entity) FROM audit_entry")
        assert asked == ["insert letter_replay"]  # the job's letters follow from it


async def test_events_wait_for_their_project_among_many_that_never_come(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    async with metering(fresh_db, fresh_bus) as world:
        for _ in range(3):
            await world.send([world.event(project_id=str(new_id())) for _ in range(1000)])
        later = new_id()
        event = world.event(project_id=str(later))
        await world.send([event])
        await world.recorded(event["request_id"], "dead_lettered")
        await world.project(project_id=later)
        await world.recorded(event["request_id"])
        assert await world.fetchval("SELECT count(*) FROM dead_letter WHERE status = 'open'") == 3000
        assert await audited(world) == []
        _, page = await world.get("/metering/events", status="dead_lettered", limit=3)
        assert [item["status"] for item in page["items"]] == ["dead_lettered"] * 3


async def test_an_event_from_the_future_is_valid_once_its_time_has_come(
    fresh_db: ClonedDatabase, fresh_bus: str
) -> None:
    async with metering(fresh_db, fresh_bus) as world:
        event = world.event(time=(datetime.now(UTC) + timedelta(minutes=5, seconds=2)).isoformat())
        assert (await world.send([event]))[0] == 422
        (letter,) = await letters_of(world, reason="time_in_future")
        body = {"ids": [letter["dead_letter_id"]]}
        assert (await replay(world, body))[1] == {"replayed": 0, "still_bad": 1}
        await asyncio.sleep(2.5)
        assert (await replay(world, body))[1] == {"replayed": 1, "still_bad": 0}
