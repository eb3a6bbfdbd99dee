"""A log's bytes cut into records as they arrive: CSV with quoted line breaks, JSON lines, elements of a JSON array.

Pieces may end anywhere. Memory is bounded: a record longer than `LONGEST_RECORD` is given as broken, and reading goes
on behind it. Rule: docs/rules/metering.md, Provider logs.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, NamedTuple, Protocol

LONGEST_RECORD = 64 * 1024
LONGEST_DOCUMENT = 4 * 1024 * 1024
"""A JSON element may be a whole page of a provider's list."""
BOM = b"\xef\xbb\xbf"
_STRUCTURE = re.compile(rb'["{}\[\]]')
_BETWEEN = b" \t\r\n,\xef\xbb\xbf"
_STRING_END = re.compile(rb'["\\]')


class Record(NamedTuple):
    """What stands at a line of the log: its members, or why it can't be read."""

    line: int
    members: Mapping[str, Any]
    fault: str | None = None


class Reader(Protocol):
    """Turns pieces of a log into records."""

    def feed(self, piece: bytes) -> list[Record]:
        """Give the records that are complete by now."""

    def finish(self) -> list[Record]:
        """Give what is left at the end."""


def broken(line: int, fault: str) -> Record:
    """Give the record of a line that can't be read."""
    return Record(line, {}, fault)


class _Lines:
    """Cuts pieces at line feeds; a line that grows too long is given up, not kept."""

    def __init__(self, longest: int) -> None:
        self._rest = b""
        self._longest = longest
        self._is_skipping = False

    def feed(self, piece: bytes) -> Iterator[bytes | None]:
        """Give whole lines without their ends; None for one that was too long."""
        lines = (self._rest + piece).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            yield None if self._is_skipping or len(line) > self._longest else line.removesuffix(b"\r")
            self._is_skipping = False
        if len(self._rest) > self._longest:
            self._rest, self._is_skipping = b"", True

    def finish(self) -> Iterator[bytes | None]:
        """Give the last line, if it has no end."""
        if self._rest or self._is_skipping:
            yield None if self._is_skipping else self._rest.removesuffix(b"\r")


class JsonLines:
    """One JSON object a line."""

    def __init__(self) -> None:
        self._lines = _Lines(LONGEST_RECORD)
        self._line = 0

    def feed(self, piece: bytes) -> list[Record]:
        return self._read(self._lines.feed(piece))

    def finish(self) -> list[Record]:
        return self._read(self._lines.finish())

    def _read(self, lines: Iterator[bytes | None]) -> list[Record]:
        records = []
        for text in lines:
            self._line += 1
            if text is None:
                records.append(broken(self._line, "line_too_long"))
            elif text.strip():
                records.append(_json_record(self._line, text.removeprefix(BOM) if self._line == 1 else text))
        return records


def _json_record(line: int, text: bytes) -> Record:
    value = read_json(text)
    return Record(line, value) if isinstance(value, dict) else broken(line, "malformed_json")


def read_json(text: bytes | str) -> Any:
    """Give a JSON value, fractions as Decimal; None where it is none."""
    try:
        return json.loads(text, parse_float=Decimal, parse_constant=_refuse)
    except (ValueError, RecursionError, ArithmeticError):
        return None


def _refuse(name: str) -> None:
    raise ValueError(name)


class Csv:
    """RFC 4180 with a heading. A quote that never closes costs its own line only."""

    def __init__(self) -> None:
        self._lines = _Lines(LONGEST_RECORD)
        self._line = 0
        self._heading: list[str] | None = None
        self._open: list[str] = []
        self._open_size = 0
        self._is_odd = False

    def feed(self, piece: bytes) -> list[Record]:
        return self._read(self._lines.feed(piece))

    def finish(self) -> list[Record]:
        records = self._read(self._lines.finish())
        while self._open:
            records += self._give_up()
        return records

    def _read(self, lines: Iterator[bytes | None]) -> list[Record]:
        records: list[Record] = []
        for raw in lines:
            self._line += 1
            if raw is None:
                records.append(broken(self._line, "line_too_long"))
                continue
            try:
                text = raw.decode("utf-8-sig" if self._line == 1 else "utf-8")
            except UnicodeDecodeError:
                text = raw.decode("utf-8", "replace")
            records += self._take(text)
        return records

    def _take(self, text: str) -> list[Record]:
        """Add a line to the record that is open; give the record once its quotes are closed."""
        self._open.append(text)
        self._open_size += len(text) + 1
        self._is_odd ^= bool(text.count('"') & 1)
        if not self._is_odd:
            first = self._line - len(self._open) + 1
            whole, self._open, self._open_size = "\n".join(self._open), [], 0
            return self._record(first, whole)
        if self._open_size > LONGEST_RECORD:
            return self._give_up()
        return []

    def _give_up(self) -> list[Record]:
        """Call the first line of the open record broken, and read the others anew."""
        lines, self._open, self._open_size, self._is_odd = self._open, [], 0, False
        records = [broken(self._line - len(lines) + 1, "quote_not_closed")]
        self._line -= len(lines) - 1
        for text in lines[1:]:
            self._line += 1
            records += self._take(text)
        return records

    def _record(self, line: int, whole: str) -> list[Record]:
        if not whole.strip():
            return []
        try:
            (values,) = csv.reader([whole], strict=True)
        except (csv.Error, ValueError):
            return [broken(line, "malformed_csv")]
        if self._heading is None:
            self._heading = [value.strip() for value in values]
            return []
        if len(values) != len(self._heading):
            return [broken(line, "wrong_number_of_columns")]
        return [Record(line, dict(zip(self._heading, values, strict=True)))]


class JsonElements:
    """The objects of a JSON array, or objects one after the other; each may be a provider's page of a list.

    Only the brackets and quotes are looked at; an element is parsed once it is complete.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._at = 0
        self._start = -1
        self._depth = 0
        self._is_in_array = False
        self._is_in_string = False
        self._line = 1
        self._start_line = 1
        self._is_skipping = False

    def feed(self, piece: bytes) -> list[Record]:
        self._buffer += piece
        records = list(self._scan())
        self._forget()
        if len(self._buffer) > LONGEST_DOCUMENT:
            self._is_skipping = True
            self._line += self._buffer.count(b"\n", 0, self._at)
            del self._buffer[: self._at]
            self._at, self._start = 0, 0
        return records

    def finish(self) -> list[Record]:
        if self._start >= 0 or self._is_in_array or self._is_in_string:
            return [broken(self._start_line if self._start >= 0 else self._line, "malformed_json")]
        return []

    def _scan(self) -> Iterator[Record]:
        while True:
            found = (_STRING_END if self._is_in_string else _STRUCTURE).search(self._buffer, self._at)
            if self._is_between and self._buffer[self._at : found.start() if found else None].strip(_BETWEEN):
                yield broken(self._line_at(self._at), "malformed_json")
            if found is None:
                self._at = len(self._buffer)
                return
            if found[0] == b"\\" and found.end() >= len(self._buffer):
                self._at = found.start()
                return
            self._at = found.end()
            yield from self._meet(found[0])

    @property
    def _is_between(self) -> bool:
        return self._start < 0 and not self._is_in_string

    def _line_at(self, place: int) -> int:
        return self._line + self._buffer.count(b"\n", 0, place)

    def _meet(self, mark: bytes) -> Iterator[Record]:
        if self._is_in_string:
            if mark == b"\\":
                self._at += 1
            else:
                self._is_in_string = False
        elif mark == b'"':
            if self._is_between:
                yield broken(self._line_at(self._at), "malformed_json")
            self._is_in_string = True
        elif mark in b"{[":
            self._go_in(mark)
        else:
            yield from self._go_out(mark)

    def _go_in(self, mark: bytes) -> None:
        if self._depth == 0 and self._start < 0:
            if mark == b"[" and not self._is_in_array:
                self._is_in_array = True
                return
            self._start = self._at - 1
            self._start_line = self._line_at(self._start)
        self._depth += 1

    def _go_out(self, mark: bytes) -> Iterator[Record]:
        if self._depth == 0:
            if mark == b"]" and self._is_in_array:
                self._is_in_array = False
                return
            yield broken(self._line_at(self._at), "malformed_json")
            return
        self._depth -= 1
        if self._depth == 0:
            text = bytes(self._buffer[self._start : self._at])
            yield (
                broken(self._start_line, "record_too_long")
                if self._is_skipping
                else _json_record(self._start_line, text)
            )
            self._start, self._is_skipping = -1, False

    def _forget(self) -> None:
        """Drop what was read; an element that is under way stays."""
        done = self._at if self._start < 0 else self._start
        self._line += self._buffer.count(b"\n", 0, done)
        del self._buffer[:done]
        self._at -= done
        if self._start >= 0:
            self._start = 0


READERS: Mapping[str, type[Csv] | type[JsonLines] | type[JsonElements]] = {
    "text/csv": Csv,
    "application/x-ndjson": JsonLines,
    "application/json": JsonElements,
}
"""How a log is cut up, by its media type."""
