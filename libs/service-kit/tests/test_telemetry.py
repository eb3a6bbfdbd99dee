from __future__ import annotations

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
