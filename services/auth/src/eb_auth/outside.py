"""Mail leaves here: through SMTP or, in a local run, as files into a mailbox folder."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from pathlib import Path
from uuid import UUID

import aiosmtplib

from .settings import Settings

SMTP_TIMEOUT_S = 3.0


class MailNotSent(Exception):
    """The mail server is away or refuses; try again later."""


@dataclass(frozen=True, slots=True)
class CodeMail:
    """A mail that carries a one-time sign-in code."""

    mail_id: UUID
    to: str
    code: str
    sent_at: datetime


async def send(settings: Settings, mail: CodeMail) -> None:
    """Send one mail; raises MailNotSent. A mail that is sent twice is the same mail twice (Message-ID)."""
    message = _compose(settings, mail)
    if settings.mailbox_dir is not None:
        message["X-EB-Kind"] = "login_code"
        message["X-EB-Code"] = mail.code
        await asyncio.to_thread(_drop, settings.mailbox_dir, f"{mail.mail_id}.eml", message.as_bytes())
        return
    try:
        await aiosmtplib.send(
            message,
            hostname=settings.smtp_host,
            port=settings.smtp_port,
            use_tls=settings.smtp_security == "tls",
            start_tls=settings.smtp_security == "starttls",
            username=settings.smtp_username,
            password=settings.smtp_password,
            timeout=SMTP_TIMEOUT_S,
        )
    except (aiosmtplib.SMTPException, OSError) as error:
        raise MailNotSent(type(error).__name__) from error


def _compose(settings: Settings, mail: CodeMail) -> EmailMessage:
    message = EmailMessage()
    message["From"] = settings.mail_from
    message["To"] = mail.to
    message["Subject"] = "Your sign-in code"
    message["Date"] = format_datetime(mail.sent_at)
    message["Message-ID"] = make_msgid(str(mail.mail_id), settings.mail_from.rpartition("@")[2])
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(
        f"Your sign-in code is {mail.code}\n\nIt is valid for ten minutes and works once."
        " If you did not ask for it, nothing happens as long as you keep it to yourself.\n"
    )
    return message


def _drop(folder: Path, name: str, content: bytes) -> None:
    """Write a file that nobody ever sees half."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f".{name}.part"
        part.write_bytes(content)
        part.rename(folder / name)
    except OSError as error:
        raise MailNotSent(type(error).__name__) from error
