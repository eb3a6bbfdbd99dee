"""Logs as JSON lines with trace ids, W3C trace context, and OpenTelemetry spans where an exporter is set.

Logs never hold a body, a token or an email.
"""

from __future__ import annotations

import logging
import re
import secrets
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import structlog
from opentelemetry import trace as otel
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, TraceFlags

TRACEPARENT = re.compile(r"^00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})$")


@dataclass(frozen=True, slots=True)
class Trace:
    """Where we are in a trace: W3C trace id (32 hex) and span id (16 hex)."""

    trace_id: str
    span_id: str

    @property
    def traceparent(self) -> str:
        """Write the W3C `traceparent` header."""
        return f"00-{self.trace_id}-{self.span_id}-01"


_current: ContextVar[Trace | None] = ContextVar("eb_trace", default=None)
_request_id: ContextVar[str | None] = ContextVar("eb_request_id", default=None)


def current_trace() -> Trace:
    """Give the trace of this task; a new one outside of any."""
    return _current.get() or new_trace()


def current_request_id() -> str | None:
    """Give the id of the HTTP request that is being answered, if any."""
    return _request_id.get()


def new_trace() -> Trace:
    """Make a fresh trace."""
    return Trace(secrets.token_hex(16), secrets.token_hex(8))


def parse_traceparent(header: str | None) -> Trace | None:
    """Read a `traceparent`; None where it is missing, malformed or all zeros."""
    found = TRACEPARENT.match(header or "")
    if not found or set(found[1]) == {"0"} or set(found[2]) == {"0"}:
        return None
    return Trace(found[1], found[2])


@contextmanager
def span(
    name: str, parent: Trace | None = None, links: Sequence[Trace] = (), request_id: str | None = None
) -> Iterator[Trace]:
    """Enter a span below `parent` (a new trace without one); `links` name the messages of a take."""
    if not _exporting:
        here = Trace(parent.trace_id, secrets.token_hex(8)) if parent else new_trace()
        with _entered(here, request_id):
            yield here
        return
    context = otel.set_span_in_context(NonRecordingSpan(_span_context(parent))) if parent else None
    # What an error says may quote a row or a request: the logs, which leave that out, tell it by the trace id.
    with otel.get_tracer("eb").start_as_current_span(
        name,
        context=context,
        links=[Link(_span_context(link)) for link in links],
        record_exception=False,
        set_status_on_exception=False,
    ) as recorded:
        ids = recorded.get_span_context()
        here = Trace(f"{ids.trace_id:032x}", f"{ids.span_id:016x}")
        with _entered(here, request_id):
            yield here


@contextmanager
def _entered(here: Trace, request_id: str | None) -> Iterator[None]:
    trace_token, request_token = _current.set(here), _request_id.set(request_id)
    try:
        yield
    finally:
        _current.reset(trace_token)
        _request_id.reset(request_token)


def _span_context(trace: Trace) -> SpanContext:
    return SpanContext(int(trace.trace_id, 16), int(trace.span_id, 16), True, TraceFlags(1))


_exporting = False


def start_exporting(service: str, endpoint: str | None) -> None:
    """Send spans to an OTLP/HTTP endpoint from now on; without one spans only carry ids."""
    global _exporting  # noqa: PLW0603 - one switch per process, set once at start
    if endpoint is None:
        return
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    otel.set_tracer_provider(provider)
    _exporting = True


def _add_trace(_: object, __: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    if (here := _current.get()) is not None:
        event.setdefault("trace_id", here.trace_id)
    return event


def _without_values(_: object, __: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
    """Take the details out of the database's errors: they quote the rows, and with them addresses and names."""
    error = event.get("exc_info")
    found = sys.exc_info()[1] if error is True else error[1] if isinstance(error, tuple) else error
    seen: set[int] = set()
    while isinstance(found, BaseException) and id(found) not in seen:
        seen.add(id(found))
        if getattr(found, "detail", None) and hasattr(found, "sqlstate"):
            found.detail = "left out"  # type: ignore[attr-defined]
        found = found.__cause__ or found.__context__
    return event


def start_logging(service: str, level: str) -> None:
    """Log JSON lines to stdout, library loggers included."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_trace,
        lambda _, __, event: {**event, "service": service},
        _without_values,
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(default=str),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    for noisy in ("aiormq", "aio_pika", "aiohttp.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # It quotes headers that it couldn't parse, tokens among them; what our own code raises is logged by the kit.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)
