"""Where the local stack keeps its files. Standard library only: the bootstrap runs before the venv exists."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from eb_tools.trouble import Trouble


def repository() -> Path:
    """Give the root of the working copy: the folder that holds the Makefile."""
    return Path(__file__).resolve().parents[3]


def run_dir() -> Path:
    """Give the folder of this stack's state: `EB_RUN_DIR`, else `.run` in the working copy."""
    return Path(os.environ.get("EB_RUN_DIR") or repository() / ".run").resolve()


def cache_dir() -> Path:
    """Give the folder for unpacked programs, shared by all working copies of a user.

    `EB_CACHE_DIR`, else `$XDG_CACHE_HOME/event-builder`, else `~/.cache/event-builder`; where that can't be
    written, a folder in the run folder.
    """
    given = os.environ.get("EB_CACHE_DIR")
    if given:
        return writable_folder(Path(given))
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    try:
        return writable_folder(Path(base) / "event-builder")
    except Trouble:
        return writable_folder(run_dir() / "cache")


def writable_folder(folder: Path) -> Path:
    """Make `folder` if it isn't there and see that files can be made in it, else Trouble."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder.resolve()
    except OSError as error:
        reason = error.strerror or str(error)
        message = f"The folder {folder} can't be written to ({reason}). Choose another with EB_RUN_DIR."
        raise Trouble(message) from error
