"""The one program of a local stack: starts its parts, keeps them alive, ends them.

`python -m eb_tools.supervisor` works on `EB_RUN_DIR`. What it does is told in `supervisor.json`
(`{pid, state: starting|ready|failed|stopped, message, steps}`); SIGTERM or SIGINT ends it and all it started.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import aiohttp

from eb_tools import parts
from eb_tools.files import write_json
from eb_tools.layout import Layout
from eb_tools.paths import run_dir, writable_folder
from eb_tools.processes import end_with
from eb_tools.trouble import Trouble, sentence

BACKOFF_S = (0.0, 0.5, 1.0, 2.0, 4.0)
SHORT_LIFE_S = 2.0
WATCH_S = 2.0
MISSES = 5
"""So many looks in a row without an answer, two seconds each, and a service counts as hung."""
STEPS_KEPT = 300


class Unit(Protocol):
    """A part that runs as a process."""

    @property
    def pid(self) -> int: ...
    @property
    def is_alive(self) -> bool: ...
    async def start(self) -> None: ...
    async def stop(self) -> None: ...
    async def wait(self) -> int: ...


@runtime_checkable
class Watched(Unit, Protocol):
    """A part that can be asked whether it still works."""

    async def is_live(self, http: aiohttp.ClientSession) -> bool: ...


class Journal:
    """Tells people how far the stack is, through the state file."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._began = time.monotonic()
        self._state = "starting"
        self._message = ""
        self._steps: list[str] = []

    def say(self, line: str) -> None:
        """Add a step with its time."""
        self._steps.append(f"{time.monotonic() - self._began:6.1f} s  {line}")
        print(self._steps[-1], flush=True)
        self._write()

    def become(self, state: str, message: str = "") -> None:
        """Change the state."""
        self._state, self._message = state, message
        if message:
            print(message, flush=True)
        self._write()

    def _write(self) -> None:
        steps = self._steps[-STEPS_KEPT:]
        first = len(self._steps) - len(steps)
        with contextlib.suppress(OSError):
            write_json(
                self._layout.state,
                {
                    "pid": os.getpid(),
                    "state": self._state,
                    "message": self._message,
                    "first": first,
                    "steps": steps,
                },
            )


class Supervisor:
    """Keeps the units of one stack alive and says their pids."""

    def __init__(self, layout: Layout, journal: Journal) -> None:
        self._layout = layout
        self._journal = journal
        self._units: dict[str, Unit] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self._is_stopping = False

    async def start(self, name: str, unit: Unit) -> None:
        """Start a unit and watch over it from then on."""
        self._units[name] = unit
        await unit.start()
        self._tell_pids()
        self._keepers.append(asyncio.create_task(self._keep(name, unit), name=f"keep {name}"))
        if isinstance(unit, Watched):
            self._keepers.append(asyncio.create_task(self._watch(name, unit), name=f"watch {name}"))

    async def stop(self) -> None:
        """End everything, what depends on others first."""
        self._is_stopping = True
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        for names in _stop_order(list(self._units)):
            await asyncio.gather(*(self._units[name].stop() for name in names))
        with contextlib.suppress(OSError):
            self._layout.pids.unlink(missing_ok=True)

    async def _keep(self, name: str, unit: Unit) -> None:
        """Start the unit again whenever it has ended; quickly at first, then with pauses."""
        quick_deaths = 0
        while not self._is_stopping:
            began = time.monotonic()
            status = await unit.wait()
            died = time.monotonic()
            quick_deaths = quick_deaths + 1 if died - began < SHORT_LIFE_S else 0
            self._journal.say(f"{name} {_ending(status)}; starting it again")
            await self._start_again(name, unit, quick_deaths)
            self._tell_pids()
            self._journal.say(f"{name} is back after {time.monotonic() - died:.1f} s (pid {unit.pid})")

    async def _watch(self, name: str, unit: Watched) -> None:
        """Kill a process that answered once and doesn't any more; its keeper starts the next."""
        pid, misses = 0, -1
        async with aiohttp.ClientSession() as http:
            while True:
                await asyncio.sleep(WATCH_S)
                if unit.pid != pid:
                    pid, misses = unit.pid, -1
                if await unit.is_live(http):
                    misses = 0
                elif misses >= 0 and unit.is_alive:
                    misses += 1
                if misses >= MISSES and unit.pid == pid:
                    self._journal.say(f"{name} hangs (pid {pid}); killing it")
                    misses = -1
                    os.kill(pid, signal.SIGKILL)

    async def _start_again(self, name: str, unit: Unit, attempt: int) -> None:
        while True:
            await asyncio.sleep(BACKOFF_S[min(attempt, len(BACKOFF_S) - 1)])
            try:
                await unit.start()
                return
            except Trouble as trouble:
                self._journal.say(f"{name} doesn't start: {trouble}")
            attempt += 1

    def _tell_pids(self) -> None:
        alive = {name: [unit.pid] for name, unit in self._units.items() if unit.is_alive}
        write_json(self._layout.pids, alive)


def _stop_order(names: list[str]) -> list[list[str]]:
    """Gateway, then services, then what they stand on."""
    last = [name for name in names if name in ("postgres", "rabbitmq")]
    first = [name for name in names if name == "gateway"]
    return [first, [name for name in names if name not in first and name not in last], last]


def _ending(status: int) -> str:
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"ended with status {status}"


async def run(layout: Layout, journal: Journal) -> None:
    """Start everything, be ready, and stay until told to stop."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    supervisor = Supervisor(layout, journal)
    try:
        starting = asyncio.create_task(parts.start_all(layout, supervisor.start, journal.say))
        waiting = asyncio.create_task(stopped.wait())
        await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
        else:
            starting.result()
            journal.become("ready")
            await waiting
    finally:
        await supervisor.stop()


@contextmanager
def only_one(layout: Layout) -> Iterator[None]:
    """Hold the folder's lock; Trouble if another stack has it."""
    with (layout.folder / "lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            message = f"A stack is running on {layout.folder} already; make down ends it."
            raise Trouble(message) from error
        yield


def main() -> int:
    """Run until a signal; exit status 1 with a sentence when the stack can't be started."""
    if parent := os.environ.get("EB_PARENT"):
        end_with(int(parent), signal.SIGTERM)
    layout = Layout(run_dir())
    journal = Journal(layout)
    try:
        writable_folder(layout.folder)
        layout.prepare()
        with only_one(layout):
            asyncio.run(run(layout, journal))
            journal.become("stopped")
    except (Trouble, OSError, ExceptionGroup) as error:
        message = sentence(error)
        if message is None:
            journal.become("failed", f"The stack failed; see {layout.logs / 'supervisor.log'}.")
            raise
        journal.become("failed", message)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
