"""Tag lists of RFC 6376 section 3.2, read strictly; dkimpy's own reader takes broken ones."""

from __future__ import annotations

import re

from .mail import BLANKS, CRLF

_NAME = re.compile(rb"[A-Za-z][A-Za-z0-9_]*")
_VALUE = re.compile(rb"[\x21-\x3a\x3c-\x7e \t]*")


class TagListError(ValueError):
    """Not a tag list: an empty or nameless tag, a name twice, a byte that may not be there."""


def read_tags(text: bytes) -> dict[str, str]:
    """Read `name=value; …` in its order; TagListError. Blanks around names and values are dropped.

    Values keep inner blanks; folds lose their line ends first. Names are case-sensitive.
    """
    tags: dict[str, str] = {}
    for spec in _specs(text.replace(CRLF, b"")):
        name, equals, value = spec.partition(b"=")
        name, value = name.strip(BLANKS), value.strip(BLANKS)
        if not equals or not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise TagListError("not a tag")
        if name.decode() in tags:
            raise TagListError("a tag twice")
        tags[name.decode()] = value.decode("ascii")
    return tags


def without_value(text: bytes, name: bytes) -> bytes:
    """Give the tag list `text`, folds and all, with the value of tag `name` and the blanks around it cut out."""
    specs = text.split(b";")
    for index, spec in enumerate(specs):
        key, equals, _ = spec.partition(b"=")
        if equals and key.strip(b" \t\r\n") == name:
            specs[index] = key + equals
    return b";".join(specs)


def _specs(text: bytes) -> list[bytes]:
    specs = text.split(b";")
    return specs if specs[-1].strip(BLANKS) else specs[:-1]
