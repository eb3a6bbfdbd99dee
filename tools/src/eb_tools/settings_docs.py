"""Writes docs/settings.md from the settings models of the services; `--check` only compares."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterator
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from eb_kit.settings import ServiceSettings, variable_of
from eb_tools.names import NAMES, schema_of
from eb_tools.paths import repository

FILE = repository() / "docs" / "settings.md"
HEAD = """# Settings

Every service reads these variables at start, refuses wrong ones with a line each, and exits with status 2. Any
variable `X` may instead be given as a file, named by `X_FILE`: that is the way for secrets. Generated from the code
by `python -m eb_tools.settings_docs`.
"""


def rows(model: type[ServiceSettings], without: type[ServiceSettings] | None) -> Iterator[str]:
    """Give a table row for each setting of the model, less those of `without`."""
    for name, field in model.model_fields.items():
        if without is None or name not in without.model_fields:
            yield f"| `{variable_of(name, field)}` | {_default(field)} | {field.description or ''} |"


def _default(field: FieldInfo) -> str:
    value: Any = field.default
    if value is PydanticUndefined:
        return "*required*"
    if value is None or value in ((), ""):
        return ""
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return f"`{text}`"


def table(title: str, lines: Iterator[str]) -> str:
    """Give a section with its table; nothing where there are no rows."""
    body = list(lines)
    head = f"\n## {title}\n\n| variable | default | what it does |\n| --- | --- | --- |\n"
    return head + "\n".join(body) + "\n" if body else ""


def document() -> str:
    """Give the whole page."""
    parts = [HEAD, table("All services", rows(ServiceSettings, None))]
    for service in NAMES:
        model = importlib.import_module(f"eb_{schema_of(service)}.settings").Settings
        parts.append(table(service, rows(model, ServiceSettings)))
    return "".join(parts)


def main() -> int:
    """Write the page, or say that it has drifted."""
    parser = argparse.ArgumentParser(prog="python -m eb_tools.settings_docs", description=__doc__)
    parser.add_argument("--check", action="store_true")
    page = document()
    if not parser.parse_args().check:
        FILE.write_text(page)
        return 0
    if FILE.exists() and FILE.read_text() == page:
        return 0
    print("docs/settings.md has drifted from the code; run: make docs")
    return 1


if __name__ == "__main__":
    sys.exit(main())
