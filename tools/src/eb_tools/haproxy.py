"""The gateway of the local stack: HAProxy in the foreground, with the generated configuration."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

from eb_tools import gateway, names
from eb_tools.debian import find_programs
from eb_tools.layout import Ports
from eb_tools.ports import HOST
from eb_tools.processes import Child, Command
from eb_tools.trouble import Trouble


class Gateway:
    """HAProxy with one configuration text; `start` checks the text first."""

    name = "gateway"

    def __init__(self, folder: Path, config: str) -> None:
        self._folder = folder
        self._config = config
        self._child: Child | None = None

    @property
    def pid(self) -> int:
        """Give its process id."""
        return self._running.pid

    @property
    def is_alive(self) -> bool:
        """Say whether it runs."""
        return self._child is not None and self._child.is_alive

    @property
    def _running(self) -> Child:
        if self._child is None:
            raise Trouble("The gateway isn't started.")
        return self._child

    async def start(self) -> None:
        """Write and check the configuration, then start; Trouble with HAProxy's own words if it is refused."""
        programs = await asyncio.to_thread(find_programs)
        self._folder.mkdir(parents=True, exist_ok=True)
        file = self._folder / gateway.CONFIG
        for name, text in {**gateway.early_answers(), gateway.CONFIG: self._config}.items():
            (self._folder / name).write_text(text)
        environment = programs.environment()
        check = [str(programs.haproxy), "-c", "-q", "-f", str(file)]
        done = await asyncio.to_thread(
            subprocess.run, check, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise Trouble(f"HAProxy refuses {file}: {done.stderr.strip()}")
        # -db: one process in the foreground, so that ending it ends the gateway.
        argv = (str(programs.haproxy), "-db", "-f", str(file))
        command = Command(self.name, argv, environment, self._folder, grace_s=3)
        self._child = Child(command, self._folder.parent / "logs" / "gateway.log")
        await self._child.start()

    async def stop(self) -> None:
        """End it; open requests are cut off after the grace time."""
        if self._child is not None:
            await self._child.stop()

    async def wait(self) -> int:
        """Wait for its end."""
        return await self._running.wait()


def local_config(ports: Ports, *, has_rate_limits: bool) -> str:
    """Write the configuration for services on this machine."""
    backends = {name: _backend(ports, name) for name in names.NAMES}
    options = gateway.Options(
        bind=f"{HOST}:{ports['gateway']}",
        has_rate_limits=has_rate_limits,
        metrics_bind=f"{HOST}:{ports['gateway-metrics']}",
    )
    return gateway.render(gateway.read_routes(), backends, options)


def _backend(ports: Ports, name: str) -> gateway.Backend:
    doors = ports.of_service(name)
    return gateway.Backend(f"{HOST}:{doors.http}", doors.admin)
