"""Mail leaves here: through SMTP or, in a local run, as files into a mailbox folder."""

from __future__ import annotations

import asyncio
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from pathlib import Path
from uuid import UUID

import aiosmtplib

from ..domain.mails import Mail
from ..settings import Settings

SMTP_TIMEOUT_S = 3.0


class MailNotSent(Exception):
    """The mail server is away or refuses; try again later."""


async def send(settings: Settings, mail_id: UUID, mail: Mail, sent_at: datetime) -> None:
    """Send one mail; raises MailNotSent. A mail that is sent twice is the same mail twice (Message-ID)."""
    message = _compose(settings, mail_id, mail, sent_at)
    if settings.mailbox_dir is not None:
        for name, value in mail.local_headers.items():
            message[name] = value
        await asyncio.to_thread(_drop, settings.mailbox_dir, f"{mail_id}.eml", message.as_bytes())
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


def _compose(settings: Settings, mail_id: UUID, mail: Mail, sent_at: datetime) -> EmailMessage:
    message = EmailMessage()
    message["From"] = settings.mail_from
    message["To"] = mail.to
    message["Subject"] = mail.subject
    message["Date"] = format_datetime(sent_at)
    message["Message-ID"] = make_msgid(str(mail_id), settings.mail_from.rpartition("@")[2])
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(mail.text)
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
