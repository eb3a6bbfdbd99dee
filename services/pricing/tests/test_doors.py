"""Reading charges, counters, and the sum behind a charge."""

from __future__ import annotations

from fractions import Fraction

from .factories import AT, GRADUATED, assigned, org_terms, terms, usage
from .world import World, someone


async def test_charges_are_listed_newest_first_and_in_pages(shared_world: World) -> None:
    org_id = await shared_world.org()
    records = [usage(org_id, str(n)) for n in range(1, 6)]
    for record in records:
        await shared_world.deliver(record)

    seen, cursor, reader = [], "", shared_world.client.auth(roles=["Operator"])
    while cursor is not None:
        status, page = await shared_world.get(
            f"/pricing/charges?org_id={org_id}&limit=2" + (f"&cursor={cursor}" if cursor else ""),
            headers=reader,
        )
        assert status == 200
        seen += [item["charge_id"] for item in page["items"]]
        cursor = page["next_cursor"]

    assert seen == [str(record.usage_id) for record in reversed(records)]


async def test_a_charge_shows_what_it_moved(shared_world: World) -> None:
    org_id = await shared_world.org(terms(tax_code="GST", tax_rate="0.1"))
    await shared_world.deliver(usage(org_id, "3"))
    await shared_world.deliver(usage(org_id, "2.50", events=2))

    _, page = await shared_world.get(f"/pricing/charges?org_id={org_id}")

    newest = page["items"][0]
    assert {
        name: newest[name] for name in ("amount_gross", "waived_amount", "credit_applied", "tax_amount")
    } == {
        "amount_gross": "0.25",
        "waived_amount": "0.00",
        "credit_applied": "0.00",
        "tax_amount": "0.03",
    }
    assert newest["quantity"] == "2.5"
    assert newest["time"] == "2026-11-04T02:00:00.000000Z"
    assert newest["counter"] == {
        "before": {"quantity": "3", "events": 1, "charged": "0.30", "version": 1},
        "after": {"quantity": "5.5", "events": 3, "charged": "0.55", "version": 2},
    }


async def test_charges_are_picked_by_filters(shared_world: World) -> None:
    org_id = await shared_world.org(terms(), terms("mail"))
    sms, mail = usage(org_id), usage(org_id, sku="mail", project_id=someone())
    await shared_world.deliver(sms, mail)

    for query, expected in (
        ("sku=sms", {sms}),
        (f"project_id={mail.project_id}", {mail}),
        ("period=2026-11", {sms, mail}),
        ("period=2026-10", set()),
        ("kind=adjustment", set()),
        (f"charge_id={sms.usage_id}", {sms}),
        ("created_from=2026-11-05T00:00:00Z", {sms, mail}),
        ("created_to=2026-11-05T00:00:00Z", set()),
    ):
        _, page = await shared_world.get(f"/pricing/charges?org_id={org_id}&{query}")
        assert {item["charge_id"] for item in page["items"]} == {str(one.usage_id) for one in expected}, query


async def test_usage_shows_each_counter(shared_world: World) -> None:
    defined = terms()
    org_id = await shared_world.org(defined)
    await shared_world.deliver(usage(org_id, "3"), usage(org_id, minute=AT.replace(month=12)))

    _, page = await shared_world.get(f"/pricing/usage?org_id={org_id}")

    assert [item["period"] for item in page["items"]] == ["2026-12", "2026-11"]
    assert page["items"][1] == {
        "org_id": str(org_id),
        "sku": "sms",
        "period": "2026-11",
        "quantity": "3",
        "events": 1,
        "charged": "0.30",
        "waived": "0.00",
        "currency": "AUD",
        "terms_hash": defined.terms_hash,
    }


async def test_an_explanation_alone_lets_the_sum_be_redone(shared_world: World) -> None:
    defined = terms(tiers=GRADUATED, included_qty="20", tax_code="GST", tax_rate="0.1")
    org_id = await shared_world.org(defined)
    await shared_world.deliver(usage(org_id, "100"))
    record = usage(org_id, "50.5", events=4)
    await shared_world.deliver(record)

    status, told = await shared_world.get(f"/pricing/charges/{record.usage_id}/explain")

    assert status == 200
    sums = told["arithmetic"]
    by_hand = [
        Fraction(row["quantity"]) * Fraction(row["unit_price"]) + Fraction(row["flat_fee"])
        for row in sums["tiers"]
    ]
    assert by_hand == [Fraction(row["amount"]) for row in sums["tiers"]]
    assert sum(by_hand) == Fraction(sums["price"]) == Fraction("11.525")
    assert (sums["rounding"], sums["target"], sums["charged_before"]) == ("half_up", "11.53", "8.00")
    assert told["charge"]["amount_gross"] == sums["amount_due"] == "3.53"
    assert told["tax"] == {
        "tax_code": "GST",
        "rate": "0.1",
        "base": "11.53",
        "taxed": "1.15",
        "tax_amount": "0.35",
    }
    assert told["payable"] == "3.88"
    assert told["terms"]["terms_hash"] == defined.terms_hash
    assert told["terms"]["body"]["included_qty"] == "20"
    assert told["trace_ids"] == list(record.trace_ids)
    assert told["usage"] == {
        "usage_id": str(record.usage_id),
        "quantity": "50.5",
        "events": 4,
        "events_url": f"/metering/events?org_id={org_id}&usage_id={record.usage_id}",
    }


async def test_an_adjusting_charge_is_explained_too(shared_world: World) -> None:
    old, new = terms(), terms(overage_price="0.25")
    org_id = await shared_world.org(old)
    await shared_world.deliver(usage(org_id, "4"))
    await shared_world.learn(new, org_terms(org_id, assigned(old), assigned(new, since=AT), version=2))
    await shared_world.sweep()
    _, page = await shared_world.get(f"/pricing/charges?org_id={org_id}&kind=adjustment")

    _, told = await shared_world.get(f"/pricing/charges/{page['items'][0]['charge_id']}/explain")

    assert told["usage"] is None
    assert told["charge"]["reason"] == "terms_changed"
    assert (told["arithmetic"]["target"], told["arithmetic"]["amount_due"]) == ("1.00", "0.60")


async def test_currencies_show_their_own_decimals(shared_world: World) -> None:
    yen, dinar = terms(currency="JPY", minor_digits=0), terms("mail", currency="KWD", minor_digits=3)
    org_id = await shared_world.org(yen, dinar)
    await shared_world.deliver(usage(org_id, "15"), usage(org_id, "15", sku="mail"))

    _, page = await shared_world.get(f"/pricing/charges?org_id={org_id}")

    assert {item["currency"]: item["amount_gross"] for item in page["items"]} == {"JPY": "2", "KWD": "1.500"}


async def test_strangers_see_nothing(shared_world: World) -> None:
    org_id = await shared_world.org()
    record = usage(org_id)
    await shared_world.deliver(record)
    stranger = {"roles": ["Admin"], "org_id": await shared_world.client.org()}
    missing = await shared_world.get(f"/pricing/charges/{someone()}/explain", **stranger)

    hidden = await shared_world.get(f"/pricing/charges/{record.usage_id}/explain", **stranger)

    assert missing[0] == hidden[0] == 404
    assert missing[1]["code"] == hidden[1]["code"] == "not_found"
    for path in ("charges", "usage"):
        status, _ = await shared_world.get(f"/pricing/{path}?org_id={org_id}", **stranger)
        assert status == 404


async def test_a_key_with_the_scope_and_a_member_may_read_their_own(shared_world: World) -> None:
    org_id = await shared_world.org()
    await shared_world.deliver(usage(org_id))
    key = await shared_world.client.api_key(org_id, ["pricing:read"])
    other = await shared_world.client.api_key(org_id, ["metering:write"])
    path = f"/pricing/charges?org_id={org_id}"

    assert (await shared_world.get(path, headers={"Authorization": f"Bearer {key}"}))[0] == 200
    assert (await shared_world.get(path, headers={"Authorization": f"Bearer {other}"}))[0] == 403
    assert (await shared_world.get(path, roles=["User"], org_id=org_id))[0] == 200


async def test_only_staff_may_leave_out_the_organisation(shared_world: World) -> None:
    org_id = await shared_world.org()
    await shared_world.deliver(usage(org_id))
    for path in ("charges", "usage"):
        status, problem = await shared_world.get(f"/pricing/{path}", roles=["Admin"], org_id=org_id)
        assert (status, problem["code"]) == (400, "parameter_invalid")
        status, page = await shared_world.get(f"/pricing/{path}?limit=1", roles=["Support"])
        assert status == 200
        assert len(page["items"]) == 1


async def test_nonsense_in_the_query_is_refused(shared_world: World) -> None:
    org_id = await shared_world.org()
    for query in ("period=2026-13", "kind=gift", "limit=201", "colour=red", "cursor=AAAA"):
        status, problem = await shared_world.get(f"/pricing/charges?org_id={org_id}&{query}")
        assert (status, problem["code"]) == (400, "parameter_invalid"), query
