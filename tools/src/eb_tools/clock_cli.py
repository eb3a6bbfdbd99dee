"""`eb clock`: move the business clock of a local run, for all its services at once.

The offset lies in the run folder's `clock` and is read again every 100 ms. Tokens, ids and retries keep to the
machine's clock.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from eb_tools.trouble import Trouble

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def set_to(file: Path, text: str, machine_now: datetime) -> datetime:
    """Set the business time to an instant (RFC 3339, with an offset) and let it run on from there; give it."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        raise Trouble(f"{text} is no instant; write it as 2026-11-04T02:00:00Z.") from error
    if instant.tzinfo is None:
        raise Trouble(f"{text} has no offset; write it as {text}Z or with +11:00.")
    _write(file, instant - machine_now)
    return instant.astimezone(UTC)


def advance(file: Path, text: str, machine_now: datetime) -> datetime:
    """Move the business time on by `3d`, `36h`, `15m`, … (or back: `-1h`); give it."""
    found = re.fullmatch(r"([+-]?\d+)([smhdw])", text)
    if found is None:
        raise Trouble(f"{text} is no length of time; write it as 3d, 36h, 15m or 90s.")
    offset = offset_of(file) + timedelta(**{UNITS[found[2]]: int(found[1])})
    _write(file, offset)
    return machine_now + offset


def run(file: Path, machine_now: datetime) -> datetime:
    """Let the business time be the machine's again; give it."""
    file.unlink(missing_ok=True)
    return machine_now


def offset_of(file: Path) -> timedelta:
    """Give the offset that the file holds."""
    try:
        return timedelta(seconds=float(file.read_text()))
    except FileNotFoundError:
        return timedelta()


def _write(file: Path, offset: timedelta) -> None:
    """Replace the file at once: a service never reads half a number."""
    fresh = file.with_name(f".{file.name}.new")
    fresh.write_text(f"{offset.total_seconds():.6f}\n")
    fresh.replace(file)
