"""Invitations: one open per address, used once by its address only, and no right before."""

from __future__ import annotations

import asyncio
import email
from datetime import timedelta

import pytest

from eb_auth.jobs import send_mails

from .conftest import Answer, AuthService, Person


async def admin(auth: AuthService) -> tuple[Person, str]:
    ada = await auth.sign_in()
    return ada, (await ada.found_org())["org_id"]


async def invite(ada: Person, org_id: str, address: str, role: str = "User") -> Answer:
    return await ada.call("POST", f"/orgs/{org_id}/invitations", {"email": address, "role": role})


async def tokens(auth: AuthService, address: str) -> list[str]:
    async with auth.client.context.begin("system:auth") as tx:
        await send_mails(tx)
    mails = [email.message_from_bytes(path.read_bytes()) for path in sorted(auth.mailbox.glob("*.eml"))]
    return [
        mail["X-EB-Token"] for mail in mails if mail["To"] == address and mail["X-EB-Kind"] == "invitation"
    ]


async def accept(person: Person, token: str) -> Answer:
    return await person.call("POST", "/invitations:accept", {"token": token})


async def test_an_accepted_invitation_makes_a_member_with_its_role(auth: AuthService) -> None:
    ada, org_id = await admin(auth)
    bob = await auth.sign_in("bob@example.org")
    made = await invite(ada, org_id, "Bob@Example.org", "Admin")
    assert (made.status, made.body["status"]) == (201, "open")
    assert "token" not in made.body
    [token] = await tokens(auth, "bob@example.org")

    assert (await bob.refresh(org_id)).status == 404, "an open invitation gives no right"
    joined = await accept(bob, token)

    assert (joined.status, joined.body["role"]) == (200, "Admin")
    assert (await bob.refresh(org_id)).status == 200
    assert (await bob.call("GET", f"/orgs/{org_id}/invitations")).body["items"][0]["status"] == "accepted"


async def test_a_token_works_once_and_for_its_address_only(auth: AuthService) -> None:
    ada, org_id = await admin(auth)
    await invite(ada, org_id, "bob@example.org")
    [token] = await tokens(auth, "bob@example.org")
    eve, bob = await auth.sign_in("eve@example.org"), await auth.sign_in("bob@example.org")

    assert (await accept(eve, token)).status == 404
    assert (await accept(bob, token + "x")).status == 404
    assert (await accept(bob, token)).status == 200
    assert (await accept(bob, token)).status == 404


async def test_of_ten_accepting_at_once_one_does(auth: AuthService) -> None:
    ada, org_id = await admin(auth)
    await invite(ada, org_id, "bob@example.org")
    [token] = await tokens(auth, "bob@example.org")
    bob = await auth.sign_in("bob@example.org")
    answers = await asyncio.gather(*(accept(bob, token) for _ in range(10)))
    assert sorted(answer.status for answer in answers) == [200] + [404] * 9


async def test_one_invitation_is_open_per_address_whatever_its_case(auth: AuthService) -> None:
    ada, org_id = await admin(auth)
    answers = await asyncio.gather(
        *(invite(ada, org_id, address) for address in ["bob@example.org", "BOB@example.org"] * 5)
    )
    assert sorted(answer.status for answer in answers) == [201] + [409] * 9
    assert {answer.body["code"] for answer in answers if answer.status == 409} == {"invitation_open"}


async def test_a_member_is_not_invited_again(auth: AuthService) -> None:
    ada, org_id = await admin(auth)
    again = await invite(ada, org_id, ada.email)
    assert (again.status, again.body["code"]) == (409, "already_member")


async def test_a_revoked_invitation_is_good_for_nothing_and_another_can_be_sent(auth: AuthService) -> None:
    ada, org_id = await admin(auth)
    bob = await auth.sign_in("bob@example.org")
    made = await invite(ada, org_id, "bob@example.org")
    [token] = await tokens(auth, "bob@example.org")
    path = f"/orgs/{org_id}/invitations/{made.body['invitation_id']}"

    assert (await ada.call("DELETE", path)).status == 204
    assert (await ada.call("DELETE", path)).status == 204
    assert (await accept(bob, token)).status == 404
    assert (await ada.call("POST", f"{path}:resend")).status == 404
    assert (await invite(ada, org_id, "bob@example.org")).status == 201


async def test_resending_kills_the_old_token(auth: AuthService) -> None:
    ada, org_id = await admin(auth)
    bob = await auth.sign_in("bob@example.org")
    made = await invite(ada, org_id, "bob@example.org")
    [old] = await tokens(auth, "bob@example.org")
    resent = await ada.call("POST", f"/orgs/{org_id}/invitations/{made.body['invitation_id']}:resend")
    assert resent.status == 200
    [new] = set(await tokens(auth, "bob@example.org")) - {old}

    assert (await accept(bob, old)).status == 404
    assert (await accept(bob, new)).status == 200


async def test_an_invitation_expires_and_makes_room(auth: AuthService) -> None:
    ada, org_id = await admin(auth)
    bob = await auth.sign_in("bob@example.org")
    await invite(ada, org_id, "bob@example.org")
    [token] = await tokens(auth, "bob@example.org")
    await auth.advance(timedelta(days=7, minutes=1).total_seconds())

    assert (await accept(bob, token)).status == 404
    [listed] = (await ada.call("GET", f"/orgs/{org_id}/invitations")).body["items"]
    assert listed["status"] == "expired"
    assert (await invite(ada, org_id, "bob@example.org")).status == 201


async def test_an_expired_invitation_that_made_room_is_not_sent_again(auth: AuthService) -> None:
    ada, org_id = await admin(auth)
    old = await invite(ada, org_id, "bob@example.org")
    await auth.advance(timedelta(days=7, minutes=1).total_seconds())
    assert (await ada.refresh(org_id)).status == 200
    assert (await invite(ada, org_id, "bob@example.org")).status == 201

    again = await ada.call("POST", f"/orgs/{org_id}/invitations/{old.body['invitation_id']}:resend")

    assert again.status == 404


async def test_whatever_is_wrong_with_a_token_the_answer_is_the_same(auth: AuthService) -> None:
    ada, org_id = await admin(auth)
    bob, eve = await auth.sign_in("bob@example.org"), await auth.sign_in("eve@example.org")
    made = await invite(ada, org_id, "bob@example.org")
    [token] = await tokens(auth, "bob@example.org")
    told = [await accept(eve, token), await accept(bob, "inv_nothing")]
    await ada.call("DELETE", f"/orgs/{org_id}/invitations/{made.body['invitation_id']}")
    told.append(await accept(bob, token))
    await invite(ada, org_id, "bob@example.org")
    [used] = set(await tokens(auth, "bob@example.org")) - {token}
    assert (await accept(bob, used)).status == 200
    told.append(await accept(bob, used))
    await invite(ada, org_id, "eve@example.org")
    [late] = await tokens(auth, "eve@example.org")
    await auth.advance(timedelta(days=7, minutes=1).total_seconds())
    told.append(await accept(eve, late))

    for answer in told:
        answer.body.pop("trace_id")
    assert [answer.status for answer in told] == [404] * 5
    assert all(answer.body == told[0].body for answer in told)


async def test_revoking_and_accepting_at_once_is_one_of_them(auth: AuthService) -> None:
    ada, org_id = await admin(auth)
    for number in range(5):
        address = f"guest{number}@example.org"
        guest = await auth.sign_in(address)
        made = await invite(ada, org_id, address)
        [token] = await tokens(auth, address)
        path = f"/orgs/{org_id}/invitations/{made.body['invitation_id']}"

        accepted, revoked = await asyncio.gather(accept(guest, token), ada.call("DELETE", path))

        assert revoked.status == 204
        is_member = (await guest.refresh(org_id)).status == 200
        listed = (await ada.call("GET", f"/orgs/{org_id}/invitations?limit=1")).body["items"][0]
        ending = (accepted.status, is_member, listed["status"])
        assert ending in ((200, True, "accepted"), (404, False, "revoked"))


async def test_who_lost_the_say_invites_nobody(auth: AuthService) -> None:
    ada, org_id = await admin(auth)
    bob = await auth.sign_in()
    await auth.join(bob, org_id, "Admin")

    assert (await ada.call("PATCH", f"/orgs/{org_id}/members/{bob.user_id}", {"role": "User"})).status == 200
    assert (await bob.refresh(org_id)).status == 200

    assert (await invite(bob, org_id, "carl@example.org", "Admin")).status == 403
    assert (await invite(bob, org_id, "carl@example.org")).status == 403


@pytest.mark.parametrize("role", ["User", None])
async def test_who_is_no_admin_can_neither_invite_nor_look(auth: AuthService, role: str | None) -> None:
    ada, org_id = await admin(auth)
    await invite(ada, org_id, "bob@example.org")
    carl = await auth.sign_in()
    if role:
        await auth.join(carl, org_id, role)
    expected = 403 if role else 404
    assert (await invite(carl, org_id, "dora@example.org")).status == expected
    assert (await carl.call("GET", f"/orgs/{org_id}/invitations")).status == expected


async def test_the_mail_is_one_line_of_subject_whatever_the_organisation_is_called(auth: AuthService) -> None:
    ada = await auth.sign_in()
    org = await ada.found_org(legal_name="Evil Corp {token} %s Bcc: x@example.org")
    await invite(ada, org["org_id"], "bob@example.org")
    await tokens(auth, "bob@example.org")
    mails = [email.message_from_bytes(path.read_bytes()) for path in auth.mailbox.glob("*.eml")]
    [mail] = [mail for mail in mails if mail["X-EB-Kind"] == "invitation"]
    assert mail["Bcc"] is None
    assert "Evil Corp {token} %s" in " ".join(mail["Subject"].split())
