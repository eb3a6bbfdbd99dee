"""What goes wrong around the local stack, said in sentences instead of tracebacks."""

from __future__ import annotations


class Trouble(Exception):
    """Something a person must know or do; `str(trouble)` is one or more plain sentences."""
