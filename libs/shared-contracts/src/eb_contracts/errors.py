"""The base of every refusal: a stable code, a kind that a door maps to its own protocol, and the facts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar


class Kind(StrEnum):
    """What sort of refusal it is; the kit maps each to one HTTP status or to a dead letter."""

    MALFORMED = "malformed"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    INVALID = "invalid"
    TOO_LARGE = "too_large"
    UNSUPPORTED = "unsupported"
    LIMITED = "limited"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class Fault:
    """One wrong place in the input: an RFC 6901 pointer into the body, a stable code, a sentence."""

    pointer: str
    code: str
    detail: str


class Refusal(Exception):
    """A rule says no. Subclasses set `code`, `kind` and `title`; `facts` become members of the problem.

    `title` is the same sentence for every occurrence; `detail` says what happened this time.
    """

    code: ClassVar[str] = "refused"
    kind: ClassVar[Kind] = Kind.INVALID
    title: ClassVar[str] = "The request was refused."

    def __init__(self, detail: str = "", *, faults: tuple[Fault, ...] = (), **facts: object) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.faults = faults
        self.facts = facts


class NotFound(Refusal):
    """Missing, or hidden from this caller: both answer the same bytes."""

    code = "not_found"
    kind = Kind.NOT_FOUND
    title = "Not found."
