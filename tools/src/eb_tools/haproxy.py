"""The gateway of the local stack: HAProxy in the foreground, with the generated configuration."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

from eb_tools.debian import find_programs
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
        file = self._folder / "haproxy.cfg"
        file.write_text(self._config)
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


PREFIXES = (
    ("estimator", "/pricing/estimate"),
    ("domain-verify", "/verify"),
    ("catalog", "/catalog"),
    ("metering-ingest", "/metering"),
    ("pricing", "/pricing /billing/charges"),
    (
        "ledger",
        "/ledger /partners /commission-rates /partner-of-record /billing-accounts /payouts /reconciliations",
    ),
)


def plain_config(port: int, backends: dict[str, int]) -> str:
    """Write a configuration that only routes by prefix; the rest goes to auth."""
    rules = "\n".join(f"  use_backend {name} if {{ path_beg {paths} }}" for name, paths in PREFIXES)
    servers = "\n".join(f"backend {name}\n  server one 127.0.0.1:{at}" for name, at in backends.items())
    return (
        "global\n  maxconn 2000\ndefaults\n  mode http\n  timeout connect 2s\n  timeout client 65s\n"
        f"  timeout server 65s\n  timeout http-request 10s\n  option forwardfor\nfrontend front\n"
        f"  bind 127.0.0.1:{port}\n{rules}\n  default_backend auth\n{servers}\n"
    )
