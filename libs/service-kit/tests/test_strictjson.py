"""The parser refuses every body that two readers could read differently, and keeps every digit of the rest."""

from __future__ import annotations

import json
import time
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eb_contracts.errors import Kind, Refusal
from eb_kit import strictjson

HOSTILE = {
    "empty": b"",
    "blank": b"  \n",
    "not json": b"{a: 1}",
    "truncated": b'{"a": [1, 2',
    "trailing text": b"{} {}",
    "trailing comma": b"[1,]",
    "comment": b"[1] // one",
    "single quotes": b"{'a': 1}",
    "NaN": b'{"a": NaN}',
    "Infinity": b"[Infinity]",
    "-Infinity": b"[-Infinity]",
    "1e400": b"[1e400]",
    "1e-400": b"[1e-400]",
    "1e999999999999": b"[1e999999999999999999]",
    "leading zero": b"[01]",
    "plus sign": b"[+1]",
    "hex": b"[0x10]",
    "bare point": b"[.5]",
    "5,000 digits": b"[" + b"9" * 5000 + b"]",
    "100 digits": b"[" + b"9" * 100 + b"]",
    "100 decimals": b"[0." + b"1" * 100 + b"]",
    "duplicate key": b'{"a": 1, "a": 2}',
    "duplicate key deep": b'[{"b": [{"a": 1, "a": 1}]}]',
    "duplicate key by escape": b'{"a": 1, "\\u0061": 2}',
    "lone high surrogate": b'["\\ud800"]',
    "lone low surrogate": b'["\\uDFFF"]',
    "surrogate in a key": b'{"\\ud800": 1}',
    "reversed pair": b'["\\udc00\\ud800"]',
    "NUL": b'["a\\u0000b"]',
    "NUL in a key": b'{"\\u0000": 1}',
    "raw NUL": b'["\x00"]',
    "raw control": b'["\x1f"]',
    "raw newline": b'["\n"]',
    "latin-1": b'["\xe9"]',
    "overlong": b'["\xc0\xaf"]',
    "raw surrogate": b'["\xed\xa0\x80"]',
    "UTF-16": '["a"]'.encode("utf-16"),
    "UTF-8 BOM": b"\xef\xbb\xbf[]",
    "33 arrays": b"[" * 33 + b"]" * 33,
    "33 objects": b'{"a":' * 33 + b"1" + b"}" * 33,
    "100,000 open arrays": b"[" * 100_000,
    "100,000 nested arrays": b"[" * 100_000 + b"]" * 100_000,
    "100,000 open objects": b'{"a":' * 100_000,
    "deep after a string with a bracket": b'["]", ' + b"[" * 40 + b"]" * 40 + b"]",
    "deep after an escaped quote": b'["\\"", ' + b"[" * 40 + b"]" * 40 + b"]",
    "deep after escaped backslashes": b'["\\\\", ' + b"[" * 40 + b"]" * 40 + b"]",
    "mismatched brackets": b"[}" * 40,
    "only closing": b"]" * 40,
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_body_is_refused_as_malformed(body: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        strictjson.parse(body)

    assert refused.value.kind is Kind.MALFORMED


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"[" * 33 + b"]" * 33, "json_too_deep"),
        (b"[" * 5000 + b"]" * 5000, "json_too_deep"),
        (b'{"a": 1, "a": 1}', "duplicate_key"),
        (b"[1e400]", "number_out_of_range"),
        (b"[NaN]", "malformed_json"),
        (b'["\\u0000"]', "unstorable_text"),
        (b"[" * 40, "malformed_json"),
    ],
)
def test_each_refusal_has_its_code(body: bytes, code: str) -> None:
    with pytest.raises(Refusal) as refused:
        strictjson.parse(body)

    assert refused.value.code == code


def test_numbers_keep_every_digit() -> None:
    text = b"[0.1, 1.10, 123456789012345678.123456, 1e3, 12, -0.0, 100e-2]"

    assert strictjson.parse(text) == [
        Decimal("0.1"),
        Decimal("1.10"),
        Decimal("123456789012345678.123456"),
        Decimal("1e3"),
        12,
        Decimal(0),
        Decimal("1.00"),
    ]


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 32 + b"]" * 32,
        b'["' + b"[" * 1000 + b'"]',
        b'["\\"' + b"[" * 1000 + b'"]',
        b'["\\\\", "' + b"{" * 1000 + b'"]',
        b"[" + b"[]," * 1000 + b"[]]",
        b"[" + b'{"a":{"b":[]}},' * 1000 + b"[]]",
        b'["\\ud83d\\ude00"]',
        b'["\\\\u0000", "\\\\ud800"]',
    ],
)
def test_what_only_looks_hostile_is_read(body: bytes) -> None:
    assert strictjson.parse(body) == json.loads(body)


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=30,
)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * (4 << 20),
        b"[" * (2 << 20) + b"]" * (2 << 20),
        b"[" + b"{}," * (1 << 20) + b"[" * (1 << 20),
        b'{"":' * (1 << 20),
        b'"' * (4 << 20),
        b"\\" * (4 << 20) + b"[" * 40,
        (b"[" * 31 + b"]" * 31 + b",") * (1 << 14),
    ],
)
def test_four_hostile_mebibytes_are_refused_within_a_second(body: bytes) -> None:
    started = time.process_time()
    with pytest.raises(Refusal):
        strictjson.parse(body)

    assert time.process_time() - started < 1


@given(value=values, ascii_only=st.booleans())
def test_what_json_writes_is_read_back_the_same(value: Any, ascii_only: bool) -> None:
    assert strictjson.parse(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@given(body=st.binary(max_size=200) | st.text('[]{}",:\\u0da1e-.', max_size=200).map(str.encode))
def test_any_bytes_are_read_or_refused_and_never_break_the_parser(body: bytes) -> None:
    try:
        value = strictjson.parse(body)
    except Refusal:
        return
    json.dumps(value, default=str, ensure_ascii=False).encode()


@given(depth=st.integers(1, 80), noise=texts)
def test_exactly_33_levels_are_too_many(depth: int, noise: str) -> None:
    quoted = json.dumps(noise + '[{"\\').encode()
    body = b'{"k":' * (depth - 1) + b"[" + quoted + b"]" + b"}" * (depth - 1)

    if depth <= strictjson.DEEPEST:
        strictjson.parse(body)
        return
    with pytest.raises(strictjson.TooDeep):
        strictjson.parse(body)
