from __future__ import annotations

import json
import subprocess
import sys

import pytest

from eb_kit.telemetry import current_request_id, current_trace, parse_traceparent, span

GOOD = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def test_a_traceparent_is_carried_into_the_span_below_it() -> None:
    with span("request", parse_traceparent(GOOD), request_id="r-1") as here:
        assert current_trace() == here
        assert here.trace_id == "4bf92f3577b34da6a3ce929d0e0e4736"
        assert here.span_id != "00f067aa0ba902b7"
        assert parse_traceparent(here.traceparent) == here
        assert current_request_id() == "r-1"

    assert current_request_id() is None


@pytest.mark.parametrize(
    "bad",
    [None, "", "garbage", GOOD.upper(), GOOD[:-1], "00-" + "0" * 32 + "-00f067aa0ba902b7-01", GOOD + "-x"],
)
def test_a_malformed_traceparent_is_as_none(bad: str | None) -> None:
    assert parse_traceparent(bad) is None


FAILING = """
import asyncpg, structlog
from eb_kit.telemetry import start_logging

start_logging("test", "info")
error = asyncpg.UniqueViolationError("duplicate key value violates unique constraint")
error.detail = "Key (email)=(ada@example.org) already exists."
try:
    try:
        raise error
    except asyncpg.PostgresError as cause:
        raise RuntimeError("wrapped") from cause
except RuntimeError:
    structlog.get_logger().exception("failed", said="a\\nforged line")
"""


def test_a_line_is_one_json_object_and_quotes_no_row_of_the_database() -> None:
    done = subprocess.run([sys.executable, "-c", FAILING], capture_output=True, text=True, check=True)

    (line,) = done.stdout.splitlines()
    entry = json.loads(line)
    assert {"event", "level", "timestamp", "service", "logger", "exception"} <= entry.keys()
    assert entry["timestamp"].endswith("Z")
    assert entry["said"] == "a\nforged line"
    assert "duplicate key value" in entry["exception"]
    assert "ada@example.org" not in line


EXPORTING = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import asyncpg
from opentelemetry import trace
from eb_kit.telemetry import span, start_exporting

got = []

class Collector(BaseHTTPRequestHandler):
    def do_POST(self):
        got.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args):
        pass

server = HTTPServer(("127.0.0.1", 0), Collector)
Thread(target=server.serve_forever, daemon=True).start()
start_exporting("test", f"http://127.0.0.1:{server.server_port}/v1/traces")
error = asyncpg.UniqueViolationError("duplicate key value")
error.detail = "Key (email)=(ada@example.org) already exists."
try:
    with span("GET /orgs/{org_id}", request_id="r-1"):
        raise error
except asyncpg.PostgresError:
    pass
trace.get_tracer_provider().force_flush()
server.shutdown()
sys.stdout.buffer.write(b"".join(got))
"""


def test_a_span_that_leaves_names_its_route_and_quotes_no_error() -> None:
    done = subprocess.run([sys.executable, "-c", EXPORTING], capture_output=True, check=True)

    assert b"GET /orgs/{org_id}" in done.stdout
    assert b"ada@example.org" not in done.stdout
    assert b"duplicate key" not in done.stdout
