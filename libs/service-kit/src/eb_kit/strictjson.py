"""The one JSON parser for what comes from outside: exact numbers, and no second meaning of any body.

Rule: docs/rules/http.md, Bodies.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any

from eb_contracts.errors import Kind, Refusal

DEEPEST = 32
LONGEST_NUMBER = 64
LARGEST_EXPONENT = 64
_SUSPECT_ESCAPE = re.compile(rb"\\u(?:[dD][89a-fA-F]|0000)")
_AS_SQUARE = bytes.maketrans(b"{}", b"[]")
_TOO_MANY_OPEN = b"[" * (DEEPEST + 1)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


class MalformedJson(Refusal):
    """The bytes are no JSON text in UTF-8."""

    code = "malformed_json"
    kind = Kind.MALFORMED
    title = "The body is not valid JSON."


class TooDeep(Refusal):
    """Arrays and objects are nested deeper than allowed."""

    code = "json_too_deep"
    kind = Kind.MALFORMED
    title = "The body is nested too deeply."


class DuplicateKey(Refusal):
    """An object names a member twice, so readers could disagree about its meaning."""

    code = "duplicate_key"
    kind = Kind.MALFORMED
    title = "An object in the body names the same member twice."


class NumberOutOfRange(Refusal):
    """A number has more digits or a larger exponent than any quantity or price can have."""

    code = "number_out_of_range"
    kind = Kind.MALFORMED
    title = "A number in the body is out of range."


class UnstorableText(Refusal):
    """A string holds U+0000 or half of a surrogate pair, which is no text."""

    code = "unstorable_text"
    kind = Kind.MALFORMED
    title = "A string in the body holds U+0000 or a lone surrogate."


def parse(body: bytes) -> Any:
    """Give what a JSON text means: str, int, Decimal (for fractions and exponents), bool, None, list, dict.

    Refuses (each a 400): text that is no UTF-8 or no JSON, NaN and Infinity, nesting over 32, a member
    named twice, numbers over 64 characters or beyond 10^±64, U+0000 and lone surrogates.
    """
    is_deep = _is_deep(body)
    try:
        value = _DECODER.decode(body.decode("utf-8"))
    except RecursionError:
        raise TooDeep from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise MalformedJson(_where(error)) from None
    if is_deep:
        raise TooDeep(f"At most {DEEPEST} levels are allowed.")
    if _SUSPECT_ESCAPE.search(body):
        _refuse_unstorable(value)
    return value


def _where(error: json.JSONDecodeError | UnicodeDecodeError) -> str:
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} (line {error.lineno}, column {error.colno})."
    return f"Byte {error.start} is not UTF-8."


def _is_deep(body: bytes) -> bool:
    """Tell whether brackets nest deeper than 32, or don't match (which the decoder then refuses).

    Works on whole byte strings, not byte by byte: cut the strings out, keep the brackets, and take away
    the innermost pairs 32 times.
    """
    if body.count(b"[") + body.count(b"{") <= DEEPEST:
        return False
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    outside_strings = b"".join(body.split(b'"')[::2])
    brackets = outside_strings.translate(_AS_SQUARE, _NOT_BRACKETS)
    if _TOO_MANY_OPEN in brackets:
        return True
    for _ in range(DEEPEST):
        shorter = brackets.replace(b"[]", b"")
        if len(shorter) == len(brackets):
            break
        brackets = shorter
    return bool(brackets)


def _object(members: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(members)
    if len(result) != len(members):
        raise DuplicateKey
    return result


def _integer(text: str) -> int:
    if len(text) > LONGEST_NUMBER:
        raise NumberOutOfRange
    return int(text)


def _decimal(text: str) -> Decimal:
    if len(text) > LONGEST_NUMBER:
        raise NumberOutOfRange
    try:
        number = Decimal(text)
    except InvalidOperation:
        raise NumberOutOfRange from None
    if not number:
        return Decimal(0)
    if abs(number.adjusted()) > LARGEST_EXPONENT:
        raise NumberOutOfRange
    return number


def _constant(name: str) -> Any:
    raise MalformedJson(f"{name} is not JSON.")


_DECODER = json.JSONDecoder(
    parse_float=_decimal, parse_int=_integer, parse_constant=_constant, object_pairs_hook=_object
)


def _refuse_unstorable(value: object) -> None:
    for text in _texts(value):
        if "\0" in text or any("\ud800" <= letter <= "\udfff" for letter in text):
            raise UnstorableText


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, dict):
        for name, member in value.items():
            yield name
            yield from _texts(member)
