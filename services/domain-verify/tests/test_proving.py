"""From a claim to a verdict, through the doors, with real DNS and a real judging process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest

from eb_domain_verify.domain import proofs
from eb_domain_verify.jobs import judge_mail
from eb_domain_verify.outside.judge_process import JudgeProcess
from eb_domain_verify.store import mails
from eb_kit.testing_db import ClonedDatabase
from eb_tools.mail_demo import DnsServer, demo_zone, load_key, prove, raw_headers

from .mails import SELECTOR, other_key
from .world import OLD_SECRET, PROCESSOR, RAW_SECRET, World, a_world, until


async def test_a_signed_mail_verifies_its_claim(shared_world: World) -> None:
    world = shared_world
    claim = await world.claim("Signed.Example.COM.")
    world.publish("signed.example.com")

    mail_id = await world.send(world.letter(claim).raw(), claim)

    mail = await world.judged(mail_id)
    assert (mail["outcome"], mail["reasons"], mail["claim_id"]) == ("verified", [], claim["claim_id"])
    assert mail["checks"]["level"] == "AL2"
    shown = await world.shown(claim)
    assert shown["status"] == "verified"
    assert shown["last_attempt"]["outcome"] == "verified"
    assert shown["token"] is None


async def test_the_proof_is_kept_and_chained(shared_world: World) -> None:
    world = shared_world
    claim = await world.claim("chained.example.com")
    world.publish("chained.example.com")
    await world.judged(await world.send(world.letter(claim).raw(), claim))

    [row] = await world.sql(
        "SELECT proof::text AS proof FROM domain_verify.domain_claim WHERE claim_id = $1", claim["claim_id"]
    )

    proof = json.loads(row["proof"])
    assert proofs.holds(proof)
    assert f"{SELECTOR}._domainkey.chained.example.com" in proof["dns"]
    assert proof["about"]["method"] == "dkim"
    proof["checks"]["dmarc"]["policy"] = "none"
    assert not proofs.holds(proof)


async def test_a_replayed_mail_is_refused_and_the_claim_stays_verified(shared_world: World) -> None:
    world = shared_world
    claim = await world.claim("replayed.example.com")
    world.publish("replayed.example.com")
    raw = world.letter(claim).raw()
    await world.judged(await world.send(raw, claim))

    again = await world.judged(await world.send(raw, claim, helo="other"))

    assert (again["outcome"], again["reasons"]) == ("refused", ["token_used"])
    assert (await world.shown(claim))["status"] == "verified"


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("unsigned", "dkim_missing"),
        ("forged", "from_domain_mismatch"),
        ("foreign key", "dkim_signature_wrong"),
    ],
)
async def test_what_proves_nothing_is_refused_with_its_reason(
    shared_world: World, kind: str, reason: str
) -> None:
    world = shared_world
    domain = f"{kind.replace(' ', '-')}.example.com"
    claim = await world.claim(domain)
    world.publish(domain)
    letter = world.letter(claim)
    broken = {
        "unsigned": lambda: replace(letter, signings=()),
        "forged": lambda: letter.with_field("From", "boss@victim.example"),
        "foreign key": lambda: letter.signed(key=other_key()),
    }[kind]()

    mail = await world.judged(await world.send(broken.raw(), claim))

    shown = await world.shown(claim)
    assert (mail["outcome"], shown["status"]) == ("refused", "pending")
    assert reason in shown["last_attempt"]["reasons"] == mail["reasons"]


async def test_a_mail_to_nobody_belongs_to_no_claim(shared_world: World) -> None:
    claim = {"domain": "nobody.example.com", "send_to": "c-nobody@verify.event-builder.test"}

    mail = await shared_world.judged(await shared_world.send(b"From: a@b.example\r\n\r\n", claim))

    assert (mail["claim_id"], mail["reasons"]) == (None, ["claim_unknown"])


async def test_the_identical_request_is_answered_alike_and_judged_once(shared_world: World) -> None:
    world = shared_world
    claim = await world.claim("identical.example.com")
    world.publish("identical.example.com")
    raw, now = world.letter(claim).raw(), int(time.time())

    ids = await asyncio.gather(*(world.send(raw, claim, at=now) for _ in range(8)))

    assert len(set(ids)) == 1
    assert (await world.judged(ids[0]))["outcome"] == "verified"
    assert await world.send(raw, claim, at=now) == ids[0]
    assert (await world.shown(claim))["last_attempt"]["outcome"] == "verified"


async def test_an_old_secret_counts_while_rotating(shared_world: World) -> None:
    claim = await shared_world.claim("rotating.example.com")

    status, _ = await shared_world.post_raw(b"From: a@b.example\r\n\r\n", claim, secret=OLD_SECRET)

    assert status == 202


async def test_signature_age_and_size_are_checked(shared_world: World) -> None:
    world = shared_world
    claim = await world.claim("checked.example.com")
    now = int(time.time())

    assert await _code(world.post_raw(b"x", claim, secret="not-the-secret")) == (401, "signature_invalid")
    assert await _code(world.post_raw(b"x", claim, at=now - 400)) == (409, "request_stale")
    assert await _code(world.post_raw(b"x", claim, at=now + 400)) == (409, "request_stale")
    assert (await world.post_raw(b"x" * (1 << 20) + b"x", claim))[0] == 413
    assert (await world.call("POST", "/verify/inbound/raw", data=b"x"))[0] == 401
    assert (await world.call("POST", "/verify/inbound/mailgun", data=b"x"))[0] == 404


async def _code(answer: object) -> tuple[int, str]:
    status, body = await answer  # type: ignore[misc]
    return status, body["code"]


async def test_each_signed_part_of_a_raw_mail_is_covered(shared_world: World) -> None:
    envelope = {"from": "a@b.example", "to": "c@d.example", "ip": "192.0.2.1", "helo": "mx"}
    good = raw_headers(RAW_SECRET, b"x", envelope)
    changed = [
        good | {name: value}
        for name, value in {
            "X-EB-Timestamp": str(int(good["X-EB-Timestamp"]) + 1),
            "X-EB-Envelope-From": "",
            "X-EB-Envelope-To": "other@d.example",
            "X-EB-Client-IP": "192.0.2.2",
            "X-EB-Helo": "other",
            "X-EB-Signature": good["X-EB-Signature"].replace("v1=", "v2="),
        }.items()
    ]
    for headers in [*changed, {name: good[name] for name in good if name != "X-EB-Helo"}]:
        status, problem = await shared_world.call("POST", "/verify/inbound/raw", data=b"x", headers=headers)
        assert (status, problem["code"]) == (401, "signature_invalid")
    assert (await shared_world.call("POST", "/verify/inbound/raw", data=b"y", headers=good))[0] == 401
    assert (await shared_world.call("POST", "/verify/inbound/raw", data=b"x", headers=good))[0] == 202


async def test_a_server_failure_waits_and_is_tried_again(world: World) -> None:
    claim = await world.claim("waiting.example.com")
    world.publish("waiting.example.com")
    key_name = f"{SELECTOR}._domainkey.waiting.example.com"
    world.zone[key_name] = None
    mail_id = await world.send(world.letter(claim).raw(), claim)

    waiting = await until(lambda: world.mail(mail_id), lambda mail: mail["reasons"] == ["dns_unavailable"])
    assert (waiting["outcome"], waiting["attempts"]) == ("waiting", 1)
    assert (await world.shown(claim))["last_attempt"]["outcome"] == "waiting"
    due = datetime.fromisoformat(waiting["next_attempt_at"]) - datetime.now(UTC)
    assert timedelta(seconds=10) < due <= timedelta(seconds=15)

    stranger = await world.send(b"From: stranger@b.example\r\n\r\n", claim)
    assert (await world.judged(stranger))["outcome"] == "refused"
    assert (await world.shown(claim))["last_attempt"]["outcome"] == "waiting"

    world.publish("waiting.example.com")
    asked = world.dns.questions.count("_dmarc.waiting.example.com")
    await _make_due(world, mail_id)
    assert (await world.judged(mail_id))["outcome"] == "verified"
    assert world.dns.questions.count("_dmarc.waiting.example.com") == asked
    assert (await world.shown(claim))["status"] == "verified"


async def _make_due(world: World, mail_id: str) -> None:
    await world.sql(
        "UPDATE domain_verify.inbound_mail SET next_attempt_at = received_at WHERE mail_id = $1", mail_id
    )


async def test_a_waiting_mail_is_given_up_after_a_day(world: World) -> None:
    claim = await world.claim("givenup.example.com")
    world.zone[f"{SELECTOR}._domainkey.givenup.example.com"] = None
    mail_id = await world.send(world.letter(claim).raw(), claim)
    await until(lambda: world.mail(mail_id), lambda mail: mail["reasons"] == ["dns_unavailable"])

    await world.sql(
        "UPDATE domain_verify.inbound_mail SET received_at = received_at - interval '24 hours',"
        " next_attempt_at = received_at WHERE mail_id = $1",
        mail_id,
    )

    mail = await world.judged(mail_id)
    assert mail["outcome"] == "refused"


async def test_killing_the_judging_process_ends_with_the_same_single_verdict(world: World) -> None:
    process = world.client.context.extras["judge"].process
    claims = [await world.claim(f"killed{index}.example.com") for index in range(8)]
    for claim in claims:
        world.publish(claim["domain"])
    killing = asyncio.create_task(_kill_twice(process))

    ids = [await world.send(world.letter(claim).raw(), claim) for claim in claims]

    outcomes = {(await world.judged(mail_id))["outcome"] for mail_id in ids}
    killing.cancel()
    assert outcomes == {"verified"}
    assert {(await world.shown(claim))["status"] for claim in claims} == {"verified"}
    assert await _times_verified(world) == len(claims)


async def _kill_twice(process: JudgeProcess) -> None:
    """Kill two judging processes, each as soon as it is there."""
    killed: set[int] = set()
    while len(killed) < 2:
        if process.pid is not None and process.pid not in killed:
            killed.add(process.pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        await asyncio.sleep(0)


async def test_a_costly_mail_is_refused_and_others_are_not_held_up(shared_world: World) -> None:
    world = shared_world
    claim = await world.claim("costly.example.com")
    world.publish("costly.example.com")
    letter = replace(world.letter(claim), body=b" " * 1_000_000 + b"x\r\n")

    costly = await world.judged(await world.send(letter.raw(), claim))
    good = await world.judged(await world.send(world.letter(claim).raw(), claim))

    assert costly["reasons"] == ["too_costly"]
    assert good["outcome"] == "verified"


async def test_a_mail_taken_by_a_process_that_died_is_judged_by_another(fresh_db: ClonedDatabase) -> None:
    async with a_world(fresh_db, doors=("api",)) as first:
        claim = await first.claim("taken.example.com")
        mail_id = await first.send(first.letter(claim).raw(), claim)
        async with first.client.context.begin("system:test") as tx:
            [taken] = await mails.take_mails(tx, tx.now, timedelta(seconds=0), 1)
    assert (str(taken.mail_id), taken.attempts) == (mail_id, 1)

    async with a_world(fresh_db) as second:
        second.publish("taken.example.com")
        mail = await second.judged(mail_id)

    assert (mail["outcome"], mail["attempts"]) == ("verified", 2)


async def test_two_desks_with_the_same_mail_keep_one_verdict(fresh_db: ClonedDatabase) -> None:
    async with a_world(fresh_db, doors=("api",)) as world:
        claim = await world.claim("twofold.example.com")
        world.publish("twofold.example.com")
        mail_id = await world.send(world.letter(claim).raw(), claim)
        context = world.client.context
        async with context.begin("system:test") as tx:
            [taken] = await mails.take_mails(tx, tx.now, timedelta(seconds=60), 1)

        await asyncio.gather(*(judge_mail(context, context.extras["judge"], taken) for _ in range(5)))

        assert (await world.mail(mail_id))["outcome"] == "verified"
        assert (await world.shown(claim))["last_attempt"]["outcome"] == "verified"
        assert await _times_verified(world) == 1


async def _times_verified(world: World) -> int:
    """Count, in the audit, how often a claim became verified."""
    [row] = await world.sql(
        "SELECT count(*) AS n FROM domain_verify.audit_entry WHERE after ->> 'status' = 'verified'"
        " AND before ->> 'status' <> 'verified'"
    )
    return int(row["n"])


async def test_a_processor_is_believed(shared_world: World) -> None:
    world = shared_world
    key = await world.client.api_key(None, kind="service", name=PROCESSOR)
    claim = await world.claim("asserted.example.com")
    said = {
        "token": claim["token"],
        "from_domain": "Asserted.Example.com",
        "dkim_pass": True,
        "spf_pass": False,
        "dmarc_aligned": True,
    }

    refused = await world.submit(said | {"dkim_pass": False, "dmarc_aligned": False}, key=key)
    elsewhere = await world.submit(said | {"from_domain": "victim.example"}, key=key)
    verified = await world.submit(said, key=key)
    again = await world.submit(said, key=key)

    assert refused == (200, {"status": "rejected", "reasons": ["dkim_not_asserted", "dmarc_unaligned"]})
    assert elsewhere == (200, {"status": "rejected", "reasons": ["from_domain_mismatch"]})
    assert verified == (200, {"status": "verified", "reasons": []})
    assert again == (200, {"status": "rejected", "reasons": ["token_unknown"]})
    [row] = await world.sql(
        "SELECT proof ->> 'processor' AS processor, proof #>> '{about,method}' AS method"
        " FROM domain_verify.domain_claim WHERE claim_id = $1",
        claim["claim_id"],
    )
    assert tuple(row) == (PROCESSOR, "asserted")


async def test_an_assertion_needs_credential_and_signature(shared_world: World) -> None:
    world = shared_world
    key = await world.client.api_key(None, kind="service", name=PROCESSOR)
    stranger = await world.client.api_key(None, kind="service", name="another-service")
    said = {"token": "x", "from_domain": "y", "dkim_pass": True, "spf_pass": True, "dmarc_aligned": True}

    assert (await world.submit(said, key="nonsense"))[0] == 401
    assert (await world.submit(said, key=key, secret="wrong"))[0] == 401
    assert (await world.submit(said, key=stranger))[0] == 401
    assert (await world.submit(said, key=key, at=int(time.time()) - 400))[0] == 409
    assert (await world.submit(said | {"more": 1}, key=key))[0] == 422
    assert await world.submit(said, key=key, secret=OLD_SECRET) == (
        200,
        {"status": "rejected", "reasons": ["token_unknown"]},
    )


async def test_an_assertion_is_not_enough_in_a_conflict(shared_world: World) -> None:
    world = shared_world
    key = await world.client.api_key(None, kind="service", name=PROCESSOR)
    await world.claim("contested.example.com")
    second = await world.claim("contested.example.com")
    said = {"token": second["token"], "from_domain": "contested.example.com", "spf_pass": True}

    answer = await world.submit(said | {"dkim_pass": True, "dmarc_aligned": True}, key=key)

    assert answer == (200, {"status": "rejected", "reasons": ["conflict"]})


async def test_the_demo_proves_a_domain(fresh_db: ClonedDatabase, tmp_path: Path) -> None:
    key = load_key(tmp_path / "demo.pem")
    async with DnsServer(demo_zone(key)) as dns, a_world(fresh_db, DNS_SERVERS=dns.address) as world:
        claim = await world.claim("harbour-events.test")

        mail_id = await prove(world.client.http, world.client.base_url, claim, key, RAW_SECRET)

        assert (await world.judged(mail_id))["outcome"] == "verified"


async def test_the_judging_process_rests_and_comes_back(fresh_db: ClonedDatabase) -> None:
    async with a_world(fresh_db, EB_JUDGE_REST_S="0.1") as world:
        claim = await world.claim("rested.example.com")
        world.publish("rested.example.com")
        process = world.client.context.extras["judge"].process
        await world.judged(await world.send(world.letter(claim).signed(broken=True).raw(), claim))
        first = process.pid

        await until(_async(lambda: psutil.pid_exists(first)), lambda is_there: not is_there)

        good = await world.judged(await world.send(world.letter(claim).raw(), claim))
        assert good["outcome"] == "verified"
        assert process.pid != first


def _async(look: Callable[[], Any]) -> Callable[[], Awaitable[Any]]:
    async def answer() -> Any:
        return look()

    return answer
