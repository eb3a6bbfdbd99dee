"""The parent's side of the judging process: one process, one task at a time, killed at the deadline."""

from __future__ import annotations

import asyncio
import signal
import sys
from asyncio.subprocess import Process
from contextlib import suppress

from ..domain.dns import Answers
from ..domain.judging import Case
from .wire import LENGTH_BYTES, MAX_FRAME_BYTES, Reply, read_reply, write_task

COMMAND = ("-I", "-m", "eb_domain_verify.outside.judge_worker")


class TooCostlyError(Exception):
    """Judging a mail used up its CPU time or its wall clock."""


class JudgeDiedError(Exception):
    """The process ended for a reason that isn't the mail's: nothing is known about the mail."""


class JudgeProcess:
    """A judging process, started when it is first needed and again after each death."""

    def __init__(self) -> None:
        self._idle: Process | None = None
        self._turn = asyncio.Lock()
        self.pid: int | None = None

    async def ask(self, case: Case, answers: Answers, *, cpu_s: float, wall_s: float) -> Reply:
        """Have a mail judged; TooCostlyError when it takes longer than `cpu_s` or `wall_s`, JudgeDiedError.

        `wall_s` counts from the moment it is this mail's turn. A process whose exchange doesn't end well is
        killed: its pipes may still hold half a task.
        """
        async with self._turn:
            process, self._idle = await self._ready(), None
            try:
                async with asyncio.timeout(wall_s):
                    reply = await _exchange(process, write_task(case, answers, cpu_s))
                self._idle = process
            except TimeoutError:
                raise TooCostlyError from None
            except (asyncio.IncompleteReadError, ConnectionError, ValueError, KeyError, TypeError):
                raise await _why_it_ended(process) from None
            finally:
                if self._idle is None:
                    await _kill(process)
            return reply

    async def close(self) -> None:
        """End the process, if there is one."""
        async with self._turn:
            if self._idle is not None:
                await _kill(self._idle)
            self._idle = None

    async def _ready(self) -> Process:
        if self._idle is not None and self._idle.returncode is None:
            return self._idle
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *COMMAND,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={},
            start_new_session=True,
            limit=MAX_FRAME_BYTES,
        )
        self.pid = process.pid
        return process


async def _exchange(process: Process, task: bytes) -> Reply:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(task)
    await process.stdin.drain()
    length = int.from_bytes(await process.stdout.readexactly(LENGTH_BYTES), "big")
    if length > MAX_FRAME_BYTES:
        raise ValueError("a frame too long")
    return read_reply(await process.stdout.readexactly(length))


async def _why_it_ended(process: Process) -> TooCostlyError | JudgeDiedError:
    """Tell a process that the kernel ended for its CPU time from one that died otherwise."""
    await _kill(process)
    return TooCostlyError() if process.returncode == -signal.SIGPROF else JudgeDiedError()


async def _kill(process: Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()
    await process.wait()
