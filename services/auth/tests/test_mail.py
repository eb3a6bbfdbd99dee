"""Mail that waits, leaves and fails."""

from __future__ import annotations

import asyncio
import email
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from eb_auth.app import SERVICE
from eb_auth.jobs import drop_expired, send_mails
from eb_auth.settings import Settings
from eb_kit.settings import load
from eb_kit.testing import Client, running
from eb_kit.testing_db import ClonedDatabase
from eb_tools.ports import free_port

from .conftest import NO_BROKER, AuthService


@dataclass
class SmtpServer:
    """A mail server that speaks just enough SMTP to take mails, or refuses them."""

    port: int
    is_refusing: bool = False
    mails: list[bytes] = field(default_factory=list)

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Hold one conversation."""
        writer.write(b"220 test ESMTP\r\n")
        while line := await reader.readline():
            verb = line[:4].upper()
            if verb == b"DATA":
                writer.write(b"354 go on\r\n")
                self.mails.append(await reader.readuntil(b"\r\n.\r\n"))
            if verb == b"MAIL" and self.is_refusing:
                writer.write(b"451 try later\r\n")
            else:
                writer.write(b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n")
            if verb == b"QUIT":
                break
        writer.close()


@asynccontextmanager
async def smtp_server() -> AsyncIterator[SmtpServer]:
    """Run a mail server on a free port."""
    server = SmtpServer(free_port())
    listening = await asyncio.start_server(server.talk, "127.0.0.1", server.port)
    async with listening:
        yield server


async def send_due(client: Client) -> int:
    """Do what the job does."""
    async with client.context.begin("system:auth") as tx:
        return await send_mails(tx)


async def test_a_mail_goes_through_smtp_and_its_headers_hold_no_code(fresh_db: ClonedDatabase) -> None:
    async with smtp_server() as server:
        settings = {
            "EB_SMTP_HOST": "127.0.0.1",
            "EB_SMTP_PORT": str(server.port),
            "EB_SMTP_SECURITY": "none",
        }
        async with running(
            SERVICE, fresh_db.dsn("auth"), NO_BROKER, doors=("api",), environ=settings
        ) as client:
            async with client.http.post(client.url("/auth/login"), json={"email": "a@example.org"}) as answer:
                assert answer.status == 202
            server.is_refusing = True
            assert await send_due(client) == 1
            assert await send_due(client) == 0
            server.is_refusing = False
            async with asyncio.timeout(10):
                while not server.mails:
                    await send_due(client)
                    await asyncio.sleep(0.1)

    [mail] = [email.message_from_bytes(raw) for raw in server.mails]
    assert mail["To"] == "a@example.org"
    assert "X-EB-Code" not in mail
    assert "Your sign-in code is" in str(mail.get_payload())


async def test_a_mail_waits_sealed_and_is_gone_when_sent(auth: AuthService) -> None:
    await auth.call("POST", "/auth/login", {"email": "jane@example.org"})
    [waiting] = await auth.owner.fetch("SELECT sealed FROM auth.mail_waiting")
    assert b"jane" not in bytes(waiting["sealed"])

    assert await asyncio.gather(*(send_due(auth.client) for _ in range(3))) != [0, 0, 0]

    assert await auth.owner.fetchval("SELECT count(*) FROM auth.mail_waiting") == 0
    assert len(auth.codes("jane@example.org")) == 1


async def test_an_expired_mail_is_dropped_unsent_and_so_is_its_code(auth: AuthService) -> None:
    await auth.call("POST", "/auth/login", {"email": "late@example.org"})
    file = auth.client.context.settings.clock_file
    file.write_text(str(timedelta(minutes=11).total_seconds()))
    await asyncio.sleep(0.15)

    await send_due(auth.client)
    async with auth.client.context.begin("system:auth") as tx:
        assert await drop_expired(tx) == 1

    assert auth.codes("late@example.org") == []
    assert await auth.owner.fetchval("SELECT count(*) FROM auth.login_code") == 0


def environ_of(**values: str) -> dict[str, str]:
    """Settings that are valid in production, and changes to them."""
    return {
        "DATABASE_URL": "postgresql://x/eb?sslmode=verify-full",
        "AMQP_URL": "amqps://x",
        "EB_HTTP_PORT": "1",
        "EB_ADMIN_PORT": "2",
        "EB_CURSOR_SECRET": "a-secret-for-cursors",
        "EB_AUTH_SECRET": "a-secret-of-its-own",
        "EB_SMTP_HOST": "mail.example.org",
        **values,
    }


@pytest.mark.parametrize(
    "change",
    [
        {"EB_AUTH_SECRET": "local-auth-secret"},
        {"EB_AUTH_SECRET": "short"},
        {"EB_MAILBOX_DIR": "/tmp/mail"},
        {"EB_SMTP_SECURITY": "none"},
        {"EB_TRUSTED_PROXIES": "gateway"},
        {"EB_RATE_LIMITS": "sometimes"},
    ],
)
def test_production_starts_only_with_secrets_and_a_mail_server(
    change: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert load(Settings, environ_of()).has_limits

    with pytest.raises(SystemExit):
        load(Settings, environ_of(**change))
    assert capsys.readouterr().err.count("\n") == 1


def test_a_client_is_named_by_proxies_of_the_ranges_given_only() -> None:
    settings = load(Settings, environ_of(EB_TRUSTED_PROXIES="10.0.0.0/8, 192.168.1.7, fd00::/8"))

    assert [settings.trusts(at) for at in ("10.9.8.7", "192.168.1.7", "fd00::1")] == [True] * 3
    assert [settings.trusts(at) for at in ("11.0.0.1", "192.168.1.8", "127.0.0.1", "", "x")] == [False] * 5
    assert load(Settings, environ_of()).trusts("127.0.0.1")


def test_a_local_run_has_no_limits_unless_told(tmp_path: Path) -> None:
    local = {"EB_ENV": "local", "EB_MAILBOX_DIR": str(tmp_path)}

    assert not load(Settings, environ_of(**local)).has_limits
    assert load(Settings, environ_of(**local, EB_RATE_LIMITS="on")).has_limits
