"""The seven services as the local stack runs them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from eb_tools.names import schema_of
from eb_tools.ports import HOST
from eb_tools.processes import Child, Command

MOST_CHARACTERS = 300
INHERITED = ("PATH", "HOME", "LANG", "TMPDIR", "PYTHONHASHSEED", "PYTHONDONTWRITEBYTECODE")


@dataclass(frozen=True)
class ServicePorts:
    """The two doors of a service on loopback."""

    http: int
    admin: int


class ServiceUnit:
    """One service process of the stack."""

    def __init__(self, name: str, ports: ServicePorts, env: Mapping[str, str], folder: Path) -> None:
        self.name = name
        self.ports = ports
        self.starts = 0
        own = {"EB_HTTP_PORT": str(ports.http), "EB_ADMIN_PORT": str(ports.admin), "EB_HTTP_HOST": HOST}
        argv = (sys.executable, "-m", f"eb_{schema_of(name)}")
        command = Command(name, argv, _inherited() | dict(env) | own, folder, grace_s=10)
        self._child = Child(command, folder / "logs" / f"{name}.log")

    @property
    def pid(self) -> int:
        """Give its process id."""
        return self._child.pid

    @property
    def is_alive(self) -> bool:
        """Say whether its process runs."""
        return self._child.is_alive

    async def start(self) -> None:
        """Start the process; `is_ready` says when it works."""
        self.starts += 1
        await self._child.start()

    async def stop(self) -> None:
        """Let it drain and end."""
        await self._child.stop()

    async def wait(self) -> int:
        """Wait for its end."""
        return await self._child.wait()

    def last_words(self) -> str:
        """Give what its log says last, for people: of a JSON line the event and the error."""
        line = self._child.last_lines(1)
        if line.startswith("{"):
            entry = json.loads(line)
            line = " ".join(str(entry[name]) for name in ("event", "error") if name in entry)
        return line[:MOST_CHARACTERS] or "its log is empty"

    async def is_live(self, http: aiohttp.ClientSession) -> bool:
        """Ask its livez, which a hung process doesn't answer."""
        return await answers_ok(http, f"http://{HOST}:{self.ports.admin}/livez")

    async def is_ready(self, http: aiohttp.ClientSession) -> bool:
        """Ask its readyz."""
        return await answers_ok(http, f"http://{HOST}:{self.ports.admin}/readyz")


async def answers_ok(http: aiohttp.ClientSession, url: str) -> bool:
    """Say whether a GET is answered with 200 now."""
    try:
        async with http.get(url, timeout=aiohttp.ClientTimeout(total=2)) as answer:
            return answer.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


def _inherited() -> dict[str, str]:
    """Give what of the caller's environment services may see; its settings come from the stack alone."""
    return {name: os.environ[name] for name in INHERITED if name in os.environ}
