"""The doors for signed requests: replayed, late, early, with a header twice, written otherwise, another secret."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from multidict import CIMultiDict

from eb_domain_verify.domain.errors import RequestStale, SignatureInvalid
from eb_domain_verify.domain.signing import MAX_AGE_S, check_age, check_signature, signed_text
from eb_kit.testing_db import ClonedDatabase
from eb_tools.mail_demo import raw_headers

from .world import OLD_SECRET, PROCESSOR, PROCESSOR_SECRET, RAW_SECRET, Json, World, a_world, until

RAW, SUBMIT = "/verify/inbound/raw", "/verify/email-submit"
INVALID, STALE = (401, "signature_invalid"), (409, "request_stale")


@dataclass
class Signed:
    """A request as its sender signed it."""

    path: str
    body: bytes
    headers: dict[str, str]

    def but(self, **headers: str) -> Signed:
        """Give it with other headers; underscores are hyphens."""
        return Signed(
            self.path,
            self.body,
            self.headers | {name.replace("_", "-"): text for name, text in headers.items()},
        )

    async def sent(self, world: World, *more: tuple[str, str]) -> tuple[int, Any]:
        """Send it, with further headers; give status and code, or the answer's body if it was taken."""
        headers: CIMultiDict[str] = CIMultiDict(self.headers)
        for name, text in more:
            headers.add(name, text)
        async with world.client.http.post(
            world.client.url(self.path), data=self.body, headers=headers
        ) as answer:
            told = await answer.json()
            return answer.status, told.get("code", told)


async def a_mail(world: World, *, at: int | None = None, secret: str = RAW_SECRET) -> Signed:
    """A mail for a claim that nobody made: stored, and judged to belong to nobody."""
    envelope = {
        "from": "a@b.example",
        "to": f"verify+{time.monotonic_ns()}@d.example",
        "ip": "192.0.2.1",
        "helo": "mx",
    }
    body = b"From: a@b.example\r\n\r\n"
    return Signed(RAW, body, raw_headers(secret, body, envelope, at))


async def an_assertion(world: World, *, at: int | None = None, secret: str = PROCESSOR_SECRET) -> Signed:
    """A processor's word about a token that nobody gave out."""
    key = await world.client.api_key(None, kind="service", name=PROCESSOR)
    said = {"token": "x", "from_domain": "y", "dkim_pass": True, "spf_pass": True, "dmarc_aligned": True}
    return signed_submit(said, key, at=at, secret=secret)


def signed_submit(said: Json, key: str, *, at: int | None = None, secret: str = PROCESSOR_SECRET) -> Signed:
    body = json.dumps(said).encode()
    stamp = str(int(time.time()) if at is None else at)
    lines = ("v1", "POST", SUBMIT, stamp, hashlib.sha256(body).hexdigest())
    mac = hmac.new(secret.encode(), "\n".join(lines).encode(), hashlib.sha256).hexdigest()
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
    return Signed(SUBMIT, body, headers | {"X-EB-Timestamp": stamp, "X-EB-Signature": f"v1={mac}"})


DOORS = pytest.mark.parametrize("make", [a_mail, an_assertion])
Make = Callable[..., Awaitable[Signed]]


@DOORS
async def test_five_minutes_early_or_late_are_taken_and_no_more(shared_world: World, make: Make) -> None:
    now = int(time.time())
    margin_s = 5

    for away_s in (-MAX_AGE_S + margin_s, 0, MAX_AGE_S - margin_s):
        status, _ = await (await make(shared_world, at=now + away_s)).sent(shared_world)
        assert status in (200, 202), away_s
    for away_s in (-MAX_AGE_S - margin_s, MAX_AGE_S + margin_s, -now, 10**9):
        assert await (await make(shared_world, at=now + away_s)).sent(shared_world) == STALE, away_s


@DOORS
async def test_a_replay_outside_of_the_window_is_stale_and_with_a_new_time_unsigned(
    shared_world: World, make: Make
) -> None:
    old = await make(shared_world, at=int(time.time()) - 2 * MAX_AGE_S)

    assert await old.sent(shared_world) == STALE
    assert await old.but(X_EB_Timestamp=str(int(time.time()))).sent(shared_world) == INVALID


@DOORS
@pytest.mark.parametrize("name", ["X-EB-Timestamp", "X-EB-Signature"])
async def test_a_signed_request_has_each_header_once(shared_world: World, make: Make, name: str) -> None:
    good = await make(shared_world)
    without = Signed(good.path, good.body, {key: good.headers[key] for key in good.headers if key != name})

    assert await without.sent(shared_world) == INVALID
    assert await good.sent(shared_world, (name, good.headers[name])) == INVALID
    assert await good.sent(shared_world, (name.lower(), "v1=" + "0" * 64)) == INVALID
    assert await good.but(**{name: ""}).sent(shared_world) == INVALID


@pytest.mark.parametrize("name", ["X-EB-Envelope-From", "X-EB-Envelope-To", "X-EB-Client-IP", "X-EB-Helo"])
async def test_a_mails_envelope_is_said_once(shared_world: World, name: str) -> None:
    good = await a_mail(shared_world)

    assert await good.sent(shared_world, (name, "other")) == INVALID
    assert await good.sent(shared_world, (name, good.headers[name])) == INVALID


@DOORS
async def test_a_signature_is_written_in_one_way_only(shared_world: World, make: Make) -> None:
    good = await make(shared_world)
    signature = good.headers["X-EB-Signature"]
    digits = signature.removeprefix("v1=")

    for other in (
        f"v1={digits.upper()}", f"V1={digits}", f"v2={digits}", digits, f"v1= {digits}", f"v1={digits}00",
        signature[:-2], f"{signature},{signature}", f"v1={'é' * 64}", f"sha256={digits}",
    ):  # fmt: skip
        # digits only may be the same in upper and lower case
        if other != signature:
            assert await good.but(X_EB_Signature=other).sent(shared_world) == INVALID, other
    lowered = Signed(good.path, good.body, {name.lower(): text for name, text in good.headers.items()})
    assert (await lowered.sent(shared_world))[0] in (200, 202), "names of headers are the same in any case"


@DOORS
async def test_a_signed_time_is_whole_seconds_in_plain_digits(shared_world: World, make: Make) -> None:
    now = int(time.time())

    for stamp in (f"+{now}", f"{now}.0", f"-{now}", f"{now * 1000}", "1e9", "now"):
        assert await (await make(shared_world, at=stamp)).sent(shared_world) == INVALID, stamp


@DOORS
async def test_both_secrets_are_good_while_they_change_and_nothing_else_is(
    shared_world: World, make: Make
) -> None:
    for secret in (OLD_SECRET, PROCESSOR_SECRET if make is an_assertion else RAW_SECRET):
        status, _ = await (await make(shared_world, secret=secret)).sent(shared_world)
        assert status in (200, 202)
    for secret in ("", f"{OLD_SECRET} ", OLD_SECRET.upper(), f"{RAW_SECRET},{OLD_SECRET}"):
        assert await (await make(shared_world, secret=secret)).sent(shared_world) == INVALID


async def test_secrets_change_while_the_service_runs(fresh_db: ClonedDatabase, tmp_path: Path) -> None:
    files = {name: tmp_path / name for name in ("EB_INBOUND_RAW_SECRETS", "EB_EMAIL_SUBMIT_SECRETS")}
    first, second = "the-first-secret-of-a-sender", "the-second-secret-of-a-sender"

    def write(*secrets: str) -> None:
        files["EB_INBOUND_RAW_SECRETS"].write_text(",".join(secrets) + "\n")
        files["EB_EMAIL_SUBMIT_SECRETS"].write_text(",".join(f"{PROCESSOR}={one}" for one in secrets) + "\n")

    write(first)
    async with a_world(fresh_db, **{f"{name}_FILE": str(file) for name, file in files.items()}) as world:

        async def good() -> list[set[str]]:
            """Give the secrets that each door takes."""
            return [
                {
                    one
                    for one in (first, second)
                    if (await (await make(world, secret=one)).sent(world))[0] < 300
                }
                for make in (a_mail, an_assertion)
            ]

        assert await good() == [{first}] * 2
        for now_valid in ((second, first), (second,)):
            write(*now_valid)
            await until(good, lambda taken, valid=now_valid: taken == [set(valid)] * 2, within_s=10)


async def test_one_doors_secret_opens_no_other(shared_world: World) -> None:
    assert await (await a_mail(shared_world, secret=PROCESSOR_SECRET)).sent(shared_world) == INVALID
    assert await (await an_assertion(shared_world, secret=RAW_SECRET)).sent(shared_world) == INVALID


async def test_a_mail_replayed_within_the_window_is_the_same_mail(shared_world: World) -> None:
    mail = await a_mail(shared_world)

    answers = await asyncio.gather(*(mail.sent(shared_world) for _ in range(8)))
    later = await mail.sent(shared_world)

    assert {status for status, _ in answers} == {202}
    assert {told["mail_id"] for _, told in [*answers, later]} == {answers[0][1]["mail_id"]}
    [row] = await shared_world.sql(
        "SELECT count(*) AS n FROM domain_verify.inbound_mail WHERE envelope_to = $1",
        mail.headers["X-EB-Envelope-To"],
    )
    assert row["n"] == 1


async def test_an_assertion_replayed_within_the_window_changes_nothing(shared_world: World) -> None:
    world = shared_world
    key = await world.client.api_key(None, kind="service", name=PROCESSOR)
    claim = await world.claim("replayed.example.com")
    said = {"token": claim["token"], "from_domain": "replayed.example.com", "spf_pass": True}
    word = signed_submit(said | {"dkim_pass": True, "dmarc_aligned": True}, key)

    answers = await asyncio.gather(*(word.sent(world) for _ in range(6)))
    shown = await world.shown(claim)
    again = await word.sent(world)

    assert sorted(told["status"] for _, told in answers) == ["rejected"] * 5 + ["verified"]
    assert again == (200, {"status": "rejected", "reasons": ["token_unknown"]})
    assert await world.shown(claim) == shown


def test_the_window_is_five_minutes_to_the_second_both_ways() -> None:
    for now in (1000.0 - MAX_AGE_S, 1000.0, 1000.0 + MAX_AGE_S):
        check_age("1000", now)
    for now in (999.9 - MAX_AGE_S, 1000.1 + MAX_AGE_S):
        with pytest.raises(RequestStale):
            check_age("1000", now)


def test_lines_of_one_request_are_not_those_of_another() -> None:
    one, other = signed_text(["a", "b"], b""), signed_text(["a"], b"")
    mac = "v1=" + hmac.digest(b"secret", one, "sha256").hex()

    check_signature(one, mac, ["another", "secret"])
    for text, secrets in ((other, ["secret"]), (one, ["another"]), (one, [])):
        with pytest.raises(SignatureInvalid):
            check_signature(text, mac, secrets)
