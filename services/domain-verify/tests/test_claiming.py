"""Claims at the doors: names, tokens, who may see what, conflicts, races, expiry."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest

from eb_contracts.ids import new_id

from .world import World, until


@pytest.mark.parametrize(
    ("domain", "code"),
    [
        ("com", "domain_single_label"),
        ("localhost", "domain_single_label"),
        ("co.uk", "domain_is_public_suffix"),
        ("github.io", "domain_is_public_suffix"),
        ("192.0.2.1", "domain_is_address"),
        ("[2001:db8::1]", "domain_is_address"),
        ("0x7f.1", "domain_is_address"),
        ("office@example.com", "domain_is_address"),
        ("gmail.com", "domain_is_free_mail"),
        ("mail.GMAIL.com", "domain_is_free_mail"),
        ("verify.event-builder.test", "domain_is_platform"),
        ("event-builder.test", "domain_is_platform"),
        ("_dmarc.example.com", "domain_underscore"),
        ("-x.example.com", "domain_invalid"),
        ("x..example.com", "domain_invalid"),
        ("😀.example.com", "domain_invalid"),
        ("a" * 64 + ".com", "domain_invalid"),
        ("https://example.com", "domain_invalid"),
        (" ", "domain_invalid"),
    ],
)
async def test_what_cannot_be_claimed_has_a_code(shared_world: World, domain: str, code: str) -> None:
    org = await shared_world.client.org()

    status, problem = await shared_world.call(
        "POST", "/verify/claims", {"org_id": str(org), "domain": domain}, auth=shared_world.admin(org)
    )

    assert status == 422
    if domain.strip():
        assert problem["code"] == code
        assert problem["errors"][0]["pointer"] == "/domain"


async def test_a_claim_is_normalised_and_shows_how_to_prove(shared_world: World) -> None:
    claim = await shared_world.claim("Büros.Example.")

    assert claim["domain"] == "xn--bros-0ra.example"
    assert claim["status"] == "pending"
    assert len(claim["token"]) == 26
    assert claim["send_to"].endswith("@verify.event-builder.test")
    assert len(claim["dns_token"]) == 26
    assert claim["last_attempt"] is None
    [row] = await shared_world.sql(
        "SELECT token_sha256 FROM domain_verify.claim_challenge WHERE claim_id = $1", claim["claim_id"]
    )
    assert claim["token"].encode() not in row["token_sha256"]


async def test_who_may_not_claim_sees_the_claim_but_not_how_to_prove_it(shared_world: World) -> None:
    claim = await shared_world.claim("seen.example.com")
    org = UUID(claim["org_id"])
    path = f"/verify/claims/{claim['claim_id']}"

    status, shown = await shared_world.call(
        "GET", path, auth=shared_world.client.auth(roles=["User"], org_id=org)
    )
    assert (status, shown["send_to"], shown["dns_token"], shown["token"]) == (200, None, None, None)

    other = await shared_world.client.org()
    status, _ = await shared_world.call("GET", path, auth=shared_world.admin(other))
    assert status == 404
    status, problem = await shared_world.call(
        "DELETE", path, auth=shared_world.client.auth(roles=["User"], org_id=org)
    )
    assert (status, problem["code"]) == (403, "forbidden")


async def test_claiming_twice_names_the_first_claim(shared_world: World) -> None:
    claim = await shared_world.claim("twice.example.com")
    org = UUID(claim["org_id"])

    status, problem = await shared_world.call(
        "POST",
        "/verify/claims",
        {"org_id": str(org), "domain": "twice.example.com"},
        auth=shared_world.admin(org),
    )

    assert (status, problem["code"], problem["claim_id"]) == (409, "claim_exists", claim["claim_id"])


async def test_resend_kills_the_old_token_and_address(shared_world: World) -> None:
    world = shared_world
    claim = await world.claim("resent.example.com")
    world.publish("resent.example.com")
    auth = world.admin(UUID(claim["org_id"]))

    status, renewed = await world.call("POST", f"/verify/claims/{claim['claim_id']}:resend", auth=auth)

    assert status == 200
    assert renewed["token"] != claim["token"]
    assert renewed["send_to"] != claim["send_to"]
    old = await world.judged(await world.send(world.letter(claim).raw(), claim))
    assert old["reasons"] == ["claim_unknown"]
    mixed = await world.judged(
        await world.send(world.letter(renewed | {"token": claim["token"]}).raw(), renewed)
    )
    assert mixed["reasons"] == ["token_wrong"]
    good = await world.judged(await world.send(world.letter(renewed).raw(), renewed))
    assert good["outcome"] == "verified"
    status, problem = await world.call("POST", f"/verify/claims/{claim['claim_id']}:resend", auth=auth)
    assert (status, problem["code"]) == (409, "claim_not_pending")


async def test_a_secret_answer_is_not_repeated(shared_world: World) -> None:
    org = await shared_world.client.org()
    auth = shared_world.admin(org) | {"Idempotency-Key": str(uuid4())}
    body = {"org_id": str(org), "domain": "once.example.com"}

    first, _ = await shared_world.call("POST", "/verify/claims", body, auth=auth)
    status, problem = await shared_world.call("POST", "/verify/claims", body, auth=auth)

    assert (first, status, problem["code"]) == (201, 409, "answer_not_repeatable")


async def test_the_second_claimant_may_prove_first_and_wins(shared_world: World) -> None:
    world = shared_world
    first, second = await world.claim("won.example.com"), await world.claim("won.example.com")
    world.publish("won.example.com")
    assert (first["status"], second["status"]) == ("pending", "pending_conflict")

    assert (await world.judged(await world.send(world.letter(second).raw(), second)))["outcome"] == "verified"

    assert (await world.shown(second))["status"] == "verified"
    assert (await world.shown(first))["status"] == "pending_conflict"
    late = await world.judged(await world.send(world.letter(first).raw(), first))
    assert (late["outcome"], late["reasons"]) == ("refused", ["conflict"])
    assert (await world.shown(second))["status"] == "verified"


async def test_revoking_lets_the_next_one_move_up(shared_world: World) -> None:
    world = shared_world
    first, second = await world.claim("moved.example.com"), await world.claim("moved.example.com")
    path, auth = f"/verify/claims/{first['claim_id']}", world.admin(UUID(first["org_id"]))

    assert (await world.call("DELETE", path, auth=auth))[0] == 204
    assert (await world.call("DELETE", path, auth=auth))[0] == 204

    assert (await world.shown(first))["status"] == "revoked"
    assert (await world.shown(second))["status"] == "pending"
    mail = await world.judged(await world.send(world.letter(first).raw(), first))
    assert "claim_revoked" in mail["reasons"]


async def test_a_verified_wildcard_and_sub_domains_conflict_both_ways(shared_world: World) -> None:
    world = shared_world
    wide = await world.claim("wide.example", wildcard=True)
    below = await world.claim("mail.wide.example")
    assert below["status"] == "pending"
    world.publish("wide.example")
    assert (await world.judged(await world.send(world.letter(wide).raw(), wide)))["outcome"] == "verified"

    assert (await world.shown(below))["status"] == "pending_conflict"
    assert (await world.claim("other.wide.example"))["status"] == "pending_conflict"

    narrow = await world.claim("mail.narrow.example")
    world.publish("mail.narrow.example")
    await world.judged(await world.send(world.letter(narrow).raw(), narrow))
    assert (await world.claim("narrow.example"))["status"] == "pending"
    assert (await world.claim("narrow.example", wildcard=True))["status"] == "pending_conflict"


async def test_only_an_organizational_domain_may_be_wide(shared_world: World) -> None:
    org = await shared_world.client.org()
    body = {"org_id": str(org), "domain": "mail.wider.example", "wildcard": True}

    status, problem = await shared_world.call("POST", "/verify/claims", body, auth=shared_world.admin(org))

    assert (status, problem["code"]) == (422, "wildcard_not_organizational")


async def test_many_claim_at_once_and_one_is_pending(shared_world: World) -> None:
    claims = await asyncio.gather(*(shared_world.claim("crowded.example.com") for _ in range(12)))

    statuses = [claim["status"] for claim in claims]
    assert statuses.count("pending") == 1
    assert statuses.count("pending_conflict") == 11


@pytest.mark.parametrize("turn", range(3))
async def test_racing_proofs_have_one_winner(world: World, turn: int) -> None:
    domain = f"raced{turn}.example.com"
    world.publish(domain)
    claims = [await world.claim(domain) for _ in range(8)]

    mails = await asyncio.gather(*(world.send(world.letter(claim).raw(), claim) for claim in claims))
    judged = await asyncio.gather(*(world.judged(mail_id) for mail_id in mails))

    assert sorted(mail["outcome"] for mail in judged) == ["refused"] * 7 + ["verified"]
    assert {tuple(mail["reasons"]) for mail in judged} == {(), ("conflict",)}
    rows = await world.sql(
        "SELECT status::text AS status, count(*) AS n, count(proof) AS proofs FROM domain_verify.domain_claim"
        " WHERE domain = $1 GROUP BY 1 ORDER BY 1",
        domain,
    )
    assert {row["status"]: (row["n"], row["proofs"]) for row in rows} == {
        "verified": (1, 1),
        "pending_conflict": (7, 7),
    }


async def test_racing_wildcard_and_sub_domain_have_one_winner(world: World) -> None:
    world.publish("apex.example")
    world.publish("sub.apex.example")
    wide, below = await world.claim("apex.example", wildcard=True), await world.claim("sub.apex.example")

    mails = await asyncio.gather(*(world.send(world.letter(claim).raw(), claim) for claim in (wide, below)))
    judged = await asyncio.gather(*(world.judged(mail_id) for mail_id in mails))

    assert sorted(mail["outcome"] for mail in judged) == ["refused", "verified"]


async def test_pending_claims_expire_and_hold_nothing(world: World) -> None:
    first, second = await world.claim("expired.example.com"), await world.claim("expired.example.com")
    await _age(world, first)

    shown = await until(lambda: world.shown(second), lambda claim: claim["status"] == "pending")

    assert shown["status"] == "pending"
    assert (await world.shown(first))["status"] == "revoked"


async def test_an_expired_claim_does_not_stand_in_the_way_of_a_new_one(world: World) -> None:
    first = await world.claim("retaken.example.com")
    await _age(world, first)

    assert (await world.claim("retaken.example.com", UUID(first["org_id"])))["status"] == "pending"


async def _age(world: World, claim: dict[str, Any]) -> None:
    """Let a claim's 73 hours pass."""
    await world.sql(
        "WITH actor AS (SELECT set_config('eb.actor', 'system:test', true)),"
        " aged AS (UPDATE domain_verify.claim_challenge SET expires_at = expires_at - interval '73 hours'"
        " WHERE claim_id = $1) UPDATE domain_verify.domain_claim SET expires_at = expires_at - interval '73 hours'"
        " FROM actor WHERE claim_id = $1",
        UUID(claim["claim_id"]),
    )


async def test_lists_are_paged_newest_first_and_need_an_organisation(shared_world: World) -> None:
    world = shared_world
    org = await world.client.org()
    made = [(await world.claim(f"listed{n}.example.com", org))["claim_id"] for n in range(3)]
    auth = world.client.auth(roles=["Admin"], org_id=org, user_id=new_id())

    _, first = await world.call("GET", f"/verify/claims?org_id={org}&limit=2", auth=auth)
    _, rest = await world.call(
        "GET", f"/verify/claims?org_id={org}&limit=2&cursor={first['next_cursor']}", auth=auth
    )

    assert [claim["claim_id"] for claim in first["items"] + rest["items"]] == made[::-1]
    assert all(claim["token"] is None for claim in first["items"])
    assert rest["next_cursor"] is None
    assert (await world.call("GET", "/verify/claims", auth=auth))[0] == 400
    assert (await world.call("GET", "/verify/claims?status=pending", auth=world.staff()))[0] == 200
    assert (await world.call("GET", "/verify/claims?status=nonsense", auth=world.staff()))[0] == 400


async def test_changes_are_announced_with_rising_versions(world: World) -> None:
    claim = await world.claim("announced.example.com")
    world.publish("announced.example.com")
    await world.judged(await world.send(world.letter(claim).raw(), claim))

    rows = await world.sql(
        "SELECT convert_from(body, 'UTF8')::jsonb ->> 'status' AS status, type FROM domain_verify.outbox"
        " WHERE subject = $1 ORDER BY outbox_id",
        claim["claim_id"],
    )

    assert [row["status"] for row in rows] == ["pending", "verified"]
    assert {row["type"] for row in rows} == {"domain_verify.domain_claim.changed.v1"}


async def test_mails_are_shown_to_staff_only(shared_world: World) -> None:
    claim = await shared_world.claim("staffed.example.com")
    mail_id = await shared_world.send(b"From: a@b.example\r\n\r\n", claim)
    path = f"/verify/mails/{mail_id}"

    assert (await shared_world.call("GET", path))[0] == 401
    assert (await shared_world.call("GET", path, auth=shared_world.staff("Finance")))[0] == 403
    org = UUID(claim["org_id"])
    assert (await shared_world.call("GET", path, auth=shared_world.admin(org)))[0] in (403, 404)
    assert (await shared_world.call("GET", f"/verify/mails/{new_id()}", auth=shared_world.staff()))[0] == 404
