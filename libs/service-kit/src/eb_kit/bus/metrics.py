"""What the bus counts. Labels are services, queues and families: a bounded set."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

PUBLISHED = Counter("eb_bus_published_total", "Messages by what became of them.", ["service", "outcome"])
CONSUMED = Counter("eb_bus_consumed_total", "Messages that were settled.", ["service", "family", "result"])
TAKE_MESSAGES = Histogram(
    "eb_bus_take_messages",
    "Messages in a take.",
    ["service", "family"],
    buckets=(1, 2, 5, 10, 20, 50, 100, 200, 500, 1000),
)
TAKE_SECONDS = Histogram("eb_bus_take_seconds", "How long a take took.", ["service", "family"])
HELD = Gauge("eb_bus_held_messages", "Messages held while the database is away.", ["service", "family"])
RETRIES = Counter("eb_bus_retries_total", "Messages sent to a retry tier.", ["service", "queue", "tier"])
DEAD = Counter("eb_bus_dead_letters_total", "Messages given up.", ["service", "queue", "error_class"])
UNSENT = Gauge("eb_outbox_unsent", "Outbox rows that wait, counted up to 10,000.", ["service"])
UNSENT_AGE = Gauge("eb_outbox_oldest_unsent_seconds", "Age of the oldest outbox row that waits.", ["service"])
CONNECTED = Gauge("eb_bus_connected", "1 while the connection stands.", ["service", "connection"])
MISSING = Gauge(
    "eb_coherence_missing", "Messages sent and not handled, in windows looked at.", ["service", "reader"]
)
UNAGREED_AGE = Gauge(
    "eb_coherence_oldest_unagreed_seconds", "Age, past the grace time, of the oldest window not agreed on.",
    ["service", "reader"],
)  # fmt: skip
WINDOWS = Counter(
    "eb_coherence_windows_total",
    "Windows closed: agreed, explained, given_up.",
    ["service", "reader", "result"],
)
RESENT = Counter(
    "eb_coherence_resent_total", "Messages that were missing and sent again.", ["service", "reader"]
)
KEPT_BYTES = Gauge(
    "eb_bus_kept_bytes", "Messages sent past the outbox, not seen to be handled yet.", ["service"]
)
LET_GO = Counter("eb_bus_kept_let_go_total", "Such messages let go because there were too many.", ["service"])
