"""A log cut into records wherever its pieces end, and what the providers' own formats say."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eb_contracts.ids import new_id
from eb_metering_ingest.domain import records
from eb_metering_ingest.domain.provider_logs import COLUMNS, Place, Reject, Row, Terms, rows_of
from eb_metering_ingest.domain.records import READERS, Csv, JsonElements, JsonLines, Reader, Record

NOW = datetime(2026, 11, 4, 10, 30, tzinfo=UTC)
ORG, OTHER, PROJECT = new_id(), new_id(), new_id()
TERMS = Terms(NOW - timedelta(days=390), NOW + timedelta(days=1), {ORG, OTHER}.__contains__)
WHOLE = Terms(TERMS.earliest, TERMS.latest, TERMS.is_known, whole=Place(ORG, "sms", PROJECT))


def read(reader: Reader, body: bytes, cuts: list[int] | None = None) -> list[Record]:
    """All records of a body that arrives in pieces."""
    places = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts or ())})
    found = [one for a, b in pairwise(places) for one in reader.feed(body[a:b])]
    return found + reader.finish()


def sent(**members: Any) -> dict[str, Any]:
    """A line in our own columns."""
    return (
        dict(
            zip(COLUMNS, ("acme", "m-1", str(ORG), "sms", "2", "2026-11-04T10:00:00Z"), strict=True),
            **members,
        )
        | members
    )


def rows(members: Any, format_name: str = "rows", terms: Terms = TERMS) -> list[Any]:
    """What one record says."""
    return list(rows_of([Record(7, members)], format_name, terms))


COLUMNS_WRONG, MALFORMED = "wrong_number_of_columns", "malformed_json"
any_text = st.text(st.sampled_from('ab,"\n\r é{}[]\\'), max_size=12)
any_cuts = st.lists(st.integers(0, 10_000), max_size=12)


@given(st.lists(st.tuples(any_text, any_text), max_size=20), any_cuts)
def test_csv_is_read_the_same_wherever_its_pieces_end(values: list[tuple[str, str]], cuts: list[int]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\r\n")
    writer.writerow(("a", "b"))
    writer.writerows(values)
    found = read(Csv(), text.getvalue().encode(), cuts)
    # the reader takes line ends for one, as CSV readers do
    assert [(one.members["a"], one.members["b"]) for one in found] == [
        (a.replace("\r\n", "\n"), b.replace("\r\n", "\n")) for a, b in values
    ]


any_value = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=6,
)
any_object = st.dictionaries(any_text, any_value, max_size=4)


@given(st.lists(any_object, max_size=12), any_cuts, st.booleans(), st.sampled_from([None, 1]))
def test_json_is_read_the_same_wherever_its_pieces_end(
    objects: list[dict[str, Any]], cuts: list[int], is_array: bool, indent: int | None
) -> None:
    if is_array:
        body = json.dumps(objects, indent=indent)
    else:
        body = "\n".join(json.dumps(one, indent=indent) for one in objects)
    assert [one.members for one in read(JsonElements(), body.encode(), cuts)] == objects
    lines = "\n".join(json.dumps(one) for one in objects)
    assert [one.members for one in read(JsonLines(), lines.encode(), cuts)] == objects


@pytest.mark.parametrize(
    ("media_type", "body", "expected"),
    [
        ("text/csv", b'a,b\n1,2\n"open,3\n4,5\n', [(2, None), (3, "quote_not_closed"), (4, None)]),
        ("text/csv", b"a,b\n1\n1,2,3\n\n4,5", [(2, COLUMNS_WRONG), (3, COLUMNS_WRONG), (5, None)]),
        ("text/csv", b'a\nx"y"z\n"x"y\nfine\n', [(2, None), (3, "malformed_csv"), (4, None)]),
        ("application/x-ndjson", b'{"a":1}\n{"a":\n[1]\n\n{"a":2}',
         [(1, None), (2, MALFORMED), (3, MALFORMED), (5, None)]),
        ("application/x-ndjson", b"[" * 60_000 + b"\n{}\n", [(1, MALFORMED), (2, None)]),
        ("application/x-ndjson", b'{"a":NaN}\n{"a":1' + b"0" * 5000 + b"}", [(1, MALFORMED), (2, MALFORMED)]),
        ("application/json", b'[{"a":1},2,{"a":3}]', [(1, None), (1, MALFORMED), (1, None)]),
        ("application/json", b'[{"a":1},\n{"a":3}', [(1, None), (2, None), (2, MALFORMED)]),
        ("application/json", b'[{"a":1},\n{"a":', [(1, None), (2, MALFORMED)]),
        ("application/json", b'"text"', [(1, MALFORMED)]),
        ("application/json", b"   \n ", []),
    ],
)  # fmt: skip
def test_what_cant_be_read_costs_its_own_line_only(media_type: str, body: bytes, expected: list[Any]) -> None:
    for cuts in ([], list(range(0, len(body), 3))[:400]):
        found = read(READERS[media_type](), body, cuts)
        assert [(one.line, one.fault) for one in found if one.fault] == [e for e in expected if e[1]]
        assert [one.line for one in found if not one.fault] == [line for line, fault in expected if not fault]


@pytest.mark.parametrize("media_type", READERS)
def test_a_record_without_end_is_given_up_in_bounded_memory(media_type: str) -> None:
    reader = READERS[media_type]()
    begin = {"text/csv": b'a,b\n"', "application/json": b'[{"a":1},{"a":"'}.get(media_type, b'{"a":"')
    found = reader.feed(begin)
    for _ in range(300):
        found += reader.feed(b"x" * 65_536)
        held = getattr(reader, "_buffer", b"") or getattr(getattr(reader, "_lines", None), "_rest", b"")
        assert len(held) <= records.LONGEST_DOCUMENT + 65_536
    found += reader.feed(b'"}]\n')
    found += reader.finish()
    assert {one.fault for one in found if one.fault} <= {
        "line_too_long", "record_too_long", "quote_not_closed", "malformed_json", "wrong_number_of_columns",
    }  # fmt: skip
    assert any(one.fault for one in found)


def test_a_quote_before_a_million_short_lines_is_given_up_soon() -> None:
    reader = Csv()
    found = reader.feed(b'a,b\n"open\n') + reader.feed(b"\n" * 1_000_000) + reader.feed(b"1,2\n")
    assert [(one.line, one.fault) for one in found] == [(2, "quote_not_closed"), (1_000_003, None)]
    assert len(reader._open) == 0


def test_our_own_columns_are_a_row() -> None:
    (row,) = rows(sent(project_id=str(PROJECT)))
    assert row == Row(
        7, "acme", "m-1", ORG, "sms", Decimal(2), datetime(2026, 11, 4, 10, tzinfo=UTC), PROJECT
    )


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"provider": "Acme Inc"}, "provider_invalid"), ({"message_id": ""}, "message_id_invalid"),
        ({"message_id": "x" * 129}, "message_id_invalid"), ({"message_id": "ä"}, "message_id_invalid"),
        ({"org_id": "7"}, "org_id_invalid"), ({"org_id": str(new_id())}, "org_id_unknown"),
        ({"org_id": ""}, "org_id_missing"), ({"sku": ""}, "sku_invalid"), ({"sku": "a\0"}, "sku_invalid"),
        ({"sku": "x" * 129}, "sku_invalid"), ({"quantity": "0"}, "quantity_invalid"),
        ({"quantity": "-1"}, "quantity_invalid"), ({"quantity": "1e3"}, "quantity_invalid"),
        ({"quantity": "0.0000001"}, "quantity_invalid"), ({"quantity": None}, "quantity_invalid"),
        ({"quantity": True}, "quantity_invalid"), ({"time": "2026-11-04T10:00:00"}, "time_invalid"),
        ({"time": "yesterday"}, "time_invalid"), ({"time": 10**30}, "time_invalid"), ({"time": []}, "time_invalid"),
        ({"time": "2025-01-01T00:00:00Z"}, "time_out_of_range"), ({"project_id": "p"}, "project_id_invalid"),
        ({"time": "2026-12-04T10:00:00Z"}, "time_out_of_range"),
    ],
)  # fmt: skip
def test_a_line_that_is_no_row_says_why(members: dict[str, Any], reason: str) -> None:
    assert rows(sent(**members)) == [Reject(7, reason)]


def test_a_column_that_is_missing_is_named() -> None:
    assert rows({"provider": "acme"}) == [Reject(7, "message_id_missing")]


TWILIO = {
    "sid": "SM" + "0" * 32, "account_sid": "AC1", "messaging_service_sid": "MG1", "status": "delivered",
    "direction": "outbound-api", "num_segments": "3", "date_sent": "Wed, 04 Nov 2026 10:00:05 +0000",
    "date_created": "Wed, 04 Nov 2026 09:59:58 +0000", "from": "+61400000000", "to": "+61400000001", "body": "x",
    "price": "-0.1", "price_unit": "USD", "error_code": None, "uri": "/2010-04-01/…",
}  # fmt: skip
TWILIO_CSV = {
    "From": "+61400000000", "To": "+61400000001", "Body": "a\nb", "Status": "delivered",
    "SentDate": "2026-11-04T10:00:05Z", "ApiVersion": "2010-04-01", "NumSegments": "3", "ErrorCode": "",
    "AccountSid": "AC1", "Sid": TWILIO["sid"], "Direction": "outbound-api", "Price": "-0.1", "PriceUnit": "USD",
}  # fmt: skip


@pytest.mark.parametrize("members", [TWILIO, TWILIO_CSV, TWILIO | {"date_sent": "2026-11-04T10:00:05Z"}])
def test_twilio_counts_segments_that_were_handed_to_a_carrier(members: dict[str, Any]) -> None:
    (row,) = rows(members, "twilio", WHOLE)
    assert row == Row(
        7,
        "twilio",
        str(TWILIO["sid"]),
        ORG,
        "sms",
        Decimal(3),
        datetime(2026, 11, 4, 10, 0, 5, tzinfo=UTC),
        PROJECT,
    )


@pytest.mark.parametrize(
    "members", [{"status": "failed"}, {"status": "queued"}, {"status": "received", "direction": "inbound"}]
)
def test_twilio_messages_that_were_not_sent_are_skipped(members: dict[str, Any]) -> None:
    assert rows(TWILIO | members, "twilio", WHOLE) == [None]


def test_a_twilio_page_holds_many_and_places_name_whose_they_are() -> None:
    places = {"MG1": Place(ORG, "sms.au"), "AC2": Place(OTHER, "sms.us", PROJECT)}
    terms = Terms(TERMS.earliest, TERMS.latest, TERMS.is_known, places=places, counts_messages=True)
    messages = [
        TWILIO,
        TWILIO | {"messaging_service_sid": None, "account_sid": "AC2"},
        TWILIO | {"messaging_service_sid": "MG9"},
    ]
    first, second, third = rows({"messages": messages, "next_page_uri": None}, "twilio", terms)
    assert (first.org_id, first.sku, first.quantity) == (ORG, "sms.au", 1)
    assert (second.org_id, second.sku, second.project_id) == (OTHER, "sms.us", PROJECT)
    assert third == Reject(7, "org_id_missing")


SENDGRID = {
    "email": "a@example.com", "timestamp": 1793786405, "event": "processed", "smtp-id": "<14c5d75ce93.dfd@ismtpd-555>",
    "sg_event_id": "ZGVsaXZ", "sg_message_id": "14c5d75ce93.dfd.64b469.filter0001.16648.5515E0B88.0", "category": ["x"],
    "org_id": str(ORG), "sku": "mail", "project_id": str(PROJECT),
}  # fmt: skip


def test_sendgrid_counts_processed_mails_by_their_custom_arguments() -> None:
    (row,) = rows(SENDGRID, "sendgrid")
    time = datetime.fromtimestamp(1793786405, UTC)
    assert row == Row(7, "sendgrid", "14c5d75ce93.dfd.64b469", ORG, "mail", Decimal(1), time, PROJECT)
    assert rows(SENDGRID | {"event": "delivered"}, "sendgrid") == [None]
    (own,) = rows(SENDGRID | {"message_id": "mine-1"}, "sendgrid")
    assert own.message_id == "mine-1"


def test_sendgrid_email_activity_is_read_with_an_organisation_beside_it() -> None:
    entry = {
        "from_email": "f@example.com", "msg_id": "abc.filter-1.2", "subject": "x", "to_email": "t@example.com",
        "status": "delivered", "opens_count": 2, "clicks_count": 0, "last_event_time": "2026-11-04T10:00:05Z",
    }  # fmt: skip
    first, second = rows({"messages": [entry, entry | {"status": "processing"}]}, "sendgrid", WHOLE)
    assert (first.message_id, first.sku, first.quantity, second) == ("abc", "sms", 1, None)


SES = {
    "eventType": "Send",
    "mail": {
        "timestamp": "2026-11-04T10:00:05.123Z", "source": "s@example.com", "messageId": "EXAMPLE7c191be45",
        "destination": ["a@example.com", "b@example.com"], "headersTruncated": False,
        "tags": {"ses:configuration-set": ["Set"], "org_id": [str(ORG)], "sku": ["mail"], "project_id": [str(PROJECT)]},
    },
    "send": {},
}  # fmt: skip


@pytest.mark.parametrize(
    "members",
    [
        SES,
        {"Type": "Notification", "MessageId": "x", "Message": json.dumps(SES)},
        {"detail-type": "Email Sent", "source": "aws.ses", "detail": SES},
    ],
)
def test_ses_counts_the_recipients_of_a_send_by_its_tags(members: dict[str, Any]) -> None:
    (row,) = rows(members, "ses")
    time = datetime(2026, 11, 4, 10, 0, 5, 123000, tzinfo=UTC)
    assert row == Row(7, "ses", "EXAMPLE7c191be45", ORG, "mail", Decimal(2), time, PROJECT)


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        (SES | {"eventType": "Delivery"}, None),
        ({"Type": "Notification", "Message": "no json"}, Reject(7, "malformed_json")),
        ({"mail": {}}, Reject(7, "event_type_missing")),
        ({"eventType": "Send", "mail": {"tags": 7}}, Reject(7, "org_id_missing")),
        ({"eventType": "Send", "mail": None}, Reject(7, "malformed_json")),
    ],
)
def test_ses_events_that_count_nothing(members: dict[str, Any], expected: Any) -> None:
    assert rows(members, "ses") == [expected]


@given(st.sampled_from(["rows", "twilio", "sendgrid", "ses"]), any_value)
def test_whatever_stands_in_a_record_is_a_row_a_rejection_or_skipped(format_name: str, value: Any) -> None:
    for base in ({}, sent(), TWILIO, SENDGRID, SES):
        for key in [*base, "messages", "detail", "Message"]:
            for found in rows({**base, key: value}, format_name, WHOLE):
                assert found is None or isinstance(found, Row | Reject)
                assert not isinstance(found, Row) or isinstance(found.org_id, UUID)
