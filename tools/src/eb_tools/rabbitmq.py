"""A private RabbitMQ node on loopback: own name, ports, data, cookie and epmd; nothing of the machine's own broker.

async with PrivateRabbitMQ(folder) as broker:
    broker.amqp_url, broker.admin_url
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp

from eb_tools.debian import Programs, find_programs
from eb_tools.ports import HOST, free_ports
from eb_tools.processes import Child, Command
from eb_tools.trouble import Trouble

NODE = "eb@localhost"
ADMIN = "admin"
START_TIMEOUT_S = 90

_CONFIG = """\
[{{kernel, [{{inet_dist_use_interface, {{127,0,0,1}}}},
           {{inet_dist_listen_min, {dist}}}, {{inet_dist_listen_max, {dist}}}]}},
 {{ra, [{{wal_max_size_bytes, 67108864}}]}},
 {{rabbit, [{{tcp_listeners, [{{"127.0.0.1", {amqp}}}]}},
           {{default_user, <<"{user}">>}}, {{default_pass, <<"{password}">>}},
           {{disk_free_limit, 100000000}},
           {{log, [{{file, [{{level, info}}]}}]}}]}},
 {{rabbitmq_management, [{{tcp_config, [{{port, {management}}}, {{ip, "127.0.0.1"}}]}}]}}].
"""
# Erlang terms and no rabbitmq.conf: reading that format alone takes a second of each boot.


@dataclass(frozen=True)
class BrokerPorts:
    """The four ports of a node, all on loopback."""

    amqp: int
    management: int
    distribution: int
    epmd: int

    @classmethod
    def free(cls) -> BrokerPorts:
        """Choose four free ones."""
        return cls(*free_ports(4))


class PrivateRabbitMQ:
    """One node with the management plugin, its data under `folder`.

    The password holds for the life of the data: give the same one when starting on a folder again.
    Signals: `kill` is kill -9, `sigstop` and `sigcont` hang and wake it; `restart` starts what has died or was killed
    on the same ports and data.
    """

    def __init__(
        self,
        folder: Path,
        ports: BrokerPorts | None = None,
        password: str | None = None,
        programs: Programs | None = None,
    ) -> None:
        self.folder = folder
        self.ports = ports or BrokerPorts.free()
        self.password = password or secrets.token_hex(16)
        self._programs = programs
        self._epmd: Child | None = None
        self._server: Child | None = None

    @property
    def amqp_url(self) -> str:
        """Give the AMQP address of the administrator, vhost `/`."""
        return f"amqp://{ADMIN}:{self.password}@{HOST}:{self.ports.amqp}/"

    @property
    def admin_url(self) -> str:
        """Give the address of the management API with the administrator's name and password in it."""
        return f"http://{ADMIN}:{self.password}@{HOST}:{self.ports.management}"

    @property
    def pid(self) -> int:
        """Give the process id of the node."""
        return self._running.pid

    @property
    def is_alive(self) -> bool:
        """Say whether the node's process runs."""
        return self._server is not None and self._server.is_alive

    @property
    def _running(self) -> Child:
        if self._server is None:
            raise Trouble("RabbitMQ isn't started.")
        return self._server

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start the node and wait until clients can use it; Trouble with the log's end when it dies."""
        programs = await asyncio.to_thread(find_programs) if self._programs is None else self._programs
        self._write_files()
        await self._start_epmd(programs)
        self._server = Child(self._server_command(programs), self.folder / "server.out")
        await self._server.start()
        await self._until_ready()

    async def stop(self) -> None:
        """End the node in order, then its epmd; what hangs is killed."""
        for child in (self._server, self._epmd):
            if child is not None:
                await child.stop()

    async def kill(self) -> None:
        """End the node at once, as a power cut would (kill -9)."""
        await self._running.kill()

    def sigstop(self) -> None:
        """Hang the node: it keeps its connections and answers nothing."""
        self._running.send(signal.SIGSTOP)

    def sigcont(self) -> None:
        """Wake a hung node."""
        self._running.send(signal.SIGCONT)

    async def restart(self) -> None:
        """Start the node again on the same data and ports; a running one is killed first."""
        if self._server is not None:
            await self._server.kill()
        await self.start()

    async def wait(self) -> int:
        """Wait for the end of the node's process and give its exit status."""
        return await self._running.wait()

    def _write_files(self) -> None:
        for name in ("home", "mnesia", "log"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "enabled_plugins").write_text("[rabbitmq_management].\n")
        config = self.folder / "advanced.config"
        config.touch(0o600)
        config.write_text(
            _CONFIG.format(
                amqp=self.ports.amqp, management=self.ports.management, dist=self.ports.distribution,
                user=ADMIN, password=self.password,
            )
        )  # fmt: skip

    async def _start_epmd(self, programs: Programs) -> None:
        """Start the port mapper as a child of ours: the node would leave a daemon behind."""
        if self._epmd is not None and self._epmd.is_alive:
            return
        argv = ("epmd", "-port", str(self.ports.epmd), "-address", HOST)
        environment = programs.environment()
        found = _which(argv[0], environment["PATH"])
        self._epmd = Child(
            Command("epmd", (found, *argv[1:]), environment, grace_s=1), self.folder / "epmd.out"
        )
        await self._epmd.start()
        await _until_listening(self.ports.epmd, self._epmd)

    def _server_command(self, programs: Programs) -> Command:
        folder = self.folder
        environment = programs.environment() | {
            "HOME": str(folder / "home"),
            "detached": "1",  # the start script then becomes the node, so that its pid is the node's
            "ERL_EPMD_PORT": str(self.ports.epmd),
            "ERL_EPMD_ADDRESS": HOST,
            "ERL_CRASH_DUMP_SECONDS": "0",
            "RABBITMQ_NODENAME": NODE,
            "RABBITMQ_DIST_PORT": str(self.ports.distribution),
            "RABBITMQ_MNESIA_BASE": str(folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(folder / "log"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "enabled_plugins"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
        }
        return Command("rabbitmq", (str(programs.rabbitmq_server),), environment, folder, grace_s=15)

    async def _until_ready(self) -> None:
        """Wait for the AMQP listener, the last step of a boot, and for the management API."""
        server = self._running
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await _until_listening(self.ports.amqp, server)
                await self._until_answering()
        except TimeoutError as error:
            await server.kill()
            message = f"RabbitMQ wasn't ready within {START_TIMEOUT_S} s. See {self.folder / 'log'}."
            raise Trouble(message) from error

    async def _until_answering(self) -> None:
        url = f"http://{HOST}:{self.ports.management}/api/whoami"
        headers = {"Authorization": aiohttp.encode_basic_auth(ADMIN, self.password)}
        async with aiohttp.ClientSession(headers=headers) as session:
            async for _ in _ticks():
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with session.get(url, timeout=aiohttp.ClientTimeout(total=5)) as answer:
                        if answer.status == 200:
                            return


async def _until_listening(port: int, child: Child) -> None:
    async for _ in _ticks():
        if not child.is_alive:
            message = (
                f"{child.command.name} ended while starting. The end of {child.log}:\n{child.last_lines()}"
            )
            raise Trouble(message)
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection(HOST, port)
            writer.close()
            return


async def _ticks(interval_s: float = 0.05) -> AsyncIterator[None]:
    while True:
        yield
        await asyncio.sleep(interval_s)


def _which(program: str, path: str) -> str:
    for folder in path.split(":"):
        candidate = Path(folder) / program
        if candidate.exists():
            return str(candidate)
    raise Trouble(f"{program} isn't in {path}.")
