"""The local stack from outside: `eb_tools.stack run|up|down|clean`, and the class `Stack` for tests.

with Stack(folder) as stack:
    stack.gateway_url, stack.credentials(), stack.kill("pricing")
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil

from eb_tools.files import read_json
from eb_tools.layout import Layout
from eb_tools.paths import run_dir, writable_folder
from eb_tools.postgres import PrivatePostgres
from eb_tools.trouble import Trouble, sentence

UP_TIMEOUT_S = 240
DOWN_TIMEOUT_S = 60
Say = Callable[[str], None]


class Stack:
    """One stack in one folder. It runs in a program of its own, the supervisor, which restarts what dies.

    `env` adds to the environment of that program: `EB_PORTS=any` for a second stack, `EB_RATE_LIMITS=on`, ….
    """

    def __init__(self, folder: Path, env: Mapping[str, str] | None = None) -> None:
        self.layout = Layout(folder.resolve())
        self._env = dict(env or {})
        self._told = 0

    def __enter__(self) -> Self:
        return self.up()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    @property
    def gateway_url(self) -> str:
        """Give the address clients use."""
        return str(self.credentials()["gateway_url"])

    @property
    def state(self) -> str:
        """Give `starting`, `ready`, `failed` or `stopped`."""
        return str(read_json(self.layout.state).get("state", "stopped")) if self.is_running else "stopped"

    @property
    def is_running(self) -> bool:
        """Say whether the supervisor lives."""
        pid = read_json(self.layout.state).get("pid")
        return isinstance(pid, int) and _is_supervisor(pid)

    def credentials(self) -> dict[str, Any]:
        """Give the tokens and addresses of this stack."""
        return read_json(self.layout.credentials)

    def pids(self) -> dict[str, list[int]]:
        """Give the process ids by name as they are now."""
        return read_json(self.layout.pids)

    def up(self, say: Say = lambda _: None, *, is_detached: bool = True) -> Self:
        """Start it and wait until it is ready; Trouble says why it isn't. A running one is taken as it is."""
        if not self.is_running:
            writable_folder(self.layout.folder)
            self.layout.prepare()
            self.layout.state.unlink(missing_ok=True)
            self._follow(self._spawn(is_detached=is_detached), say)
        elif self.state != "ready":
            raise Trouble(f"A stack is starting on {self.layout.folder} already.")
        return self

    def down(self) -> bool:
        """End it and everything it started; True if it ran."""
        state = read_json(self.layout.state)
        pid = state.get("pid")
        if not isinstance(pid, int) or not _is_supervisor(pid):
            return False
        supervisor = psutil.Process(pid)
        supervisor.terminate()
        try:
            supervisor.wait(DOWN_TIMEOUT_S)
        except psutil.TimeoutExpired:
            supervisor.kill()
        return True

    def clean(self) -> None:
        """Forget all data; the stack is ended first."""
        self.down()
        PrivatePostgres(self.layout.folder / "postgres", port=1).forget()
        shutil.rmtree(self.layout.folder, ignore_errors=True)

    def kill(self, name: str) -> int:
        """Kill -9 a part; give the pid it had. The supervisor starts it again."""
        return self._send(name, signal.SIGKILL)

    def stop_signal(self, name: str) -> int:
        """Hang a part with SIGSTOP; give its pid."""
        return self._send(name, signal.SIGSTOP)

    def continue_signal(self, name: str) -> int:
        """Wake a hung part; give its pid."""
        return self._send(name, signal.SIGCONT)

    def wait_for_new(self, name: str, old_pid: int, timeout_s: float = 30) -> int:
        """Wait until a part runs with another pid than `old_pid`; give it."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            pid = self.pids().get(name, [old_pid])[0]
            if pid != old_pid and psutil.pid_exists(pid):
                return pid
            time.sleep(0.05)
        raise Trouble(f"{name} isn't back after {timeout_s:.0f} s.")

    def tell_news(self, say: Say) -> None:
        """Say the steps that were written since the last call."""
        state = read_json(self.layout.state)
        steps, first = state.get("steps", []), int(state.get("first", 0))
        for line in steps[max(self._told - first, 0) :]:
            say(line)
        self._told = first + len(steps)

    def _send(self, name: str, number: signal.Signals) -> int:
        pids = self.pids()
        if name not in pids:
            raise Trouble(f"There is no {name} in {self.layout.pids}; there are {', '.join(sorted(pids))}.")
        os.kill(pids[name][0], number)
        return pids[name][0]

    def _spawn(self, *, is_detached: bool) -> subprocess.Popen[bytes]:
        environment = {**os.environ, **self._env, "EB_RUN_DIR": str(self.layout.folder)}
        if not is_detached:
            environment["EB_PARENT"] = str(os.getpid())
        with (self.layout.logs / "supervisor.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "eb_tools.supervisor"],
                env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def _follow(self, supervisor: subprocess.Popen[bytes], say: Say) -> None:
        """Say each step until the supervisor is ready; an interrupted wait ends it."""
        until = time.monotonic() + UP_TIMEOUT_S
        try:
            while self.state != "ready":
                self.tell_news(say)
                if supervisor.poll() is not None:
                    raise Trouble(self._why_it_ended())
                if time.monotonic() > until:
                    raise Trouble(f"The stack isn't ready after {UP_TIMEOUT_S} s. See {self.layout.logs}.")
                time.sleep(0.05)
        except BaseException:
            supervisor.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                supervisor.wait(DOWN_TIMEOUT_S)
            raise
        self.tell_news(say)

    def _why_it_ended(self) -> str:
        message = read_json(self.layout.state).get("message")
        return str(message or f"The stack ended while starting. See {self.layout.logs / 'supervisor.log'}.")


def _is_supervisor(pid: int) -> bool:
    """Say whether this pid is a living supervisor, and not a stranger that has got its number."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and "eb_tools.supervisor" in process.cmdline()
    except psutil.Error:
        return False


def tell(line: str) -> None:
    """Print a line at once, also into a pipe."""
    print(line, flush=True)


def run(stack: Stack) -> None:
    """Start, show the first bill, and stay until Ctrl-C."""
    from eb_tools.demo import load_and_show

    if stack.is_running:
        up(stack)
        tell("It was running already and goes on; make down ends it.")
        return
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # a shell may have set SIGINT to be ignored
        signal.signal(number, _interrupt)
    try:
        stack.up(tell, is_detached=False)
        load_and_show(stack.layout)
        tell("Ctrl-C ends it.")
        while stack.is_running:
            stack.tell_news(tell)
            time.sleep(0.2)
        raise Trouble(stack._why_it_ended())
    except KeyboardInterrupt:
        tell("\nending everything")
    finally:
        stack.down()


def _interrupt(number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def up(stack: Stack) -> None:
    """Start in the background and show the first bill."""
    from eb_tools.demo import load_and_show

    stack.up(tell)
    load_and_show(stack.layout)


def down(stack: Stack) -> None:
    """End what runs in the background."""
    print("ended" if stack.down() else "nothing runs")


def clean(stack: Stack) -> None:
    """End it and forget its data."""
    stack.clean()
    print(f"{stack.layout.folder} is gone")


COMMANDS: dict[str, Callable[[Stack], None]] = {"run": run, "up": up, "down": down, "clean": clean}


def main() -> int:
    """Do one command on the stack of `EB_RUN_DIR`; what went wrong is said in a sentence, exit status 1."""
    parser = argparse.ArgumentParser(prog="python -m eb_tools.stack", description=main.__doc__)
    parser.add_argument("command", choices=sorted(COMMANDS))
    command = COMMANDS[parser.parse_args().command]
    try:
        command(Stack(run_dir()))
    except (Trouble, OSError) as error:
        message = sentence(error)
        if message is None:
            raise
        print(message, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
