"""The start of a local stack, step by step: database and broker side by side, then services, then the gateway."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

import aiohttp

from eb_kit import topology
from eb_tools import migrate, names
from eb_tools.debian import find_programs
from eb_tools.files import read_json, write_json, write_secret
from eb_tools.haproxy import Gateway, local_config
from eb_tools.layout import Layout, Say, choose_ports, load_secrets
from eb_tools.names import role_of
from eb_tools.ports import HOST
from eb_tools.postgres import PrivatePostgres
from eb_tools.prepare import set_role_passwords
from eb_tools.processes import Child, Command
from eb_tools.rabbitmq import PrivateRabbitMQ
from eb_tools.services import ServiceUnit, answers_ok
from eb_tools.trouble import Trouble

READY_TIMEOUT_S = 90
STARTS_TRIED = 3
FREE_MB = 500
TOKENS_KEPT_S = 6 * 3600
SERVICE = "local-run"
"""Name of the trusted system that `service_token` belongs to."""
SECRETS = ("postgres", "rabbitmq", "cursor", "auth_seal", "inbound_raw", "email_submit", *names.NAMES)

COHERENCE = {
    "EB_COHERENCE_WINDOW_S": "5",
    "EB_COHERENCE_GRACE_S": "6",
    "EB_COHERENCE_CHECK_S": "2",
}
"""A local run compares sooner than production does, so that what got lost is back within half a minute."""

StartUnit = Callable[[str, Any], Coroutine[Any, Any, None]]


@dataclass(frozen=True)
class Given:
    """Servers that the caller's environment names, instead of private ones."""

    database_url: str | None
    amqp_url: str | None
    admin_url: str | None

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Given:
        """Read `DATABASE_URL` (the owner's), `AMQP_URL` and `RABBITMQ_ADMIN_URL` (an administrator's)."""
        amqp, admin = environ.get("AMQP_URL"), environ.get("RABBITMQ_ADMIN_URL")
        if bool(amqp) != bool(admin):
            raise Trouble("AMQP_URL and RABBITMQ_ADMIN_URL name one broker: give both or neither.")
        return cls(environ.get("DATABASE_URL"), amqp, admin)


class Start:
    """One start of a stack; `all` runs the steps."""

    def __init__(self, layout: Layout, start_unit: StartUnit, say: Say) -> None:
        self.layout = layout
        self.start_unit = start_unit
        self.say = say
        self.given = Given.read(os.environ)
        self.rate_limits = os.environ.get("EB_RATE_LIMITS", "off")
        self.ports = choose_ports(layout, say)
        self.secrets = load_secrets(layout, SECRETS)
        self._passwords = {name: self.secrets[name] for name in names.NAMES}
        self.owner_dsn = self.given.database_url or ""
        self._node = PrivateRabbitMQ(layout.folder / "rabbitmq", self.ports.broker, self.secrets["rabbitmq"])
        self.amqp_url = self.given.amqp_url or self._node.amqp_url
        self.admin_url = self.given.admin_url or self._node.admin_url
        self._units: list[ServiceUnit] = []

    async def all(self) -> None:
        """Bring everything up and wait until it is ready."""
        must_have_space(self.layout.folder)
        await asyncio.to_thread(find_programs, self.say)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._name_server())
            broker = group.create_task(self._broker())
            group.create_task(self._database_and_services(broker))
        await self._until_ready(self._units)
        await self._gateway()

    async def _database_and_services(self, broker: asyncio.Task[None]) -> None:
        """Start the services when they have all they need; a broker that knows them already may come later."""
        await self._database()
        if self.given.amqp_url or not self._broker_mark.exists():
            await broker
        self._write_facts()
        self._units = [
            ServiceUnit(name, self.ports.of_service(name), self._env(name), self.layout.folder)
            for name in names.NAMES
        ]
        async with asyncio.TaskGroup() as group:
            for unit in self._units:
                group.create_task(self.start_unit(unit.name, unit))

    async def _database(self) -> None:
        """Start PostgreSQL unless one is given, migrate, and set the roles' passwords."""
        if not self.owner_dsn:
            server = PrivatePostgres(
                self.layout.folder / "postgres", self.ports["postgres"], self.secrets["postgres"]
            )
            await self.start_unit("postgres", server)
            self.owner_dsn = server.owner_dsn()
            self.say(f"PostgreSQL is up on port {server.port}")
        await self._migrate()
        await set_role_passwords(self.owner_dsn, self._passwords)
        await self._staff_tokens()

    async def _name_server(self) -> None:
        """Serve the zone of the demo's mail domains, in this process."""
        from eb_tools.mail_demo import DnsServer, demo_zone, load_key

        key = await asyncio.to_thread(load_key, self.layout.mail_key)
        self._dns = DnsServer(demo_zone(key), self.ports["dns"])
        await self._dns.start()

    async def _migrate(self) -> None:
        if await migrate.current_revision(self.owner_dsn) == migrate.head_revision():
            return
        environment = {**os.environ, "DATABASE_URL": self.owner_dsn}
        argv = (sys.executable, "-m", "eb_tools.migrate", "upgrade", "head")
        child = Child(Command("migration", argv, environment), self.layout.logs / "migrate.log")
        await child.start()
        if await child.wait() != 0:
            raise Trouble(f"The database can't be migrated. The end of {child.log}:\n{child.last_lines()}")
        self.say("the database is migrated")

    async def _staff_tokens(self) -> None:
        """Have credentials.json with tokens that live for hours yet."""
        file = self.layout.credentials
        kept = read_json(file)
        is_fresh = bool(kept) and time.time() - file.stat().st_mtime < TOKENS_KEPT_S
        if not is_fresh:
            kept |= await self._mint(with_service_token="service_token" not in kept)
        values = kept | {
            "gateway_url": self.ports.gateway_url,
            "inbound_raw_secret": self.secrets["inbound_raw"],
            "email_submit_secret": self.secrets["email_submit"],
            "mailbox_dir": str(self.layout.mail),
            "pids_file": str(self.layout.pids),
        }
        if values != kept or not is_fresh:
            minted_at = file.stat().st_mtime if is_fresh else time.time()
            write_json(file, values)
            os.utime(file, (minted_at, minted_at))

    async def _mint(self, *, with_service_token: bool) -> dict[str, str]:
        environment = {**os.environ, **self._env("auth"), "DATABASE_URL": self.owner_dsn}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "eb_tools.staff", *(["--service", SERVICE] if with_service_token else []),
            env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate()
        if process.returncode != 0:
            raise Trouble(f"The staff's tokens can't be made: {err.decode(errors='replace').strip()[-300:]}")
        return {str(name): str(value) for name, value in json.loads(out).items()}

    async def _broker(self) -> None:
        """Start RabbitMQ unless one is given, and bring it to the topology."""
        if self.given.amqp_url is None:
            await self.start_unit("rabbitmq", self._node)
            ports = self.ports.broker
            self.say(f"RabbitMQ is up on port {ports.amqp}, its pages on {ports.management}")
        vhost = urlsplit(self.amqp_url).path.lstrip("/") or "/"
        await topology.apply(self.admin_url, vhost, self._passwords)
        self._broker_mark.parent.mkdir(exist_ok=True)
        self._broker_mark.touch()
        self.say("exchanges, queues and users are there")

    @property
    def _broker_mark(self) -> Path:
        """Give the mark that lies with the private broker's data once its queues and users are made."""
        return self.layout.folder / "rabbitmq" / "prepared"

    async def _gateway(self) -> None:
        """Start the gateway last: it would remember services that weren't up yet as down."""
        config = local_config(self.ports, has_rate_limits=self.rate_limits == "on")
        await self.start_unit("gateway", Gateway(self.layout.folder / "gateway", config))
        url = f"{self.ports.gateway_url}/.well-known/jwks.json"
        async with aiohttp.ClientSession() as http:
            await until(lambda: answers_ok(http, url), READY_TIMEOUT_S, "The gateway doesn't answer.")
        self.say(f"the gateway is {self.ports.gateway_url}")

    def _write_facts(self) -> None:
        """Say where everything is, for tests and tools of this machine (0600)."""
        write_json(
            self.layout.facts,
            {
                "owner_dsn": self.owner_dsn,
                "amqp_url": self.amqp_url,
                "rabbitmq_admin_url": self.admin_url,
                "gateway_url": self.ports.gateway_url,
                "ports": self.ports.numbers,
                "dsns": {
                    name: _as(self.owner_dsn, role_of(name), self.secrets[name]) for name in names.NAMES
                },
            },
        )

    def _env(self, name: str) -> dict[str, str]:
        """Give a service its settings."""
        return {
            "EB_ENV": "local",
            **self._secret_files(name),
            "EB_CLOCK_FILE": str(self.layout.clock),
            "EB_FAILPOINTS_DIR": str(self.layout.failpoints),
            **COHERENCE,
            "EB_PUBLIC_URL": self.ports.gateway_url,
            "EB_RATE_LIMITS": self.rate_limits,
            "EB_LOG_LEVEL": os.environ.get("EB_LOG_LEVEL", "info"),
            "EB_MAILBOX_DIR": str(self.layout.mail),
            "DNS_SERVERS": os.environ.get("DNS_SERVERS") or f"{HOST}:{self.ports['dns']}",
        }

    def _secret_files(self, name: str) -> dict[str, str]:
        """Write a service's secrets as files, which may change while it runs; give the settings that name them."""
        values = {
            "DATABASE_URL": _through(_as(self.owner_dsn, role_of(name), self.secrets[name]), "POSTGRES"),
            "AMQP_URL": _through(_as(self.amqp_url, name, self.secrets[name]), "RABBITMQ"),
            "EB_CURSOR_SECRET": self.secrets["cursor"],
        }
        if name == "auth":
            values["EB_AUTH_SECRET"] = self.secrets["auth_seal"]
        if name == "domain-verify":
            values["EB_INBOUND_RAW_SECRETS"] = self.secrets["inbound_raw"]
            values["EB_EMAIL_SUBMIT_SECRETS"] = f"{SERVICE}={self.secrets['email_submit']}"
        folder = self.layout.secret_files(name)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for variable, value in values.items():
            write_secret(folder / variable, value)
        return {f"{variable}_FILE": str(folder / variable) for variable in values}

    async def _until_ready(self, units: list[ServiceUnit]) -> None:
        """Wait for every service's readyz; Trouble names the ones that aren't ready in time."""
        waiting, until = list(units), time.monotonic() + READY_TIMEOUT_S
        async with aiohttp.ClientSession() as http:
            while waiting:
                ready = await asyncio.gather(*(unit.is_ready(http) for unit in waiting))
                waiting = [unit for unit, is_ready in zip(waiting, ready, strict=True) if not is_ready]
                if time.monotonic() > until or any(unit.starts > STARTS_TRIED for unit in waiting):
                    raise Trouble(_not_ready(waiting))
                await asyncio.sleep(0.1)
        self.say("all services are ready")


async def start_all(layout: Layout, start_unit: StartUnit, say: Say) -> None:
    """Start every part of the stack and wait until it is ready; Trouble if one can't be."""
    await Start(layout, start_unit, say).all()


async def until(look: Callable[[], Awaitable[bool]], timeout_s: float, complaint: str) -> None:
    """Look every 50 ms until the answer is yes; Trouble with the complaint after the timeout."""
    give_up_at = time.monotonic() + timeout_s
    while not await look():
        if time.monotonic() > give_up_at:
            raise Trouble(complaint)
        await asyncio.sleep(0.05)


def must_have_space(folder: Path) -> None:
    """Trouble where the disk is nearly full: RabbitMQ takes no messages then, and nothing would get ready."""
    free_mb = shutil.disk_usage(folder).free // 1_000_000
    if free_mb < FREE_MB:
        raise Trouble(f"The disk of {folder} is nearly full: {free_mb} MB are free, {FREE_MB} MB are needed.")


def _not_ready(units: list[ServiceUnit]) -> str:
    lines = ["These services don't get ready:"]
    lines += [f"{unit.name} (started {unit.starts} times): {unit.last_words()}" for unit in units]
    return "\n".join(lines)


def _through(url: str, server: str) -> str:
    """Give the URL at the port of `EB_THROUGH_<server>`, if that is set: a proxy that tests have put before it."""
    port = os.environ.get(f"EB_THROUGH_{server}")
    if not port:
        return url
    parts = urlsplit(url)
    who, _, _ = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{who}@{HOST}:{port}"))


def _as(url: str, user: str, password: str) -> str:
    """Give the URL with another user's name and password."""
    parts = urlsplit(url)
    place = f"{quote(user)}:{quote(password)}@{parts.hostname}"
    return urlunsplit(parts._replace(netloc=f"{place}:{parts.port}" if parts.port else place))
