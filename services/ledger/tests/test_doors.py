"""The HTTP doors: who may, what is refused, what is shown."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from eb_contracts.ids import new_id

from .factories import BORN, a_charge
from .world import World

SOMEBODY = "01a209bf-0000-7000-8000-000000000001"
START, END = "2026-11-02T00:00:00Z", "2026-11-16T00:00:00Z"


def a_rate(**values: object) -> dict[str, object]:
    return {"partner_tier": str(new_id()), "sku": "sms", "pct": "10", "effective_at": START, **values}


async def refusal(world: World, method: str, path: str, body: object = None, **token: Any) -> tuple[int, str]:
    status, answer = await world.call(method, path, body, **token)
    return status, answer["code"]


async def test_a_partner_is_shown_as_it_was_made(shared_world: World) -> None:
    made = await shared_world.must(
        "POST",
        "/partners",
        {
            "name": "Northern Resellers",
            "tier": "gold",
            "min_payout": {"AUD": "25", "JPY": 1000},
            "payout_provider": "stripe",
            "destination": "acct_1",
        },
    )

    listed = (await shared_world.must("GET", "/partners?limit=1"))["items"]
    assert listed == [made]
    assert made["min_payout"] == {"AUD": "25.00", "JPY": "1000"}
    assert made["tier_from"] == "1970-01-01T00:00:00.000000Z"


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"min_payout": {"JPY": "0.5"}}, "amount_invalid"),
        ({"min_payout": {"AUD": "-1"}}, "amount_invalid"),
        ({"min_payout": {"ZZZ": "1"}}, "body_invalid"),
        ({"name": ""}, "body_invalid"),
        ({"payout_provider": "cash"}, "body_invalid"),
        ({"tier_from": "2026-11-02T00:00:01Z"}, "body_invalid"),
        ({"bank_account": "12-3456"}, "body_invalid"),
    ],
)
async def test_a_malformed_partner_is_refused(
    shared_world: World, values: dict[str, object], code: str
) -> None:
    body = {"name": "Reseller", "tier": "gold", **values}

    assert await refusal(shared_world, "POST", "/partners", body) == (422, code)


async def test_a_partner_changes_only_what_is_sent(shared_world: World) -> None:
    partner = await shared_world.must(
        "POST", "/partners", {"name": "A", "tier": "gold", "destination": "acct_1"}
    )
    path = f"/partners/{partner['partner_id']}"

    renamed = await shared_world.must("PATCH", path, {"name": "B"})
    cleared = await shared_world.must("PATCH", path, {"destination": None})
    raised = await shared_world.must("PATCH", path, {"tier": "platinum", "tier_from": "2027-01-01T00:00:00Z"})

    assert renamed == partner | {"name": "B"}
    assert cleared == renamed | {"destination": None}
    assert (raised["tier"], raised["tier_from"]) == ("platinum", "2027-01-01T00:00:00.000000Z")


@pytest.mark.parametrize("body", [{"name": None}, {"tier_from": START}, {"min_payout": {"AUD": "0.001"}}])
async def test_a_patch_that_would_leave_no_partner_is_refused(
    shared_world: World, body: dict[str, object]
) -> None:
    partner_id = await shared_world.partner()

    status, _ = await refusal(shared_world, "PATCH", f"/partners/{partner_id}", body)

    assert status == 422


async def test_an_unknown_partner_cannot_be_changed(shared_world: World) -> None:
    assert await refusal(shared_world, "PATCH", f"/partners/{new_id()}", {"name": "B"}) == (404, "not_found")


async def test_a_rate_is_new_once_the_same_again_and_never_another(shared_world: World) -> None:
    rate = a_rate(pct="12.5")

    assert (await shared_world.call("PUT", "/commission-rates", rate))[0] == 201
    assert (await shared_world.call("PUT", "/commission-rates", rate | {"pct": 12.50}))[0] == 200
    assert await refusal(shared_world, "PUT", "/commission-rates", rate | {"pct": "12.51"}) == (
        409,
        "rate_conflict",
    )
    shown = await shared_world.must("GET", f"/commission-rates?partner_tier={rate['partner_tier']}")
    assert [item["pct"] for item in shown["items"]] == ["12.5"]


@pytest.mark.parametrize("pct", ["-0.01", "100.01", "1.001", "1e3"])
async def test_a_percentage_that_is_none_is_refused(shared_world: World, pct: str) -> None:
    status, _ = await refusal(shared_world, "PUT", "/commission-rates", a_rate(pct=pct))

    assert status == 422


@pytest.mark.parametrize("pct", ["0", "100", "100.00", "0.01"])
async def test_the_bounds_of_a_percentage_belong_to_it(shared_world: World, pct: str) -> None:
    assert (await shared_world.call("PUT", "/commission-rates", a_rate(pct=pct)))[0] == 201


async def test_rates_are_listed_in_pages(shared_world: World) -> None:
    tier = str(new_id())
    for sku in ("a", "b", "c"):
        await shared_world.must("PUT", "/commission-rates", a_rate(partner_tier=tier, sku=sku))

    first = await shared_world.must("GET", f"/commission-rates?partner_tier={tier}&limit=2")
    path = f"/commission-rates?partner_tier={tier}&limit=2&cursor={first['next_cursor']}"
    second = await shared_world.must("GET", path)

    assert [item["sku"] for item in first["items"] + second["items"]] == ["c", "b", "a"]
    assert second["next_cursor"] is None


@pytest.mark.parametrize(
    ("start_at", "end_at", "is_refused"),
    [
        ("2026-10-01T00:00:00Z", START, False),
        (END, None, False),
        (START, END, True),
        ("2026-10-01T00:00:00Z", "2026-11-02T00:01:00Z", True),
        ("2026-11-15T23:59:00Z", None, True),
        ("2026-11-05T00:00:00Z", "2026-11-06T00:00:00Z", True),
        ("2026-10-01T00:00:00Z", None, True),
    ],
)
@pytest.mark.parametrize("of", ["org_id", "billing_account_id"])
async def test_ranges_of_partners_of_record_may_touch_and_never_overlap(
    shared_world: World, of: str, start_at: str, end_at: str | None, is_refused: bool
) -> None:
    subject = await shared_world.org()
    if of == "billing_account_id":
        accounts = await shared_world.must("GET", f"/billing-accounts?org_id={subject}")
        subject = UUID(accounts["items"][0]["billing_account_id"])
    first, second = await shared_world.partner(), await shared_world.partner()
    body = {of: str(subject), "partner_id": str(first), "start_at": START, "end_at": END}
    await shared_world.must("POST", "/partner-of-record", body)

    other = body | {"partner_id": str(second), "start_at": start_at, "end_at": end_at}
    status, answer = await shared_world.call("POST", "/partner-of-record", other)

    assert (status, answer.get("code")) == ((409, "por_overlap") if is_refused else (201, None))


async def test_the_same_partner_of_record_again_overlaps(shared_world: World) -> None:
    org_id, partner_id = await shared_world.org(), await shared_world.partner()
    await shared_world.por(partner_id, org_id=org_id)
    body = {"org_id": str(org_id), "partner_id": str(partner_id), "start_at": BORN.isoformat()}

    assert await refusal(shared_world, "POST", "/partner-of-record", body) == (409, "por_overlap")


async def test_a_partner_of_record_needs_one_subject_a_partner_and_a_range(shared_world: World) -> None:
    org_id, partner_id = await shared_world.org(), await shared_world.partner()
    body = {"org_id": str(org_id), "partner_id": str(partner_id), "start_at": START}
    both, none = (
        body | {"billing_account_id": str(new_id())},
        {k: v for k, v in body.items() if k != "org_id"},
    )
    path = "/partner-of-record"

    assert await refusal(shared_world, "POST", path, both) == (422, "por_subject")
    assert await refusal(shared_world, "POST", path, none) == (422, "por_subject")
    assert await refusal(shared_world, "POST", path, body | {"end_at": START}) == (422, "range_empty")
    assert await refusal(shared_world, "POST", path, body | {"partner_id": str(new_id())}) == (
        422,
        "partner_unknown",
    )
    assert await refusal(shared_world, "POST", path, none | {"org_id": str(UUID(int=7))}) == (
        404,
        "not_found",
    )
    assert await refusal(shared_world, "POST", path, none | {"billing_account_id": str(UUID(int=7))}) == (
        404,
        "not_found",
    )


async def test_an_ended_partner_of_record_makes_room_and_late_usage_still_finds_it(
    shared_world: World,
) -> None:
    org_id = await shared_world.org()
    tier = str(new_id())
    await shared_world.rate("10", tier=tier)
    first, second = await shared_world.partner(tier), await shared_world.partner(tier)
    por_id = await shared_world.por(first, org_id=org_id)
    end = datetime(2026, 3, 1, tzinfo=UTC)

    ended = await shared_world.must("POST", f"/partner-of-record/{por_id}:end", {"end_at": end.isoformat()})
    body = {"org_id": str(org_id), "partner_id": str(second), "start_at": end.isoformat()}
    await shared_world.must("POST", "/partner-of-record", body)
    late = a_charge(org_id=org_id, charge_id="late", time=end - timedelta(microseconds=1))
    await shared_world.deliver(late, a_charge(org_id=org_id, charge_id="then", time=end))

    assert ended["status"] == "expired"
    assert {line["charge_id"]: line["partner_id"] for line in await shared_world.lines(org_id)} == {
        "late": first,
        "then": second,
    }


async def test_an_end_may_not_lie_at_or_before_the_start(shared_world: World) -> None:
    por_id = await shared_world.por(await shared_world.partner(), org_id=await shared_world.org())
    path = f"/partner-of-record/{por_id}:end"

    assert await refusal(shared_world, "POST", path, {"end_at": BORN.isoformat()}) == (422, "range_empty")
    assert await refusal(shared_world, "POST", f"/partner-of-record/{new_id()}:end", {"end_at": END}) == (
        404,
        "not_found",
    )


async def test_a_later_end_may_not_meet_the_next_one(shared_world: World) -> None:
    org_id, partner_id = await shared_world.org(), await shared_world.partner()
    body = {"org_id": str(org_id), "partner_id": str(partner_id), "start_at": START, "end_at": END}
    por = await shared_world.must("POST", "/partner-of-record", body)
    await shared_world.must("POST", "/partner-of-record", body | {"start_at": END, "end_at": None})

    path = f"/partner-of-record/{por['por_id']}:end"
    assert await refusal(shared_world, "POST", path, {"end_at": "2026-11-17T00:00:00Z"}) == (
        409,
        "por_overlap",
    )


async def test_an_account_belongs_to_its_owner_and_stands_beside_the_default_one(shared_world: World) -> None:
    org_id = await shared_world.org()
    body = {"owner_org_id": str(org_id), "name": "Group", "currency": "AUD", "notes": "PO 7"}
    admin = {"roles": ["Admin"], "org_id": org_id}

    status, made = await shared_world.call("POST", "/billing-accounts", body, **admin)
    _, listed = await shared_world.call("GET", f"/billing-accounts?org_id={org_id}", **admin)

    assert status == 201
    assert (await shared_world.must("GET", f"/billing-accounts/{made['billing_account_id']}")) == made
    assert [(item["is_default"], item["currency"]) for item in listed["items"]] == [
        (False, "AUD"),
        (True, None),
    ]


async def test_money_is_seen_by_those_who_may(shared_world: World) -> None:
    org_id, foreign = await shared_world.an_org_with_a_partner(), await shared_world.org()
    child = await shared_world.org(org_id)
    await shared_world.deliver(a_charge(org_id=org_id))
    entry_id = (await shared_world.lines(org_id))[0]["entry_id"]
    paths = (
        f"/ledger/entries?org_id={org_id}",
        f"/ledger/entries/{entry_id}",
        f"/ledger/balances?org_id={org_id}",
    )
    keys = {
        scope: {"Authorization": f"Bearer {await shared_world.client.api_key(owner, [scope])}"}
        for scope, owner in (("ledger:read", org_id), ("pricing:read", org_id), ("ledger:read:tree", child))
    }

    for path in paths:
        for roles in (["Admin"], ["GroupBilling"]):
            assert (await shared_world.call("GET", path, roles=roles, org_id=org_id))[0] == 200
        assert (await shared_world.call("GET", path, roles=["Support"]))[0] == 200
        assert (await shared_world.call("GET", path, headers=keys["ledger:read"]))[0] == 200
        assert await refusal(shared_world, "GET", path, roles=["User"], org_id=org_id) == (403, "forbidden")
        assert await refusal(shared_world, "GET", path, roles=["Admin"], org_id=foreign) == (404, "not_found")
        assert (await shared_world.call("GET", path, headers=keys["pricing:read"]))[0] == 403
        assert (await shared_world.call("GET", path, headers=keys["ledger:read:tree"]))[0] == 404


async def test_only_staff_lists_without_an_org_and_only_settlers_see_a_partner(shared_world: World) -> None:
    org_id, partner_id = await shared_world.org(), await shared_world.partner()
    admin = {"roles": ["Admin"], "org_id": org_id}

    for path in ("/ledger/entries", "/billing-accounts", "/partner-of-record"):
        assert await refusal(shared_world, "GET", path, **admin) == (400, "parameter_invalid")
        assert (await shared_world.call("GET", path, roles=["Support"]))[0] == 200
    by_partner = f"/ledger/balances?partner_id={partner_id}"
    assert (await shared_world.call("GET", by_partner, roles=["Operator"]))[0] == 200
    assert await refusal(shared_world, "GET", by_partner, **admin) == (403, "forbidden")
    assert await refusal(shared_world, "GET", by_partner, roles=["Support"]) == (403, "forbidden")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/partners", {"name": "A", "tier": "gold"}),
        ("PATCH", f"/partners/{SOMEBODY}", {"name": "A"}),
        ("PUT", "/commission-rates", a_rate()),
        (
            "POST",
            "/partner-of-record",
            {"org_id": str(new_id()), "partner_id": str(new_id()), "start_at": START},
        ),
        ("POST", f"/partner-of-record/{SOMEBODY}:end", {"end_at": END}),
    ],
)
async def test_partners_are_the_business_of_finance_alone(
    shared_world: World, method: str, path: str, body: dict[str, object]
) -> None:
    assert await refusal(shared_world, method, path, body, roles=["Operator"]) == (403, "forbidden")


@pytest.mark.parametrize(
    "query",
    [
        "",
        "org_id={org}&billing_account_id={org}",
        "org_id=x",
        "org_id={org}&period=2026-13",
        "org_id={org}&per=1",
    ],
)
async def test_a_balance_is_of_exactly_one(shared_world: World, query: str) -> None:
    path = "/ledger/balances?" + query.format(org=await shared_world.org())

    assert await refusal(shared_world, "GET", path) == (400, "parameter_invalid")


async def test_lines_are_picked_by_every_filter_and_paged_newest_first(shared_world: World) -> None:
    org_id, project_id = await shared_world.org(), new_id()
    charges = [a_charge(org_id=org_id, charge_id=f"{org_id}/{n}") for n in range(5)]
    charges[1] = a_charge(org_id=org_id, charge_id="odd:one", sku="mail", kind="base", period="2026-10")
    charges[3] = a_charge(org_id=org_id, charge_id=f"{org_id}/3", project_id=project_id)
    for charge in charges:
        await shared_world.deliver(charge)

    async def picked(query: str) -> list[str]:
        path = f"/ledger/entries?org_id={org_id}&{query}"
        return [
            item["charge_id"].removeprefix(f"{org_id}/")
            for item in (await shared_world.must("GET", path))["items"]
        ]

    everything = ["4", "3", "2", "odd:one", "0"]
    assert await picked("limit=200") == everything
    assert (
        await picked("sku=mail") == await picked("kind=base") == await picked("period=2026-10") == ["odd:one"]
    )
    assert await picked(f"project_id={project_id}") == ["3"]
    assert await picked("charge_id=odd%3Aone") == ["odd:one"]
    assert await picked("status=settled") == everything
    assert await picked("status=pending") == []
    created = (await shared_world.lines(org_id))[2]["created_at"].isoformat().replace("+00:00", "Z")
    assert await picked(f"created_from={created}") == ["4", "3", "2"]
    assert await picked(f"created_to={created}") == ["odd:one", "0"]
    page = await shared_world.must("GET", f"/ledger/entries?org_id={org_id}&limit=3")
    assert [*await picked("limit=3"), *await picked(f"limit=3&cursor={page['next_cursor']}")] == everything


async def test_a_line_shows_what_it_is_made_of(shared_world: World) -> None:
    org_id = await shared_world.an_org_with_a_partner("33.33")
    charge = a_charge(
        org_id=org_id,
        amount_gross="100",
        waived_amount="7",
        tax_amount="10",
        credit_applied="4.5",
        quantity="2.50",
    )
    await shared_world.deliver(charge)

    listed = (await shared_world.must("GET", f"/ledger/entries?org_id={org_id}"))["items"][0]

    expected = {
        "quantity": "2.5",
        "amount_gross": "100.00",
        "waived_amount": "7.00",
        "credit_applied": "4.50",
        "partner_pct": "33.33",
        "partner_amount": "33.33",
        "net": "66.67",
        "payable": "105.50",
        "occurred_at": "2026-11-04T02:00:00.000000Z",
        "status": "pending",
        "kind": "usage",
        "tax_code": "GST",
    }
    assert {name: listed[name] for name in expected} == expected
    assert await shared_world.must("GET", f"/ledger/entries/{listed['entry_id']}") == listed
    assert await refusal(shared_world, "GET", f"/ledger/entries/{new_id()}") == (404, "not_found")


async def test_balances_sum_by_currency_until_an_instant(shared_world: World) -> None:
    org_id = await shared_world.an_org_with_a_partner()
    await shared_world.deliver(
        a_charge(
            org_id=org_id, charge_id="a", amount_gross="10.00", tax_amount="1.00", credit_applied="2.00"
        ),
        a_charge(org_id=org_id, charge_id="b", amount_gross="-4.00", waived_amount="0.50"),
        a_charge(org_id=org_id, charge_id="c", amount_gross="25", currency="JPY", sku="mail"),
    )
    path = f"/ledger/balances?org_id={org_id}"

    now = await shared_world.must("GET", path)
    by_sku = await shared_world.must("GET", f"{path}&sku=mail&period=2026-11")
    old = await shared_world.must("GET", f"{path}&as_of=2026-01-01T00:00:00Z")
    ahead = await shared_world.must("GET", f"{path}&as_of=2099-01-01T00:00:00Z")

    aud = {
        "currency": "AUD",
        "amount_gross": "6.00",
        "waived_amount": "0.50",
        "credit_applied": "2.00",
        "tax_amount": "1.00",
        "partner_amount": "0.60",
        "net": "5.40",
        "lines": 2,
    }
    assert now["items"][0] == aud
    assert [item["currency"] for item in now["items"]] == ["AUD", "JPY"]
    assert by_sku["items"] == [now["items"][1]]
    assert old["items"] == ahead["items"] == []
    assert ahead["as_of"] < now["as_of"] or ahead["as_of"][:4] == "2026"


async def test_what_people_set_leaves_audit_entries_with_the_actor(shared_world: World) -> None:
    user_id, org_id = new_id(), await shared_world.org()
    finance = {"roles": ["Finance"], "user_id": user_id}
    _, partner = await shared_world.call("POST", "/partners", {"name": "A", "tier": "gold"}, **finance)
    await shared_world.call("PUT", "/commission-rates", a_rate(), **finance)
    por = {"org_id": str(org_id), "partner_id": partner["partner_id"], "start_at": START}
    await shared_world.call("POST", "/partner-of-record", por, **finance)
    account = {"owner_org_id": str(org_id), "name": "Group", "currency": "AUD"}
    await shared_world.call("POST", "/billing-accounts", account, **finance)

    entries = await shared_world.owner.fetch(
        "SELECT DISTINCT entity, action FROM ledger.audit_entry WHERE actor = $1 ORDER BY 1",
        f"user:{user_id}",
    )

    assert [tuple(entry) for entry in entries] == [
        ("billing_account", "insert"),
        ("commission_rate", "insert"),
        ("partner", "insert"),
        ("partner_of_record", "insert"),
        ("partner_tier", "insert"),
    ]


async def test_the_same_idempotency_key_creates_once(shared_world: World) -> None:
    user_id, key = new_id(), {"Idempotency-Key": str(new_id())}
    headers = shared_world.client.auth(roles=["Finance"], user_id=user_id) | key
    body = {"name": "Once", "tier": "gold"}

    _, first = await shared_world.call("POST", "/partners", body, headers=headers)
    _, again = await shared_world.call("POST", "/partners", body, headers=headers)
    status, _ = await shared_world.call("POST", "/partners", body | {"name": "Twice"}, headers=headers)

    assert first == again
    assert status == 422
