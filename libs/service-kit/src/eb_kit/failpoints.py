"""Fail points: named steps at which a process of a local run dies, sleeps or meets bad weather, once, when told to.

Told by files (`<folder>/<service>/<step>`, read while the process runs) or by the setting `EB_FAILPOINTS`. A step costs
one look at an empty dict where nothing is armed, and nothing can be armed outside of local runs.
Rule: docs/rules/bus.md, Fail points.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from . import topology

if TYPE_CHECKING:
    from .supervisor import Supervisor

log = structlog.get_logger(__name__)

LOOK_S = 0.1
LAST_BREATH_S = 0.05
INGEST = ("ingest.received", "ingest.before_publish", "ingest.after_publish", "ingest.spooled")
RELAY = ("relay.before_send", "relay.after_confirm", "relay.after_mark")
TAKE = ("received", "before_commit", "after_commit", "after_ack")
ACTION = re.compile(r"(?P<what>die|weather|sleep:(?P<seconds>\d+(\.\d+)?))(@(?P<at>[1-9]\d*))?")


def _steps() -> Iterator[str]:
    yield from (*INGEST, *RELAY)
    for family in ("facts", "coherence", *(stream.family for stream in topology.STREAMS)):
        yield from (f"{family}.{step}" for step in TAKE)


STEPS = frozenset(_steps())
"""Every step there is: at the door, in the relay, and in the takes of each family."""


class Weather(ConnectionError):
    """Bad weather made by a fail point; handled as any lost connection."""


@dataclass(slots=True)
class Point:
    """An armed step: what to do the `left`-th time from now that it is reached. `mark` makes it happen once."""

    what: str
    seconds: float
    left: int
    mark: Path | None = None
    is_order: bool = False

    @classmethod
    def read(cls, text: str) -> Point:
        """Read `die`, `weather` or `sleep:SECONDS`, each with `@N` for the N-th time; ValueError otherwise."""
        found = ACTION.fullmatch(text.strip())
        if found is None:
            raise ValueError(f"a fail point says die, weather or sleep:SECONDS, then maybe @N; not {text!r}")
        return cls(found["what"].partition(":")[0], float(found["seconds"] or 0), int(found["at"] or 1))

    def claim(self) -> bool:
        """Take the right to happen: of several processes one has it, and none after a restart."""
        try:
            if self.is_order and self.mark:
                self.mark.unlink()
            elif self.mark:
                self.mark.parent.mkdir(parents=True, exist_ok=True)
                self.mark.touch(exist_ok=False)
        except (FileNotFoundError, FileExistsError):
            return False
        return True


points: dict[str, Point] = {}
"""What is armed in this process, by step. Look here before calling `reach`."""


async def reach(step: str) -> None:
    """Do what is armed for a step, if it is its turn; Weather where that is bad weather."""
    point = points.get(step)
    if point is None:
        return
    point.left -= 1
    if point.left > 0:
        return
    del points[step]
    if not point.claim():
        return
    log.warning("fail point reached", step=step, what=point.what)
    if point.what == "weather":
        raise Weather(f"fail point {step}")
    await asyncio.sleep(point.seconds or LAST_BREATH_S)  # what was written before leaves the process
    if point.what == "die":
        os.kill(os.getpid(), signal.SIGKILL)


def parse(orders: Iterable[str]) -> dict[str, Point]:
    """Read `step=action` pairs; ValueError for an unknown step or action."""
    found = {}
    for order in orders:
        step, _, action = order.partition("=")
        if step not in STEPS:
            raise ValueError(f"no fail point is called {step!r}; there are {', '.join(sorted(STEPS))}")
        found[step] = Point.read(action)
    return found


def arm(orders: Iterable[str], folder: Path | None, service: str) -> None:
    """Arm what the settings order; with a folder each happens once, over restarts."""
    for step, point in parse(orders).items():
        mark = folder / service / f"{step}.fired" if folder else None
        if mark is None or not mark.exists():
            point.mark = mark
            points[step] = point


def start(orders: Iterable[str], folder: Path | None, service: str, supervisor: Supervisor) -> None:
    """Arm what is ordered, and follow the folder from now on; nothing where neither is set."""
    arm(orders, folder, service)
    if folder is not None:
        supervisor.start("failpoints", _Follower(folder / service).run)


class _Follower:
    """Arms and disarms what the files of a folder say."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[str, str] = {}

    async def run(self) -> None:
        while True:
            self.look()
            await asyncio.sleep(LOOK_S)

    def look(self) -> None:
        """Take up files that came or changed, and forget those that went."""
        found = dict(self._files())
        for step in self._seen.keys() - found.keys():
            points.pop(step, None)
        for step, text in found.items():
            if self._seen.get(step) != text:
                points[step] = Point.read(text)
                points[step].mark, points[step].is_order = self._folder / step, True
        self._seen = found

    def _files(self) -> Iterator[tuple[str, str]]:
        try:
            names = sorted(os.listdir(self._folder))
        except FileNotFoundError:
            return
        for name in names:
            if name in STEPS and (text := _text(self._folder / name)):
                yield name, text


def _text(file: Path) -> str:
    try:
        return file.read_text().strip()
    except FileNotFoundError:
        return ""
