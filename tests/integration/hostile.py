"""Hostile bodies for `POST /metering/events`: what is sent, and exactly what has to be answered.

An event case stands between two good events of its batch; a body case is a body of its own.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import zstandard

from eb_contracts.ids import new_id

JSON = "application/json"
CLOUD = "application/cloudevents-batch+json"
MIB = 1024 * 1024


@dataclass(frozen=True)
class Bad:
    """A bad event: members of a good one replaced by raw JSON texts (None: left out), and its first fault."""

    name: str
    members: Mapping[str, str | None]
    pointer: str
    code: str


@dataclass(frozen=True)
class Odd:
    """An event that looks wrong and is good; `quantity` is what is billed for it."""

    name: str
    members: Mapping[str, str | None]
    quantity: str = "1"


@dataclass(frozen=True)
class Whole:
    """A body as a whole. `accepted` events of it are good, and billed with quantity 1 each."""

    name: str
    body: bytes
    status: int
    code: str | None
    headers: Mapping[str, str] = field(default_factory=dict)
    accepted: int = 0


def text(value: object) -> str:
    """A value as JSON."""
    return json.dumps(value)


def at(**shift: float) -> str:
    """An instant off from now, as JSON."""
    return text((datetime.now(UTC) + timedelta(**shift)).isoformat())


def bad_events() -> Iterator[Bad]:
    """All bad events."""
    yield from _quantities()
    yield from _times()
    yield from _names()
    yield from _metadata()
    yield from _others()


def _quantities() -> Iterator[Bad]:
    bounds, positive, number = "number_out_of_bounds", "not_positive", "not_a_number"
    for name, raw, code in (
        ("zero", "0", positive), ("minus zero", "-0", positive), ("minus zero point zero", "-0.0", positive),
        ("zero with exponent", "0e9", positive), ("zero text", '"0"', positive),
        ("zeros text", '"0.000000"', positive),
        ("minus zero text", '"-0"', bounds), ("minus one", "-1", "negative_number"),
        ("minus one text", '"-1"', bounds), ("tiny negative", "-0.000001", "negative_number"),
        ("17 decimals", "0.10000000000000001", bounds), ("float sum", "0.30000000000000004", bounds),
        ("7 decimals", "1.0000001", bounds), ("7 decimals text", '"1.0000000"', bounds),
        ("19 digits", "1000000000000000000", bounds), ("19 digits text", '"1000000000000000000"', bounds),
        ("1e18", "1e18", bounds), ("1e60", "1e60", bounds), ("1e-7", "1e-7", bounds), ("1e-60", "1e-60", bounds),
        ("exponent text", '"1e3"', bounds), ("empty text", '""', bounds), ("blank", '" "', bounds),
        ("leading blank", '" 1"', bounds), ("trailing blank", '"1 "', bounds), ("newline", '"1\\n"', bounds),
        ("plus", '"+1"', bounds), ("point only", '"."', bounds), ("leading point", '".5"', bounds),
        ("trailing point", '"1."', bounds), ("comma", '"1,5"', bounds), ("underscore", '"1_000"', bounds),
        ("hex", '"0x10"', bounds), ("arabic digits", '"\\u0661"', bounds), ("full-width", '"\\uff11"', bounds),
        ("superscript", '"\\u00b2"', bounds), ("NaN text", '"NaN"', bounds), ("Infinity text", '"Infinity"', bounds),
        ("long text", text("9" * 500), bounds), ("true", "true", number), ("null", "null", number),
        ("list", "[1]", number), ("object", '{"value":1}', number),
    ):  # fmt: skip
        yield Bad(f"quantity: {name}", {"quantity": raw}, "/quantity", code)


def _times() -> Iterator[Bad]:
    form, old, future = "not_an_instant", "time_too_old", "time_in_future"
    for name, raw, code in (
        ("36 days back", at(days=-36), old), ("35 days and a minute back", at(days=-35, minutes=-1), old),
        ("1970", '"1970-01-01T00:00:00Z"', old), ("year 1", '"0001-01-01T00:00:00Z"', old),
        ("6 minutes ahead", at(minutes=6), future), ("year 9999", '"9999-12-31T23:59:59Z"', future),
        ("year 9999 west", '"9999-12-31T23:59:59-23:59"', form), ("year 1 east", '"0001-01-01T00:00:00+23:59"', form),
        ("year 0", '"0000-01-01T00:00:00Z"', form), ("year 10000", '"10000-01-01T00:00:00Z"', form),
        ("no offset", '"2026-11-04T10:00:00"', form), ("date", '"2026-11-04"', form),
        ("30 February", '"2026-02-30T10:00:00Z"', form), ("hour 24", '"2026-11-04T24:00:00Z"', form),
        ("leap second", '"2026-06-30T23:59:60Z"', form), ("epoch", "1793786400", form),
        ("epoch text", '"1793786400"', form), ("milliseconds", "1793786400000.5", form), ("empty", '""', form),
        ("blank between", '"2026-11-04 10:00:00Z"', form), ("week date", '"2026-W45-3T10:00:00Z"', form),
        ("offset of 25 h", '"2026-11-04T10:00:00+25:00"', form), ("now", '"now"', form), ("null", "null", form),
        ("list", "[]", form), ("NUL-like", '"2026-11-04T10:00:00Z\\u0001"', form),
    ):  # fmt: skip
        yield Bad(f"time: {name}", {"time": raw}, "/time", code)


def _names() -> Iterator[Bad]:
    form, kind = "wrong_format", "wrong_type"
    for name, raw, code in (
        ("empty", '""', form), ("129 characters", text("x" * 129), form), ("4 MB", text("x" * 3_000_000), form),
        ("tab", '"a\\tb"', form), ("newline at the end", '"abc\\n"', form), ("DEL", '"a\\u007f"', form),
        ("umlaut", '"\\u00e4"', form), ("emoji", '"\\ud83d\\ude00"', form), ("zero width", '"a\\u200bb"', form),
        ("right to left", '"a\\u202eb"', form), ("number", "7", kind), ("true", "true", kind), ("null", "null", kind),
        ("list", '["a"]', kind), ("object", "{}", kind),
    ):  # fmt: skip
        yield Bad(f"request_id: {name}", {"request_id": raw}, "/request_id", code)
    for name, raw, code in (
        ("empty", '""', "too_short"), ("blank", '"  "', form), ("129 characters", text("s" * 129), "too_long"),
        ("number", "1", kind), ("null", "null", kind), ("list", "[]", kind),
    ):  # fmt: skip
        yield Bad(f"sku: {name}", {"sku": raw}, "/sku", code)
    for member in ("project_id", "hold_id"):
        for name, raw, code in (
            ("empty", '""', "not_a_uuid"), ("word", '"project"', "not_a_uuid"),
            ("too short", '"01a2"', "not_a_uuid"), ("number", "1", kind), ("list", "[]", kind),
            ("bool", "true", kind),
        ):  # fmt: skip
            yield Bad(f"{member}: {name}", {member: raw}, f"/{member}", code)
    for name, raw, code in (
        ("empty", '""', "not_a_uuid"), ("word", '"org"', "not_a_uuid"), ("number", "1", kind), ("null", "null", kind),
        ("list", "[]", kind), ("object", "{}", kind),
    ):  # fmt: skip
        yield Bad(f"org_id: {name}", {"org_id": raw}, "/org_id", code)


def _metadata() -> Iterator[Bad]:
    kind, large, personal = "wrong_type", "metadata_too_large", "personal_data"
    deep = '{"a":' * 20 + '{"E-Mail":"a@b.example"}' + "}" * 20
    for name, raw, pointer, code in (
        ("text", '"x"', "", kind), ("list", "[]", "", kind), ("number", "1", "", kind), ("false", "false", "", kind),
        ("4 KiB and a bit", text({"a": "x" * 4096}), "", large),
        ("4 KiB of umlauts", text({"a": "\u00e4" * 2050}), "", large),
        ("many members", text({f"k{n}": n for n in range(600)}), "", large),
        ("email", '{"email":"a@b.example"}', "/email", personal),
        ("phone in a list", '{"l":[{"Phone Number":"1"}]}', "/l/0/Phone Number", personal),
        ("deep", deep, "/a" * 20 + "/E-Mail", personal),
        ("with a slash", '{"a/b":{"token":1}}', "/a~1b/token", personal),
    ):  # fmt: skip
        yield Bad(f"metadata: {name}", {"metadata": raw}, f"/metadata{pointer}", code)


def _others() -> Iterator[Bad]:
    for member in ("request_id", "sku", "quantity", "org_id", "project_id", "time"):
        yield Bad(f"no {member}", {member: None}, f"/{member}", "required")
    for member in ("surprise", "Quantity", "event_id", "usage_id", "__proto__", "", "a/b~c"):
        pointer = "/" + member.replace("~", "~0").replace("/", "~1")
        yield Bad(f"unknown member {member!r}", {member: "1"}, pointer, "unknown_field")
    for name, raw, code in (
        ("unknown", '"browser"', "not_a_choice"), ("null", "null", "not_a_choice"), ("number", "1", "not_a_choice"),
        ("capitals", '"BACKEND"', "not_a_choice"),
    ):  # fmt: skip
        yield Bad(f"source: {name}", {"source": raw}, "/source", code)


NO_EVENTS = ("1", '"text"', "null", "true", "[]", "[[]]", "1.5")
"""Members of a batch that are no objects."""


def odd_events() -> Iterator[Odd]:
    """All events that only look wrong."""
    for name, raw, quantity in (
        ("1e2", "1e2", "100"), ("1E+2", "1E+2", "100"), ("100e-2", "100e-2", "1"), ("1.50", "1.50", "1.5"),
        ("0.000001", "0.000001", "0.000001"), ("leading zeros", '"007"', "7"), ("1.000000 text", '"1.000000"', "1"),
        ("0.1", "0.1", "0.1"), ("18 digits", '"100000000000.000001"', "100000000000.000001"),
    ):  # fmt: skip
        yield Odd(f"quantity {name}", {"quantity": raw}, quantity)
    yield Odd("time with nine digits", {"time": at(minutes=-2).replace("+00:00", "123+00:00")})
    yield Odd("time in capitals", {"time": at(minutes=-2).replace("+00:00", "Z").lower().replace("z", "z")})
    yield Odd("time at -12:00", {"time": text(_at_offset(-12))})
    yield Odd("time 4 minutes ahead", {"time": at(minutes=4)})
    yield Odd(
        "all of printable ASCII",
        {"request_id": text("".join(map(chr, range(0x20, 0x7F))) + str(new_id())[:30])},
    )
    yield Odd("metadata null", {"metadata": "null"})
    yield Odd(
        "metadata with everything", {"metadata": '{"a":[null,true,1e40,-0.0,"\\ud83d\\ude00",{"":""}]}'}
    )
    yield Odd("hold that nobody made", {"hold_id": text(str(new_id()))})
    yield Odd("source replay", {"source": '"replay"'})
    yield Odd("escaped names", {"\\u0073ource": '"backend"'})


def _at_offset(hours: int) -> str:
    from datetime import timezone

    return (datetime.now(UTC) - timedelta(minutes=3)).astimezone(timezone(timedelta(hours=hours))).isoformat()


def bodies(event: Any) -> Iterator[Whole]:
    """All bodies as wholes; `event()` gives a good event with quantity 1."""
    yield from _no_json(event)
    yield from _no_batch(event)
    yield from _encodings(event)
    yield from _types(event)
    yield from _preferences(event)


def _batch(event: Any, count: int = 1) -> bytes:
    return json.dumps([event() for _ in range(count)]).encode()


def _inside(event: Any, raw: bytes) -> bytes:
    """A batch of two, of which one has raw bytes for its metadata."""
    one, other = (json.dumps(event()).encode() for _ in range(2))
    return b"[" + one + b"," + other[:-1] + b',"metadata":' + raw + b"}]"


def _no_json(event: Any) -> Iterator[Whole]:
    good = _batch(event)
    broken, deep = "malformed_json", "json_too_deep"
    for name, body, code in (
        ("empty", b"", broken), ("blanks", b" \n\t ", broken), ("cut off", good[:-5], broken),
        ("cut off early", b"[{", broken),
        ("two values", good + good, broken), ("trailing comma", good[:-1] + b",]", broken),
        ("single quotes", b"[{'a':1}]", broken), ("comment", b"/* */" + good, broken),
        ("lines", good + b"\n" + good, broken),
        ("BOM", b"\xef\xbb\xbf" + good, broken), ("UTF-16", good.decode().encode("utf-16"), broken),
        ("UTF-16 without BOM", good.decode().encode("utf-16-le"), broken),
        ("UTF-32", good.decode().encode("utf-32"), broken), ("Latin-1", _inside(event, b'{"a":"\xe4"}'), broken),
        ("overlong UTF-8", _inside(event, b'{"a":"\xc0\xaf"}'), broken),
        ("surrogate in UTF-8", _inside(event, b'{"a":"\xed\xa0\x80"}'), broken),
        ("raw NUL", _inside(event, b'{"a":"\x00"}'), broken), ("raw newline", _inside(event, b'{"a":"\n"}'), broken),
        ("NUL behind", good + b"\x00", broken), ("binary", bytes(range(256)) * 4, broken),
        ("NaN", _inside(event, b'{"a":NaN}'), broken), ("Infinity", _inside(event, b'{"a":-Infinity}'), broken),
        ("leading zero", _inside(event, b'{"a":01}'), broken), ("plus", _inside(event, b'{"a":+1}'), broken),
        ("hex number", _inside(event, b'{"a":0x1}'), broken), ("point", _inside(event, b'{"a":1.}'), broken),
        ("bad escape", _inside(event, b'{"a":"\\x41"}'), broken),
        ("half escape", _inside(event, b'{"a":"\\u00"}'), broken),
        ("form body", b"events=1&org_id=2", broken), ("XML", b"<events/>", broken),
        ("10,000 deep", b"[" * 10_000 + b"]" * 10_000, deep),
        ("10,000 deep objects", b'{"a":' * 10_000 + b"1" + b"}" * 10_000, deep),
        ("100,000 opened", b"[" * 100_000, deep), ("33 deep", _inside(event, b"[" * 31 + b"]" * 31), deep),
        ("deep behind brackets in text", _inside(event, b'{"]]]]":' + b"[" * 40 + b"]" * 40 + b"}"), deep),
        ("1e400", _inside(event, b'{"a":1e400}'), "number_out_of_range"),
        ("1e-400", _inside(event, b'{"a":1e-400}'), "number_out_of_range"),
        ("1e999999999", _inside(event, b'{"a":1e999999999}'), "number_out_of_range"),
        ("1e99999999999999999999", _inside(event, b'{"a":1e99999999999999999999}'), "number_out_of_range"),
        ("10,000 digits", _inside(event, b'{"a":' + b"9" * 10_000 + b"}"), "number_out_of_range"),
        ("5,000 decimals", _inside(event, b'{"a":0.' + b"1" * 5_000 + b"}"), "number_out_of_range"),
        ("duplicate key", _inside(event, b'{"a":1,"a":1}'), "duplicate_key"),
        ("duplicate escaped key", _inside(event, b'{"a":1,"\\u0061":1}'), "duplicate_key"),
        ("duplicate member", good[:-2] + b',"quantity":"9"}]', "duplicate_key"),
        ("NUL escape", _inside(event, b'{"a":"\\u0000"}'), "unstorable_text"),
        ("NUL in a key", _inside(event, b'{"\\u0000":1}'), "unstorable_text"),
        ("lone high surrogate", _inside(event, b'{"a":"\\ud83d"}'), "unstorable_text"),
        ("lone low surrogate", _inside(event, b'{"a":"\\udc00"}'), "unstorable_text"),
        ("surrogates the wrong way", _inside(event, b'{"a":"\\ude00\\ud83d"}'), "unstorable_text"),
    ):  # fmt: skip
        yield Whole(f"body: {name}", body, 400, code)


def _no_batch(event: Any) -> Iterator[Whole]:
    for name, body, code in (
        ("object", json.dumps(event()).encode(), "not_a_batch"),
        ("wrapped", json.dumps({"events": [event()]}).encode(), "not_a_batch"),
        ("null", b"null", "not_a_batch"), ("number", b"1", "not_a_batch"), ("text", b'"[]"', "not_a_batch"),
        ("true", b"true", "not_a_batch"), ("no event", b"[]", "batch_size"),
        ("1,001 events", _batch(event, 1001), "batch_size"),
        ("500,000 numbers", b"[" + b"1," * 499_999 + b"1]", "batch_size"),
    ):  # fmt: skip
        yield Whole(f"batch: {name}", body, 400, code)
    foreign = {"org_id": str(new_id())}
    for name, events in (
        ("foreign", [event(), event() | foreign]),
        ("foreign and broken", [event() | foreign | {"quantity": "x"}, {}, 7]),
        ("foreign in braces", [event(), event() | {"org_id": "{" + foreign["org_id"].upper() + "}"}]),
        ("foreign as URN", [event() | {"org_id": "urn:uuid:" + foreign["org_id"]}]),
        ("foreign without hyphens", [event() | {"org_id": foreign["org_id"].replace("-", "")}]),
        ("nil", [event() | {"org_id": "00000000-0000-0000-0000-000000000000"}]),
    ):  # fmt: skip
        body, strict = json.dumps(events).encode(), {"Prefer": "handling=strict"}
        yield Whole(f"org: {name}", body, 403, "org_forbidden")
        yield Whole(f"org, strict: {name}", body, 403, "org_forbidden", strict)
    yield Whole("batch: 1,000 events", _batch(event, 1000), 202, None, accepted=1000)
    yield Whole(
        "batch: 32 deep", _inside(event, b'{"a":' + b"[" * 29 + b"]" * 29 + b"}"), 202, None, accepted=2
    )


def _zstd_frames(good: bytes) -> bytes:
    half = len(good) // 2
    return zstandard.compress(good[:half]) + zstandard.compress(good[half:])


def _wide_zstd(good: bytes) -> bytes:
    parameters = zstandard.ZstdCompressionParameters(window_log=27, write_content_size=False)
    maker = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return maker.compress(good) + maker.flush()


def _encodings(event: Any) -> Iterator[Whole]:
    good = _batch(event)
    zeros = b"[" + b" " * (64 * MIB) + b"]"
    packed, small, broken = gzip.compress(good, mtime=0), zstandard.compress(good), "body_broken"
    bomb, zbomb = gzip.compress(zeros, 9, mtime=0), zstandard.compress(zeros)
    del zeros
    many = b"".join(gzip.compress(b" " * MIB, 9, mtime=0) for _ in range(5)) + packed
    for name, encoding, body, status, code in (
        ("gzip bomb", "gzip", bomb, 413, "body_too_large"), ("zstd bomb", "zstd", zbomb, 413, "body_too_large"),
        ("gzip bomb of members", "gzip", many, 413, "body_too_large"),
        ("gzip in gzip", "gzip", gzip.compress(bomb, mtime=0), 400, "malformed_json"),
        ("gzip cut off", "gzip", packed[:-9], 400, broken),
        ("gzip without checksum", "gzip", packed[:-8], 400, broken),
        ("gzip, one byte", "gzip", packed[:1], 400, broken), ("gzip, nothing", "gzip", b"", 400, broken),
        ("gzip, wrong checksum", "gzip", packed[:-8] + b"\0\0\0\0" + packed[-4:], 400, broken),
        ("gzip, garbage behind", "gzip", packed + b"garbage", 400, broken),
        ("gzip that is plain", "gzip", good, 400, broken),
        ("gzip that is zlib", "gzip", zlib.compress(good), 400, broken),
        ("gzip that is zstd", "gzip", small, 400, broken),
        ("plain that is gzip", "identity", packed, 400, "malformed_json"),
        ("zstd cut off", "zstd", small[:-3], 400, broken), ("zstd, one byte", "zstd", small[:1], 400, broken),
        ("zstd, nothing", "zstd", b"", 400, broken),
        ("zstd, garbage behind", "zstd", small + b"garbage", 400, broken),
        ("zstd that is plain", "zstd", good, 400, broken),
        ("zstd with a huge window", "zstd", _wide_zstd(good), 400, broken),
        ("zstd that is gzip", "zstd", packed, 400, broken),
        ("br", "br", good, 415, "unsupported_media_type"),
        ("deflate", "deflate", zlib.compress(good), 415, "unsupported_media_type"),
        ("gzip, gzip", "gzip, gzip", gzip.compress(packed, mtime=0), 415, "unsupported_media_type"),
        ("x-gzip", "x-gzip", packed, 415, "unsupported_media_type"),
        ("gzip;q=1", "gzip;q=1", packed, 415, "unsupported_media_type"),
    ):  # fmt: skip
        yield Whole(f"encoding: {name}", body, status, code, {"Content-Encoding": encoding})
    for name, encoding, body in (
        ("gzip", "gzip", gzip.compress(_batch(event), mtime=0)),
        ("GZIP", "GZIP", gzip.compress(_batch(event), mtime=0)),
        ("two gzip members", "gzip", _in_members(_batch(event))), ("zstd", "zstd", zstandard.compress(_batch(event))),
        ("two zstd frames", "zstd", _zstd_frames(_batch(event))), ("identity", "identity", _batch(event)),
        ("gzip named strangely", "gzip", _named(_batch(event))),
    ):  # fmt: skip
        yield Whole(f"encoding: {name}", body, 202, None, {"Content-Encoding": encoding}, accepted=1)


def _in_members(good: bytes) -> bytes:
    return gzip.compress(good[:20], mtime=0) + gzip.compress(good[20:], mtime=0)


def _named(good: bytes) -> bytes:
    packed = gzip.compress(good, mtime=0)
    return packed[:3] + b"\x08" + packed[4:10] + b"../../etc/passwd\0" + packed[10:]


def _types(event: Any) -> Iterator[Whole]:
    good, wrong = _batch(event), "unsupported_media_type"
    for content_type in (
        "", "text/plain", "application/xml", "application/x-www-form-urlencoded", "application/jsonx", "json",
        "application/json; charset=utf-16", "application/json; charset=latin-1", 'application/json; charset="utf-7"',
        "application/json, application/json", "application/cloudevents+json", "application/x-ndjson",
        "multipart/form-data; boundary=x", "application/json; charset=utf-8; charset=ascii",
    ):  # fmt: skip
        yield Whole(f"type: {content_type!r}", good, 415, wrong, {"Content-Type": content_type})
    for content_type in (
        "Application/JSON",
        "application/json; charset=UTF-8",
        'application/json;charset="utf-8"',
    ):
        yield Whole(
            f"type: {content_type}", _batch(event), 202, None, {"Content-Type": content_type}, accepted=1
        )
    cloud = {"Content-Type": CLOUD}
    yield Whole("cloud: one", json.dumps([cloud_of(event())]).encode(), 202, None, cloud, accepted=1)
    extended = cloud_of(event()) | {"traceparent": "x", "source": "/any", "subject": None}
    yield Whole("cloud: with extensions", json.dumps([extended]).encode(), 202, None, cloud, accepted=1)
    yield Whole("cloud: not a batch", json.dumps(cloud_of(event())).encode(), 400, "not_a_batch", cloud)
    foreign = cloud_of(event() | {"org_id": str(new_id())})
    yield Whole("cloud: foreign", json.dumps([foreign]).encode(), 403, "org_forbidden", cloud)
    for name, change in (
        ("data as text", {"data": "x"}), ("no data", {"data": None}), ("data as list", {"data": []}),
        ("data in base64", {"data": None, "data_base64": "e30="}), ("id as number", {"id": 7}),
        ("id empty", {"id": ""}),
        ("time missing", {"time": None}), ("time without offset", {"time": "2026-11-04T10:00:00"}),
        ("data with more", {"data": {"x": 1}}), ("data names the id", {"id": None}),
    ):  # fmt: skip
        body = json.dumps([cloud_of(event()) | change]).encode()
        yield Whole(f"cloud: {name}", body, 422, "batch_invalid", cloud)
    yield Whole("cloud: events of ours", _batch(event), 202, None, cloud, accepted=1)
    yield Whole("cloud as plain", json.dumps([cloud_of(event())]).encode(), 422, "batch_invalid")


def cloud_of(event: Mapping[str, Any]) -> dict[str, Any]:
    """An event of ours as a CloudEvent."""
    data = {name: event[name] for name in ("sku", "quantity", "org_id", "project_id")}
    return {
        "specversion": "1.0", "type": "usage", "source": "backend", "id": event["request_id"], "time": event["time"],
        "data": data,
    }  # fmt: skip


def _preferences(event: Any) -> Iterator[Whole]:
    for preference, is_strict in (
        ("handling=strict", True), ("Handling=Strict", True), ('handling="strict"', True),
        ("respond-async, handling=strict", True),
        ("handling=strict, handling=lenient", True), ("handling=lenient, handling=strict", False),
        ("handling=strictly", False),
        ("xhandling=strict", False), ("handling", False), ("", False), ('x="handling=strict"', False),
        ("strict", False),
    ):  # fmt: skip
        body = json.dumps([event(), event() | {"quantity": "x"}]).encode()
        headers = {"Prefer": preference}
        if is_strict:
            yield Whole(f"prefer: {preference!r}", body, 422, "batch_invalid", headers)
        else:
            yield Whole(f"prefer: {preference!r}", body, 207, None, headers, accepted=1)
    yield Whole(
        "prefer: strict and good", _batch(event, 2), 202, None, {"Prefer": "handling=strict"}, accepted=2
    )
