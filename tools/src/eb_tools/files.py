"""The files of a run folder: small JSON documents, replaced whole, readable by their owner only."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SECRET = 0o600


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Replace a JSON file at once: a reader sees the old one or the new one."""
    write_secret(path, json.dumps(value, indent=2) + "\n")


def write_secret(path: Path, text: str) -> None:
    """Replace a file at once, for its owner only."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, SECRET)
    with os.fdopen(descriptor, "w") as handle:
        handle.write(text)
    fresh.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file; empty where there is none."""
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return dict(value)
