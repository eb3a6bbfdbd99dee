"""Children of the local stack: each in a group of its own, with a log file, gone when their parent is gone."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import pwd
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from eb_tools.trouble import Trouble

PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


@dataclass(frozen=True)
class Command:
    """What to run: arguments, the whole environment, and how it is ended.

    `stop_signal` asks for an orderly end within `grace_s`, then comes SIGKILL. `orphan_signal` is sent by the
    kernel when the parent dies (Linux only). `user` is whom to become, when started as root.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    grace_s: float = 8
    orphan_signal: signal.Signals = signal.SIGKILL
    user: str | None = None


class Child:
    """One running process of a Command and the group it leads."""

    def __init__(self, command: Command, log: Path) -> None:
        self.command = command
        self.log = log
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int:
        """Give its process id; Trouble if it was never started."""
        if self._process is None:
            raise Trouble(f"{self.command.name} isn't started.")
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        """Say whether it runs (a stopped or hung one does)."""
        return self._process is not None and self._process.returncode is None

    @property
    def exit_status(self) -> int | None:
        """Give its exit status (negative: the signal that ended it), None while it runs."""
        return None if self._process is None else self._process.returncode

    async def start(self) -> None:
        """Start it; output is appended to the log. Trouble when the program can't be started."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self.log.open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    *self.command.argv, env=dict(self.command.env), cwd=self.command.cwd,
                    stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                    preexec_fn=_before_exec(self.command),
                )  # fmt: skip
        except OSError as error:
            message = f"{self.command.name} can't be started: {error.strerror} ({error.filename})."
            raise Trouble(message) from error

    async def wait(self) -> int:
        """Wait for its end and give the exit status."""
        if self._process is None:
            raise Trouble(f"{self.command.name} isn't started.")
        return await self._process.wait()

    def send(self, number: int) -> None:
        """Send a signal to the process itself; nothing happens when it has ended."""
        if self.is_alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def kill(self) -> None:
        """Kill it and its group, and wait for the end."""
        if self._process is not None:
            self._kill_group()
            await self._process.wait()

    async def stop(self) -> None:
        """Ask for an orderly end, wait for the grace time, then kill the group."""
        if self._process is None:
            return
        self.send(self.command.stop_signal)
        self.send(signal.SIGCONT)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), self.command.grace_s)
        await self.kill()

    def last_lines(self, count: int = 5) -> str:
        """Give the log's last lines, to say why it ended."""
        if not self.log.exists():
            return ""
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return "\n".join(lines[-count:])

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


def _before_exec(command: Command) -> Callable[[], None]:
    """Prepare what the child does between fork and exec: become the user, ask for the orphan signal."""
    account = pwd.getpwnam(command.user) if command.user and os.geteuid() == 0 else None
    parent = os.getpid()

    def prepare() -> None:
        if account:
            os.setgroups([])
            os.setgid(account.pw_gid)
            os.setuid(account.pw_uid)
        # After the change of user: it clears the wish.
        end_with(parent, command.orphan_signal)

    return prepare


def end_with(parent: int, number: signal.Signals) -> None:
    """Ask the kernel to send this process the signal when `parent` dies; ends at once if it has (Linux only)."""
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, int(number))
        if os.getppid() != parent:
            os._exit(1)
