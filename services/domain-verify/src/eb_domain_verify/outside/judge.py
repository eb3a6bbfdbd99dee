"""Judge one mail: hostile bytes in the judging process, DNS from here, one deadline over both."""

from __future__ import annotations

import asyncio

from ..domain.dns import Answer, Found
from ..domain.judging import Case, Verdict
from ..domain.reasons import Reason
from .judge_process import JudgeProcess, TooCostlyError
from .resolver import TxtResolver

CPU_S = 0.25
WALL_S = 30.0
MAX_ROUNDS = 4


class Judge:
    """Gives verdicts. Safe to use from several tasks; `close` ends its process, at the end or to rest."""

    def __init__(self, resolver: TxtResolver, *, cpu_s: float = CPU_S, wall_s: float = WALL_S) -> None:
        self._resolver = resolver
        self._cpu_s = cpu_s
        self._wall_s = wall_s
        self.process = JudgeProcess()

    async def judge(self, case: Case, known: dict[str, Answer]) -> tuple[Verdict, dict[str, Answer]]:
        """Give the verdict and every DNS answer it rests on; JudgeDiedError if the process was killed.

        `known` are good answers of earlier attempts: what DNS said first stays said. A mail that costs more
        than its CPU time or wall clock is refused `too_costly`.
        """
        answers = {name: answer for name, answer in known.items() if answer.found is not Found.FAILED}
        try:
            async with asyncio.timeout(self._wall_s):
                return await self._in_rounds(case, answers), answers
        except (TooCostlyError, TimeoutError):
            return Verdict("refused", (Reason.TOO_COSTLY,)), answers

    async def _in_rounds(self, case: Case, answers: dict[str, Answer]) -> Verdict:
        """Judge, ask what is missing, judge again: each round names all it needs, so there are few."""
        left_s = self._cpu_s
        for _ in range(MAX_ROUNDS):
            reply = await self.process.ask(case, answers, cpu_s=left_s, wall_s=self._wall_s)
            left_s -= reply.cpu_s
            if reply.verdict is not None:
                return reply.verdict
            if left_s <= 0:
                break
            answers |= await self._resolver.ask(reply.missing)
        raise TooCostlyError

    async def close(self) -> None:
        """End the judging process; the next mail starts another."""
        await self.process.close()
