"""Clock doors: judge the mails that are due, end claims whose time is over, forget old mails."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import timedelta
from uuid import UUID

import structlog

from eb_kit.db import WEATHER
from eb_kit.jobs import Jobs
from eb_kit.service import ServiceContext
from eb_kit.telemetry import Trace, new_trace, span
from eb_kit.tx import Tx

from . import flows
from .domain.dns import Answer
from .domain.judging import Case, Verdict
from .domain.letter import Challenge, Envelope
from .domain.reasons import Reason
from .domain.retries import LEASE
from .outside.judge import Judge
from .outside.judge_process import JudgeDiedError
from .outside.wire import read_answer
from .settings import Settings
from .store import claims, mails
from .store.mails import DueMail

log = structlog.get_logger(__name__)
jobs = Jobs()

PAUSE_S = 0.5
FAMILIES_A_BATCH = 20
MAILS_A_BATCH = 200
TRIES = 3
"""How often a mail is judged again at once when the judging process died under it."""


@jobs.every(seconds=2)
async def expire_claims(tx: Tx) -> int:
    """End open claims whose token has expired, a family at a time, in the order of their names."""
    families = await claims.list_expired_families(tx, tx.now, FAMILIES_A_BATCH)
    return sum([await flows.expire_family(tx, family) for family in families])


@jobs.every(seconds=60)
async def forget_raw_mails(tx: Tx) -> int:
    """Delete the content of mails judged long ago; their verdicts and hashes stay."""
    kept = timedelta(days=flows.settings_of(tx).raw_kept_days)
    return await mails.forget_raw_mails(tx, tx.now - kept, MAILS_A_BATCH)


class JudgeDesk:
    """Judges mails for ever, several side by side, each in two short transactions with none open between.

    The first takes a mail for a minute, the second keeps the verdict if there is none yet. So a crash, a
    restart or a second desk in the middle ends with one verdict.
    """

    def __init__(self, context: ServiceContext, judge: Judge, settings: Settings) -> None:
        self._context = context
        self._judge = judge
        self._slots = asyncio.Semaphore(settings.judge_parallel)
        self._rest_s = settings.judge_rest_s
        self._arrived = asyncio.Event()
        self._rests_at = 0.0

    def hurry(self) -> None:
        """Look at once: a mail has come in."""
        self._arrived.set()

    async def work(self) -> None:
        """Take and judge until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                await self._slots.acquire()
                mail = await self._take()
                if mail is None:
                    self._slots.release()
                    await self._pause()
                else:
                    self._rests_at = asyncio.get_running_loop().time() + self._rest_s
                    group.create_task(self._settle(mail))

    async def _take(self) -> DueMail | None:
        try:
            async with self._context.begin(f"system:{self._context.service_name}") as tx:
                taken = await mails.take_mails(tx, tx.now, LEASE, 1)
        except WEATHER as error:
            log.warning("no mail could be taken, will try again", error=repr(error))
            return None
        return taken[0] if taken else None

    async def _pause(self) -> None:
        if asyncio.get_running_loop().time() > self._rests_at:
            await self._judge.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(PAUSE_S):
                await self._arrived.wait()
        self._arrived.clear()

    async def _settle(self, mail: DueMail) -> None:
        """Judge one mail and keep the verdict; on bad weather its lease runs out and somebody tries again."""
        try:
            with span("judge mail", _trace_of(mail)):
                await judge_mail(self._context, self._judge, mail)
        except (JudgeDiedError, *WEATHER) as error:
            log.warning("a mail could not be judged", mail_id=str(mail.mail_id), error=repr(error))
        finally:
            self._slots.release()


def _trace_of(mail: DueMail) -> Trace | None:
    """Give the trace of the request that brought the mail: what the verdict changes belongs to it."""
    return Trace(mail.trace_id, new_trace().span_id) if mail.trace_id else None


async def judge_mail(context: ServiceContext, judge: Judge, mail: DueMail) -> None:
    """Judge a taken mail against its claim's challenge and keep the verdict; JudgeDiedError, WEATHER."""
    actor = f"system:{context.service_name}"
    verdict = Verdict("refused", (Reason.CLAIM_UNKNOWN,))
    answers: dict[str, Answer] = {}
    if mail.claim_id is not None:
        async with context.begin(actor) as tx:
            challenge = await _challenge(tx, mail.claim_id, mail.clock_ahead_s)
        known = {name: read_answer(answer) for name, answer in mail.dns_answers.items()}
        for remaining in reversed(range(TRIES)):
            try:
                verdict, answers = await judge.judge(_case(mail, challenge), known)
                break
            except JudgeDiedError:
                if not remaining:
                    raise
    async with context.begin(actor) as tx:
        await flows.conclude(tx, mail, verdict, answers)


async def _challenge(tx: Tx, claim_id: UUID, clock_ahead_s: int) -> Challenge:
    """Give a claim's challenge with its times on the signers' clock."""
    record = await claims.get_claim(tx, claim_id)
    row = await claims.get_challenge(tx, claim_id)
    return Challenge(
        domain=record.claim.domain,
        send_to=row.send_to,
        token_sha256=row.token_sha256,
        issued_at=int(row.issued_at.timestamp()) - clock_ahead_s,
        expires_at=int(row.expires_at.timestamp()) - clock_ahead_s,
        is_used=row.used_at is not None,
        is_revoked=record.claim.status == "revoked",
    )


def _case(mail: DueMail, challenge: Challenge) -> Case:
    return Case(
        raw=mail.raw,
        envelope=Envelope(mail.envelope_from, mail.envelope_to),
        challenge=challenge,
        received_at=int(mail.received_at.timestamp()) - mail.clock_ahead_s,
    )
