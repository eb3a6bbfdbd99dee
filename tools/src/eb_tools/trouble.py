"""What goes wrong around the local stack, said in sentences instead of tracebacks."""

from __future__ import annotations

import errno

DISK_FULL = "53100"
"""PostgreSQL's code for it."""


class Trouble(Exception):
    """Something a person must know or do; `str(trouble)` is one or more plain sentences."""


def sentence(error: BaseException) -> str | None:
    """Say what went wrong for people; None for what is a defect and deserves its traceback."""
    if isinstance(error, BaseExceptionGroup):
        return next((found for inner in error.exceptions if (found := sentence(inner))), None)
    if isinstance(error, Trouble):
        return str(error)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"The disk is full ({error.filename or 'while writing'}). Free some space and start again."
    if getattr(error, "sqlstate", None) == DISK_FULL:
        return "The disk is full, says PostgreSQL. Free some space and start again."
    if isinstance(error, OSError) and error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return f"{error.filename or 'A file'} can't be written to: {error.strerror}."
    return None
