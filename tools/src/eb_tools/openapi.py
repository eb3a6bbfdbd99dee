"""Writes the OpenAPI documents from the services' routes; `--check` only compares.

`docs/api/openapi.json` is for readers, with a copy inside the kit that services serve; `docs/api/<service>.json`
holds each service's own part.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path

from eb_kit.openapi import document
from eb_kit.routing import Route
from eb_tools.names import NAMES, schema_of

ROOT = Path(__file__).resolve().parents[3]
API = ROOT / "docs" / "api"
SERVED = ROOT / "libs" / "service-kit" / "src" / "eb_kit" / "openapi.json"


def routes_of(service: str) -> list[Route]:
    """Give the routes of a service as its code has them."""
    return list(importlib.import_module(f"eb_{schema_of(service)}.app").SERVICE.routes)


def all_routes() -> list[Route]:
    """Give the routes of all services, and those of the documents themselves."""
    from eb_kit.browse import routes

    return [*routes, *(route for service in NAMES for route in routes_of(service))]


def documents() -> dict[Path, str]:
    """Give the text of every generated document by its file."""
    whole = document("Event Builder Platform", all_routes())
    texts = {API / "openapi.json": _readable(whole), SERVED: json.dumps(whole, separators=(",", ":")) + "\n"}
    for service in NAMES:
        texts[API / f"{service}.json"] = _readable(document(f"Event Builder: {service}", routes_of(service)))
    return texts


def _readable(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def main() -> int:
    """Write the documents, or with --check name those that differ and exit 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail where a file is out of date"
    )
    is_check = parser.parse_args().check
    stale = [path for path, text in documents().items() if not path.exists() or path.read_text() != text]
    if is_check:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is out of date: make docs", file=sys.stderr)
        return int(bool(stale))
    API.mkdir(parents=True, exist_ok=True)
    texts = documents()
    for path in stale:
        path.write_text(texts[path])
    print(f"{len(stale)} documents written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
