"""DNS as the rules see it: a question is the name of TXT records, an answer what came back and when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Found(StrEnum):
    """What a question came to."""

    RECORDS = "records"
    NOTHING = "nothing"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Answer:
    """The TXT records of one name, each with its strings joined; `at` is RFC 3339, UTC.

    FAILED is neither yes nor no: a server failure, a refusal or a time-out.
    """

    found: Found
    texts: tuple[bytes, ...]
    at: str


Answers = Mapping[str, Answer]


class MissingAnswersError(Exception):
    """The rules need the answers to these names before they can go on."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__(", ".join(names))
        self.names = names


class UnansweredError(Exception):
    """A question that matters failed: the mail can be neither verified nor refused now."""


def require(answers: Answers, names: list[str]) -> None:
    """Raise MissingAnswersError for those of `names` that nobody has asked yet."""
    missing = tuple(dict.fromkeys(name for name in names if name not in answers))
    if missing:
        raise MissingAnswersError(missing)


def texts_at(answers: Answers, name: str) -> tuple[bytes, ...]:
    """Give the TXT records of `name`, none if there are none; UnansweredError if the question failed."""
    answer = answers[name]
    if answer.found is Found.FAILED:
        raise UnansweredError(name)
    return answer.texts
