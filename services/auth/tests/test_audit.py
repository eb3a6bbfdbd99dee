"""The audit: entries of all services in one chain per organisation, provable, readable, and free of what was erased."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import structlog
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from eb_auth.domain.audit import HEADS
from eb_auth.flows.auditing import chain_entries, note_heads
from eb_contracts.audit import AuditEntry, AuditRecorded
from eb_contracts.ids import new_id
from eb_kit.audit import send_audit_entries
from eb_tools.audit_cli import erase_person, prove
from eb_tools.trouble import Trouble

from .conftest import AuthService, Person

Tamper = Callable[["asyncpg.Connection[Any]", UUID], Awaitable[Any]]


async def chain(auth: AuthService) -> int:
    """Do what the clock door and the bus door do: send what waits, and chain it."""
    count = 0
    while True:
        async with auth.client.context.begin("system:auth") as tx:
            taken = await send_audit_entries(tx)
            for message in tx.outgoing:
                assert isinstance(message, AuditRecorded)
                await chain_entries(tx, [(message.service, entry) for entry in message.entries])
            tx.outgoing.clear()
        count += taken
        if not taken:
            return count


async def changed_org(auth: AuthService, changes: int = 5) -> tuple[Person, UUID]:
    """An organisation with its Admin and some changes in its chain."""
    ada = await auth.sign_in("ada@example.com")
    org_id = (await ada.found_org())["org_id"]
    for number in range(changes):
        done = await ada.call("PATCH", f"/orgs/{org_id}", {"legal_name": f"Name {number}"})
        assert done.status == 200
    await chain(auth)
    return ada, UUID(org_id)


async def verified(ada: Person, org_id: UUID) -> Any:
    answer = await ada.call("GET", f"/orgs/{org_id}/audit:verify")
    assert answer.status == 200
    return answer.body


async def test_each_change_is_listed_once_with_its_actor_and_both_states(auth: AuthService) -> None:
    ada, org_id = await changed_org(auth, changes=2)

    listed = (await ada.call("GET", f"/orgs/{org_id}/audit?entity=organization")).body["items"]

    assert [item["action"] for item in listed] == ["update", "update", "insert"]
    assert {item["actor"] for item in listed} == {f"user:{ada.user_id}"}
    assert [item["after"]["legal_name"] for item in listed[:2]] == ["Name 1", "Name 0"]
    assert listed[0]["before"]["legal_name"] == "Name 0"
    assert listed[2]["before"] is None
    assert all(item["request_id"] and item["trace_id"] and item["service"] == "auth" for item in listed)


async def test_a_chain_is_proved_up_to_its_head(auth: AuthService) -> None:
    ada, org_id = await changed_org(auth)
    proof = await verified(ada, org_id)
    assert (proof["valid"], proof["first_bad"]) == (True, None)
    assert proof["entries"] >= 7

    again = await verified(ada, org_id)
    assert again == proof


async def test_sending_and_chaining_twice_changes_nothing(auth: AuthService) -> None:
    ada, org_id = await changed_org(auth)
    proof = await verified(ada, org_id)
    rows = await auth.owner.fetch("SELECT audit_id FROM auth.audit_entry")
    await auth.owner.executemany(
        "INSERT INTO auth.audit_waiting (audit_id) VALUES ($1)", [(row["audit_id"],) for row in rows]
    )
    assert await chain(auth) == len(rows)
    assert await verified(ada, org_id) == proof


async def change_a_row(owner: asyncpg.Connection[Any], org_id: UUID) -> None:
    await owner.execute(
        """UPDATE auth.audit_chain SET after = after || '{"legal_name": "Somebody else"}'
           WHERE chain_id = $1 AND seq = 4""",
        org_id,
    )


async def change_an_actor(owner: asyncpg.Connection[Any], org_id: UUID) -> None:
    await owner.execute(
        "UPDATE auth.audit_chain SET actor = 'user:x' WHERE chain_id = $1 AND seq = 4", org_id
    )


async def delete_a_row(owner: asyncpg.Connection[Any], org_id: UUID) -> None:
    await owner.execute("DELETE FROM auth.audit_chain WHERE chain_id = $1 AND seq = 4", org_id)


async def reorder_two_rows(owner: asyncpg.Connection[Any], org_id: UUID) -> None:
    for before, after in ((4, -1), (5, 4), (-1, 5)):
        await owner.execute(
            "UPDATE auth.audit_chain SET seq = $3 WHERE chain_id = $1 AND seq = $2", org_id, before, after
        )


async def delete_and_close_the_gap(owner: asyncpg.Connection[Any], org_id: UUID) -> None:
    await delete_a_row(owner, org_id)
    for seq in (5, 6, 7):
        await owner.execute(
            "UPDATE auth.audit_chain SET seq = seq - 1 WHERE chain_id = $1 AND seq = $2", org_id, seq
        )


async def cut_the_tail(owner: asyncpg.Connection[Any], org_id: UUID) -> None:
    await owner.execute("DELETE FROM auth.audit_chain WHERE chain_id = $1 AND seq >= 4", org_id)


async def cut_the_tail_and_move_the_head(owner: asyncpg.Connection[Any], org_id: UUID) -> None:
    await cut_the_tail(owner, org_id)
    await owner.execute(
        "UPDATE auth.audit_chain_head SET seq = 3, hash = (SELECT hash FROM auth.audit_chain"
        " WHERE chain_id = $1 AND seq = 3) WHERE chain_id = $1",
        org_id,
    )


@pytest.mark.parametrize(
    ("tamper", "seq", "problem"),
    [
        (change_a_row, 4, "changed"),
        (change_an_actor, 4, "changed"),
        (delete_a_row, 4, "missing"),
        (reorder_two_rows, 4, "changed"),
        (delete_and_close_the_gap, 4, "changed"),
        (cut_the_tail, 4, "missing"),
        (cut_the_tail_and_move_the_head, 3, "head_forged"),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
async def test_tampering_with_owner_rights_is_found_and_the_first_bad_row_named(
    auth: AuthService, tamper: Tamper, seq: int, problem: str
) -> None:
    ada, org_id = await changed_org(auth)
    await auth.owner.execute("ALTER TABLE auth.audit_chain DISABLE TRIGGER stands")
    await tamper(auth.owner, org_id)

    proof = await verified(ada, org_id)

    assert not proof["valid"]
    assert (proof["first_bad"]["seq"], proof["first_bad"]["problem"]) == (seq, problem)
    if problem == "changed":
        named = await auth.owner.fetchval(
            "SELECT audit_id FROM auth.audit_chain WHERE chain_id = $1 AND seq = $2", org_id, seq
        )
        assert proof["first_bad"]["audit_id"] == str(named)


class Old:
    """A head, its seal and its place on the list of work, as somebody with the owner's rights copied them."""

    def __init__(self, owner: asyncpg.Connection[Any], chain_id: UUID) -> None:
        self._owner, self._chain_id = owner, chain_id

    async def copy(self) -> Old:
        self._row = await self._owner.fetchrow(
            "SELECT seq, hash, seal, anchored_seq FROM auth.audit_chain_head WHERE chain_id = $1",
            self._chain_id,
        )
        return self

    async def put_back(self) -> int:
        """Put the head back with its own seal and cut what came behind it; give its number."""
        await self._owner.execute("ALTER TABLE auth.audit_chain DISABLE TRIGGER stands")
        await self._owner.execute(
            "DELETE FROM auth.audit_chain WHERE chain_id = $1 AND seq > $2", self._chain_id, self._row["seq"]
        )
        await self._owner.execute(
            "UPDATE auth.audit_chain_head SET seq = $2, hash = $3, seal = $4, anchored_seq = $5 WHERE chain_id = $1",
            self._chain_id,
            *self._row,
        )
        return int(self._row["seq"])


async def note(auth: AuthService) -> None:
    """Do what the clock door does once a minute."""
    async with auth.client.context.begin("system:auth") as tx:
        assert await note_heads(tx) is None


async def further(auth: AuthService, ada: Person, org_id: UUID, name: str) -> None:
    """Make one more entry in an organisation's chain."""
    assert (await ada.call("PATCH", f"/orgs/{org_id}", {"legal_name": name})).status == 200
    await chain(auth)


async def logged(doing: Awaitable[None]) -> list[Any]:
    """Do something with the log at its own level, and give what it logs."""
    level = structlog.get_config()["wrapper_class"]
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    try:
        with capture_logs() as lines:
            await doing
    finally:
        structlog.configure(wrapper_class=level)
    return list(lines)


def rollbacks() -> float:
    return float(REGISTRY.get_sample_value("eb_auth_audit_rollbacks_total") or 0)


async def test_an_old_head_put_back_with_its_own_seal_is_found_by_the_chain_of_heads(
    auth: AuthService,
) -> None:
    ada, org_id = await changed_org(auth)
    await note(auth)
    old = await Old(auth.owner, org_id).copy()
    await further(auth, ada, org_id, "What somebody wants to hide")
    await note(auth)
    assert (await verified(ada, org_id))["valid"]

    seq = await old.put_back()

    proof = await verified(ada, org_id)
    assert (proof["valid"], proof["entries"]) == (False, seq)
    assert proof["first_bad"] == {"seq": seq + 1, "audit_id": None, "problem": "rolled_back"}
    alarms = rollbacks()
    await note(auth)
    assert rollbacks() == alarms  # it didn't move; the proof finds it
    for number in range(3):
        await further(auth, ada, org_id, f"Covered {number}")
    proof = await verified(ada, org_id)
    assert (proof["first_bad"]["seq"], proof["first_bad"]["problem"]) == (seq + 1, "rewritten")
    await note(auth)
    assert rollbacks() == alarms + 1
    assert (await verified(ada, org_id))["first_bad"]["problem"] == "rewritten"


async def test_a_chain_that_is_gone_as_a_whole_is_found(auth: AuthService) -> None:
    ada, org_id = await changed_org(auth)
    await note(auth)
    await auth.owner.execute("ALTER TABLE auth.audit_chain DISABLE TRIGGER stands")
    for table in ("audit_chain", "audit_chain_head"):
        await auth.owner.execute(f"DELETE FROM auth.{table} WHERE chain_id = $1", org_id)

    assert (await verified(ada, org_id))["first_bad"] == {
        "seq": 1, "audit_id": None, "problem": "rolled_back"
    }  # fmt: skip
    bad = [one async for one in prove(auth.owner_dsn, None, secret_of(auth)) if one.problem]
    assert [one.chain_id for one in bad] == [org_id]


def secret_of(auth: AuthService) -> dict[str, str]:
    return {"EB_AUTH_SECRET": "\n".join(auth.client.context.settings.auth_secret)}


async def test_everything_set_back_together_is_found_by_what_was_kept_outside(auth: AuthService) -> None:
    ada, org_id = await changed_org(auth)
    await note(auth)
    old = [await Old(auth.owner, chain_id).copy() for chain_id in (org_id, HEADS)]
    await further(auth, ada, org_id, "What somebody wants to hide")
    [line] = [line for line in await logged(note(auth)) if line["event"] == "audit heads noted"]
    kept = await verified(ada, org_id)
    env = secret_of(auth)

    for one in old:
        await one.put_back()

    assert (await verified(ada, org_id))["valid"]  # nothing in the database tells
    query = f"?seq={kept['entries']}&hash={kept['head_hash']}"
    proof = (await ada.call("GET", f"/orgs/{org_id}/audit:verify{query}")).body
    assert (proof["valid"], proof["holds_kept"]) == (False, False)
    assert proof["first_bad"] == {"seq": kept["entries"], "audit_id": None, "problem": "rolled_back"}
    noted = (line["seq"], bytes.fromhex(line["hash"]))
    bad = [one async for one in prove(auth.owner_dsn, None, env, noted) if one.problem]
    assert [(one.chain_id, one.problem.problem) for one in bad if one.problem] == [(HEADS, "rolled_back")]


async def test_what_a_client_kept_is_looked_for_in_its_place(auth: AuthService) -> None:
    ada, org_id = await changed_org(auth)
    kept = await verified(ada, org_id)
    await further(auth, ada, org_id, "Later")
    path = f"/orgs/{org_id}/audit:verify"

    held = (await ada.call("GET", f"{path}?seq={kept['entries']}&hash={kept['head_hash']}")).body
    other = (await ada.call("GET", f"{path}?seq={kept['entries']}&hash={'0' * 64}")).body

    assert kept["holds_kept"] is None
    assert (held["valid"], held["holds_kept"], held["entries"]) == (True, True, kept["entries"] + 1)
    assert (other["valid"], other["holds_kept"]) == (False, False)
    assert (other["first_bad"]["seq"], other["first_bad"]["problem"]) == (kept["entries"], "rewritten")
    for wrong in ("?seq=1", f"?hash={'0' * 64}", "?seq=0&hash=x", f"?seq=1&hash={'g' * 64}"):
        assert (await ada.call("GET", path + wrong)).status == 400


async def test_only_heads_that_moved_are_noted_and_each_chain_stays_whole(auth: AuthService) -> None:
    ada, org_id = await changed_org(auth)
    counts = []
    for _ in range(2):
        await note(auth)
        counts.append(
            await auth.owner.fetchval("SELECT count(*) FROM auth.audit_chain WHERE chain_id = $1", HEADS)
        )
    await further(auth, ada, org_id, "Once more")
    await note(auth)

    noted = await auth.owner.fetch(
        "SELECT entity_id FROM auth.audit_chain WHERE chain_id = $1 ORDER BY seq", HEADS
    )
    assert counts[0] == counts[1] == len(noted) - 1
    assert noted[-1]["entity_id"] == str(org_id)
    assert not [one async for one in prove(auth.owner_dsn, None, secret_of(auth)) if one.problem]


async def test_sign_ins_and_ended_sessions_stand_in_the_platforms_chain(auth: AuthService) -> None:
    ada, _ = await changed_org(auth, changes=0)
    tab = await auth.sign_in(ada.email)
    session = (await tab.call("GET", "/auth/sessions")).body["items"][0]["session_id"]
    leaked = tab.tokens["refresh_token"]
    assert (await tab.refresh()).status == 200
    await auth.advance(60)
    tab.tokens["refresh_token"] = leaked
    assert (await tab.refresh()).status == 401
    await chain(auth)

    path = f"/platform/audit?entity=session&entity_id={session}"
    answer = await auth.call("GET", path, None, **auth.staff("Operator"))

    ended, begun = answer.body["items"]
    assert (begun["action"], ended["action"]) == ("insert", "update")
    assert begun["after"]["user_id"] == ended["after"]["user_id"] == ada.user_id
    assert ended["after"]["revoked_reason"] == "token_reused"
    assert (begun["actor"], ended["actor"]) == (f"user:{ada.user_id}", "system:auth")
    assert not {"user_agent", "address"} & begun["after"].keys()
    assert len(answer.body["items"]) == 2  # refreshing leaves none


@pytest.mark.parametrize("table", ["audit_chain", "audit_entry"])
@pytest.mark.parametrize("statement", ["UPDATE auth.{} SET actor = 'x'", "DELETE FROM auth.{}"])
async def test_no_service_role_can_change_entries(auth: AuthService, table: str, statement: str) -> None:
    await changed_org(auth, changes=0)
    async with auth.client.context.pool.acquire() as own:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await own.execute(statement.format(table))
    with pytest.raises(asyncpg.PostgresError, match="its rows stand"):
        await auth.owner.execute(statement.format(table))


async def test_concurrent_takes_fork_no_chain(auth: AuthService) -> None:
    ada, org_id = await changed_org(auth, changes=0)
    at = (await auth.owner.fetchval("SELECT max(at) FROM auth.audit_entry")) or None
    before = (await verified(ada, org_id))["entries"]
    entries = [an_entry(org_id, at) for _ in range(400)]

    async def take(some: list[AuditEntry]) -> None:
        async with auth.client.context.begin("system:auth") as tx:
            await chain_entries(tx, [("pricing", entry) for entry in some])

    await asyncio.gather(*(take(entries[start::8]) for start in range(8)))
    proof = await verified(ada, org_id)
    assert (proof["valid"], proof["entries"]) == (True, before + 400)


def an_entry(org_id: UUID | None, at: Any) -> AuditEntry:
    return AuditEntry(
        audit_id=new_id(), org_id=org_id, entity="budget", entity_id="b", action="insert", actor="user:x",
        on_behalf_of=None, session_user="eb_pricing", request_id=None, trace_id=None, at=at,
        before=None, after='{"amount": 0.10000000000000000001}',
    )  # fmt: skip


async def test_numbers_keep_every_digit_on_the_way(auth: AuthService) -> None:
    ada, org_id = await changed_org(auth, changes=0)
    at = await auth.owner.fetchval("SELECT max(at) FROM auth.audit_entry")
    async with auth.client.context.begin("system:auth") as tx:
        await chain_entries(tx, [("pricing", an_entry(org_id, at))])
    [item] = (await ada.call("GET", f"/orgs/{org_id}/audit?service=pricing")).body["items"]
    assert item["after"] == {"amount": "0.10000000000000000001"}
    assert (await verified(ada, org_id))["valid"]


async def test_entries_hold_a_commitment_in_the_place_of_an_address(auth: AuthService) -> None:
    ada, org_id = await changed_org(auth, changes=0)
    await ada.call("PATCH", f"/orgs/{org_id}", {"billing_email": "old.person@example.com"})
    await chain(auth)

    kept = await auth.owner.fetch("SELECT before::text, after::text FROM auth.audit_entry")
    chained = await auth.owner.fetch("SELECT before::text, after::text FROM auth.audit_chain")
    assert "old.person" not in str([tuple(row) for row in (*kept, *chained)])
    [change] = (await ada.call("GET", f"/orgs/{org_id}/audit?entity=organization&action=update")).body[
        "items"
    ]
    assert change["after"]["billing_email"] == "old.person@example.com"
    salt = await auth.owner.fetchval(
        "SELECT salt FROM auth.audit_personal WHERE after = 'old.person@example.com'"
    )
    committed = await auth.owner.fetchval(
        "SELECT after ->> 'billing_email' FROM auth.audit_chain WHERE audit_id = $1",
        UUID(change["audit_id"]),
    )
    assert committed == "sha256:" + hashlib.sha256(salt + b"old.person@example.com").hexdigest()


async def test_secrets_are_left_out_even_as_hashes(auth: AuthService) -> None:
    ada, org_id = await changed_org(auth, changes=0)
    made = await ada.call("POST", f"/orgs/{org_id}/api-keys", {"name": "ci", "scopes": ["metering:write"]})
    assert made.status == 201
    await chain(auth)
    [item] = (await ada.call("GET", f"/orgs/{org_id}/audit?entity=api_key")).body["items"]
    assert item["after"]["name"] == "ci"
    assert "secret_sha256" not in item["after"]


async def test_the_export_is_the_whole_chain_as_json_lines_oldest_first(auth: AuthService) -> None:
    ada, org_id = await changed_org(auth)
    proof = await verified(ada, org_id)
    answer = await ada.call("GET", f"/orgs/{org_id}/audit?format=jsonl")
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.raw.decode().splitlines()]
    assert [line["seq"] for line in lines] == list(range(1, proof["entries"] + 1))
    assert lines[-1]["hash"] == proof["head_hash"]


async def test_pages_follow_one_another(auth: AuthService) -> None:
    ada, org_id = await changed_org(auth)
    whole = (await ada.call("GET", f"/orgs/{org_id}/audit")).body["items"]
    first = (await ada.call("GET", f"/orgs/{org_id}/audit?limit=3")).body
    second = (await ada.call("GET", f"/orgs/{org_id}/audit?limit=200&cursor={first['next_cursor']}")).body
    assert first["items"] + second["items"] == whole
    assert second["next_cursor"] is None


async def test_who_has_no_right_on_an_organisation_learns_nothing_of_its_audit(auth: AuthService) -> None:
    _, org_id = await changed_org(auth)
    eve = await auth.sign_in("eve@example.com")
    for path in (f"/orgs/{org_id}/audit", f"/orgs/{org_id}/audit:verify"):
        assert (await eve.call("GET", path)).status == 404
    assert (await eve.call("GET", "/platform/audit")).status == 403
    finance = await auth.call("GET", "/platform/audit", None, **auth.staff("Finance"))
    assert finance.status == 200


async def test_chaining_keeps_up_with_bulk_changes(auth: AuthService) -> None:
    """1,000 entries of 50 organisations in well under 2 s: writers never wait for a chain."""
    await changed_org(auth, changes=0)
    at = await auth.owner.fetchval("SELECT max(at) FROM auth.audit_entry")
    orgs = [new_id() for _ in range(50)]
    entries = [("catalog", an_entry(orgs[n % 50], at)) for n in range(1_000)]
    started = time.perf_counter()
    async with auth.client.context.begin("system:auth") as tx:
        await chain_entries(tx, entries)
    assert time.perf_counter() - started < 2


async def test_erasing_a_person_leaves_every_chain_whole(auth: AuthService) -> None:
    ada, org_id = await changed_org(auth, changes=0)
    await ada.call("PATCH", f"/orgs/{org_id}", {"billing_email": ada.email})
    await ada.call("PATCH", f"/orgs/{org_id}", {"billing_email": "office@example.com"})
    await chain(auth)

    erased = await erase_person(auth.owner_dsn, ada.email, {})

    assert erased >= 2
    proof = (await auth.call("GET", f"/orgs/{org_id}/audit:verify", None, **auth.staff("Operator"))).body
    assert proof["valid"]
    listed = await auth.call("GET", f"/orgs/{org_id}/audit", None, **auth.staff("Operator"))
    assert ada.email.encode() not in listed.raw
    assert b"sha256:" in listed.raw
    everything = await auth.owner.fetch(ALL_TEXT)
    assert not [row["place"] for row in everything if ada.email in row["text"]]
    assert (await ada.refresh()).status == 401


ALL_TEXT = """
    SELECT 'user' AS place, u::text AS text FROM auth."user" u
    UNION ALL SELECT 'invitation', i::text FROM auth.invitation i
    UNION ALL SELECT 'entry', e::text FROM auth.audit_entry e UNION ALL SELECT 'chain', c::text FROM auth.audit_chain c
    UNION ALL SELECT 'personal', p::text FROM auth.audit_personal p
    UNION ALL SELECT 'organization', o::text FROM auth.organization o
"""


async def test_a_billing_address_is_replaced_before_its_person_is_erased(auth: AuthService) -> None:
    ada, org_id = await changed_org(auth, changes=0)
    await ada.call("PATCH", f"/orgs/{org_id}", {"billing_email": ada.email})
    with pytest.raises(Trouble, match=str(org_id)):
        await erase_person(auth.owner_dsn, ada.email, {})
    with pytest.raises(Trouble, match="Nobody"):
        await erase_person(auth.owner_dsn, "nobody@example.com", {})


async def test_every_chain_is_proved_at_once(auth: AuthService) -> None:
    _, org_id = await changed_org(auth)
    await auth.owner.execute("ALTER TABLE auth.audit_chain DISABLE TRIGGER stands")
    env = secret_of(auth)
    found = [one async for one in prove(auth.owner_dsn, None, env)]
    assert {one.problem for one in found} == {None}
    await delete_a_row(auth.owner, org_id)
    found = [one async for one in prove(auth.owner_dsn, None, env)]
    assert [one.chain_id for one in found if one.problem] == [org_id]
