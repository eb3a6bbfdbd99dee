"""The bus's contract as documents: AsyncAPI 3 from the topology, and a JSON Schema per message.

`python -m eb_tools.contracts_docs` makes docs/api/asyncapi.json and docs/api/schemas/; with `--check` it fails when
what is committed differs from what the code says.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from eb_contracts import auth, catalog, coherence, domain_verify, ledger, metering, pricing, snapshots
from eb_contracts.base import ALL, Message
from eb_kit import topology

MODULES = (auth, catalog, coherence, domain_verify, ledger, metering, pricing, snapshots)
DIALECT = "https://json-schema.org/draft/2020-12/schema"
TITLE = "Event Builder Platform: messages between its services"
HEADERS: Mapping[str, str] = {
    "cloudEvents:specversion": "1.0",
    "cloudEvents:id": "The message id, a UUIDv7; what is sent again keeps it.",
    "cloudEvents:type": "The message's type.",
    "cloudEvents:source": "`/eb/<service>` that sent it.",
    "cloudEvents:subject": "What the message is about.",
    "cloudEvents:time": "When it was written, RFC 3339.",
    "traceparent": "W3C trace context of the request behind it.",
}


def schema_of(message: type[Message]) -> dict[str, Any]:
    """Give the JSON Schema of a message's body, as its writer makes it."""
    schema = message.model_json_schema(mode="serialization")
    return {"$schema": DIALECT, "$id": f"{message.TYPE}.json", **schema}


def _refs_to(schema: Any, name: str) -> Any:
    """Point a schema's local definitions to where the AsyncAPI document keeps them."""
    if isinstance(schema, dict):
        return {
            key: value.replace("#/$defs/", f"#/components/schemas/{name}/$defs/")
            if key == "$ref"
            else _refs_to(value, name)
            for key, value in schema.items()
        }
    return [_refs_to(item, name) for item in schema] if isinstance(schema, list) else schema


def _message(message: type[Message]) -> dict[str, Any]:
    return {
        "name": message.TYPE,
        "title": message.__name__,
        "summary": (message.__doc__ or "").strip().splitlines()[0],
        "contentType": "application/json",
        "headers": {"$ref": "#/components/schemas/headers"},
        "payload": {"$ref": f"#/components/schemas/{message.TYPE}"},
    }


def _channels() -> Iterator[tuple[str, dict[str, Any]]]:
    """Give a channel per queue family and per facts queue."""
    for stream in topology.STREAMS:
        yield (
            f"{stream.service}.{stream.family}",
            _channel(
                f"{stream.service}.{stream.family}" + (".p{partition}" if stream.is_split else ""),
                f"Work of {stream.service}"
                + (", one queue per partition of the organisation." if stream.is_split else "."),
                stream.messages,
                stream.is_split,
            ),
        )
    for service, facts in topology.FACTS.items():
        heard: tuple[type[Message], ...] = (*facts, snapshots.SnapshotRequested, snapshots.SnapshotCompleted)
        queue = topology.facts_queue(service)
        yield queue, _channel(queue, f"Facts that {service} keeps, and snapshots.", heard, False)
        compared = (coherence.WindowsSent, coherence.WindowsHandled, coherence.IdsSent, coherence.IdsMissing)
        queue = topology.coherence_queue(service)
        yield queue, _channel(queue, f"What {service} sent and has handled, compared.", compared, False)


def _channel(
    address: str, summary: str, messages: tuple[type[Message], ...], is_split: bool
) -> dict[str, Any]:
    channel: dict[str, Any] = {
        "address": address,
        "summary": summary,
        "messages": {m.__name__: {"$ref": f"#/components/messages/{m.__name__}"} for m in messages},
        "bindings": {"amqp": {"is": "queue", "queue": {"durable": True, "exclusive": False}}},
    }
    if is_split:
        channel["parameters"] = {"partition": {"description": "00 to 15, a stable hash of the organisation."}}
    return channel


def _operations(channels: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        f"receive.{name}": {
            "action": "receive",
            "channel": {"$ref": f"#/channels/{name}"},
            "summary": channel["summary"],
        }
        for name, channel in channels.items()
    }


def asyncapi() -> dict[str, Any]:
    """Give the AsyncAPI 3 document of all queues and messages."""
    channels = dict(_channels())
    schemas = {name: _refs_to(schema_of(message), name) for name, message in sorted(ALL.items())}
    return {
        "asyncapi": "3.0.0",
        "info": {"title": TITLE, "version": "1.0.0", "license": {"name": "Apache-2.0"}},
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": _operations(channels),
        "components": {
            "messages": {
                message.__name__: _message(message)
                for message in sorted(ALL.values(), key=lambda m: m.__name__)
            },
            "schemas": {
                "headers": {
                    "type": "object",
                    "properties": {
                        name: {"type": "string", "description": text} for name, text in HEADERS.items()
                    },
                },
                **schemas,
            },
        },
    }


def files() -> dict[str, str]:
    """Give every generated file by its path below docs/api."""
    made = {"asyncapi.json": _text(asyncapi())}
    return made | {f"schemas/{name}.json": _text(schema_of(message)) for name, message in ALL.items()}


def _text(document: object) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def drift(folder: Path) -> list[str]:
    """Name the files below `folder` that differ from the code: changed, missing or left over."""
    wanted = files()
    found = {str(p.relative_to(folder)): p.read_text() for p in folder.glob("schemas/*.json")}
    main = folder / "asyncapi.json"
    if main.exists():
        found["asyncapi.json"] = main.read_text()
    return sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))


def write(folder: Path) -> None:
    """Write all files below `folder`, and remove those of messages that are gone."""
    (folder / "schemas").mkdir(parents=True, exist_ok=True)
    wanted = files()
    for name in drift(folder):
        if name in wanted:
            (folder / name).write_text(wanted[name])
        else:
            (folder / name).unlink()


def main() -> int:
    """Write the documents, or check that they are as the code says."""
    parser = argparse.ArgumentParser(prog="python -m eb_tools.contracts_docs", description=main.__doc__)
    parser.add_argument("--check", action="store_true", help="only say what differs; exit 1 if anything does")
    parser.add_argument("--folder", type=Path, default=Path("docs/api"))
    arguments = parser.parse_args()
    if not arguments.check:
        write(arguments.folder)
        return 0
    for name in (found := drift(arguments.folder)):
        print(f"{arguments.folder / name} differs from the code: run make docs", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
